"""Where the model is, when nobody says so: in the newest finished run."""

from collections.abc import Sequence
from pathlib import Path

from techtree.errors import InputError

MODEL_FILES = ("config.json", "tokenizer.json", "model.safetensors")
"""What a model's folder holds; a run writes the last one when it is finished."""


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
        missing = [name for name in MODEL_FILES if not (given / name).is_file()]
        if missing:
            raise InputError(
                f"--model must name a folder with {', '.join(MODEL_FILES)}; {given} has no {missing[0]}: "
                "give a run's folder, runs/NAME/model"
            )
        return given
    places = [Path.cwd(), Path(__file__).parents[3]] if places is None else places
    found = [
        folder
        for place in places
        for folder in place.glob("runs/*/model")
        if all((folder / name).is_file() for name in MODEL_FILES)
    ]
    if not found:
        looked = " or ".join(dict.fromkeys(str(place / "runs") for place in places))
        raise InputError(
            f"there must be a model; none was found in {looked}: run ./techtree build first, "
            "or name a model's folder with --model"
        )
    return max(found, key=lambda folder: (folder / MODEL_FILES[-1]).stat().st_mtime)
