"""What a training step needs of the way in which several ranks share a model.

B batch, T tokens.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from jaxtyping import Int
from torch import Tensor

from techtree.lm.model.language_model import LanguageModel
from techtree.lm.train.muon import Named


class Rows(NamedTuple):
    """Some of a tensor's rows, in a place where they can be read and written."""

    tensor: Tensor
    first: int
    """The number of the first of them in the whole tensor."""
    n_rows: int
    """Of the whole tensor."""


class Strategy(Protocol):
    """A model on several ranks, or on one."""

    model: LanguageModel
    parameters: dict[str, Tensor]
    """By name, what of each parameter this rank keeps and updates."""

    def backward(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], weight: float, last: bool
    ) -> float:
        """Add the gradient of the loss on a part of this rank's batch, times a weight.

        Parameters
        ----------
        ids, targets
            The part.
        weight
            Of this part's mean among all parts' of all ranks.
        last
            Whether it is this step's last part.

        Returns
        -------
        float
            The loss times the weight.
        """
        ...

    def gradients(self) -> dict[str, Tensor]:
        """Return, after the last part, the sum over all ranks, of what this rank keeps."""
        ...

    def squared_norm(self) -> float:
        """Return this rank's share of the sum of all gradients' squares."""
        ...

    def apply_whole(self, matrices: Named, function: Callable[[Tensor], Tensor]) -> Named:
        """Apply a function of whole matrices to matrices of which each rank has some rows."""
        ...

    def rows(self, name: str, tensor: Tensor) -> Rows:
        """Say which rows a tensor is that belongs to a parameter or buffer of this name."""
        ...
