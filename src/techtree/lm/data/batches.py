"""Batches of the rows of a store, in a random order that needs no state.

Arrays: `B` rows of a batch, or of a rank's part of it, `T` = seq_len tokens.
"""

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from techtree.errors import InputError
from techtree.lm.data.store import TokenStore
from techtree.lm.model.cross_entropy import IGNORED


class RandomBatches:
    """Batches of rows in a random order.

    Every row comes once before any comes again; each pass over the rows has an order of its own.

    Parameters
    ----------
    store
        Of the rows.
    batch_size
        Rows of a batch, over all ranks.
    seed
        Of the orders.

    Notes
    -----
    The order of a pass is a permutation that is drawn when the pass begins and held: 8 bytes a row and half a
    second for 10^7 rows, which are 10 GB of tokens. A block cipher on the rows' numbers would need neither,
    and ten times the code.
    """

    def __init__(self, store: TokenStore, batch_size: int, seed: int):
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1; got {batch_size}: use 8 or more")
        self.store = store
        self.batch_size = batch_size
        self.seed = seed
        self._order: tuple[int, Int64[np.ndarray, " N"]] = (-1, np.empty(0, np.int64))

    def batch(
        self, step: int, rank: int = 0, n_ranks: int = 1
    ) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Return the inputs and the targets of a training step, of one of the ranks that divide it.

        A pure function of the seed and the arguments, so that a resumed run needs no state of the loader. The
        step's rows do not depend on the number of ranks; rank r has rows r, r + n_ranks and so on of them.

        Raises
        ------
        InputError
            When the ranks cannot have equal parts, or a file of the store is damaged.
        """
        if self.batch_size % n_ranks:
            raise InputError(
                f"n_ranks must divide batch_size; got batch_size={self.batch_size}, n_ranks={n_ranks}: use "
                f"{self.batch_size // n_ranks * n_ranks or n_ranks} rows"
            )
        assert 0 <= rank < n_ranks, (rank, n_ranks)
        places = np.arange(
            step * self.batch_size + rank, (step + 1) * self.batch_size, n_ranks, dtype=np.int64
        )
        tokens, is_learned = self.store.rows(self._rows_at(places))
        targets = np.where(is_learned, tokens, IGNORED)
        return torch.from_numpy(tokens)[:, :-1].contiguous(), torch.from_numpy(targets)[:, 1:].contiguous()

    def fingerprint(self) -> str:
        """Return a hash of all rows and of their order."""
        return f"{self.store.fingerprint()}-{self.seed}-{self.batch_size}"

    def _rows_at(self, places: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """Return the rows at some places in the endless sequence of passes."""
        passes, indices = np.divmod(places, self.store.n_rows)
        rows = np.empty_like(places)
        for number in np.unique(passes):
            is_of_pass = passes == number
            rows[is_of_pass] = self._order_of_pass(int(number))[indices[is_of_pass]]
        return rows

    def _order_of_pass(self, number: int) -> Int64[np.ndarray, " N"]:
        if self._order[0] != number:
            rng = np.random.default_rng([self.seed, number])
            self._order = number, rng.permutation(self.store.n_rows)
        return self._order[1]
