"""What the figures to touch draw, from the lessons' own code.

Each figure has a function here; its numbers come from the technology itself or from a fixed seed.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from techtree.techs.text.bpe import train
from techtree.techs.text.pretokenize import visible
from techtree.tree.graph import TECHS

N_MERGES = 512
N_NAMES = 20


def data(tech_id: str) -> Any:
    """Return the data of a technology's figure, ready for JSON; None where it has none."""
    make = _FIGURES.get(tech_id)
    return None if make is None else make()


def lessons() -> list[str]:
    """Return the texts of the implementations of the tree, in order of their paths."""
    files = sorted(path for path in TECHS.glob("*/*/*.py") if path.stem == path.parent.name)
    return [path.read_text(encoding="utf-8") for path in files]


@functools.cache
def _bpe() -> dict[str, Any]:
    learned = train(lessons(), 256 + N_MERGES)
    return {
        "text": "    return self.weight.shape[-1]",
        "merges": [[visible(left), visible(right)] for left, right in learned.merges],
    }


def _attention() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    q, k = rng.normal(size=(2, 8, 64)).round(3)
    return {"q": q.tolist(), "k": k.tolist()}


def _rope() -> dict[str, Any]:
    # A key that agrees with its query: the score is largest at distance 0 and falls from there.
    rng = np.random.default_rng(5)
    q = rng.normal(size=16)
    k = q + 0.3 * rng.normal(size=16)
    return {
        "q": (q / math.sqrt(q @ q) * 2).round(3).tolist(),
        "k": (k / math.sqrt(k @ k) * 2).round(3).tolist(),
    }


def _sampling() -> dict[str, Any]:
    names = Counter(name for text in lessons() for name in re.findall(r"\bnp\.(\w+)", text))
    common = sorted(names.items(), key=lambda item: (-item[1], item[0]))[:N_NAMES]
    return {
        "tokens": [name for name, _ in common],
        "logits": [round(math.log(count), 6) for _, count in common],
    }


def _quantization() -> dict[str, Any]:
    return {"weights": np.random.default_rng(1).normal(size=32).round(4).tolist()}


def _kv_cache() -> dict[str, Any]:
    # The shape in the checkpoint's config.json; two bytes for each number.
    return {
        "model": {
            "name": "Qwen2.5-Coder-0.5B",
            "n_layers": 24,
            "n_kv_heads": 2,
            "head_width": 64,
            "bytes": 2,
        }
    }


def _moe() -> dict[str, Any]:
    # A router at its start, on tokens as in the experiment: kinds around a large mean that all share.
    rng = np.random.default_rng(2)
    width, n_experts, n_kinds = 16, 8, 8
    mean, *centres = rng.normal(size=(1 + n_kinds, width))
    router = rng.normal(size=(width, n_experts)) / math.sqrt(width)
    directions = np.array([3 * centre / np.linalg.norm(centre) for centre in centres])
    tokens = np.repeat(directions, 2, axis=0) + 0.5 * rng.normal(size=(2 * n_kinds, width))
    lean = 8 * mean / np.linalg.norm(mean) @ router
    return {"kinds": (tokens @ router).round(3).tolist(), "lean": lean.round(3).tolist()}


_FIGURES: dict[str, Callable[[], Any]] = {
    "attention": _attention,
    "bpe": _bpe,
    "kv_cache": _kv_cache,
    "moe": _moe,
    "quantization": _quantization,
    "rope": _rope,
    "sampling": _sampling,
}
