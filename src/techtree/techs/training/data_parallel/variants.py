"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

from collections import defaultdict, deque
from itertools import pairwise

import numpy as np

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.training.sgd import SGD

COPY = "self._waiting[source, target].append(np.array(array))"
COUNT = "self.sent_bytes[source] += np.asarray(array).nbytes"
TAKE = "return self._waiting[source, target].popleft()"
EMPTY = "        if not self._waiting[source, target]:\n"
LENGTHS = "ends = [(rank + 1) * length + min(rank + 1, n_longer) for rank in range(n_workers)]"
SLICES = "slices = [[array.reshape(-1)[cut].copy() for cut in cuts] for array in arrays]"
ROUNDS = "for round_ in range(1, n):"
SEND = "network.send(slices[rank][(rank - round_) % n], rank, (rank + 1) % n)"
ADD = "slices[rank][(rank - 1 - round_) % n] += network.receive((rank - 1) % n, rank)"
OWN = "return [slices[rank][rank] for rank in range(n)]"
KNOWN = "known = [{rank: np.asarray(part)} for rank, part in enumerate(parts)]"
GATHER_ROUNDS = "for round_ in range(n - 1):"
JOINED = "return [np.concatenate([each[rank] for rank in range(n)]) for each in known]"
PARTS = "    if len(parts) != n:\n"
CHECK_NUMBER = "    if len(arrays) != network.n_workers:\n"
CHECK_KINDS = 'kinds = sorted({f"{each.dtype} {each.shape}" for each in arrays})'
REDUCED = "sums = all_gather(reduce_scatter(arrays, network), network)"
SHAPED = "return [each.reshape(array.shape) for each, array in zip(sums, arrays, strict=True)]"
WEIGHTED = "return flat * flat.dtype.type(int(n) / n_all) if n else np.zeros_like(flat)"
MISSING = "    if missing:\n"
NONE_AT_ALL = "    if n_all <= 0:\n"
GIVE = "parameter.grad = part.copy()"
EACH_REPLICA = "for parameters, mean in zip(replicas, all_reduce(weighted, network), strict=True):"
OWN_SLICE = "self.slices.append(Parameter(weights[shards(weights.size, len(self.replicas))[rank]]))"
MADE = "self.optimizers = [make_optimizer([each]) for each in self.slices]"
SCATTERED = (
    "for parameter, gradient in zip(self.slices, reduce_scatter(weighted, self.network), strict=True):"
)
GATHERED = "gathered = all_gather([each.data for each in self.slices], self.network)"
WRITE = "parameter.data[...] = part"


def _refusing(arrays, network):
    if len(arrays) != network.n_workers or len({(each.shape, each.dtype) for each in arrays}) > 1:
        raise ValueError("arrays do not fit")


def _by_hand(arrays, network):
    """Adds up what it sees, without sending anything."""
    _refusing(arrays, network)
    total = sum(arrays[1:], np.array(arrays[0])).reshape(-1)
    return [each.copy() for each in np.array_split(total, len(arrays))]


def _to_the_owner(arrays, network):
    """Each worker sends each slice straight to its owner."""
    _refusing(arrays, network)
    n = len(arrays)
    pieces = [np.array_split(each.reshape(-1), n) for each in arrays]
    for source in range(n):
        for target in range(n):
            if source != target:
                network.send(pieces[source][target], source, target)
    found = []
    for target in range(n):
        total = pieces[target][target].copy()
        for source in range(n):
            total += network.receive(source, target) if source != target else 0
        found.append(total)
    return found


def _whole_arrays(arrays, network):
    """Whole arrays travel round the ring; each worker adds them up in its own order."""
    _refusing(arrays, network)
    n = len(arrays)
    moving, sums = [np.array(each) for each in arrays], [np.array(each) for each in arrays]
    for _ in range(n - 1):
        for rank in range(n):
            network.send(moving[rank], rank, (rank + 1) % n)
        for rank in range(n):
            moving[rank] = network.receive((rank - 1) % n, rank)
            sums[rank] = sums[rank] + moving[rank]
    return sums


def _through_the_first(arrays, network):
    """Everybody sends to worker 0, which adds up and sends back."""
    _refusing(arrays, network)
    n = len(arrays)
    total = np.array(arrays[0])
    for rank in range(1, n):
        network.send(arrays[rank], rank, 0)
        total = total + network.receive(rank, 0)
    for rank in range(1, n):
        network.send(total, 0, rank)
    return [total, *(network.receive(0, rank) for rank in range(1, n))]


MISTAKES = {
    "Network does not copy: what is changed after sending arrives changed": [
        (COPY, COPY.replace("np.array(array)", "np.asarray(array)"))
    ],
    "Network counts entries instead of bytes": [(COUNT, COUNT.replace(".nbytes", ".size"))],
    "Network counts messages": [(COUNT, "self.sent_bytes[source] += 1")],
    "Network counts what is received": [(COUNT, COUNT.replace("[source]", "[target]"))],
    "Network counts all bytes together": [
        (COUNT, "self.sent_bytes[:] = [self.sent_bytes[0] + np.asarray(array).nbytes] * self.n_workers")
    ],
    "Network counts what it refuses": [
        (
            "        for rank in (source, target):\n",
            "        if source >= 0:\n            self.sent_bytes[source % self.n_workers] += np.asarray(array).nbytes\n        for rank in (source, target):\n",
        ),
        (COUNT, "pass"),
    ],
    "Network delivers the newest array first": [(TAKE, TAKE.replace("popleft", "pop"))],
    "Network delivers the same array again": [(TAKE, TAKE.replace(".popleft()", "[0].copy()"))],
    "Network keeps only the last array": [(COPY, "self._waiting[source, target].clear()\n        " + COPY)],
    "Network has one queue for each receiver": [
        (COPY, COPY.replace("[source, target]", "[0, target]")),
        (TAKE, TAKE.replace("[source, target]", "[0, target]")),
        (EMPTY, EMPTY.replace("[source, target]", "[0, target]")),
    ],
    "Network answers None when nothing is on its way": [(EMPTY, EMPTY + "            return None\n" + EMPTY)],
    "Network flattens what it carries": [(TAKE, TAKE + ".reshape(-1)")],
    "Network carries float64": [(COPY, COPY.replace("np.array(array)", "np.array(array, np.float64)"))],
    "Network takes negative ranks": [("if not 0 <= rank < self.n_workers:", "if rank >= self.n_workers:")],
    "Network takes ranks that there are not": [
        ("if not 0 <= rank < self.n_workers:", "if rank < 0:"),
        (COUNT, "self.sent_bytes[source % self.n_workers] += np.asarray(array).nbytes"),
    ],
    "Network lets a worker send to itself": [("        if source == target:\n", "        if False:\n")],
    "all Networks share their queues": [
        ("        self._waiting: dict[tuple[int, int], deque[np.ndarray]] = defaultdict(deque)\n", ""),
        (
            "    def __init__(self, n_workers: int):\n",
            "    _waiting = defaultdict(deque)\n\n    def __init__(self, n_workers: int):\n",
        ),
    ],
    "shards puts the longer slices last": [
        (
            LENGTHS,
            "ends = [(rank + 1) * length + max(0, rank + 1 - n_workers + n_longer) for rank in range(n_workers)]",
        )
    ],
    "shards gives what is left over to the last": [
        (LENGTHS, "ends = [(rank + 1) * length for rank in range(n_workers - 1)] + [size]")
    ],
    "shards leaves out what is left over": [
        (LENGTHS, "ends = [(rank + 1) * length for rank in range(n_workers)]")
    ],
    "shards makes all slices but the last as long as possible": [
        (LENGTHS, "ends = [min(size, (rank + 1) * -(-size // n_workers)) for rank in range(n_workers)]")
    ],
    "shards deals the places out one by one": [
        (
            "return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]",
            "return [slice(rank, size, n_workers) for rank in range(n_workers)]",
        )
    ],
    "reduce_scatter adds up without sending": {"reduce_scatter": _by_hand},
    "reduce_scatter sends straight to the owner of a slice": {"reduce_scatter": _to_the_owner},
    "reduce_scatter leaves each worker the slice of its neighbour": [
        (OWN, "return [slices[(rank - 1) % n][(rank - 1) % n] for rank in range(n)]")
    ],
    "reduce_scatter stops one round early": [
        (ROUNDS, "for round_ in range(1, max(n - 1, 2) if n > 1 else 1):")
    ],
    "reduce_scatter adds into the arrays that it was given": [(SLICES, SLICES.replace(".copy()", ""))],
    "reduce_scatter averages": [
        (OWN, OWN.replace("slices[rank][rank]", "slices[rank][rank] / slices[rank][rank].dtype.type(n)"))
    ],
    "reduce_scatter adds up in float64, and returns it": [
        (SLICES, SLICES.replace(".copy()", ".astype(np.float64)"))
    ],
    "reduce_scatter keeps what arrives and forgets its own": [(ADD, ADD.replace("+=", "="))],
    "reduce_scatter sends to the left": [
        (
            SEND,
            SEND.replace("(rank - round_) % n], rank, (rank + 1)", "(rank + round_) % n], rank, (rank - 1)"),
        ),
        (
            ADD,
            ADD.replace("(rank - 1 - round_) % n]", "(rank + 1 + round_) % n]").replace(
                "(rank - 1) % n, rank", "(rank + 1) % n, rank"
            ),
        ),
    ],
    "reduce_scatter sends the whole array each time": [
        (SEND, SEND.replace("slices[rank][(rank - round_) % n]", "np.concatenate(slices[rank])")),
        (
            ADD,
            ADD.replace(
                "network.receive((rank - 1) % n, rank)",
                "network.receive((rank - 1) % n, rank)[cuts[(rank - 1 - round_) % n]]",
            ),
        ),
    ],
    "reduce_scatter takes any number of arrays": [(CHECK_NUMBER, "    if False:\n")],
    "reduce_scatter takes arrays of other shapes and the same size": [
        (CHECK_KINDS, "kinds = {f'{each.dtype} {each.size}' for each in arrays}")
    ],
    "reduce_scatter takes arrays of several dtypes": [
        (CHECK_KINDS, "kinds = {f'{each.shape}' for each in arrays}")
    ],
    "reduce_scatter takes arrays that broadcast": [(CHECK_KINDS, "kinds = []")],
    "all_gather begins with a worker's own part": [
        (
            JOINED,
            "return [np.concatenate([each[(rank + own) % n] for rank in range(n)]) for own, each in enumerate(known)]",
        )
    ],
    "all_gather gives all workers one array": [
        (JOINED, "return [np.concatenate([known[0][rank] for rank in range(n)])] * n")
    ],
    "all_gather joins without sending": [
        (JOINED, "return [np.concatenate(parts) for _ in range(n)]"),
        (GATHER_ROUNDS, "for round_ in range(0):"),
    ],
    "all_gather goes one round too far": [(GATHER_ROUNDS, "for round_ in range(n if n > 1 else 0):")],
    "all_gather sends all that it knows each time": [
        (
            "network.send(known[rank][(rank - round_) % n], rank, (rank + 1) % n)",
            "network.send(np.concatenate(list(known[rank].values())), rank, (rank + 1) % n)",
        ),
        (
            "known[rank][(rank - 1 - round_) % n] = network.receive((rank - 1) % n, rank)",
            "network.receive((rank - 1) % n, rank)\n            known[rank][(rank - 1 - round_) % n] = np.array(parts[(rank - 1 - round_) % n])",
        ),
    ],
    "all_gather takes any number of parts": [(PARTS, "    if False:\n")],
    "all_gather returns the parts, not joined": [
        (JOINED, "return [[each[rank] for rank in range(n)] for each in known]")
    ],
    "all_reduce sends whole arrays round the ring": {"all_reduce": _whole_arrays},
    "all_reduce goes through worker 0": {"all_reduce": _through_the_first},
    "all_reduce loses the shape": [(SHAPED, "return sums")],
    "all_reduce averages": [
        (
            SHAPED,
            SHAPED.replace(
                "each.reshape(array.shape)", "(each / each.dtype.type(len(arrays))).reshape(array.shape)"
            ),
        )
    ],
    "all_reduce gives all workers one array": [
        (SHAPED, "return [sums[0].reshape(arrays[0].shape)] * len(arrays)")
    ],
    "all_reduce leaves the sums scattered": [
        (
            REDUCED,
            "sums = all_gather([each.reshape(-1)[cut] for each, cut in zip(arrays, shards(arrays[0].size, len(arrays)))], network) if len(arrays) == network.n_workers else reduce_scatter(arrays, network)",
        )
    ],
    "average_gradients averages the means of workers with unequal numbers": [
        (WEIGHTED, "return flat * flat.dtype.type(1 / _number[0])"),
        (
            "    weighted = [\n        _weighted_gradients(*each, sum(map(int, n_examples)))\n        for",
            "    _number[0] = len(replicas)\n    weighted = [\n        _weighted_gradients(*each, sum(map(int, n_examples)))\n        for",
        ),
        ("def _cut(", "_number = [1]\n\n\ndef _cut("),
        (
            "        weighted = [\n            _weighted",
            "        _number[0] = len(self.replicas)\n        weighted = [\n            _weighted",
        ),
    ],
    "average_gradients adds up": [(WEIGHTED, "return flat if n else np.zeros_like(flat)")],
    "average_gradients multiplies by the numbers and does not divide": [
        (WEIGHTED, "return flat * flat.dtype.type(n) if n else np.zeros_like(flat)")
    ],
    "average_gradients multiplies the gradients of a worker without examples by 0": [
        (WEIGHTED, "return flat * flat.dtype.type(int(n) / n_all)")
    ],
    "average_gradients turns float32 into float64": [
        (WEIGHTED, "return flat * np.float64(int(n) / n_all) if n else np.zeros(flat.shape)")
    ],
    "average_gradients takes a missing gradient for zeros": [
        (
            MISSING,
            "    for each in parameters:\n        each.grad = np.zeros_like(each.data) if each.grad is None else each.grad\n    if False:\n",
        )
    ],
    "average_gradients looks for missing gradients on the first worker only": [
        (MISSING, "    if missing and n_all < 0:\n"),
        (
            "flat = np.concatenate([each.grad.reshape(-1) for",
            "flat = np.concatenate([np.zeros(each.data.size, each.dtype) if each.grad is None else each.grad.reshape(-1) for",
        ),
        (
            "    weighted = [\n        _weighted_gradients(*each, sum(map(int, n_examples)))\n        for",
            "    if any(each.grad is None for each in replicas[0]):\n        raise ValueError\n    weighted = [\n        _weighted_gradients(*each, sum(map(int, n_examples)))\n        for",
        ),
    ],
    "average_gradients divides by 0 when nobody has an example": [
        (NONE_AT_ALL, "    if False:\n"),
        (WEIGHTED, "return flat * flat.dtype.type(n / max(n_all, 1)) if n else np.zeros_like(flat)"),
    ],
    "average_gradients reduces each parameter on its own": [
        (
            EACH_REPLICA
            + "\n        for parameter, part in zip(parameters, _cut(mean, parameters), strict=True):\n            parameter.grad = part.copy()",
            "pieces = [_cut(each, parameters) for each, parameters in zip(weighted, replicas)]\n"
            "    for place in range(len(replicas[0])):\n"
            "        means = all_reduce([each[place] for each in pieces], network)\n"
            "        for parameters, mean in zip(replicas, means):\n"
            "            parameters[place].grad = mean",
        )
    ],
    "average_gradients leaves the gradients without their shape": [
        (GIVE, "parameter.grad = part.reshape(-1).copy()")
    ],
    "average_gradients gives the mean to the first worker only": [
        (
            EACH_REPLICA,
            EACH_REPLICA.replace("zip(replicas,", "zip(replicas[:1],").replace("strict=True", "strict=False"),
        )
    ],
    "average_gradients adds the mean to the gradients": [(GIVE, "parameter.grad = parameter.grad + part")],
    "average_gradients gives views of one array to all parameters": [
        (
            EACH_REPLICA + "\n",
            "means = all_reduce(weighted, network)\n    for parameters in replicas:\n        mean = means[0]\n",
        ),
        (GIVE, "parameter.grad = part"),
    ],
    "ShardedOptimizer keeps the whole state on each worker": [
        (OWN_SLICE, "self.slices.append(Parameter(weights))"),
        (
            SCATTERED,
            "for parameter, gradient in zip(self.slices, all_reduce(weighted, self.network), strict=True):",
        ),
        (GATHERED, "gathered = [each.data for each in self.slices]"),
    ],
    "ShardedOptimizer shares one optimizer": [(MADE, "self.optimizers = [make_optimizer(self.slices)]")],
    "ShardedOptimizer makes one optimizer and lists it for each": [
        (MADE, "self.optimizers = [make_optimizer(self.slices)] * len(self.slices)")
    ],
    "ShardedOptimizer sends all gradients to all workers": [
        (
            SCATTERED,
            "whole = all_reduce(weighted, self.network)\n        parts = [each[cut] for each, cut in zip(whole, shards(whole[0].size, len(whole)))]\n        for parameter, gradient in zip(self.slices, parts, strict=True):",
        )
    ],
    "ShardedOptimizer does not gather: each replica knows its own slice only": [
        (
            GATHERED,
            "gathered = [np.concatenate([p.data.reshape(-1) for p in each]) for each in self.replicas]\n        for rank, flat in enumerate(gathered):\n            flat[shards(flat.size, len(gathered))[rank]] = self.slices[rank].data",
        )
    ],
    "ShardedOptimizer gives the replicas new arrays": [(WRITE, "parameter.data = part.copy()")],
    "ShardedOptimizer updates the first replica only": [
        (
            "for parameters, weights in zip(self.replicas, gathered, strict=True):",
            "for parameters, weights in zip(self.replicas[:1], gathered):",
        )
    ],
    "ShardedOptimizer drops the gradients": [(WRITE, WRITE + "\n                parameter.grad = None")],
    "ShardedOptimizer leaves the mean gradient in the replicas": [
        (
            GATHERED,
            GATHERED + "\n        average_gradients(self.replicas, n_examples, Network(len(self.replicas)))",
        )
    ],
    "ShardedOptimizer steps on the first worker only": [
        ("for optimizer in self.optimizers:", "for optimizer in self.optimizers[:1]:")
    ],
    "ShardedOptimizer makes its optimizers anew in each step": [
        (
            "        for optimizer in self.optimizers:\n",
            "        self.optimizers = [type(each)([p], **{k: v for k, v in each.groups[0].items() if k != 'parameters'}) for each, p in zip(self.optimizers, self.slices)]\n        for optimizer in self.optimizers:\n",
        )
    ],
    "ShardedOptimizer cuts the weights from the end": [
        (OWN_SLICE, OWN_SLICE.replace("[rank]]))", "[len(self.replicas) - 1 - rank]]))"))
    ],
}


class _ListNetwork:
    """One list of letters for all."""

    def __init__(self, n_workers):
        self.n_workers, self.letters, self.log = n_workers, [], []

    @property
    def sent_bytes(self):
        return [sum(size for rank, size in self.log if rank == each) for each in range(self.n_workers)]

    def send(self, array, source, target):
        if source == target or min(source, target) < 0 or max(source, target) >= self.n_workers:
            raise ValueError("no such way")
        copy = np.copy(array)
        self.log.append((source, copy.nbytes))
        self.letters.append((source, target, copy))

    def receive(self, source, target):
        for place, letter in enumerate(self.letters):
            if letter[:2] == (source, target):
                return self.letters.pop(place)[2]
        raise ValueError("nothing came")


def _split_shards(size, n_workers):
    """What np.array_split does."""
    parts = np.array_split(np.arange(size), n_workers)
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    return [slice(a, b) for a, b in pairwise(starts)]


def _slice_by_slice_scatter(arrays, network):
    """One slice after the other travels round the ring."""
    n = network.n_workers
    if len(arrays) != n:
        raise ValueError("one array for each worker")
    if any(each.shape != arrays[0].shape or each.dtype != arrays[0].dtype for each in arrays):
        raise ValueError("all alike")
    cuts, sums = _split_shards(arrays[0].size, n), []
    for rank, cut in enumerate(cuts):
        worker = (rank + 1) % n
        partial = arrays[worker].ravel()[cut].copy()
        while worker != rank:
            network.send(partial, worker, (worker + 1) % n)
            partial = network.receive(worker, (worker + 1) % n)
            worker = (worker + 1) % n
            partial = arrays[worker].ravel()[cut] + partial
        sums.append(partial)
    return sums


def _slice_by_slice_gather(parts, network):
    """One part after the other travels round the ring; each worker notes it."""
    n = network.n_workers
    if len(parts) != n:
        raise ValueError("one part for each worker")
    known = [[None] * n for _ in range(n)]
    for rank in range(n):
        known[rank][rank] = part = np.array(parts[rank])
        for step in range(1, n):
            source, target = (rank + step - 1) % n, (rank + step) % n
            network.send(part, source, target)
            part = known[target][rank] = network.receive(source, target)
    return [np.concatenate(each) for each in known]


def _reduce_in_one(arrays, network):
    """Both halves in one function, on copies that are overwritten."""
    sums = _slice_by_slice_scatter(arrays, network)
    return [np.reshape(each, arrays[0].shape) for each in _slice_by_slice_gather(sums, network)]


def _average_with_a_bucket(replicas, n_examples, network):
    """A bucket for each worker, filled and emptied piece by piece."""
    if any(each.grad is None for replica in replicas for each in replica) or not any(n_examples):
        raise ValueError("a gradient or all examples are missing")
    buckets = []
    for replica, n in zip(replicas, n_examples, strict=True):
        bucket = np.zeros(sum(each.data.size for each in replica), replica[0].dtype)
        start = 0
        for each in replica:
            if n:
                bucket[start : start + each.data.size] = (
                    each.grad * (float(n) / float(sum(map(int, n_examples))))
                ).ravel()
            start += each.data.size
        buckets.append(bucket)
    for replica, bucket in zip(replicas, _reduce_in_one(buckets, network), strict=True):
        start = 0
        for each in replica:
            each.grad = np.array(bucket[start : start + each.data.size].reshape(each.shape))
            start += each.data.size


class _OtherSharded:
    """Gradients are averaged on copies; slices are kept in a list of pairs."""

    def __init__(self, replicas, make_optimizer, network):
        self.replicas, self.network = replicas, network
        flat = [np.concatenate([each.data.ravel() for each in replica]) for replica in replicas]
        cuts = _split_shards(flat[0].size, len(replicas))
        self.own = [Parameter(each[cut]) for each, cut in zip(flat, cuts, strict=True)]
        self.optimizers = [make_optimizer([each]) for each in self.own]

    def step(self, n_examples):
        total = sum(map(int, n_examples))
        if total == 0 or any(each.grad is None for replica in self.replicas for each in replica):
            raise ValueError("nothing to do")
        flat = []
        for replica, n in zip(self.replicas, n_examples, strict=True):
            joined = np.concatenate([each.grad.ravel() for each in replica])
            flat.append(
                np.where(n > 0, joined / joined.dtype.type(total / max(int(n), 1)), 0).astype(joined.dtype)
            )
        for each, optimizer, gradient in zip(
            self.own, self.optimizers, _slice_by_slice_scatter(flat, self.network), strict=True
        ):
            each.grad = gradient
            optimizer.step()
        for replica, weights in zip(
            self.replicas, _slice_by_slice_gather([each.data for each in self.own], self.network), strict=True
        ):
            for each in replica:
                np.copyto(each.data, weights[: each.data.size].reshape(each.shape))
                weights = weights[each.data.size :]


EQUIVALENTS = {
    "Network as one list of letters": {"Network": _ListNetwork},
    "shards by array_split": {"shards": _split_shards},
    "reduce_scatter slice by slice": {"reduce_scatter": _slice_by_slice_scatter},
    "all_gather part by part": {"all_gather": _slice_by_slice_gather},
    "all_reduce without the two others": {"all_reduce": _reduce_in_one},
    "average_gradients with buckets": {"average_gradients": _average_with_a_bucket},
    "ShardedOptimizer with pairs": {"ShardedOptimizer": _OtherSharded},
}


class _Notes:
    """A network that notes which way each message goes, and its bytes."""

    def __init__(self, n_workers):
        self.n_workers, self.sent_bytes = n_workers, [0] * n_workers
        self.waiting, self.ways, self.n_messages = defaultdict(deque), set(), 0

    def send(self, array, source, target):
        self.waiting[source, target].append(np.array(array))
        self.sent_bytes[source] += np.asarray(array).nbytes
        self.ways.add(f"{source} to {target}")
        self.n_messages += 1

    def receive(self, source, target):
        return self.waiting[source, target].popleft()

    def told(self):
        return [self.sent_bytes, sorted(self.ways), self.n_messages]


HARMLESS = {
    "cuts = shards(arrays[0].size, n) => cuts = shards(arrays[-1].size, n)": "all arrays have one size",
    "slices = [[array.reshape(-1)[cut].copy() for cut in cuts] for array in arrays] => "
    "slices = [[array.reshape(-2)[cut].copy() for cut in cuts] for array in arrays]": "NumPy reads any negative size so",
    "flat = np.concatenate([each.grad.reshape(-1) for each in parameters]) => "
    "flat = np.concatenate([each.grad.reshape(-2) for each in parameters])": "NumPy reads any negative size so",
    "weights = np.concatenate([each.data.reshape(-1) for each in parameters]) => "
    "weights = np.concatenate([each.data.reshape(-2) for each in parameters])": "NumPy reads any negative size so",
    "all_gather: wrong for more than two axes": "parts have one axis",
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    arrays = [rng.normal(size=(2, 4)) for _ in range(3)]
    shapes = [(2, 2), (3,)]
    weights = [rng.normal(size=shape) for shape in shapes]
    gradients = [[rng.normal(size=shape) for shape in shapes] for _ in range(3)]

    def told(action):
        try:
            return action()
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return type(error).__name__

    def sent(*messages, then):
        def probe(impl):
            network = impl.Network(3)
            for array, source, target in messages:
                told(lambda a=array, s=source, t=target: network.send(np.array(a), s, t))
            return told(lambda: then(network))

        return probe

    def changed_after_sending(impl):
        network, array = impl.Network(2), np.ones(2)
        network.send(array, 0, 1)
        array[:] = 5
        return network.receive(0, 1)

    def two_networks(impl):
        first, second = impl.Network(2), impl.Network(2)
        first.send(np.ones(1), 0, 1)
        return told(lambda: second.receive(0, 1))

    def collective(name, given, dtype=np.float64):
        def probe(impl):
            network = _Notes(3)
            copies = [np.array(each, dtype) for each in given]
            found = getattr(impl, name)(copies, network)
            answer = [
                [each.tolist() for each in found] if all(hasattr(e, "shape") for e in found) else "lists"
            ]
            kinds = (
                [[str(getattr(each, "dtype", "")), list(np.shape(each))] for each in found]
                if answer != ["lists"]
                else []
            )
            return [answer, kinds]

        return probe

    def traffic(name, given):
        def probe(impl):
            network = _Notes(3)
            getattr(impl, name)([np.array(each) for each in given], network)
            return network.told()

        return probe

    def shared(name, given):
        """Whether results, or results and inputs, share memory, or inputs change."""

        def probe(impl):
            copies = [np.array(each) for each in given]
            found = getattr(impl, name)(copies, _Notes(3))
            if not all(hasattr(each, "shape") for each in found):
                return "lists"
            one = any(np.shares_memory(a, b) for i, a in enumerate(found) for b in found[:i])
            return [one, [bool(np.array_equal(a, b)) for a, b in zip(copies, given, strict=True)]]

        return probe

    def refused(name, given):
        return lambda impl: told(lambda: f"{len(getattr(impl, name)(given, _Notes(2)))} results")

    def replicas(dtype=np.float64):
        made = [[Parameter(each.astype(dtype)) for each in weights] for _ in range(3)]
        for replica, values in zip(made, gradients, strict=True):
            for parameter, value in zip(replica, values, strict=True):
                parameter.grad = value.astype(dtype)
        return made

    def averaged(counts, dtype=np.float64, spoil=None, answer="values"):
        def probe(impl):
            made, network = replicas(dtype), _Notes(3)
            if spoil:
                spoil(made)

            def act():
                impl.average_gradients(made, counts, network)
                found = [each.grad for replica in made for each in replica]
                one = any(np.shares_memory(a, b) for i, a in enumerate(found) for b in found[:i])
                return {
                    "values": [each.tolist() for each in found],
                    "kind": [str(each.dtype) for each in found],
                    "shared": one,
                    "traffic": network.told(),
                }[answer]

            return told(act)

        return probe

    def without(rank):
        def spoil(made):
            made[rank][1].grad = None

        return spoil

    def with_nan(made):
        made[0][0].grad = made[0][0].grad * np.nan

    def sharded(answer, n_steps=2):
        def probe(impl):
            made, network = replicas(), _Notes(3)
            optimizer = impl.ShardedOptimizer(made, lambda each: SGD(each, 0.1, momentum=0.9), network)
            arrays = [each.data for replica in made for each in replica]
            for _ in range(n_steps):
                optimizer.step([1, 1, 1])
            everything = [each for replica in made for each in replica]
            return {
                "weights": [each.data.tolist() for each in everything],
                "arrays": [each.data is array for each, array in zip(everything, arrays, strict=True)],
                "gradients": [None if each.grad is None else each.grad.tolist() for each in everything],
                "traffic": network.told(),
                "states": [
                    [value.tolist() for value in each.state_dict().values()] for each in optimizer.optimizers
                ],
            }[answer]

        return probe

    parts = [np.array([1.0, 2.0]), np.array([3.0]), np.array([4.0, 5.0, 6.0])]
    return {
        "two messages": sent(
            ([1.0], 0, 1), ([2.0], 0, 1), then=lambda n: [n.receive(0, 1)[0] for _ in range(2)]
        ),
        "one message, asked for twice": sent(
            ([1.0], 0, 1), then=lambda n: [n.receive(0, 1), n.receive(0, 1)]
        ),
        "two senders": sent(([1.0], 0, 1), ([2.0], 2, 1), then=lambda n: n.receive(2, 1)),
        "no message": sent(then=lambda n: n.receive(0, 1)),
        "a float32 matrix": sent(([[1, 2]], 0, 1), then=lambda n: [*n.receive(0, 1).shape]),
        "an array of integers": lambda impl: told(lambda: _carried(impl)),
        "sent bytes": sent(([1.0], 0, 1), ([2.0, 3.0], 1, 2), then=lambda n: n.sent_bytes),
        "a negative rank": sent(then=lambda n: n.send(np.ones(1), -1, 0)),
        "a rank too high": sent(then=lambda n: n.send(np.ones(1), 0, 3)),
        "bytes after a refusal": sent(([1.0], 1, 1), then=lambda n: n.sent_bytes),
        "to itself": sent(then=lambda n: n.send(np.ones(1), 1, 1)),
        "changed after sending": changed_after_sending,
        "two networks": two_networks,
        "shards of 8": lambda impl: [str(each) for each in impl.shards(8, 3)],
        "shards of 7": lambda impl: [str(each) for each in impl.shards(7, 3)],
        "shards of 2": lambda impl: [str(each) for each in impl.shards(2, 3)],
        "scattered": collective("reduce_scatter", arrays),
        "scattered in float32": collective("reduce_scatter", arrays, np.float32),
        "traffic of scattering": traffic("reduce_scatter", arrays),
        "memory of scattering": shared("reduce_scatter", arrays),
        "gathered": collective("all_gather", parts),
        "traffic of gathering": traffic("all_gather", parts),
        "memory of gathering": shared("all_gather", parts),
        "reduced": collective("all_reduce", arrays),
        "traffic of reducing": traffic("all_reduce", arrays),
        "memory of reducing": shared("all_reduce", arrays),
        "three arrays for two": refused("reduce_scatter", [np.ones(4)] * 3),
        "three parts for two": refused("all_gather", [np.ones(4)] * 3),
        "two shapes of one size": refused("reduce_scatter", [np.ones((2, 3)), np.ones((3, 2))]),
        "two dtypes": refused("reduce_scatter", [np.ones(4), np.ones(4, np.float32)]),
        "shapes that broadcast": refused("reduce_scatter", [np.ones(1), np.ones(4)]),
        "a mean of equal parts": averaged([2, 2, 2]),
        "a mean of unequal parts": averaged([1, 4, 5]),
        "a mean without one": averaged([0, 1, 1], spoil=with_nan),
        "a mean of nothing": averaged([0, 0, 0]),
        "a mean with a gap on the first": averaged([1, 1, 1], spoil=without(0)),
        "a mean with a gap on the last": averaged([1, 1, 1], spoil=without(2)),
        "a mean in float32": averaged([1, 1, 2], np.float32, answer="kind"),
        "traffic of a mean": averaged([1, 1, 1], answer="traffic"),
        "memory of a mean": averaged([1, 1, 1], answer="shared"),
        "weights": sharded("weights"),
        "weights after one step": sharded("weights", 1),
        "arrays of weights": sharded("arrays"),
        "gradients afterwards": sharded("gradients"),
        "traffic of two steps": sharded("traffic"),
        "states": sharded("states"),
    }


def _carried(impl):
    network = impl.Network(2)
    network.send(np.array([1, 2], np.int16), 0, 1)
    return str(network.receive(0, 1).dtype)
