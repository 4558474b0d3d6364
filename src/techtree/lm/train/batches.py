"""What training needs of its data.

B batch, T tokens. `IGNORED` is that of `techtree.lm.model.cross_entropy`.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor


class Batches(Protocol):
    """The data, in an order that depends on nothing but the step's number."""

    def batch(
        self, step: int, rank: int = 0, n_ranks: int = 1
    ) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Return the inputs and the targets of a step; a target of `IGNORED` does not count.

        Of the step's rows these are ``rank``, ``rank + n_ranks``, and so on.
        """
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """Data that can be told from other data by more than its first batch."""

    def fingerprint(self) -> str:
        """Return a hash of all that batches are made of."""
        ...
