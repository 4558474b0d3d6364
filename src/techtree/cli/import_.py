"""`techtree import`: a model's folder from elsewhere."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from techtree.errors import InputError

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Config:
    """Check a model folder in Hugging Face's format, and put a copy where the other commands find it.

    Configuration, tokenizer and safetensors are copied, and nothing else that lies beside them.
    """

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """The folder, with config.json, tokenizer.json and model.safetensors, or several and their index."""

    out: Path | None = None
    """The folder to make; runs/NAME/model when left out."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Store the weights in this precision; as they are when left out."""


def run(config: Config) -> int:
    """Check, copy, and say how to go on."""
    if config.path.suffix == ".gguf":
        raise InputError(
            f"{config.path} is GGUF, which is written here and not read: give the model's folder"
        )
    folder = config.out or Path("runs") / name_of(config.path) / "model"
    from techtree.cli.next_steps import next_steps
    from techtree.lm.formats.huggingface import load_pretrained
    from techtree.lm.formats.huggingface.copying import DTYPES, check_free, copy_model, describe

    check_free(folder)
    model, _ = load_pretrained(config.path, dtype=None)
    print(f"found     {config.path}: {describe(config.path, model)}", flush=True)
    copy_model(config.path, folder, None if config.dtype is None else DTYPES[config.dtype])
    print(f"imported  {folder}")
    print(next_steps(folder))
    return 0


def name_of(path: Path) -> str:
    """Return what to call the model in a folder.

    >>> name_of(Path("/somewhere/SmolLM2-135M"))
    'SmolLM2-135M'
    >>> name_of(Path("/other/runs/mine/model"))
    'mine'
    >>> name_of(Path("/hub/models--gpt2/snapshots/607a30d783dfa663caf39e06633721c8d4cfcd7e"))
    'gpt2'
    """
    path = Path(os.path.realpath(path))
    if _COMMIT.fullmatch(path.name) and path.parent.name == "snapshots":
        return path.parents[1].name.rpartition("--")[2]
    return path.parent.name if path.name == "model" else path.name
