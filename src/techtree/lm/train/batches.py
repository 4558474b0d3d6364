"""What training needs of its data.

B batch, T tokens.
"""

from typing import Protocol

from jaxtyping import Int
from torch import Tensor


class Batches(Protocol):
    """The data, in an order that depends on nothing but the step's number."""

    def batch(
        self, step: int, rank: int = 0, n_ranks: int = 1
    ) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Return the inputs and the targets of a step; a target of -100 does not count.

        Of the step's rows these are ``rank``, ``rank + n_ranks``, and so on.
        """
        ...
