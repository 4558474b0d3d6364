"""Writing a model and its tokenizer as one GGUF file."""

from pathlib import Path

import torch

from techtree.errors import InputError
from techtree.lm.formats.gguf.architecture import architecture_of, shape_metadata
from techtree.lm.formats.gguf.layout import tensor_sources
from techtree.lm.formats.gguf.vocabulary import vocabulary_metadata
from techtree.lm.formats.gguf_file import TensorType, Value, write_gguf
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.tokenizer import Tokenizer

_FILE_TYPES: dict[TensorType, int] = {
    torch.float32: 0,
    torch.float16: 1,
    "q4_0": 2,
    "q8_0": 7,
    torch.bfloat16: 32,
}
"""How `general.file_type` calls a file whose matrices have this type."""


def save_gguf(
    path: Path, model: LanguageModel, tokenizer: Tokenizer, dtype: TensorType = torch.float32
) -> None:
    """Write a model and its tokenizer to a file that llama.cpp loads.

    Greedy decoding of the same tokens gives the same text there and here, but for the precision of the
    products: with float16 or bfloat16 matrices, llama.cpp rounds the activations to that type as well.

    Parameters
    ----------
    path
        The file, `.gguf` by custom; an older one is replaced.
    model
        The model.
    tokenizer
        The tokenizer whose ids the model speaks.
    dtype
        The type of the stored matrices: float32, float16 or bfloat16, or "q8_0" or "q4_0" for blocks of 32
        numbers in 8 or 4 bits, byte by byte as llama.cpp's own quantizer rounds them.

    Raises
    ------
    InputError
        When llama.cpp cannot carry the model or the tokenizer, a weight does not fit the type, or the file
        cannot be written. An older file is then intact.
    """
    path = Path(path)
    if dtype not in _FILE_TYPES:
        raise InputError(f"dtype must be one of {', '.join(map(str, _FILE_TYPES))}; got {dtype}")
    architecture = architecture_of(model.config)
    # No general.name: where it contains "phi3" or the like, llama.cpp treats special tokens otherwise.
    metadata: dict[str, Value] = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.file_type": _FILE_TYPES[dtype],
        "general.quantization_version": 2,
        **shape_metadata(architecture, model.config),
        **vocabulary_metadata(tokenizer, model.config.vocab_size),
    }
    try:
        write_gguf(path, metadata, tensor_sources(architecture, model, dtype))
    except OSError as error:
        raise InputError(
            f"the model could not be written to {path} ({error.strerror or error}): "
            "make room or choose another folder"
        ) from error
