"""Writing a model's folder, tensor by tensor from where the model holds them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from techtree.atomic import write_text
from techtree.errors import InputError
from techtree.lm.formats.finite import check_finite
from techtree.lm.formats.huggingface.families import one_or_all, write_config
from techtree.lm.formats.huggingface.family import Family
from techtree.lm.formats.huggingface.folder import CONFIG, GENERATION, INDEX, WEIGHTS, stale_weights
from techtree.lm.formats.huggingface.stored import StoredTensors
from techtree.lm.formats.safetensors_file import write_safetensors
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.tokenizer import Tokenizer

MAX_SHARD_BYTES = 5_000_000_000
"""Of one weight file: what fails to copy is copied again, and some disks take no larger ones."""


_WIDER = "choose a wider dtype, or check the training"


def save_pretrained(
    folder: Path,
    model: LanguageModel,
    tokenizer: Tokenizer,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    *,
    for_others: bool = True,
) -> None:
    """Write a model and its tokenizer to a folder.

    Parameters
    ----------
    folder
        Made where it is missing; files in it of the same names are replaced.
    model
        The model.
    tokenizer
        The tokenizer whose ids the model speaks.
    dtype
        The precision of the stored weights: float32, bfloat16 or float16.
    max_shard_bytes
        The size up to which a weight file holds more than one tensor; what is more goes to further files.
    for_others
        Whether a model that no family of transformers can carry is refused; otherwise its folder is one that
        only this program reads.

    Raises
    ------
    InputError
        When no family of transformers can carry the model, a weight does not fit the precision, or the folder
        cannot be written.
    """
    folder = Path(folder)
    end_of_text = tokenizer.end_of_text_id
    family, config = write_config(
        model.config,
        end_of_text,
        str(dtype).removeprefix("torch."),
        for_others=for_others,
        end_ids=tokenizer.end_ids,
    )
    check_finite(model.state_dict(), dtype, _WIDER)
    generation = {
        "bos_token_id": end_of_text,
        "eos_token_id": one_or_all(tokenizer.end_ids),
        "pad_token_id": end_of_text,
    }
    try:
        tokenizer.save(folder)
        write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
        write_text(folder / GENERATION, json.dumps(generation, indent=2) + "\n")
        write_weights(folder, model, family, dtype, max_shard_bytes)
    except OSError as error:
        raise InputError(
            f"the model could not be written to {folder} ({error.strerror or error}): "
            "make room or choose another folder"
        ) from error


def write_weights(
    folder: Path, model: LanguageModel, family: Family, dtype: torch.dtype, max_shard_bytes: int
) -> None:
    """Write the weight files of a model, and delete those of an earlier one.

    Raises
    ------
    InputError
        When a weight does not fit the precision.
    OSError
        When the folder cannot be written.
    """
    parameters = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    check_finite(parameters, dtype, _WIDER)
    layout = family.layout(model.config, parameters.keys(), ())
    sizes = {name: math.prod(tensor.shape(parameters)) * dtype.itemsize for name, tensor in layout.items()}
    shards = split(sizes, max_shard_bytes)
    n = len(shards)
    names = [WEIGHTS] if n == 1 else [f"model-{i:05}-of-{n:05}.safetensors" for i in range(1, n + 1)]
    for name, shard in zip(names, shards, strict=True):
        part = StoredTensors({tensor: layout[tensor] for tensor in shard}, parameters)
        write_safetensors(folder / name, part, {"format": "pt"}, dtype)
    current = set(names)
    if n > 1:
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index: dict[str, Any] = {"metadata": {"total_size": sum(sizes.values())}}
        index |= {"weight_map": dict(sorted(weight_map.items()))}
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")
        current.add(INDEX)
    for path in stale_weights(folder, current):
        path.unlink()


def split(sizes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    """Return which tensors, of sizes in bytes, go into which file: in their order, as many as fit."""
    shards: list[list[str]] = [[]]
    n_bytes = 0
    for name, size in sizes.items():
        if shards[-1] and n_bytes + size > max_bytes:
            shards.append([])
            n_bytes = 0
        shards[-1].append(name)
        n_bytes += size
    return shards
