"""How often a missing line is written, beside llama.cpp's server: `infilling.py FILE.gguf --problems F`.

Holes of one line in programs (HumanEval-SingleLineInfilling of openai/human-eval-infilling). Both are asked
in llama.cpp's dialect, ``/infill``, greedily and up to the end of the line. A line counts as written if it is
the missing one to the letter, but for blanks at its end. Ours is asked in both orders of prefix and suffix:
the one that the product uses is named first.
"""

import gzip
import json
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

import llama
from report import again, conditions, run, table
from techtree.engines.torch_engine import TorchEngine, load_to_decode
from techtree.errors import InputError
from techtree.serve.infill_dialect import parse_call

N_CONTEXT = 2048
N_PREDICT = 64
ORDERS = ("spm", "psm")


@dataclass(frozen=True)
class Config:
    """What to measure."""

    file: Annotated[Path, tyro.conf.Positional]
    """A GGUF file of a model that fills in."""
    problems: Path
    """HumanEval-SingleLineInfilling.jsonl.gz."""
    n: int = 200
    """How many problems, drawn by `seed`; fewer if there are fewer."""
    seed: int = 0
    threads: int = 0
    """Of all; 0 for as many as PyTorch would take."""

    def __post_init__(self) -> None:
        for path in (self.file, self.problems):
            if not path.is_file():
                raise InputError(f"there is no file {path}")
        if self.n < 1:
            raise InputError(f"--n must be at least 1; got {self.n}")


@dataclass(frozen=True)
class Hole:
    """A text with a line missing."""

    prefix: str
    suffix: str
    line: str

    def question(self) -> dict[str, object]:
        """Return what ``/infill`` is asked."""
        return {
            "input_prefix": self.prefix,
            "input_suffix": self.suffix,
            "n_predict": N_PREDICT,
            "temperature": 0,
            "stop": ["\n"],
        }

    def is_filled_by(self, text: str) -> bool:
        """Tell whether a text's first line is the one that is missing."""
        return text.partition("\n")[0].rstrip() == self.line.rstrip()


def drawn(path: Path, n: int, seed: int) -> list[Hole]:
    """Draw problems from a file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        problems = [json.loads(line) for line in file]
    chosen = random.Random(seed).sample(problems, min(n, len(problems)))
    return [Hole(each["prompt"], each["suffix"], each["canonical_solution"]) for each in chosen]


def main(config: Config) -> None:
    """Measure, and print."""
    threads = config.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    holes = drawn(config.problems, config.n, config.seed)
    model, tokenizer = load_to_decode(config.file)
    found = {}
    for order in ORDERS:
        found[f"ours, {order}"] = filled(holes, ours(TorchEngine(model, tokenizer, "it", order=order)))
    if llama.IS_THERE:
        found["llama.cpp"] = filled(holes, llama.Llama(config.file, N_CONTEXT, threads).infill)
    print(conditions("torch", n_threads=threads), end="\n\n")
    print(table(["who", "exact", "standard error", "of"], rows(found)), end="\n\n")
    if not llama.IS_THERE:
        print(f"llama.cpp was skipped: {llama.ADVICE}")
    print(again())


def ours(engine: TorchEngine) -> Callable[[dict[str, object]], str]:
    """Return what answers a question as `techtree serve` does."""
    return lambda question: engine.infill(parse_call(question).request).text


def filled(holes: Sequence[Hole], answer: Callable[[dict[str, object]], str]) -> list[bool]:
    """Tell which holes are filled."""
    return [hole.is_filled_by(answer(hole.question())) for hole in holes]


def rows(found: dict[str, list[bool]]) -> list[list[object]]:
    """Return the share of the filled holes of each, and its standard error."""
    made = []
    for name, each in found.items():
        share = sum(each) / len(each)
        error = math.sqrt(share * (1 - share) / len(each))
        made.append([name, f"{share:.1%}", f"{error:.1%}", len(each)])
    return made


if __name__ == "__main__":
    sys.exit(run(main, Config))
