"""Count the bytes that operations allocate, and those fetched from memory to read entries that lie apart."""

import tracemalloc
from collections.abc import Callable

import numpy as np

from techtree.techs.ground.python_numpy import broadcast_strides, c_strides, result_dtype, slice_view

LINE_BYTES = 64
"""What a processor fetches from memory at once, on all common machines but a few."""

VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "x[::2]": lambda x: x[::2],
    "x[:, ::-1]": lambda x: x[:, ::-1],
    "x.T": lambda x: x.T,
    "x.reshape(-1)": lambda x: x.reshape(-1),
    "np.broadcast_to(x, (100, n, n))": lambda x: np.broadcast_to(x, (100, *x.shape)),
}
COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "x[list of n/2 rows]": lambda x: x[np.arange(0, len(x), 2)],
    "x[mask of n/2 rows]": lambda x: x[np.arange(len(x)) % 2 == 0],
    "x.T.reshape(-1)": lambda x: x.T.reshape(-1),
    "x * 0.5": lambda x: x * 0.5,
    "x * np.float64(0.5)": lambda x: x * np.float64(0.5),
}


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure the bytes that operations on an n x n array of float32 keep, and count cache lines.

    Parameters
    ----------
    rng
        Not used: nothing here is random.
    scale
        The share of the full size, in (0, 1].

    Returns
    -------
    dict
        Bytes for each entry of x, by operation; bytes fetched for each byte read, by step and entry size; the
        same for a row and a column of a matrix; the strides and dtypes by our rules beside NumPy's.
    """
    n = max(256, 8 * round(256 * scale))
    x = np.ones((n, n), dtype=np.float32)
    steps = list(range(1, 33))
    return {
        "n": n,
        "bytes_per_entry": {name: _bytes_kept(f, x) / x.size for name, f in (VIEWS | COPIES).items()},
        "steps": steps,
        "fetched_float32": [_fetched(step, 4) for step in steps],
        "fetched_float64": [_fetched(step, 8) for step in steps],
        "fetched_row": _overfetch(*slice_view(x.shape, c_strides(x.shape, 4), 0, (0,)), 4),
        "fetched_column": _overfetch(*slice_view(x.shape, c_strides(x.shape, 4), 0, (slice(None), 0)), 4),
        "same_strides": _same_strides(x),
        "itemsizes_of_x_times_a_half": [result_dtype(x, half).itemsize for half in (0.5, np.float64(0.5))],
    }


def _bytes_kept(operation: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> int:
    """Measure what is still allocated after the operation, while its result is alive."""
    tracemalloc.start()
    result = operation(x)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.size
    return kept


def _fetched(step: int, itemsize: int) -> float:
    """Read every step-th entry of a long vector."""
    shape, every = (2**17,), (slice(None, None, step),)
    return _overfetch(*slice_view(shape, c_strides(shape, itemsize), 0, every), itemsize)


def _overfetch(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, itemsize: int) -> float:
    """Return how many bytes are fetched for each byte of a one-dimensional view."""
    lines = (offset + np.arange(shape[0]) * strides[0]) // LINE_BYTES
    return LINE_BYTES * len(np.unique(lines)) / (shape[0] * itemsize)


def _same_strides(x: np.ndarray) -> bool:
    own = c_strides(x.shape, 4)
    reversed_columns = slice_view(x.shape, own, 0, (slice(None), slice(None, None, -1)))
    return (
        own == x.strides
        and slice_view(x.shape, own, 0, (slice(None, None, 2),))[1] == x[::2].strides
        and reversed_columns[1] == x[:, ::-1].strides
        and broadcast_strides(x.shape, own, (100, *x.shape)) == np.broadcast_to(x, (100, *x.shape)).strides
    )


def plot(numbers: dict):
    """Draw the memory of each operation, and the traffic for each step."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), width_ratios=[1.15, 1])
    names, sizes = zip(*numbers["bytes_per_entry"].items(), strict=True)
    left.barh(names, sizes, color=["C0" if name in VIEWS else "C1" for name in names])
    left.bar_label(left.containers[0], [f"{size:.2g}" if size > 0.1 else "0" for size in sizes], padding=3)
    left.invert_yaxis()
    left.grid(visible=False)
    left.set(xlabel="bytes allocated for each entry of x (float32)", xlim=(0, 9))
    right.plot(numbers["steps"], numbers["fetched_float32"], color="C0", label="float32")
    right.plot(numbers["steps"], numbers["fetched_float64"], color="C1", label="float64")
    right.set(xlabel="step, in entries", ylabel="bytes fetched per byte read", ylim=(0, 18), xlim=(1, 32))
    right.legend(loc="center right")
    return figure


def claim(numbers: dict) -> None:
    """README.md: views are free, copies take 2, 4 or 8 bytes an entry; traffic grows up to one line each."""
    sizes = numbers["bytes_per_entry"]
    assert all(sizes[name] * numbers["n"] ** 2 < 1000 for name in VIEWS)
    expected = dict(zip(COPIES, (2, 2, 4, 4, 8), strict=True))
    assert all(abs(sizes[name] - size) < 0.2 for name, size in expected.items())
    assert numbers["itemsizes_of_x_times_a_half"] == [4, 8]
    for itemsize, fetched in ((4, numbers["fetched_float32"]), (8, numbers["fetched_float64"])):
        for step, found in zip(numbers["steps"], fetched, strict=True):
            assert abs(found - min(step, LINE_BYTES // itemsize)) < 0.01
    assert (numbers["fetched_row"], numbers["fetched_column"]) == (1, 16)
    assert numbers["same_strides"]
