"""Count what tiles save: bytes held at once, scores that are computed, keys and values that are read."""

import numpy as np

from techtree.techs import battery
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.transformer.attention import attention, causal_mask
from techtree.techs.transformer.flash_attention import flash_attention, tiles

WIDTH = 32
SMALLEST = 8


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure causal attention with its gradients, whole and in tiles, by length and by the tiles' size.

    Parameters
    ----------
    rng
        Draws queries, keys, values and the gradient of the result, all float32 and 32 wide.
    scale
        The share of the full length, in (0, 1]: the longest text has 2,048 tokens or an eighth of that.

    Returns
    -------
    dict
        Ready for JSON: bytes beyond the arguments at the peak of a forward and a backward pass; the share of
        the scores that is computed; how often each key is read in a forward pass, on average; the largest
        difference from `attention`, in float64.
    """
    longest = 2048 if scale == 1 else 256
    lengths = [longest // n for n in (16, 8, 4, 2, 1)]
    n_tokens = longest // 2
    sizes = [size for size in (8, 16, 32, 64, 128, 256, 512, 1024) if size <= n_tokens]
    given = [rng.normal(size=(longest, WIDTH)).astype(np.float32) for _ in range(4)]
    whole = [_peak(given, n, _whole) for n in lengths]
    tiled = [_peak(given, n, _tiled(64)) for n in lengths]
    return {
        "lengths": lengths,
        "bytes_whole": whole,
        "bytes_tiled": tiled,
        "n_tokens": n_tokens,
        "sizes": sizes,
        "bytes_by_size": [_peak(given, n_tokens, _tiled(size)) for size in sizes],
        "computed": [_n_scores(n_tokens, size) / n_tokens**2 for size in sizes],
        "reads": [_n_read(n_tokens, size) / n_tokens for size in sizes],
        "n_tiles": [sum(1 for _ in tiles(n_tokens, n_tokens, True, size, size)) for size in sizes],
        "difference": [_difference([x[:200].astype(np.float64) for x in given], size) for size in sizes],
    }


def _whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q, k, v, causal_mask(q.shape[-2], k.shape[-2]))


def _tiled(size: int):
    return lambda q, k, v: flash_attention(q, k, v, is_causal=True, tile_q=size, tile_k=size)


def _results(given: list[np.ndarray], function) -> list[np.ndarray]:
    """Return the answer and the three gradients."""
    *three, g = given
    leaves = [Tensor(x, requires_grad=True) for x in three]
    out = function(*leaves)
    out.backward(g)
    return [out.data, *(np.asarray(each.grad) for each in leaves)]


def _peak(given: list[np.ndarray], n: int, function) -> int:
    return battery.peak_bytes(lambda: _results([x[:n] for x in given], function))


def _difference(given: list[np.ndarray], size: int) -> float:
    pairs = zip(_results(given, _tiled(size)), _results(given, _whole), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def _n_scores(n: int, size: int) -> int:
    return sum((a.stop - a.start) * (b.stop - b.start) for a, b in tiles(n, n, True, size, size))


def _n_read(n: int, size: int) -> int:
    return sum(b.stop - b.start for _, b in tiles(n, n, True, size, size))


def plot(numbers: dict):
    """Draw memory by length, whole and in tiles, and what the size of a tile costs."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    lengths = numbers["lengths"]
    left.plot(lengths, np.array(numbers["bytes_whole"]) / 1e6, "C3.-")
    left.plot(lengths, np.array(numbers["bytes_tiled"]) / 1e6, "C0.-")
    left.text(
        lengths[-2] / 1.1, numbers["bytes_whole"][-2] / 1e6, "all weights at once", color="C3", ha="right"
    )
    left.text(lengths[-2], numbers["bytes_tiled"][-2] / 1.5e6, "tiles of 64", color="C0", va="top")
    left.set(xlabel="tokens", ylabel="megabytes held at the peak", xscale="log", yscale="log")
    left.set_xticks(lengths, [f"{n}" for n in lengths])
    left.minorticks_off()
    sizes = numbers["sizes"]
    whole = numbers["bytes_whole"][-2]
    right.plot(sizes, np.array(numbers["bytes_by_size"]) / whole, "C0.-", label="memory / that of attention")
    right.plot(sizes, numbers["computed"], "C1.-", label="share of the scores computed")
    right.plot(sizes, numbers["reads"], "C2.-", label="times that a key is read")
    right.set(xlabel=f"size of a tile, at {numbers['n_tokens']:,} tokens", xscale="log", yscale="log")
    right.set_xticks(sizes, [f"{n}" for n in sizes])
    right.minorticks_off()
    right.legend(fontsize="small")
    return figure


def claim(numbers: dict) -> None:
    """README.md: memory by length, memory and work by the size of tiles, and that the answer is the same."""
    assert max(numbers["difference"]) < 1e-12
    n, sizes = numbers["n_tokens"], numbers["sizes"]
    for size, computed, reads, n_tiles in zip(
        sizes, numbers["computed"], numbers["reads"], numbers["n_tiles"], strict=True
    ):
        assert abs(computed - (1 + size / n) / 2) < 1e-12
        assert abs(reads - (1 + n / size) / 2) < 1e-12
        assert n_tiles == (n // size) * (n // size + 1) // 2
    whole, tiled = np.array(numbers["bytes_whole"]), np.array(numbers["bytes_tiled"])
    assert whole[-1] > 3.6 * whole[-2]
    assert tiled[-1] < 2.1 * tiled[-2]
    assert (tiled < whole).all()
    by_size = np.array(numbers["bytes_by_size"])
    assert by_size[-1] < whole[-2] / 2
    if n == 1024:
        assert 165e6 < whole[-1] < 180e6
        assert 1.5e6 < tiled[-1] < 1.7e6
        assert 1.9 * tiled[-2] < tiled[-1]
        assert whole[-1] > 3.95 * whole[-2]
        assert whole[-1] > 100 * tiled[-1]
        assert np.ptp(by_size[:5]) < 0.05 * by_size[0]  # tiles of 8 to 128
        assert 0.7e6 < by_size[0] < 0.9e6
        assert 12e6 < by_size[-1] < 14e6
