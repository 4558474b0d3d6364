"""`techtree eval`: how well a model knows a text, fills holes and writes functions."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from techtree.errors import InputError
from techtree.streams import drawing, is_plain

if TYPE_CHECKING:
    from techtree.engines.examining import Examinee
    from techtree.lm.data.corpus import Document
    from techtree.lm.eval.problems import Exercise, Hole

MAX_LOGITS = 1 << 26
"""Of the windows that are computed at once: 256 MB in float32."""

PROBLEMS = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class Config:
    """Measure a model: the bits that it needs per byte of a text, which compares models of any vocabulary.

    Given a file of problems (HumanEval, or HumanEval-SingleLineInfilling and its sisters, as .jsonl.gz), it
    measures how many of them the model solves. What models write is run, with the problem's tests, in a
    sandbox, which needs Linux. Measure on what the model was not trained on.
    """

    what: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CORPUS...")]
    """Files and folders with code or text; of a folder that `techtree data` made, what it held out; or files
    of problems."""

    model: Path | None = None
    """The model's folder, runs/NAME/model, or a GGUF file; the newest finished run when left out."""

    server: str | None = None
    """Instead of a model: the address of a server with OpenAI's interface, such as http://127.0.0.1:8080."""

    seq_len: int | None = None
    """How many tokens the model sees at once; what it was trained to see, and 2048 at most, when left out."""

    memory: Literal["none", "text", "project"] = "none"
    """What the model is reminded of: nothing, what a text said so far, or that and CORPUS's other texts."""

    max_bytes: int = 1_000_000
    """Measure on whole documents of so many bytes together at most; 0 for all of them."""

    holes: int = 0
    """Take so many lines and ends of lines out of CORPUS's files, and count those that the model fills in,
    instead of the bits."""

    n: int = 0
    """Take so many of the problems, drawn by --seed; 0 takes all."""

    samples: int = 1
    """Of functions: write each so often. One is written greedily; more give pass@k for more than one k."""

    temperature: float = 0.8
    """At which more samples than one are drawn."""

    chat: Literal["auto", "yes", "no"] = "auto"
    """Whether functions are asked for in a chat; auto: where the model has a template for it."""

    seed: int = 0
    """Of what is drawn."""


def run(config: Config) -> int:
    """Measure, and print one line, or a table for problems."""
    _check(config)
    problems = [path for path in config.what if path.name.endswith(PROBLEMS)]
    if problems or config.holes:
        return _solve(config, problems)
    return _measure_bits(config)


def _measure_bits(config: Config) -> int:
    import torch

    from techtree.engines.model_folder import find_model
    from techtree.lm.eval.bits_per_byte import bits_per_byte
    from techtree.lm.eval.held_out import evaluated
    from techtree.lm.formats.gguf import load_gguf
    from techtree.lm.formats.huggingface import load_pretrained
    from techtree.lm.train.precision import compute_dtype

    folder = find_model(config.model)
    project = _documents(config.what)
    documents = evaluated(project, config.max_bytes or None)
    load = load_gguf if folder.suffix == ".gguf" else load_pretrained
    model, tokenizer = load(folder, torch.float32)
    model.compute_dtype = compute_dtype(torch.device("cpu"))
    seq_len = config.seq_len or min(model.config.max_seq_len, 2048)
    if model.config.positions == "learned" and seq_len > model.config.max_seq_len:
        raise InputError(
            f"--seq-len must be at most {model.config.max_seq_len} for this model; got {seq_len}"
        )
    started = time.monotonic()
    score = bits_per_byte(
        model,
        documents,
        tokenizer,
        seq_len=seq_len,
        batch_size=max(1, min(8, MAX_LOGITS // (seq_len * model.config.vocab_size))),
        project={"none": None, "text": [], "project": project}[config.memory],
        on_batch=lambda n_done, n_batches: _show_progress(n_done, n_batches, "batches"),
    )
    print(
        f"{score.bits_per_byte:.4f} bits per byte  {score.bits_per_token:.4f} bits per token  "
        f"{len(documents)} documents, {score.n_bytes:,} bytes, {score.n_tokens:,} tokens in "
        f"windows of {seq_len}, memory: {config.memory}, {time.monotonic() - started:.0f} s"
    )
    return 0


def _solve(config: Config, files: list[Path]) -> int:
    """Ask for what is missing, and print how much of it came."""
    import numpy as np

    from techtree.lm.eval.held_out import evaluated
    from techtree.lm.eval.problems import Exercise, Hole, drawn, holes_in, read_problems

    rng = np.random.default_rng(config.seed)
    asked = {file.name: drawn(read_problems(file), config.n, rng) for file in files}
    if not files:
        documents = evaluated(_documents(config.what), config.max_bytes or None)
        asked = {"holes": holes_in(documents, config.holes, rng)}
    engine = _engine(config)
    for name, problems in asked.items():
        if holes := [each for each in problems if isinstance(each, Hole)]:
            _fill(config, engine, holes, name)
        if exercises := [each for each in problems if isinstance(each, Exercise)]:
            _write(config, engine, exercises, name)
    return 0


def _engine(config: Config) -> "Examinee":
    if config.server is not None:
        from techtree.engines.server_engine import ServerEngine

        return ServerEngine(config.server)
    from techtree.engines.model_folder import find_model
    from techtree.engines.torch_engine import TorchEngine

    project = config.what[0] if config.memory == "project" else None
    return TorchEngine.load(find_model(config.model), remembers=config.memory != "none", repository=project)


def _fill(config: Config, engine: "Examinee", holes: "list[Hole]", what: str) -> None:
    from techtree.engines.examining import fill
    from techtree.lm.eval.infilling import Answer, Infilling, floors, measure

    if not engine.can_fill_in:
        raise InputError(f"{engine.name} has not learned to fill in: name a model with the tokens for it")
    answers: list[Answer] = []
    for hole in holes:
        answers.append(fill(engine, hole))
        _show_progress(len(answers), len(holes), "holes")
    by_tests = any(hole.check for hole in holes) and _can_run()
    rows = {f"{engine.name}, memory: {config.memory}" if config.server is None else engine.name: answers}
    print(f"{what}: {len(holes)} holes; per cent, with the standard error over the holes")
    table: list[list[str]] = [["", *Infilling.__annotations__]]
    for name, given in (rows | floors(holes)).items():
        figures = measure(holes, given, by_tests=by_tests)
        table.append([name, *map(str, vars(figures).values())])
    _print_table(table)


def _write(config: Config, engine: "Examinee", exercises: "list[Exercise]", what: str) -> None:
    from techtree.engines.examining import Drawing, write
    from techtree.lm.eval.pass_rate import Rate, all_passing, pass_at_k

    if not _can_run():
        raise InputError("functions can be judged only by running them")
    chats = engine.can_chat if config.chat == "auto" else config.chat == "yes"
    temperature = 0.0 if config.samples == 1 else config.temperature
    programs = []
    for i, exercise in enumerate(exercises):
        for j in range(config.samples):
            how = Drawing(temperature, seed=config.seed * 1_000_003 + j)
            programs.append((write(engine, exercise, how, chats=chats), exercise.check))
        _show_progress(i + 1, len(exercises), "functions")
    right = all_passing(programs)
    known = all_passing([(each.prompt + each.solution, each.check) for each in exercises])
    counts = [sum(right[i : i + config.samples]) for i in range(0, len(right), config.samples)]
    print(
        f"{what}: {len(exercises)} functions, {'asked for in a chat' if chats else 'gone on with'}, each "
        f"{config.samples} times at temperature {temperature}; per cent, with the standard error over them"
    )
    ks = [k for k in (1, 10, 100) if k <= config.samples]
    rows = [["", *(f"pass@{k}" for k in ks)]]
    rows.append([engine.name, *(str(Rate.of([pass_at_k(config.samples, c, k) for c in counts])) for k in ks)])
    rows.append(["the file's own solutions", *[str(Rate.of(known))] * len(ks)])
    _print_table(rows)


def _can_run() -> bool:
    from techtree.sandbox import why_not_confined

    if problem := why_not_confined():
        print(f"techtree: tests are not run: that needs {problem}", file=sys.stderr)
    return not problem


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())


def _check(config: Config) -> None:
    if not config.what:
        raise InputError("an evaluation needs at least one file or folder; got none: techtree eval CORPUS")
    for name in ("max_bytes", "holes", "n", "seed", "temperature"):
        if getattr(config, name) < 0:
            option = name.replace("_", "-")
            raise InputError(f"--{option} must not be negative; got {getattr(config, name)}")
    if config.seq_len is not None and config.seq_len < 1:
        raise InputError(f"--seq-len must be at least 1; got {config.seq_len}")
    if config.samples < 1:
        raise InputError(f"--samples must be at least 1; got {config.samples}")
    n_problems = sum(path.name.endswith(PROBLEMS) for path in config.what)
    if 0 < n_problems < len(config.what) or (n_problems and config.holes):
        raise InputError("problems are measured by themselves: name files of them, or a corpus with --holes")
    if config.server is not None:
        if config.model is not None or config.memory != "none":
            raise InputError("a server has a model of its own: leave out --model and --memory")
        if not n_problems and not config.holes:
            raise InputError("a server does not tell the bits of a text: add --holes, or name problems")
    if config.memory == "project" and (n_problems or (config.holes and len(config.what) != 1)):
        raise InputError("--memory project needs one folder, the project")


def _documents(paths: tuple[Path, ...]) -> "list[Document]":
    from techtree.lm.data.corpus import collect
    from techtree.lm.pipeline.corpus_file import read_documents
    from techtree.lm.pipeline.data_folder import HELD_OUT

    prepared = [path for path in paths if (path / HELD_OUT).is_file()]
    others = [path for path in paths if path not in prepared]
    documents = [document for path in prepared for document in read_documents(path / HELD_OUT)]
    if others:
        collection = collect(others, is_exact=True)  # of every byte, as the figure is per byte
        documents += collection.documents
        if collection.skipped:
            reasons = ", ".join(f"{n} {reason}" for reason, n in collection.skipped_by_reason().items())
            print(f"techtree: left out {len(collection.skipped)} files ({reasons})", file=sys.stderr)
    return documents


def _show_progress(n_done: int, n_all: int, what: str) -> None:
    if not is_plain(sys.stderr):
        end = "\r" if n_done < n_all else "\r\033[K"
        print(f"{n_done} of {n_all} {what}", end=end, file=drawing(sys.stderr), flush=True)
