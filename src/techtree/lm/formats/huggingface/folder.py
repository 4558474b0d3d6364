"""The files of a model's folder."""

import re
from pathlib import Path
from typing import Any

from techtree import reading
from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.huggingface.families import read_config
from techtree.lm.formats.huggingface.family import Family
from techtree.lm.tokenizer import MAX_TOKENIZER_BYTES
from techtree.lm.tokenizer_settings import MAX_CONFIG_BYTES
from techtree.reading import check_regular

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
"""What this program and transformers read of a tokenizer; the first holds all of it."""
OTHER_FILES = (GENERATION, "LICENSE", "LICENSE.txt", "LICENSE.md")

_MAX_BYTES = {INDEX: 50_000_000, "tokenizer.json": MAX_TOKENIZER_BYTES}
_MAX_BYTES |= dict.fromkeys(TOKENIZER[1:], MAX_CONFIG_BYTES)
_MAX_BYTES_OF_OTHERS = 10_000_000
"""Of every file but the weights. The index of the largest models has 10 MB, a configuration some kB."""

_MAX_REASON_CHARS = 800
_ADVICE = "give a complete model folder"
_SHARD = re.compile(r"[\w .-]+\.safetensors", re.ASCII)
"""The name of a file of the folder itself."""
OF_A_SPLIT = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def read_folder_config(folder: Path) -> tuple[Family, ModelConfig]:
    """Return the family and the shape of the model in a folder.

    Raises
    ------
    InputError
        When the file is missing or damaged, or the model is of another kind.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder of a model, with its {CONFIG}")
    values = read_object(folder / CONFIG)
    try:
        return read_config(values)
    except InputError as error:
        reason = str(error)
        if len(reason) > _MAX_REASON_CHARS:  # it quotes what is no setting of any model
            reason = f"{reason[: _MAX_REASON_CHARS // 2]} ... {reason[-_MAX_REASON_CHARS // 2 :]}"
        raise InputError(f"{folder / CONFIG}: {reason}") from error


def weight_paths(folder: Path) -> list[Path]:
    """Return the files that hold a model's weights: one, or those that an index lists.

    Raises
    ------
    InputError
        When there are none, or the index lists others than files of this folder.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        names = read_object(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not all(
            isinstance(name, str) and _SHARD.fullmatch(name) for name in names.values()
        ):
            raise InputError(f"the weight_map of {folder / INDEX} must name files of its own folder")
        return [folder / name for name in sorted(set(names.values()))]
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        raise InputError(
            f"{folder} has no {WEIGHTS}; {pickles[0]} is a pickle, which can run any program when it is "
            "opened, and so is never opened here: ask for the model as safetensors"
        )
    raise InputError(f"{folder / WEIGHTS} is missing: give a complete model folder")


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a model's weights, and their index behind them if they have one."""
    paths = weight_paths(folder)
    return paths if paths == [folder / WEIGHTS] else [*paths, folder / INDEX]


def stale_weights(folder: Path, current: set[str]) -> list[Path]:
    """Return weight files of an earlier save, which a reader could take for the model."""
    found = [folder / WEIGHTS, folder / INDEX]
    found += [path for path in folder.glob("model-*.safetensors") if OF_A_SPLIT.fullmatch(path.name)]
    return [path for path in found if path.name not in current and path.exists()]


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model's folder.

    Raises
    ------
    InputError
        When there is none.
    """
    return reading.read_object(path, _max_bytes(path), _ADVICE)


def check_file(path: Path) -> None:
    """Check that a file of a model's folder, if it is no weights, is regular and not too large to be one.

    Raises
    ------
    InputError
        When it is not.
    """
    check_regular(path, _max_bytes(path), _ADVICE)


def _max_bytes(path: Path) -> int:
    return _MAX_BYTES.get(path.name, _MAX_BYTES_OF_OTHERS)
