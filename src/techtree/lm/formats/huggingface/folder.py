"""The files of a model's folder."""

import json
import re
from pathlib import Path
from typing import Any

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.huggingface.families import read_config
from techtree.lm.formats.huggingface.family import Family

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

_MAX_JSON_BYTES = 100_000_000
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
    values = read_json(folder / CONFIG)
    try:
        return read_config(values)
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from error


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
        names = read_json(folder / INDEX).get("weight_map")
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


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    InputError
        When there is none.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise InputError(f"{path} must be at most {_MAX_JSON_BYTES:,} bytes long: copy it again")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: give a complete model folder") from error
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read ({error}): copy it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a JSON object; got {type(values).__name__}")
    return values
