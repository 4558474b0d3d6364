"""Random options and places for every command: ``python random_commands.py FOLDER SEED N``.

Each case runs in a forked child, with 4 GB of memory and a time limit, on files that others left: a corpus,
prepared data, a model, and things that are none of these. A line is printed for each case that did not end
with exit code 0, or with one sentence and exit code 2.
"""

import dataclasses
import importlib
import io
import os
import random
import resource
import shlex
import signal
import sys
import traceback
import typing
from pathlib import Path

from techtree.cli.main import COMMANDS, main, module_of

MEMORY_BYTES = 4 << 30
TIME_LIMIT_S = 60

STRANGE = ["", "a\nb", "\x1b[2J", os.fsdecode(b"\xff\xfe"), "\u202e\u2066", "x" * 300]
PLACES = [
    "corpus",
    "corpus/m1.py",
    "prepared",
    "run",
    "run/model",
    "run/checkpoints",
    "missing",
    "empty",
    "empty.py",
    "latin.py",
    "x.json",
    "loop",
    "pipe",
    "dangling",
    ".",
    "..",
    "-",
    "--",
    "/dev/null",
    "/dev/zero",
    "/dev/null/x",
    "new/deep/folder",
    "~",
    "$HOME",
    "*",
    *STRANGE,
]
OUTS = [
    "corpus/m1.py",
    "prepared",
    "run",
    "missing/x",
    "empty",
    "loop",
    "pipe",
    ".",
    "/dev/null",
    "/dev/null/x",
    *STRANGE,
]
"""Where to write: nothing outside of the folder that could be harmed."""

INTEGERS = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "63",
    "64",
    "65",
    "1e3",
    "0x10",
    "1.5",
    "nan",
    "²",
    "-0",
    *map(str, (2**31, 2**63, 2**65, 10**40)),
    *("9" * 5000, "", " 7 "),
]
NUMBERS = [*INTEGERS, "0.5", "1e308", "-1e308", "1e309", "inf", "-inf", "5e-324", "1e-46", "100", "50"]
WORDS = [
    "attention",
    "atention",
    "",
    "\x1b[31m",
    os.fsdecode(b"\xff"),
    "x" * 5000,
    "None",
    "../..",
    "qwen/../x",
]
POSITIONS = ["", ":1", ":1:1", ":0:0", ":99999:1", f":1:{'9' * 5000}", f":{'9' * 30}:1", ":²:1"]

GOOD = {
    "corpus": "corpus",
    "data": "prepared",
    "model": "run/model",
    "path": "run/model",
    "place": "corpus/m1.py:2:1",
}
"""By the name of an option."""

LASTING = ("unlock", "figure", "bench")
"""With a name that exists, these take minutes and write to the project."""

SMALL = {"steps": ["1", "2"], "depth": ["1", "2"], "max_bytes": ["1000"], "vocab_size": ["300"]}
"""What keeps a case short that goes well; half of the cases get it."""


def value_for(rng: random.Random, name: str, kind: str) -> str:
    if name in SMALL and rng.random() < 0.6:
        return rng.choice(SMALL[name])
    if name == "place":
        return rng.choice(PLACES) + rng.choice(POSITIONS)
    if name in ("out", "svg"):
        return rng.choice(OUTS) if rng.random() < 0.5 else f"out{rng.randrange(10**9)}"
    if "Path" in kind:
        return rng.choice(PLACES)
    if "Literal" in kind:
        choices = kind[kind.index("Literal[") + 8 :].split("]")[0].replace("'", "").split(", ")
        return rng.choice([*choices, "", "CUDA", "x"])
    if "bool" in kind:
        return rng.choice(["True", "yes", ""])
    return rng.choice(INTEGERS if "int" in kind else NUMBERS if "float" in kind else WORDS)


def options_of(config: type) -> list[tuple[str, str, bool]]:
    """Name, type and whether it has no name on the command line."""
    found = []
    for field in dataclasses.fields(config):
        inner = typing.get_args(field.type)[:1]
        if inner and dataclasses.is_dataclass(inner[0]):
            found += options_of(inner[0])
        else:
            found.append((field.name, str(field.type), "Positional" in str(field.type)))
    return found


def random_case(rng: random.Random) -> list[str]:
    lasts = rng.random() < 0.1
    name = rng.choice([name for name in COMMANDS if (name in LASTING) == lasts])
    if lasts:
        return [name, rng.choice([word for word in WORDS if word and word != "attention"])]
    words = [name]
    for option, kind, is_positional in options_of(importlib.import_module(module_of(name)).Config):
        if is_positional:
            for _ in range(rng.choice([1, 1, 1, 0, 2])):
                is_good = option in GOOD and rng.random() < 0.6
                words.append(GOOD[option] if is_good else value_for(rng, option, kind))
        elif option in ("steps", "corpus", "model", "to", "out") or rng.random() < 0.15:
            is_good = option in ("corpus", "model") and rng.random() < 0.7
            value = GOOD[option] if is_good else value_for(rng, option, kind)
            words += [f"--{option.replace('_', '-')}", value]
    if rng.random() < 0.1:
        words.insert(
            rng.randrange(1, len(words) + 1), rng.choice(["--help", "--nothing", "x", "--", "--seed"])
        )
    if name == "mutants":  # of a technology that exists, it takes minutes
        words = [word for word in words if word != "attention"]
    return words


def run(words: list[str], folder: Path) -> tuple[int, str, str]:
    """Run a command in a forked child; return its exit code, below 0 after a signal, and what it wrote."""
    names = [folder.parent / "stdout", folder.parent / "stderr"]
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.chdir(folder)
            for number, name in enumerate(names, start=1):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), encoding="utf-8", write_through=True)
            sys.stderr = io.TextIOWrapper(
                io.FileIO(2, "w"), encoding="utf-8", errors="backslashreplace", write_through=True
            )
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            signal.alarm(TIME_LIMIT_S)
            code = main(words)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 71
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    out, err = (name.read_text(encoding="utf-8", errors="replace") for name in names)
    return os.waitstatus_to_exitcode(status), out, err


def problem(code: int, err: str) -> str:
    """Return what is wrong with an ending, or nothing."""
    if "Traceback" in err or "Error:" in err:
        return "traceback"
    if code == 0:
        return ""
    if code != 2:
        return f"exit code {code}"
    lines = err.strip().splitlines()
    is_one_sentence = bool(lines) and lines[-1].startswith("techtree: error: ")
    is_by_the_parser = any(line.count("─") > 20 or line.count("-") > 20 for line in lines)
    return "" if is_one_sentence or is_by_the_parser else "no sentence"


def prepare(folder: Path) -> None:
    """Make the files on which the commands run."""
    folder.mkdir()
    rng = random.Random(0)
    (folder / "corpus").mkdir()
    for i in range(8):
        lines = [
            f"def name_{rng.randrange(10**6)}(x):\n    return x + {rng.randrange(99)}\n" for _ in range(30)
        ]
        (folder / "corpus" / f"m{i}.py").write_text("\n".join(lines), encoding="utf-8")
    (folder / "empty").mkdir()
    (folder / "empty.py").touch()
    (folder / "latin.py").write_bytes(b"x = '\xe9'")
    (folder / "x.json").write_text("[" * 100_000)
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    for words in (
        ["data", "corpus", "--out", "prepared", "--vocab-size", "300", "--seq-len", "64"],
        ["train", "prepared", "--out", "run", "--depth", "1", "--steps", "1", "--batch-tokens", "64"],
    ):
        code, out, err = run(words, folder)
        assert code == 0, out + err


def no_server(*_: object) -> None:
    """Take the place of the loop that answers requests."""


if __name__ == "__main__":
    import torch

    import techtree.engines.torch_engine
    import techtree.lm.pipeline.pipeline
    import techtree.lm.pipeline.training_folder
    import techtree.serve.app
    import techtree.serve.listening

    techtree.serve.listening.serve = no_server
    torch.set_num_threads(1)
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "TOKENIZERS_PARALLELISM": "false",
    }
    root = Path(sys.argv[1])
    prepare(root / "files")
    cases = random.Random(int(sys.argv[2]))
    n_good = 0
    for _ in range(int(sys.argv[3])):
        words = random_case(cases)
        code, _, err = run(words, root / "files")
        wrong = problem(code, err)
        n_good += not wrong and code == 0
        if wrong:
            shown = ascii(shlex.join(words))[:600]
            print(f"{wrong}: {shown}\n{err[-1500:]}", flush=True)
    print(f"{n_good} ended well", flush=True)
