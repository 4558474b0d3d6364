"""A model's folder in another place, in another precision if wanted."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from techtree.atomic import write_text
from techtree.errors import InputError
from techtree.lm.formats.huggingface.folder import (
    CONFIG,
    OTHER_FILES,
    TOKENIZER,
    check_file,
    read_folder_config,
    read_object,
    weight_files,
)
from techtree.lm.formats.huggingface.loading import load_model
from techtree.lm.formats.huggingface.saving import MAX_SHARD_BYTES, write_weights
from techtree.lm.model.language_model import LanguageModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""In which precisions a model is stored."""


def copy_model(source: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Copy the files of a model, and nothing else that lies beside them.

    The target is there as a whole or not at all, whenever this stops.

    Parameters
    ----------
    source
        A model's folder.
    target
        The new folder; it must not exist, or be empty.
    dtype
        The precision of the copy's weights; None for that of the source, whose files stay as they are.

    Raises
    ------
    InputError
        When the source is no model that this program reads, or the target is there or cannot be written.
    """
    check_free(target)
    model = load_model(source, dtype=None)
    with new_folder(target) as part:
        _fill(part, source, model, dtype)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill; what is in it is `target` afterwards, as a whole or not at all.

    Raises
    ------
    InputError
        When there is something already, or the folder cannot be written.
    """
    check_free(target)
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # of a call that was killed
        part.mkdir(parents=True)
        yield part
        if target.exists():
            target.rmdir()
        os.replace(part, target)
    except OSError as error:
        raise InputError(
            f"{target} could not be written ({error.strerror or error}): make room or choose another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_free(target: Path) -> None:
    """Check that a folder can be made without overwriting anything.

    Raises
    ------
    InputError
        When it holds something.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target} is there already: choose another --out, or move it away")


def describe(folder: Path, model: LanguageModel) -> str:
    """Return a model's family, size and precision, such as "qwen2, 494,032,768 parameters, bfloat16"."""
    return f"{read_object(folder / CONFIG)['model_type']}, {describe_size(model)}"


def describe_size(model: LanguageModel) -> str:
    """Return a model's size and precision, such as "494,032,768 parameters, bfloat16"."""
    dtypes = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}
    size = f"{model.config.n_parameters:,} parameters"
    if model.config.experts is not None:
        size += f" ({model.config.n_active_parameters:,} of them active for a token)"
    return f"{size}, {' and '.join(sorted(dtypes))}"


def _fill(part: Path, source: Path, model: LanguageModel, dtype: torch.dtype | None) -> None:
    for name in (*TOKENIZER, *OTHER_FILES):
        if (source / name).exists():
            check_file(source / name)
            shutil.copyfile(source / name, part / name)
    if dtype is None or all(parameter.dtype == dtype for parameter in model.parameters()):
        for path in (source / CONFIG, *weight_files(source)):
            shutil.copyfile(path, part / path.name)
        return
    stored = str(dtype).removeprefix("torch.")
    values = read_object(source / CONFIG) | {"dtype": stored, "torch_dtype": stored}
    write_text(part / CONFIG, json.dumps(values, indent=2) + "\n")
    write_weights(part, model, read_folder_config(source)[0], dtype, MAX_SHARD_BYTES)
