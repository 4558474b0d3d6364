"""Every example once in each epoch, in a new random order that two numbers determine.

Claim: batches need no memory of what was drawn. The order of an epoch is a function of the seed and the
epoch's number, so a run that was killed goes on with the batch that would have come, on any machine.

Idea: each epoch has a stream of random numbers of its own. It drives a shuffle that makes all orders equally
likely, and the order is cut into batches. Seed, epoch and position are the whole state.

Legend: ``n_examples`` N, ``batch_size`` B; a batch is an array of the indices of its examples.

Left out: fetching the examples, in threads or processes; workers that share an epoch (`data_parallel`).

Paper: Durstenfeld (1964), https://doi.org/10.1145/364520.364540
"""

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np

from techtree.techs.ground.numerics import random_stream


def shuffled(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return the numbers from 0 to n - 1 in a random order.

    Parameters
    ----------
    n
        At least 0.
    rng
        Where the randomness comes from, all of it: a generator in the same state gives the same order. It is
        advanced, so that the next call gives another one.

    Returns
    -------
    np.ndarray
        (n,), int64. All n! orders are equally likely.

    Examples
    --------
    >>> sorted(shuffled(5, np.random.default_rng(0)).tolist())
    [0, 1, 2, 3, 4]
    """
    order = list(range(n))
    # Raw bits, because NumPy may change what `integers` makes of them from version to version. The remainder
    # of 64 bits makes no number likelier than another by more than a share of n / 2^64.
    draws = rng.bit_generator.random_raw(n).tolist()
    for last in range(n - 1, 0, -1):
        chosen = draws[last] % (last + 1)  # of the numbers that have no place yet, this one included
        order[last], order[chosen] = order[chosen], order[last]
    return np.array(order, dtype=np.int64)


class DataLoader:
    """The batches of a data set's epochs, each batch an array of indices.

    Parameters
    ----------
    n_examples
        At least 1.
    batch_size
        At least 1.
    seed
        From 0 to 2**63 - 1.
    keep_last
        What is left over when ``batch_size`` does not divide ``n_examples``: a last, smaller batch in each
        epoch if true; else left out in this epoch.

    Attributes
    ----------
    n_examples, batch_size, seed, keep_last
        As given.
    n_batches
        In one epoch.

    Raises
    ------
    ValueError
        When a number is out of its range, or an epoch would have no batch: ``batch_size`` is above
        ``n_examples``, and ``keep_last`` is false.

    Examples
    --------
    >>> loader = DataLoader(n_examples=7, batch_size=3, seed=0, keep_last=True)
    >>> [len(batch) for batch in loader.epoch(0)]
    [3, 3, 1]
    >>> sorted(np.concatenate(list(loader.epoch(0))).tolist())
    [0, 1, 2, 3, 4, 5, 6]
    """

    def __init__(self, n_examples: int, batch_size: int, seed: int, keep_last: bool = False):
        if n_examples < 1 or batch_size < 1:
            raise ValueError(
                f"n_examples and batch_size must be at least 1; got {n_examples} and {batch_size}"
            )
        if not 0 <= seed < 2**63:
            raise ValueError(f"the seed must be from 0 to 2**63 - 1; got {seed}")
        if batch_size > n_examples and not keep_last:
            raise ValueError(
                f"an epoch of {n_examples} examples has no batch of {batch_size}: "
                f"use a batch_size of at most {n_examples}, or keep_last=True"
            )
        self.n_examples, self.batch_size, self.seed, self.keep_last = n_examples, batch_size, seed, keep_last
        self.n_batches = -(-n_examples // batch_size) if keep_last else n_examples // batch_size

    def epoch(self, number: int) -> Iterator[np.ndarray]:
        """Give the batches of one epoch.

        Each example is in one batch, but for those left out. All orders of the examples are equally likely,
        and each number and each seed has an order of its own. It depends on ``n_examples``, ``seed`` and
        ``number`` alone: batches of another size are cut from the same order; a second call, another process
        and another machine give the same. A later epoch costs no more than the first.

        Parameters
        ----------
        number
            At least 0; ``ValueError`` otherwise, here or when the first batch is asked for.

        Returns
        -------
        Iterator[np.ndarray]
            ``n_batches`` new arrays, (batch_size,), int64; with ``keep_last`` the last may be shorter.
        """
        if number < 0:
            raise ValueError(f"the number of an epoch must be at least 0; got {number}")
        order = shuffled(self.n_examples, random_stream(self.seed, f"shuffle, epoch {number}"))
        starts = range(0, self.n_batches * self.batch_size, self.batch_size)
        return (order[start : start + self.batch_size].copy() for start in starts)


class BatchStream:
    """The batches of all epochs of a loader, one after the other without end, and where it stands.

    Parameters
    ----------
    loader
        May have several streams, which do not disturb each other.

    Examples
    --------
    >>> stream = BatchStream(DataLoader(n_examples=7, batch_size=3, seed=0))
    >>> for _ in range(3):
    ...     batch = stream.next_batch()  # the third is in the second epoch
    >>> state = stream.state_dict()
    >>> resumed = BatchStream(DataLoader(n_examples=7, batch_size=3, seed=0))
    >>> resumed.load_state_dict(state)
    >>> resumed.next_batch().tolist() == stream.next_batch().tolist()
    True
    """

    def __init__(self, loader: DataLoader):
        self.loader, self._epoch, self._position = loader, 0, 0
        self._batches = loader.epoch(0)

    def next_batch(self) -> np.ndarray:
        """Return the next batch, a new array: those of ``epoch(0)``, then of ``epoch(1)``, and so on."""
        if self._position == self.loader.n_batches:
            self._epoch, self._position = self._epoch + 1, 0
            self._batches = self.loader.epoch(self._epoch)
        self._position += 1
        return next(self._batches)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return where the stream stands, as arrays of integers that no later call changes.

        Their number and sizes are the same for all loaders: no order of examples is stored.
        """
        stands = _settings(self.loader) | {"epoch": self._epoch, "position": self._position}
        return {name: np.array(value) for name, value in stands.items()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Go, forward or back, to where another stream stood: what follows is what would have come there.

        Parameters
        ----------
        state
            From `state_dict` of a stream whose loader had the same n_examples, batch_size, seed and
            keep_last. Not changed.

        Raises
        ------
        ValueError
            When one of the four is another, since other batches would follow; the message names it. The
            stream stays where it is.
        """
        for name, own in _settings(self.loader).items():
            if int(state[name]) != own:
                raise ValueError(
                    f"the state must be of a loader with {name}={own}; got {int(state[name])}: "
                    f"make the loader as it was, or start a new stream"
                )
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._batches = islice(self.loader.epoch(self._epoch), self._position, None)


def _settings(loader: DataLoader) -> dict[str, int]:
    """Return what decides the batches of a loader."""
    names = ("n_examples", "batch_size", "seed", "keep_last")
    return {name: int(getattr(loader, name)) for name in names}
