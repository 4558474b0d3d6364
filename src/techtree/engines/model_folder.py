"""Where the model is, when nobody says so: in the newest finished run; and what to call it."""

import os
from collections.abc import Sequence
from pathlib import Path

from techtree.errors import InputError
from techtree.streams import escaped

MODEL_FILES = ("config.json", "tokenizer.json")
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
"""A model's folder holds the former and one of the latter, which is written when all else is there."""


def find_model(given: Path | None) -> Path:
    """Return the GGUF file that the user named, or the folder of the model to use.

    Raises
    ------
    InputError
        As `find_model_folder`.
    """
    if given is not None and given.suffix == ".gguf" and not given.is_dir():
        if not given.is_file():
            raise InputError(f"there is no file {given}: name a GGUF file, or a model's folder")
        return given
    return find_model_folder(given)


def find_model_folder(given: Path | None, places: Sequence[Path] | None = None) -> Path:
    """Return the folder of the model to use.

    Parameters
    ----------
    given
        The folder that the user named; then it is that one.
    places
        Folders in which to look for ``runs/*/model`` otherwise: by default the current one, then the
        clone that this program runs from.

    Raises
    ------
    InputError
        When there is no model.
    """
    if given is not None:
        if given.suffix == ".gguf" and given.is_file():
            raise InputError(
                f"this needs a model's folder, and {given} is a file: make one of it with techtree import "
                f"{given}"
            )
        missing = [name for name in MODEL_FILES if not (given / name).is_file()]
        missing += [] if weights_file(given) else [WEIGHT_FILES[0]]
        if missing:
            raise InputError(
                f"a model's folder must hold {', '.join((*MODEL_FILES, WEIGHT_FILES[0]))}; {given} has no "
                f"{missing[0]}: give a run's, runs/NAME/model"
            )
        return given
    places = [Path.cwd(), Path(__file__).parents[3]] if places is None else places
    found = [
        folder
        for place in places
        for folder in place.glob("runs/*/model")
        if weights_file(folder) and all((folder / name).is_file() for name in MODEL_FILES)
    ]
    if not found:
        looked = " or ".join(dict.fromkeys(str(place / "runs") for place in places))
        raise InputError(
            f"there must be a model; none was found in {looked}: run ./techtree build first, "
            "or name a model's folder with --model"
        )
    return max(found, key=lambda folder: (weights_file(folder) or folder).stat().st_mtime)


def weights_file(folder: Path) -> Path | None:
    """Return the file of a model's weights, or the list of several; None when there is neither."""
    found = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    return found[0] if found else None


def model_name(folder: Path) -> str:
    """Return the name of a model: of the run, for ``runs/NAME/model``, or of the file.

    >>> model_name(Path("runs/first/model"))
    'first'
    >>> model_name(Path("models/small"))
    'small'
    >>> model_name(Path("models/small-q4_0.gguf"))
    'small-q4_0'
    """
    folder = Path(os.path.realpath(folder))
    name = folder.parent.name if folder.name == "model" else folder.name.removesuffix(".gguf")
    return escaped(name, keep_lines=False)
