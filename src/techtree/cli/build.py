"""`techtree build`: from source code to a model that serves an editor, under one dial: time."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from techtree.cli.filling import filling


@dataclass(frozen=True)
class Config:
    """Train a code model on this machine, measure it, and say how to serve it.

    Ctrl-C saves, and the same command goes on from there; so it does after a crash.
    """

    minutes: float = 5.0
    """The time for all of it; it decides how large the model is and how long it trains."""

    corpus: tuple[Path, ...] = field(default=())
    """Files and folders with Python code to learn from; the standard library when left out."""

    out: Path | None = None
    """The run's folder; runs/5min for five minutes when left out."""

    steps: int | None = None
    """Take exactly this many steps instead of measuring the machine: the result is then repeatable."""

    depth: int | None = None
    """The number of layers, which sets the widths too, instead of what fits the time."""

    seed: int = 0
    """Of the first weights and of the order of the data."""

    init: Path | None = None
    """The folder of a model to go on with, on your own code, instead of a new one."""


def run(config: Config) -> int:
    """Build, with a display that fits where the output goes."""
    from techtree.engines.model_folder import find_model_folder
    from techtree.lm.data.corpus import standard_library
    from techtree.lm.pipeline.config import REPORT, BuildConfig

    folder = config.out or Path("runs") / f"{config.minutes:g}min"
    build_config = BuildConfig(
        corpus=config.corpus or (standard_library(),),
        minutes=config.minutes,
        folder=folder,
        n_steps=config.steps,
        depth=config.depth,
        seed=config.seed,
        init=config.init and find_model_folder(config.init),
    )
    with filling(folder):
        if (folder / REPORT).exists():
            print(f"{folder} holds a finished run: read {folder / 'report.md'}, or choose another --out")
            return 0
        from techtree.cli.build_display import open_display
        from techtree.lm.pipeline.pipeline import build

        with open_display(sys.stdout) as display:
            report = build(build_config, display)
    best = min(report["ngram_bits_per_byte"].values())
    print(
        f"\n{report['bits_per_byte']:.3f} bits per byte on held-out files; the best n-gram needs {best:.3f}"
    )
    if before := report["bits_per_byte_before"]:
        print(f"{before:.3f} bits per byte before, by the model that it began with")
    print(f"report    {folder / 'report.md'}")
    print(f"complete  techtree complete FILE:LINE:COL --model {report['model_folder']}")
    print(f"serve     techtree serve --model {report['model_folder']}")
    print(f"llama.cpp {report['gguf']}")
    return 0
