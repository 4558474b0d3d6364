"""Tokens per second of the decoder, beside llama.cpp on the same GGUF files: `decoding.py FILE.gguf ...`.

Prompts of 512 random tokens, and greedy text after a short prompt, one token at a time; both free and with
endless loops beside them, which take their share of the processors. Each measures in a fresh process.
"Agreed" is for how many of llama.cpp's tokens ours would have chosen the same one, after the same text.
llama.cpp is the one in `pip install xllamacpp`.
"""

import multiprocessing
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

import llama
from report import again, conditions, run, table
from techtree.errors import InputError
from techtree.lm.formats.gguf import open_gguf
from techtree.lm.native.decoder import Decoder, NativeText

PROMPT = "def fibonacci(n):\n    if n < 2:\n        return n\n    return"
N_PREFILL = 512
N_CONTEXT = 1024


@dataclass(frozen=True)
class Config:
    """What to compare."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """GGUF files."""
    n_tokens: int = 200
    """How many tokens to decode, each time."""
    rounds: int = 3
    """How often each is measured; the table has the medians."""
    loops: tuple[int, ...] = (0,)
    """How many endless loops run beside it, one row for each number: --loops 0 1 2."""
    threads: int = 0
    """Of both; 0 for as many as PyTorch would take."""

    def __post_init__(self) -> None:
        if not self.files or self.n_tokens < 2 or self.rounds < 1 or min(self.loops, default=-1) < 0:
            raise InputError("needs a file, at least 2 tokens, 1 round, and no negative loops")
        if missing := [path for path in self.files if not path.is_file()]:
            raise InputError(f"there is no file {missing[0]}")


@dataclass(frozen=True)
class Result:
    """One round of one program."""

    decode: float
    """Tokens per second."""
    prefill: float
    ids: list[int]
    """What it wrote."""


def main(config: Config) -> None:
    """Measure, and print."""
    programs = {"ours": ours, "llama.cpp": llama_cpp} if llama.IS_THERE else {"ours": ours}
    threads = config.threads or torch.get_num_threads()
    rows = []
    for path in config.files:
        free: dict[str, float] = {}
        for n_loops in config.loops:
            found: dict[str, list[Result]] = {name: [] for name in programs}
            for _ in range(config.rounds):
                for name, program in programs.items():
                    found[name].append(beside_loops(n_loops, program, path, config.n_tokens, threads))
            agreed = agreement(path, found["llama.cpp"][0].ids) if llama.IS_THERE and not n_loops else "-"
            rows += described(path.stem, n_loops, found, free, agreed)
            print(*rows[-len(programs) :], sep="\n", file=sys.stderr, flush=True)
    print(conditions("torch", *(["xllamacpp"] if llama.IS_THERE else []), n_threads=threads), end="\n\n")
    head = [
        "file",
        "loops",
        "program",
        "decode tok/s",
        "of free",
        "of llama.cpp's",
        "prompt tok/s",
        "agreed",
    ]
    print(table(head, rows), end="\n\n")
    if not llama.IS_THERE:
        print(f"llama.cpp was skipped: {llama.ADVICE}")
    print(again())


def described(
    file: str, n_loops: int, found: dict[str, list[Result]], free: dict[str, float], agreed: str
) -> list[list]:
    """Return the rows of a file beside so many loops; without any, note the rates."""
    median = {name: statistics.median(one.decode for one in results) for name, results in found.items()}
    if n_loops == 0:
        free |= median
    rows = []
    for name, results in found.items():
        prefill = statistics.median(one.prefill for one in results)
        peer = median.get("llama.cpp")
        rows.append(
            [
                *(file, n_loops, name, f"{median[name]:.1f}"),
                f"{median[name] / free[name]:.2f}" if name in free else "-",
                f"{median[name] / peer:.2f}" if peer else "-",
                *(f"{prefill:.0f}", agreed if name == "ours" else "-"),
            ]
        )
    return rows


def agreement(path: Path, ids: list[int]) -> str:
    """Return for how many tokens of a text ours would have chosen the same, given those before."""
    config, weights, tokenizer = open_gguf(path)
    prompt = tokenizer.encode(PROMPT)
    text = NativeText(Decoder(config, weights, N_CONTEXT), N_CONTEXT)
    logits = text.extend_all([*prompt, *ids[:-1]], len(ids))
    assert logits is not None
    logits[:, sorted(tokenizer.stop_ids)] = -torch.inf  # llama.cpp was told to go on
    n_same = sum(a == b for a, b in zip(logits.argmax(-1).tolist(), ids, strict=True))
    return f"{n_same} of {len(ids)}"


def beside_loops(
    n_loops: int, program: Callable[[Path, int, int], Result], path: Path, n_tokens: int, threads: int
) -> Result:
    """Measure in a fresh process while endless loops run."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_loops)]
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
            return processes.submit(program, path, n_tokens, threads).result()
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def random_prompt() -> list[int]:
    """Return tokens that every vocabulary has."""
    generator = random.Random(0)
    return [generator.randrange(300) for _ in range(N_PREFILL)]


def ours(path: Path, n_tokens: int, threads: int) -> Result:
    """Measure our decoder."""
    torch.set_num_threads(threads)
    config, weights, tokenizer = open_gguf(path)
    decoder = Decoder(config, weights, N_CONTEXT)
    NativeText(decoder, N_CONTEXT).extend(random_prompt()[:64])  # the first pages of everything
    start = time.perf_counter()
    NativeText(decoder, N_CONTEXT).extend(random_prompt())
    prefill = N_PREFILL / (time.perf_counter() - start)
    text = NativeText(decoder, N_CONTEXT)
    logits, ids = text.extend(tokenizer.encode(PROMPT)), []
    start = time.perf_counter()
    for _ in range(n_tokens):
        assert logits is not None
        ids.append(int(logits.argmax()))
        logits = text.extend(ids[-1:])
    return Result(n_tokens / (time.perf_counter() - start), prefill, ids)


def llama_cpp(path: Path, n_tokens: int, threads: int) -> Result:
    """Measure llama.cpp."""
    peer = llama.Llama(path, N_CONTEXT, threads)
    peer.write(random_prompt()[:64], 1)
    prefill = peer.write(random_prompt(), 1).prefill
    written = peer.write(PROMPT, n_tokens)
    return Result(written.decode, prefill, written.ids)


if __name__ == "__main__":
    sys.exit(run(main, Config))
