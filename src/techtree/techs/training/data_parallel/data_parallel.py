"""Many workers, one model: each takes a part of the batch, and a ring adds up their gradients.

Claim: the gradient of a mean over a batch is a weighted mean of the gradients over its parts. So N workers
that hold the same weights, and average what they computed on N parts, do the step of one worker with the
whole batch.

Idea: adding up arrays that lie on N workers need not send each array to everybody. Cut them into N slices
and let the slices travel round a ring. In N - 1 rounds each worker owns the sum of one slice
(`reduce_scatter`); in N - 1 more every worker has all of them (`all_gather`). Each sends less than two
arrays, however many workers there are. Between the halves lies the place for an optimizer that each worker
runs on its own slice only.

Legend: a worker is a number, ``rank``; what it holds stands at this place of a list. ``N`` the number of
workers.

Left out: sending while the backward pass still computes; workers that fail; weights that are cut up as well.

Papers: Patarasuk, Yuan (2009), https://doi.org/10.1016/j.jpdc.2008.09.002; Rajbhandari et al. (2020),
https://arxiv.org/abs/1910.02054
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence

import numpy as np

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.training.sgd import Optimizer


class Network:
    """Carries arrays between workers that live in one process, and counts the bytes that each sends.

    Parameters
    ----------
    n_workers
        Their number.

    Attributes
    ----------
    n_workers
        As given.
    sent_bytes
        A list: the bytes of all arrays that each worker has sent so far, one number for each worker.

    Examples
    --------
    >>> network = Network(2)
    >>> network.send(np.array([1.0, 2.0]), source=0, target=1)
    >>> network.receive(source=0, target=1).tolist(), network.sent_bytes
    ([1.0, 2.0], [16, 0])
    """

    def __init__(self, n_workers: int):
        self.n_workers = n_workers
        self.sent_bytes = [0] * n_workers
        self._waiting: dict[tuple[int, int], deque[np.ndarray]] = defaultdict(deque)

    def send(self, array: np.ndarray, source: int, target: int) -> None:
        """Send a copy of an array from one worker to another: later changes of it do not arrive.

        Raises
        ------
        ValueError
            When a rank is not in 0 .. n_workers - 1, or both are the same.
        """
        for rank in (source, target):
            if not 0 <= rank < self.n_workers:
                raise ValueError(f"a rank must be in 0 .. {self.n_workers - 1}; got {rank}")
        if source == target:
            raise ValueError(f"a message must go to another worker; {source} sends to itself")
        self._waiting[source, target].append(np.array(array))
        self.sent_bytes[source] += np.asarray(array).nbytes

    def receive(self, source: int, target: int) -> np.ndarray:
        """Return the oldest array on its way from source to target, once.

        Raises
        ------
        ValueError
            When none is on its way.
        """
        if not self._waiting[source, target]:
            raise ValueError(f"nothing is on its way from worker {source} to worker {target}: send it first")
        return self._waiting[source, target].popleft()


def shards(size: int, n_workers: int) -> list[slice]:
    """Cut ``range(size)`` into a slice for each worker, in order; longer first, by at most 1.

    Examples
    --------
    >>> shards(7, 3)
    [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
    """
    length, n_longer = divmod(size, n_workers)
    ends = [(rank + 1) * length + min(rank + 1, n_longer) for rank in range(n_workers)]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def reduce_scatter(arrays: Sequence[np.ndarray], network: Network) -> list[np.ndarray]:
    """Add up the workers' arrays so that each worker ends with the sum of its own slice.

    Parameters
    ----------
    arrays
        One for each worker, of one shape and one floating dtype. Not changed.
    network
        All that passes between workers goes through it, and each sends to its right neighbour only,
        ``(rank + 1) % N``: N - 1 messages, with sums of every slice but its own.

    Returns
    -------
    list[np.ndarray]
        For each worker the sum over workers of ``array.reshape(-1)[shards(size, N)[rank]]``: new, with one
        axis, of the dtype of the arrays.

    Raises
    ------
    ValueError
        When the number of arrays is not N, or their shapes or dtypes differ. Nothing is sent then.
    """
    _check(arrays, network)
    n = network.n_workers
    cuts = shards(arrays[0].size, n)
    slices = [[array.reshape(-1)[cut].copy() for cut in cuts] for array in arrays]
    for round_ in range(1, n):
        # Slice r starts at worker r + 1 and ends, after a whole turn but one, at worker r.
        for rank in range(n):
            network.send(slices[rank][(rank - round_) % n], rank, (rank + 1) % n)
        for rank in range(n):
            slices[rank][(rank - 1 - round_) % n] += network.receive((rank - 1) % n, rank)
    return [slices[rank][rank] for rank in range(n)]


def all_gather(parts: Sequence[np.ndarray], network: Network) -> list[np.ndarray]:
    """Give every worker the parts of all.

    Parameters
    ----------
    parts
        One for each worker, with one axis, of any lengths. Not changed.
    network
        As in `reduce_scatter`: N - 1 messages from each worker to its right neighbour, every part but that
        neighbour's once.

    Returns
    -------
    list[np.ndarray]
        For each worker an array of its own: all parts, put end to end in the order of ranks.

    Raises
    ------
    ValueError
        When the number of parts is not N. Nothing is sent then.
    """
    n = network.n_workers
    if len(parts) != n:
        raise ValueError(f"each of the {n} workers must have one part; got {len(parts)}")
    known = [{rank: np.asarray(part)} for rank, part in enumerate(parts)]
    for round_ in range(n - 1):
        for rank in range(n):
            network.send(known[rank][(rank - round_) % n], rank, (rank + 1) % n)
        for rank in range(n):
            known[rank][(rank - 1 - round_) % n] = network.receive((rank - 1) % n, rank)
    return [np.concatenate([each[rank] for rank in range(n)]) for each in known]


def all_reduce(arrays: Sequence[np.ndarray], network: Network) -> list[np.ndarray]:
    """Give every worker the sum of all workers' arrays: a `reduce_scatter`, then an `all_gather`.

    Parameters
    ----------
    arrays, network
        As in `reduce_scatter`.

    Returns
    -------
    list[np.ndarray]
        For each worker a new array of the same shape and dtype, equal on all workers to the last bit.

    Raises
    ------
    ValueError
        As in `reduce_scatter`.

    Notes
    -----
    Each worker sends ``2 (N - 1) / N`` times the bytes of its array, up to the rounding of the slices.

    Examples
    --------
    >>> network = Network(2)
    >>> [each.tolist() for each in all_reduce([np.array([1.0, 2.0]), np.array([10.0, 20.0])], network)]
    [[11.0, 22.0], [11.0, 22.0]]
    >>> network.sent_bytes
    [16, 16]
    """
    sums = all_gather(reduce_scatter(arrays, network), network)
    return [each.reshape(array.shape) for each, array in zip(sums, arrays, strict=True)]


def average_gradients(
    replicas: Sequence[Sequence[Parameter]], n_examples: Sequence[int], network: Network
) -> None:
    """Give every replica the gradient of the mean loss over the examples of all workers.

    Parameters
    ----------
    replicas
        For each worker the parameters of its copy of the model, in the same order, of one dtype. Their
        ``grad`` is that of the mean loss over this worker's examples; afterwards it is that over all
        examples, in the same shape and dtype, equal on all workers to the last bit.
    n_examples
        How many each worker averaged over: Python's integers, or NumPy's of any dtype, whatever their sum. A
        worker with 0 has no say, whatever its gradients are, also NaN.
    network
        One `all_reduce` of all gradients, put end to end in the order of the parameters.

    Raises
    ------
    ValueError
        When a parameter has no gradient, or no worker has an example. Nothing is changed then.
    """
    weighted = [
        _weighted_gradients(*each, sum(map(int, n_examples)))
        for each in zip(replicas, n_examples, strict=True)
    ]
    for parameters, mean in zip(replicas, all_reduce(weighted, network), strict=True):
        for parameter, part in zip(parameters, _cut(mean, parameters), strict=True):
            parameter.grad = part.copy()


class ShardedOptimizer:
    """Updates the weights of all replicas, with one N-th of the optimizer's state on each worker.

    Parameters
    ----------
    replicas
        As in `average_gradients`, with equal weights.
    make_optimizer
        Takes a list of one `Parameter`, and returns an optimizer for it that treats each entry on its own, as
        `AdamW` and `SGD` do.
    network
        Each step is one `reduce_scatter` of the gradients and one `all_gather` of the weights.

    Attributes
    ----------
    optimizers
        One for each worker. Its parameter holds the worker's slice, ``shards(size, N)[rank]``, of all
        weights put end to end in the order of the parameters.

    Notes
    -----
    A replica of P weights has an optimizer state for P / N of them, where each worker of a plain
    data-parallel run keeps all. Nothing is sent that `average_gradients` would not send.
    """

    def __init__(
        self,
        replicas: Sequence[Sequence[Parameter]],
        make_optimizer: Callable[[list[Parameter]], Optimizer],
        network: Network,
    ):
        self.network = network
        self.replicas = [list(parameters) for parameters in replicas]
        self.slices = []
        for rank, parameters in enumerate(self.replicas):
            weights = np.concatenate([each.data.reshape(-1) for each in parameters])
            self.slices.append(Parameter(weights[shards(weights.size, len(self.replicas))[rank]]))
        self.optimizers = [make_optimizer([each]) for each in self.slices]

    def step(self, n_examples: Sequence[int]) -> None:
        """Update all replicas, in place, with the gradient of the mean loss over the examples of all workers.

        Parameters
        ----------
        n_examples
            As in `average_gradients`. The replicas' weights are equal afterwards to the last bit, and keep
            their shapes and dtype; their gradients are left as they were.

        Raises
        ------
        ValueError
            As in `average_gradients`, before anything is changed.
        """
        weighted = [
            _weighted_gradients(*each, sum(map(int, n_examples)))
            for each in zip(self.replicas, n_examples, strict=True)
        ]
        for parameter, gradient in zip(self.slices, reduce_scatter(weighted, self.network), strict=True):
            parameter.grad = gradient
        for optimizer in self.optimizers:
            optimizer.step()
        gathered = all_gather([each.data for each in self.slices], self.network)
        for parameters, weights in zip(self.replicas, gathered, strict=True):
            for parameter, part in zip(parameters, _cut(weights, parameters), strict=True):
                parameter.data[...] = part


def _check(arrays: Sequence[np.ndarray], network: Network) -> None:
    if len(arrays) != network.n_workers:
        raise ValueError(f"each of the {network.n_workers} workers must have one array; got {len(arrays)}")
    kinds = sorted({f"{each.dtype} {each.shape}" for each in arrays})
    if len(kinds) > 1:
        raise ValueError(f"the workers' arrays must have one shape and dtype; got {', '.join(kinds)}")


def _weighted_gradients(parameters: Sequence[Parameter], n: int, n_all: int) -> np.ndarray:
    """Return a worker's part of the mean over all examples, as one array."""
    missing = [place for place, each in enumerate(parameters) if each.grad is None]
    if missing:
        raise ValueError(f"every parameter must have a gradient; that of number {missing[0]} is None")
    if n_all <= 0:
        raise ValueError("at least one worker must have an example; all have 0")
    flat = np.concatenate([each.grad.reshape(-1) for each in parameters])  # pyright: ignore[reportOptionalMemberAccess]
    return flat * flat.dtype.type(int(n) / n_all) if n else np.zeros_like(flat)


def _cut(flat: np.ndarray, parameters: Sequence[Parameter]) -> list[np.ndarray]:
    """Cut an array into pieces of the parameters' shapes."""
    ends = np.cumsum([each.data.size for each in parameters])
    return [
        flat[end - each.data.size : end].reshape(each.shape)
        for each, end in zip(parameters, ends, strict=True)
    ]
