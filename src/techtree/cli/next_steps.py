"""What one does with a model that has just arrived."""

from pathlib import Path


def next_steps(folder: Path) -> str:
    """Return the commands that take a model's folder."""
    return "\n".join(
        [
            f"complete  techtree complete FILE:LINE:COL --model {folder}",
            f"serve     techtree serve --model {folder}",
        ]
    )
