"""What texts share, what they cannot share, and what they waste: bytes, steps and places of the memory."""

from dataclasses import dataclass
from unittest import mock

import numpy as np

from techtree.techs.inference.batching import BlockPool, PagedText, Request, Scheduler, extend_batch
from techtree.techs.inference.kv_cache.experiment import counted, n_calls
from techtree.techs.inference.sampling import Sampling
from techtree.techs.transformer.gqa import grouped_attention
from techtree.techs.transformer.llama_block import Llama, LlamaConfig

CONFIG = LlamaConfig(n_tokens=256, width=64, hidden=172, n_layers=4, n_heads=8, n_kv_heads=2)
TINY = LlamaConfig(n_tokens=16, width=8, hidden=8, n_layers=1, n_heads=2, n_kv_heads=1)
N_TEXTS = (1, 2, 4, 8, 16, 32)
HELD = (16, 256, 1024)
"""Tokens of each text before the new one."""

LONGEST, PLACES, MOST = 128, 1024, 8
"""Tokens of a text at most; tokens that the memory holds; texts that run at once where this is bounded."""

BLOCK_SIZES = (1, 4, 16, 64, LONGEST)


@dataclass(frozen=True)
class Served:
    """How requests were served: model calls, texts running in each, places used and taken, evictions."""

    n_steps: int
    running: list[int]
    used_share: float
    n_evicted: int
    n_read: int


def drawn_lengths(rng: np.random.Generator, n: int) -> list[tuple[int, int]]:
    """Draw prompts of 4 to 32 tokens, and answers whose lengths spread far: many short, few long."""
    answers = np.minimum(1 + rng.exponential(24, size=n).astype(int), LONGEST - 32)
    return [(int(a), int(b)) for a, b in zip(rng.integers(4, 33, size=n), answers, strict=True)]


def served(
    model: Llama, lengths: list[tuple[int, int]], block_size: int, max_running: int, in_groups: bool = False
) -> Served:
    """Serve requests; ``in_groups`` admits the next ones when all of the last group have left."""
    pool = BlockPool(model.config, PLACES // block_size, block_size)
    scheduler = Scheduler(model, pool, max_running)
    cold, groups = Sampling(temperature=0.0), [lengths]
    if in_groups:
        groups = [lengths[start : start + max_running] for start in range(0, len(lengths), max_running)]
    running, used, taken, read = [], 0, 0, 0

    def note(model, texts, ids):
        nonlocal used, taken, read
        answer = extend_batch(model, texts, ids)
        running.append(len(texts))
        used += sum(each.length for each in texts)
        taken += sum(len(each.blocks) for each in texts) * block_size
        read += sum(map(len, ids))
        return answer

    with mock.patch("techtree.techs.inference.batching.batching.extend_batch", note):
        for group in groups:
            for n_ids, n_new in group:
                scheduler.submit(Request([1] * n_ids, n_new, cold, np.random.default_rng(0)))
            while scheduler.waiting or scheduler.running:
                scheduler.step()
    return Served(len(running), running, used / taken, scheduler.n_evicted, read)


def decoded(model: Llama, n_texts: int, n_held: int) -> tuple[list[PagedText], list[list[int]]]:
    """Return texts that hold so many tokens, as if they had been read, and one new token for each."""
    pool = BlockPool(model.config, n_texts * (n_held // 16 + 1), 16, np.float32)
    texts = [PagedText(pool) for _ in range(n_texts)]
    for each in texts:
        each.reserve(n_held + 1)
        each.length = n_held
    return texts, [[1]] * n_texts


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Count what a token reads by texts and lengths, and serve requests in several ways.

    Parameters
    ----------
    rng
        Draws weights and the lengths of requests.
    scale
        Below 1 there are fewer requests and texts.

    Returns
    -------
    dict
        Ready for JSON; bytes are for each new token.
    """
    is_full = scale == 1
    many, held = (N_TEXTS, HELD) if is_full else (N_TEXTS[:4], HELD[:2])
    model = Llama(CONFIG, rng, dtype=np.float32)
    found: dict = {"n_texts": many, "bytes": {}, "calls": []}
    for n_held in held:
        found["bytes"][str(n_held)] = [_bytes_read(model, n_texts, n_held) for n_texts in many]
    tiny = Llama(TINY, rng)
    for n_texts in many:
        texts, ids = decoded(tiny, n_texts, 16)
        found["calls"].append(n_calls(lambda texts=texts, ids=ids: extend_batch(tiny, texts, ids)) / n_texts)
    seeds = [int(each) for each in rng.integers(2**32, size=3 if is_full else 1)]
    found["served"] = {"groups": [], "continuous": []}
    found["by block"] = {str(size): [] for size in (BLOCK_SIZES if is_full else (4, LONGEST))}
    found["padded"] = []
    for seed in seeds:
        lengths = drawn_lengths(np.random.default_rng(seed), 64 if is_full else 24)
        found["served"]["groups"].append(vars(served(tiny, lengths, 1, MOST, in_groups=True)))
        found["served"]["continuous"].append(vars(served(tiny, lengths, 1, MOST)))
        for size, each in found["by block"].items():
            each.append(vars(served(tiny, lengths, int(size), len(lengths))))
        prompts = np.array([a for a, _ in lengths])
        groups = [prompts[start : start + MOST] for start in range(0, len(prompts), MOST)]
        found["padded"].append(float(1 - prompts.sum() / sum(each.max() * len(each) for each in groups)))
    return found


def _bytes_read(model: Llama, n_texts: int, n_held: int) -> list[float]:
    """Return the bytes of weights, and of keys and values, that one more token of each text reads."""
    texts, ids = decoded(model, n_texts, n_held)
    with counted() as counts:

        def attend(q, k, v, mask=None):
            counts.kept_bytes += k.data.nbytes + v.data.nbytes
            return grouped_attention(q, k, v, mask)

        with mock.patch("techtree.techs.inference.batching.batching.grouped_attention", attend):
            extend_batch(model, texts, ids)
    return [counts.weight_bytes / n_texts, counts.kept_bytes / n_texts]


def plot(numbers: dict):
    """Draw bytes by texts, texts running by step, and what small blocks save."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6))
    many = numbers["n_texts"]
    for place, (name, found) in enumerate(numbers["bytes"].items()):
        label = f"{int(name):,} tokens held"
        left.plot(many, [sum(each) / 1000 for each in found], color=f"C{place}", marker=".", label=label)
    weights = [each[0] / 1000 for each in next(iter(numbers["bytes"].values()))]
    left.plot(many, weights, color="0.4", ls=":", label="weights alone")
    left.set(xscale="log", yscale="log", xlabel="texts in a call", ylabel="kB read for each token")
    left.set_xticks(many, [str(each) for each in many])
    left.minorticks_off()
    left.legend(fontsize=8)
    for name, color in (("groups", "C3"), ("continuous", "C0")):
        middle.step(
            range(numbers["served"][name][0]["n_steps"]),
            numbers["served"][name][0]["running"],
            color=color,
            label={"groups": "in groups of 8", "continuous": "continuous"}[name],
        )
    middle.set(xlabel="calls of the model", ylabel="texts in the call", ylim=(0, 10))
    middle.legend(fontsize=8, ncols=2, loc="upper right")
    sizes = list(numbers["by block"])
    places = np.arange(len(sizes))
    share = [100 * np.mean([each["used_share"] for each in found]) for found in numbers["by block"].values()]
    steps = [np.mean([each["n_steps"] for each in found]) for found in numbers["by block"].values()]
    right.bar(places - 0.2, share, 0.38, color="C0", label="places used, %")
    right.bar(places + 0.2, steps, 0.38, color="C1", label="calls of the model")
    right.set_xticks(places, [f"{each}\n(whole text)" if each == str(LONGEST) else each for each in sizes])
    right.set(xlabel="tokens in a block")
    right.legend(fontsize=8)
    return figure


def claim(numbers: dict) -> None:
    """README.md: weights are shared and caches are not; leaving at once saves calls, small blocks memory."""
    is_full = len(numbers["n_texts"]) == len(N_TEXTS)
    for n_held, found in numbers["bytes"].items():
        for n, (weights, kept) in zip(numbers["n_texts"], found, strict=True):
            assert weights == 757_760 / n
            assert kept == 2 * 4 * 2 * 8 * 4 * (int(n_held) + 1)
    assert numbers["calls"][-1] < 0.6 * numbers["calls"][0]
    for groups, continuous in zip(*numbers["served"].values(), strict=True):
        assert continuous["n_steps"] < 0.75 * groups["n_steps"]
        assert continuous["n_read"] == groups["n_read"]
    whole = numbers["by block"][str(LONGEST)]
    for small, large in zip(numbers["by block"]["4"], whole, strict=True):
        assert small["used_share"] > 0.9
        assert large["used_share"] < 0.5
        assert large["n_evicted"] == 0
        assert small["n_steps"] <= large["n_steps"]
    if is_full:
        assert 0.3 < numbers["calls"][-1] / numbers["calls"][0] < 0.4
        last = numbers["bytes"]["1024"][-1]
        assert last[1] > 20 * last[0]
        for groups, continuous in zip(*numbers["served"].values(), strict=True):
            assert np.mean(groups["running"]) < 4
            assert np.mean(continuous["running"]) > 6
            assert continuous["n_steps"] < 0.5 * groups["n_steps"]
        for small, large in zip(numbers["by block"]["16"], whole, strict=True):
            assert small["used_share"] > 0.8 > 0.4 > large["used_share"]
            assert small["n_steps"] < 0.6 * large["n_steps"]
            assert 0 < small["n_evicted"] < 30
            assert large["n_read"] < small["n_read"] < 1.2 * large["n_read"]
            assert max(large["running"]) == MOST
        assert min(each["used_share"] for each in numbers["by block"]["4"]) > 0.95
        for share in numbers["padded"]:
            assert 0.2 < share < 0.5
