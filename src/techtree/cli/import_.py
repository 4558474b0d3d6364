"""`techtree import`: a model's folder from elsewhere."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    import torch

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Config:
    """Check a model from elsewhere, and put a copy where the other commands find it.

    It is a folder in Hugging Face's format, of which configuration, tokenizer and safetensors are copied and
    nothing else that lies beside them, or a GGUF file, whose weights become floats.
    """

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """The folder, with config.json, tokenizer.json and model.safetensors, or several and their index; or the
    file NAME.gguf."""

    out: Path | None = None
    """The folder to make; runs/NAME/model when left out."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Store the weights in this precision; as they are when left out, and float32 for what is quantized."""


def run(config: Config) -> int:
    """Check, copy, and say how to go on."""
    folder = config.out or Path("runs") / name_of(config.path) / "model"
    from techtree.cli.next_steps import next_steps
    from techtree.lm.formats.huggingface.copying import DTYPES, check_free

    check_free(folder)
    dtype = None if config.dtype is None else DTYPES[config.dtype]
    copy = _from_file if config.path.suffix == ".gguf" else _from_folder
    copy(config.path, folder, dtype)
    print(f"imported  {folder}")
    print(next_steps(folder))
    return 0


def _from_folder(path: Path, folder: Path, dtype: "torch.dtype | None") -> None:
    from techtree.lm.formats.huggingface import load_pretrained
    from techtree.lm.formats.huggingface.copying import copy_model, describe

    model, _ = load_pretrained(path, dtype=None)
    print(f"found     {path}: {describe(path, model)}", flush=True)
    copy_model(path, folder, dtype)


def _from_file(path: Path, folder: Path, dtype: "torch.dtype | None") -> None:
    from techtree.lm.formats.gguf import load_gguf
    from techtree.lm.formats.huggingface import save_pretrained
    from techtree.lm.formats.huggingface.copying import describe_size, new_folder

    model, tokenizer = load_gguf(path, dtype)
    print(f"found     {path}: {describe_size(model)}", flush=True)
    stored = next(model.parameters()).dtype
    with new_folder(folder) as part:
        save_pretrained(part, model, tokenizer, stored, for_others=False)


def name_of(path: Path) -> str:
    """Return what to call the model in a folder.

    >>> name_of(Path("/somewhere/SmolLM2-135M"))
    'SmolLM2-135M'
    >>> name_of(Path("/other/runs/mine/model"))
    'mine'
    >>> name_of(Path("/hub/models--gpt2/snapshots/607a30d783dfa663caf39e06633721c8d4cfcd7e"))
    'gpt2'
    >>> name_of(Path("downloads/qwen2.5-coder-0.5b-q4_k_m.gguf"))
    'qwen2.5-coder-0.5b-q4_k_m'
    """
    path = Path(os.path.realpath(path))
    if path.suffix == ".gguf":
        return path.stem
    if _COMMIT.fullmatch(path.name) and path.parent.name == "snapshots":
        return path.parents[1].name.rpartition("--")[2]
    return path.parent.name if path.name == "model" else path.name
