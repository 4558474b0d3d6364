"""The report of a build: figures for programs, a page and a plot for people."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from techtree import atomic
from techtree.lm.pipeline.config import REPORT
from techtree.lm.train.loss_plot import loss_plot


def write_report(folder: Path, report: dict[str, Any], losses: Sequence[float]) -> None:
    """Write ``loss.svg``, ``report.md`` and, last, ``report.json``: where that lies, the run is finished."""
    atomic.write_bytes(folder / "loss.svg", loss_plot(losses, report["bits_per_token"]))
    atomic.write_text(folder / "report.md", page(report))
    atomic.write_text(folder / REPORT, json.dumps(report, indent=1) + "\n")


def page(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    ngram = report["ngram_bits_per_byte"]
    best = min(ngram, key=ngram.get)
    gain = 1 - report["bits_per_byte"] / ngram[best]
    model, before = report["model"], report["bits_per_byte_before"]
    parts = [
        f"# {report['name']}\n",
        f"On held-out files the model needs **{report['bits_per_byte']:.3f} bits per byte**, "
        f"{abs(gain):.1%} {'less' if gain >= 0 else 'more'} than the best n-gram model "
        f"(order {best}: {ngram[best]:.3f}).\n",
        _table(
            ("model", "bits per byte"),
            [
                *((f"{order}-gram", f"{score:.3f}") for order, score in ngram.items()),
                *([("the model that it began with", f"{before:.3f}")] if before else []),
                ("this model", f"**{report['bits_per_byte']:.3f}**"),
            ],
        ),
        "All were trained on the same files"
        f"{', the last two on others before' if before else ''}, and measured on the same "
        f"{report['held_out']['n_bytes']:,} bytes of {report['held_out']['n_documents']} other files; near-"
        "duplicates were removed before the split.\n",
        "![Loss in training](loss.svg)\n",
        _table(
            ("what", "figure"),
            [
                (
                    "shape",
                    f"{model['n_layers']} layers of width {model['d_model']}, {model['n_heads']} heads",
                ),
                ("parameters", f"{report['n_parameters']:,}"),
                ("tokens read", f"{report['tokens']:,} of {report['corpus']['n_bytes']:,} bytes of source"),
                ("steps", f"{report['steps']:,}"),
                ("training speed", f"{report['tokens_per_s']:,.0f} tokens/s"),
                ("time in all", f"{report['seconds']:.0f} s"),
            ],
        ),
        _table(
            ("stage", "seconds"), [(name, f"{took:.1f}") for name, took in report["stage_seconds"].items()]
        ),
        "## Samples\n\nHeld-out files, cut after the first word of a line. The model sees what stands before "
        "and after the line.\n",
        *(_sample(sample) for sample in report["samples"]),
        "## Next\n",
        f"```\ntechtree complete FILE:LINE:COL --model {report['model_folder']}\n"
        f"techtree serve --model {report['model_folder']}\n"
        f"llama-server -m {report['gguf']}\n```\n",
    ]
    return "\n".join(parts)


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "| --- | ---: |", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def _sample(sample: dict[str, str]) -> str:
    # A fence longer than any in the code: the text is data, also for the page.
    fence = "```"
    while any(fence in text for text in sample.values()):
        fence += "`"
    return (
        f"`{sample['path']}`, line {sample['line']}:\n\n"
        f"{fence}python\n{sample['before']}\n{fence}\n\n"
        f"{fence}\nmodel:  {sample['completion']}\nfile:   {sample['actual']}\n{fence}\n"
    )
