"""Milliseconds that a form of the answer costs, on a model's vocabulary: `forms.py FILE.gguf ...`.

"First" is for the first answer of all, which makes the library's table of the vocabulary; "compile" for
another form, most of it the start of the process in which it is tried. "Mask" is for each token, the median:
which tokens may come, and -inf for the others among the scores, which are random here; the text is one that
fits. The slowest mask is that of a state of the automaton which no text has reached before.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import tyro

from report import again, conditions, run, table
from techtree.errors import InputError
from techtree.lm.formats.gguf import open_gguf
from techtree.lm.infer.constraint import Grammars, Kind

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["mathematician", "writer"]}},
    },
    "required": ["name", "age", "tags"],
}
TEXT = json.dumps({"name": "Ada Lovelace of London", "age": 36, "tags": ["mathematician"]}, indent=1)
FORMS: dict[str, tuple[Kind, str]] = {
    "any object": ("json_schema", '{"type": "object"}'),
    "a schema": ("json_schema", json.dumps(PERSON)),
    "a grammar": ("gbnf", 'root ::= "{" ([^"{}] | string)* "}"\nstring ::= "\\"" [^"]* "\\""'),
}

_result = TypeVar("_result")


@dataclass(frozen=True)
class Config:
    """What to measure."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """GGUF files."""
    rounds: int = 20
    """How often the text is gone through."""

    def __post_init__(self) -> None:
        if not self.files or self.rounds < 1:
            raise InputError("needs a file, and at least 1 round")
        if missing := [path for path in self.files if not path.is_file()]:
            raise InputError(f"there is no file {missing[0]}")


def main(config: Config) -> None:
    """Measure, and print."""
    rows = [[path.stem, *row] for path in config.files for row in measured(path, config.rounds)]
    head = ["model", "tokens", "form", "first, ms", "compile, ms", "mask, ms", "slowest mask, ms"]
    print(conditions("llguidance", n_threads=1))
    print(f"\n{table(head, rows)}\n\n{again()}")


def measured(path: Path, rounds: int) -> list[list[object]]:
    """Return a row for each form."""
    model, _, tokenizer = open_gguf(path)
    scores = np.random.default_rng(0).normal(size=model.vocab_size).astype(np.float32)
    grammars, rows = Grammars(tokenizer), []
    first_ms, _ = timed(lambda: grammars.constraint("json_schema", "true"))
    for name, (kind, text) in FORMS.items():
        compile_ms, _ = timed(lambda kind=kind, text=text: grammars.constraint(kind, text))
        masks_ms = []
        for _ in range(rounds):
            constraint = grammars.constraint(kind, text)
            for token in tokenizer.encode(TEXT):
                ms, masked = timed(lambda constraint=constraint: constraint.masked(scores))
                assert np.isfinite(masked[token])
                masks_ms.append(ms)
                constraint.ends_after(token)
        mask = f"{statistics.median(masks_ms):.2f}", f"{max(masks_ms):.2f}"
        rows.append([model.vocab_size, name, f"{first_ms:.0f}", f"{compile_ms:.0f}", *mask])
    return rows


def timed(work: Callable[[], _result]) -> tuple[float, _result]:
    """Return how many milliseconds something took, and its result."""
    start = time.perf_counter()
    result = work()
    return 1000 * (time.perf_counter() - start), result


if __name__ == "__main__":
    sys.exit(run(main, Config))
