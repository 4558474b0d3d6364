"""`techtree export`: a model for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from techtree.errors import InputError


@dataclass(frozen=True)
class Config:
    """Write a model for other programs.

    hf: a folder that transformers, vLLM and the like load as it is. gguf: one file for llama.cpp and the
    programs around it. What the other program cannot compute is refused.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The model's folder, such as runs/NAME/model."""

    to: Literal["hf", "gguf"]
    """The format."""

    out: Path
    """The folder (hf) or the file (gguf) to make."""

    dtype: Literal["float32", "bfloat16", "float16", "q8_0", "q4_0"] | None = None
    """Store the weights in this precision; as they are when left out. q8_0 and q4_0 (gguf only) are
    blocks of 32 weights in 8 or 4 bits: a quarter and an eighth of float32."""


def run(config: Config) -> int:
    """Write it, and say how large it is."""
    from techtree.engines.model_folder import find_model_folder
    from techtree.lm.formats.huggingface.copying import DTYPES, copy_model
    from techtree.lm.formats.huggingface.families import family_of
    from techtree.lm.formats.huggingface.folder import read_folder_config

    folder = find_model_folder(config.model)
    blocks = config.dtype if config.dtype in ("q8_0", "q4_0") else None
    dtype = None if config.dtype is None or blocks else DTYPES[config.dtype]
    if config.to == "hf":
        if blocks:
            raise InputError(f"--dtype {blocks} is a kind of GGUF file: use --to gguf")
        family_of(read_folder_config(folder)[1])  # or it is refused
        copy_model(folder, config.out, dtype)
        files = list(config.out.iterdir())
    else:
        if config.out.exists():
            raise InputError(f"{config.out} is there already: choose another --out, or move it away")
        from techtree.lm.formats.gguf import save_gguf
        from techtree.lm.formats.huggingface import load_pretrained

        model, tokenizer = load_pretrained(folder, dtype=None)
        save_gguf(config.out, model, tokenizer, blocks or dtype or model.dtype)
        files = [config.out]
    n_bytes = sum(file.stat().st_size for file in files)
    print(f"exported  {config.out}: {n_bytes / 1e6:,.1f} MB")
    return 0
