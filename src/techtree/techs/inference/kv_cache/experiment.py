"""What the next token costs: multiplications, what is read, and calls; with the cache and without."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import no_grad
from techtree.techs.inference.kv_cache import KVCache, extend
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.embedding import Embedding
from techtree.techs.transformer.gqa import grouped_attention
from techtree.techs.transformer.llama_block import Llama, LlamaConfig

CONFIG = LlamaConfig(n_tokens=256, width=64, hidden=172, n_layers=4, n_heads=8, n_kv_heads=8)
KEY_HEADS = (8, 2, 1)
LENGTHS = (16, 64, 256, 1024)
"""Of a text, the next token too."""

N_NEW = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Tokens in one call."""

NARROW = LlamaConfig(n_tokens=256, width=32, hidden=88, n_layers=4, n_heads=4, n_kv_heads=1)
WIDE = LlamaConfig(n_tokens=1024, width=1024, hidden=2816, n_layers=4, n_heads=16, n_kv_heads=4)
PUBLISHED = {
    "Llama 2 7B": LlamaConfig(32_000, 4096, 11_008, 32, 32, 32),
    "Llama 3 8B": LlamaConfig(128_256, 4096, 14_336, 32, 32, 8),
    "Qwen2.5 0.5B": LlamaConfig(151_936, 896, 4864, 24, 14, 2),
    "SmolLM2 135M": LlamaConfig(49_152, 576, 1536, 30, 9, 3),
}


@dataclass
class Counts:
    """Of the products of matrices in one call: multiplications, and bytes of weights, keys and values."""

    multiplications: int = 0
    weight_bytes: int = 0
    kept_bytes: int = 0


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count, while it lasts, what layers and attention are given."""
    counts = Counts()
    forward, unembed = Linear.forward, Embedding.unembed

    def multiply(x, weight) -> None:
        counts.multiplications += x.data.size // x.shape[-1] * weight.data.size
        counts.weight_bytes += weight.data.nbytes

    def linear(self, x):
        multiply(x, self.weight)
        return forward(self, x)

    def scores(self, x):
        multiply(x, self.weight)
        return unembed(self, x)

    def attend(q, k, v, mask=None):
        counts.multiplications += 2 * q.data.size * k.shape[-2]
        counts.kept_bytes += k.data.nbytes + v.data.nbytes
        return grouped_attention(q, k, v, mask)

    package = "techtree.techs."
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Linear, "forward", linear))
        stack.enter_context(mock.patch.object(Embedding, "unembed", scores))
        for place in ("inference.kv_cache.kv_cache", "transformer.llama_block.llama_block"):
            stack.enter_context(mock.patch(f"{package}{place}.grouped_attention", attend))
        yield counts


def n_calls(work: Callable[[], object]) -> int:
    """Count the calls of functions, Python's and NumPy's, that the interpreter makes."""
    found = 0

    def note(frame, event, argument) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


def filled(model: Llama, ids: np.ndarray, room: int, dtype: type = np.float32) -> KVCache:
    """Return a cache that has read some tokens."""
    cache = KVCache(model.config, room, dtype)
    if len(ids):
        extend(model, cache, ids)
    return cache


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Count what the next token costs by length and key heads, and many at once; and what rounding does.

    Parameters
    ----------
    rng
        Draws weights and texts.
    scale
        Below 1 texts are shorter, and nothing is timed.

    Returns
    -------
    dict
        Ready for JSON. ``seconds`` are of CPU, the least of some runs.
    """
    is_full = scale == 1
    lengths = LENGTHS if is_full else LENGTHS[:2]
    new = N_NEW if is_full else N_NEW[:5]
    found: dict = {"lengths": lengths, "new": new, "with": {}, "without": [], "calls": {}, "seconds": {}}
    ids = rng.integers(CONFIG.n_tokens, size=max(LENGTHS) + max(N_NEW))
    for n_kv_heads in KEY_HEADS:
        model = Llama(replace(CONFIG, n_kv_heads=n_kv_heads), rng, dtype=np.float32)
        found["with"][str(n_kv_heads)] = []
        for length in lengths:
            cache = filled(model, ids[: length - 1], length)
            with counted() as counts:
                extend(model, cache, ids[length - 1 : length])
            found["with"][str(n_kv_heads)].append(vars(counts))
            if n_kv_heads == CONFIG.n_kv_heads:
                with counted() as counts, no_grad():
                    model(ids[:length])
                found["without"].append(vars(counts))
    narrow = Llama(NARROW, rng, dtype=np.float32)
    found["calls"] = {
        "by length": [_calls(narrow, ids[: n - 1], ids[n - 1 : n]) for n in lengths],
        "by new": [_calls(narrow, ids[:8], ids[8 : 8 + n]) for n in new],
        "wider": _calls(Llama(CONFIG, rng, dtype=np.float32), ids[:8], ids[8:9]),
    }
    for name, config in (("narrow", NARROW), ("wide", WIDE)) if is_full else ():
        model = Llama(config, rng, dtype=np.float32)
        found["seconds"][name] = _seconds(model, ids[:16], [ids[16 : 16 + n] for n in new])
        found["weight_bytes_" + name] = sum(each.data.nbytes for each in model.parameters())
    found["bytes_per_token"] = {
        name: KVCache(config, 1, np.float16).keys.nbytes * 2 for name, config in PUBLISHED.items()
    }
    found["apart"], found["rounded"] = _cut_and_rounded(rng, ids[: lengths[-1] // 4])
    return found


def _calls(model: Llama, before: np.ndarray, new: np.ndarray) -> int:
    cache = filled(model, before, len(before) + len(new))
    return n_calls(lambda: extend(model, cache, new))


def _seconds(model: Llama, before: np.ndarray, news: list[np.ndarray]) -> list[float]:
    """Return the CPU time of a call with so many new tokens, the least of several in turn."""
    cache = filled(model, before, len(before) + max(map(len, news)))
    least = [float("inf")] * len(news)
    for _ in range(7):
        for place, new in enumerate(news):
            cache.truncate(len(before))
            start = time.process_time()
            extend(model, cache, new)
            least[place] = min(least[place], time.process_time() - start)
    return least


def _cut_and_rounded(rng: np.random.Generator, ids: np.ndarray) -> tuple[float, float]:
    """Return by how much logits differ, beside their size: token by token, and in a cache of float16."""
    model = Llama(replace(CONFIG, n_kv_heads=2), rng)
    with no_grad():
        whole = model(ids).data
    cache = KVCache(model.config, len(ids))
    pieces = np.concatenate([extend(model, cache, [each]) for each in ids])
    rounded = extend(model, KVCache(model.config, len(ids), np.float16), ids)
    size = np.sqrt((whole**2).mean())
    return float(np.abs(pieces - whole).max() / size), float(np.sqrt(((rounded - whole) ** 2).mean()) / size)


def plot(numbers: dict):
    """Draw multiplications and bytes by length, and the time of a call by its tokens."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6))
    lengths, own = numbers["lengths"], numbers["with"][str(CONFIG.n_kv_heads)]
    for name, found, color in (("whole text again", numbers["without"], "C3"), ("cache", own, "C0")):
        left.plot(lengths, [each["multiplications"] for each in found], color=color, marker=".", label=name)
    left.set(xscale="log", yscale="log", xlabel="tokens of the text", ylabel="multiplications, next token")
    left.legend(fontsize=8)
    for place, (name, found) in enumerate(numbers["with"].items()):
        kept = [each["kept_bytes"] / 1000 for each in found]
        label = f"keys and values, {name} head{'s' * (name != '1')}"
        middle.plot(lengths, kept, color=f"C{place}", marker=".", label=label)
    middle.axhline(own[0]["weight_bytes"] / 1000, color="0.3", ls="--", label="weights (8 heads)")
    middle.set(xscale="log", yscale="log", xlabel="tokens of the text", ylabel="kB read, next token, cache")
    middle.legend(fontsize=8)
    for axes in (left, middle):
        axes.set_xticks(lengths, [f"{each:,}" for each in lengths])
        axes.minorticks_off()
    for place, (name, found) in enumerate(numbers["seconds"].items()):
        new = numbers["new"]
        label = f"width {(NARROW if name == 'narrow' else WIDE).width:,}"
        right.plot(new, [each / found[0] for each in found], color=f"C{place}", marker=".", label=label)
    right.plot(numbers["new"], numbers["new"], color="0.6", ls=":", label="one by one")
    right.set(xscale="log", yscale="log", xlabel="tokens in one call", ylabel="time, beside one token's")
    right.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    right.minorticks_off()
    right.legend(fontsize=8)
    return figure


def claim(numbers: dict) -> None:
    """README.md: a cached token costs one n-th; bytes grow with key heads and length; calls do not grow."""
    lengths, own = numbers["lengths"], numbers["with"]["8"]
    for n, one, all_again in zip(lengths, own, numbers["without"], strict=True):
        assert all_again["multiplications"] == n * one["multiplications"]
        assert all_again["weight_bytes"] == one["weight_bytes"]
    for name, found in numbers["with"].items():
        for n, each in zip(lengths, found, strict=True):
            assert each["kept_bytes"] == 2 * 4 * int(name) * 8 * 4 * n  # both, layers, heads, width, bytes
            assert each["multiplications"] == each["weight_bytes"] // 4 + 2 * 4 * 64 * n
    calls = numbers["calls"]
    same = [*calls["by length"], *calls["by new"], calls["wider"]]
    assert max(same) < 1.01 * min(same)  # a collector may have called something meanwhile
    assert 1000 < min(same) < 8000
    kilobytes = {name: each / 1024 for name, each in numbers["bytes_per_token"].items()}
    assert kilobytes == {"Llama 2 7B": 512, "Llama 3 8B": 128, "Qwen2.5 0.5B": 12, "SmolLM2 135M": 22.5}
    assert numbers["apart"] < 1e-11
    assert 1e-5 < numbers["rounded"] < 1e-3
    if lengths[-1] == 1024:
        assert own[2]["kept_bytes"] < own[2]["weight_bytes"] < own[3]["kept_bytes"]
        assert 400 < own[0]["weight_bytes"] / (own[0]["kept_bytes"] / lengths[0]) < 430
        for name in ("2", "1"):
            last = numbers["with"][name][-1]
            assert last["kept_bytes"] < last["weight_bytes"]
