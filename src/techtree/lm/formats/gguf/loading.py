"""Reading a model and its tokenizer from one GGUF file, quantized or not."""

import dataclasses
from pathlib import Path

import torch

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.gguf.architecture import ROPE_FACTORS, config_of, rope_scaling_of
from techtree.lm.formats.gguf.layout import FLOAT32, Weights, read_parameters
from techtree.lm.formats.gguf.vocabulary import tokenizer_of
from techtree.lm.formats.gguf_reading import GgufFile
from techtree.lm.formats.huggingface.layouts import meta_model
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.tokenizer import Tokenizer


def load_gguf(path: Path, dtype: torch.dtype | None = None) -> tuple[LanguageModel, Tokenizer]:
    """Read a model and its tokenizer from a GGUF file.

    Parameters
    ----------
    path
        The file. Its tensors may be of any kind that the `gguf` package turns into floats.
    dtype
        The precision that the weights get; None for that of the file's matrices, or float32 where they are
        quantized or differ.

    Raises
    ------
    InputError
        When it is missing or damaged, or the model or its tokenizer is of another kind.
    """
    file = GgufFile(path)
    architecture, config, tokenizer = _described(file)
    dtype = dtype or _dtype_of_matrices(file)
    model = meta_model(config)
    model.load_state_dict(read_parameters(architecture, model, file, dtype), assign=True)
    return model.eval(), tokenizer


def open_gguf(path: Path) -> tuple[ModelConfig, Weights, Tokenizer]:
    """Read a model's shape and tokenizer from a GGUF file, whose weights are then read as they are wanted.

    Raises
    ------
    InputError
        As `load_gguf`, but for weights that are not finite.
    """
    file = GgufFile(path)
    architecture, config, tokenizer = _described(file)
    return config, Weights(architecture, meta_model(config), file), tokenizer


def _described(file: GgufFile) -> tuple[str, ModelConfig, Tokenizer]:
    """Return a file's architecture, the shape of its model, and its tokenizer."""
    try:
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
        architecture, config = config_of(file.metadata, shapes)
        if ROPE_FACTORS in file.tensors:
            scaling = rope_scaling_of(file.floats(ROPE_FACTORS, torch.float32), config)
            config = dataclasses.replace(config, rope_scaling=scaling)
        tokenizer = tokenizer_of(file.metadata)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from error
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"the model in {file.path} has a vocabulary of {config.vocab_size}, and its tokenizer has ids up "
            f"to {tokenizer.vocab_size - 1}: they do not belong together"
        )
    return architecture, config, tokenizer


def _dtype_of_matrices(file: GgufFile) -> torch.dtype:
    """Return what the file is named after: vectors are float32 in every file."""
    kinds = {
        tensor.dtype
        for name, tensor in file.tensors.items()
        if len(tensor.shape) > 1 and not name.endswith(FLOAT32)
    }
    return (kinds.pop() if len(kinds) == 1 else None) or torch.float32
