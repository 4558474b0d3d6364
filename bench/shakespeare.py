"""The characters of Shakespeare, as nanoGPT's `shakespeare_char` has them.

The text is `tinyshakespeare.txt` in the folder that the environment variable TECHTREE_DATA names (default:
../shared/data beside the clone). Its first nine tenths are to train on; a character's id is its place among
all characters, sorted.

B rows, T tokens, N characters of a part.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from techtree.errors import InputError

SOURCE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
WINDOW = 64
"""nanoGPT's block_size on a CPU."""


@dataclass(frozen=True)
class Characters:
    """A text as the numbers of its characters."""

    alphabet: str
    train: Int[Tensor, " N"]
    held_out: Int[Tensor, " N"]


def default_path() -> Path:
    """Return where the text should be."""
    folder = os.environ.get("TECHTREE_DATA") or Path(__file__).parents[2] / "shared" / "data"
    return Path(folder) / "tinyshakespeare.txt"


def read(path: Path) -> Characters:
    """Read and split a text.

    Raises
    ------
    InputError
        When it is not there, or too short to hold anything out.
    """
    if not path.is_file():
        raise InputError(
            f"the text must be a file; {path} is none: download {SOURCE} there, or name the folder of a "
            "tinyshakespeare.txt in TECHTREE_DATA"
        )
    return split(path.read_text(encoding="utf-8"))


def split(text: str) -> Characters:
    """Give characters their numbers, and hold the last tenth out."""
    alphabet = "".join(sorted(set(text)))
    number = {character: i for i, character in enumerate(alphabet)}
    ids = torch.tensor([number[character] for character in text])
    n_train = int(0.9 * len(ids))
    if len(ids) - n_train <= WINDOW:
        raise InputError(f"a tenth of the text must be more than {WINDOW} characters; got {len(ids)} in all")
    return Characters(alphabet, ids[:n_train], ids[n_train:])


class ShuffledWindows:
    """The training text in windows, each once an epoch, in random order and from a random first character.

    Parameters
    ----------
    ids
        The text.
    n_steps, n_rows
        How many batches there will be, and how many windows are in each.
    seed
        Of the order.
    """

    def __init__(self, ids: Int[Tensor, " N"], n_steps: int, n_rows: int, seed: int) -> None:
        self.ids = ids
        generator = torch.Generator().manual_seed(seed)
        epochs, n_found = [], 0
        while n_found < n_steps * n_rows:
            first = int(torch.randint(WINDOW, (1,), generator=generator))
            n_windows = (len(ids) - 1 - first) // WINDOW
            epochs.append(torch.randperm(n_windows, generator=generator) * WINDOW + first)
            n_found += n_windows
        self.starts = torch.cat(epochs)[: n_steps * n_rows].view(n_steps, n_rows)

    def batch(
        self, step: int, rank: int = 0, n_ranks: int = 1
    ) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Return the inputs and the targets of a step."""
        starts = self.starts[step, rank::n_ranks]
        rows = self.ids[starts[:, None] + torch.arange(WINDOW + 1)]
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
