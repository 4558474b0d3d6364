"""How fast code is written again with a name changed, guessed from the text at hand: `rename.py FILE.gguf`.

A chat model gets a module of the standard library and is asked to rename a variable. Ours with guesses, ours
without, and llama.cpp without, each in a fresh process. The texts of the first two must be equal.
"""

import multiprocessing
import sys
import sysconfig
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
from techtree.lm.infer.drafts import Drafts
from techtree.lm.infer.generate import PrefixCache, generate
from techtree.lm.infer.limits import Limits, Progress
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.native.decoder import Decoder

N_CONTEXT = 2048
MODULE, OLD, NEW = "bisect.py", "hi", "high"


@dataclass(frozen=True)
class Config:
    """What to measure."""

    file: Annotated[Path, tyro.conf.Positional]
    """A GGUF file of a chat model."""
    n_tokens: int = 400
    threads: int = 0
    """Of all; 0 for as many as PyTorch would take."""

    def __post_init__(self) -> None:
        if not self.file.is_file():
            raise InputError(f"there is no file {self.file}")


@dataclass(frozen=True)
class Result:
    """A text, at how many tokens per second, and what it says."""

    decode: float
    ids: list[int]
    text: str


def question() -> str:
    """Return the prompt, in the form that models with ChatML know."""
    source = (Path(sysconfig.get_path("stdlib")) / MODULE).read_text(encoding="utf-8")[:2600]
    return (
        f"<|im_start|>user\nRename `{OLD}` to `{NEW}` in this code, and write all of it again.\n"
        f"```python\n{source}```<|im_end|>\n<|im_start|>assistant\n```python\n"
    )


def main(config: Config) -> None:
    """Measure, and print."""
    threads = config.threads or torch.get_num_threads()
    programs: dict[str, Callable[[Path, int, int], Result]] = {"guesses": with_guesses, "plain": without}
    if llama.IS_THERE:
        programs["llama.cpp"] = llama_cpp
    found = {}
    for name, program in programs.items():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
            found[name] = processes.submit(program, config.file, config.n_tokens, threads).result()
    base = found.get("llama.cpp")
    rows = [
        [name, f"{one.decode:.1f}", f"{one.decode / base.decode:.2f}" if base else "-", len(one.ids)]
        for name, one in found.items()
    ]
    print(conditions("torch", n_threads=threads), end="\n\n")
    print(table(["program", "tok/s", "of llama.cpp's", "tokens"], rows), end="\n\n")
    if not llama.IS_THERE:
        print(f"llama.cpp was skipped: {llama.ADVICE}")
    print(again())
    if found["guesses"].ids != found["plain"].ids:
        raise InputError("guesses must not change the text, and did")
    if base:
        n_same = sum(a == b for a, b in zip(found["plain"].ids, base.ids, strict=False))
        print(f"llama.cpp writes the same token at {n_same} of {len(base.ids)} places")


def with_guesses(path: Path, n_tokens: int, threads: int) -> Result:
    """Measure our engine as it is."""
    torch.set_num_threads(threads)
    config, weights, tokenizer = open_gguf(path)
    cache, progress = PrefixCache(Decoder(config, weights, N_CONTEXT), N_CONTEXT), Progress()
    prompt = tokenizer.encode(question(), parse_special=True)
    ids = list(
        generate(
            cache,
            prompt,
            Limits(n_tokens),
            sampling=SamplingParams(),
            stop_ids=tokenizer.stop_ids,
            progress=progress,
        )
    )
    return Result(progress.n_predicted / progress.predicted_s, ids, tokenizer.decode(ids))


def without(path: Path, n_tokens: int, threads: int) -> Result:
    """Measure it one token at a time."""
    Drafts.propose = lambda self, n_most=0: []
    return with_guesses(path, n_tokens, threads)


def llama_cpp(path: Path, n_tokens: int, threads: int) -> Result:
    """Measure llama.cpp."""
    written = llama.Llama(path, N_CONTEXT, threads).write(question(), n_tokens, ignore_eos=False)
    return Result(written.decode, written.ids, written.text)


if __name__ == "__main__":
    sys.exit(run(main, Config))
