"""A vector for each place, so that attention can know the order of what it reads.

Claim: attention is blind to order. Its answer for a token is a sum over the others, and a sum does not
know who came first. A vector that is added to each token, another one at each place, is enough to tell it.

Idea: read a place off many clocks. Two numbers of the vector, a sine and a cosine, are one hand, and each
hand turns more slowly than the one before. A fast hand tells neighbours apart, a slow one the beginning from
the end. Or let training choose the vectors, one row of a table for each place.

Legend: ``p`` the position, from 0; ``i`` the number of a pair, from 0; ``weight`` (n_positions, width).

Left out: positions that turn queries and keys (`rope`), or add to the scores of attention.

Papers: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762, section 3.5; Gehring et al. (2017),
https://arxiv.org/abs/1705.03122, section 3.1
"""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, record
from techtree.techs.transformer.embedding import Embedding


def sinusoidal(n_positions: int, width: int, base: float = 10_000.0) -> np.ndarray:
    """Return a vector for each of the positions 0 to ``n_positions - 1``, made of waves.

    Parameters
    ----------
    n_positions
        How many, at least 1.
    width
        Of each vector: even, at least 2.
    base
        Above 0 and finite. From the first pair to the last, the wavelength grows from 2 pi to almost
        ``2 * pi * base``.

    Returns
    -------
    np.ndarray
        (n_positions, width), float64, a new array. With ``angle = p / base ** (2 * i / width)``, row p has
        ``sin(angle)`` in column ``2 * i`` and ``cos(angle)`` in column ``2 * i + 1``. An entry is off by no
        more than the rounding of its angle: some units of 1e-16, times one plus the size of the angle.

    Raises
    ------
    ValueError
        When ``n_positions``, ``width`` or ``base`` is not as said above.

    Examples
    --------
    >>> sinusoidal(3, 4).round(4).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.8415, 0.5403, 0.01, 1.0], [0.9093, -0.4161, 0.02, 0.9998]]
    """
    if n_positions < 1:
        raise ValueError(f"n_positions must be at least 1; got {n_positions}")
    if width < 2 or width % 2:
        raise ValueError(f"width must be even and at least 2, for pairs; got {width}")
    if not 0 < base < math.inf:
        raise ValueError(f"base must be above 0 and finite; got {base}")
    frequencies = float(base) ** (-np.arange(0, width, 2) / width)
    angles = np.arange(n_positions)[:, None] * frequencies  # (n_positions, width / 2)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(n_positions, width)


class LearnedPositions(Module):
    """A table with a trained row for each position.

    Parameters
    ----------
    n_positions, width
        How many rows the table has and how long they are, at least 1 each; ``ValueError`` otherwise.
    rng, std, dtype
        The table starts as the one of ``Embedding(n_positions, width, rng, std, dtype)``, drawn from rng in
        the same way and equal to it.

    Attributes
    ----------
    weight
        `Parameter` of shape (n_positions, width), the only one. Read anew at each call: it may have been
        changed in place, or exchanged for another, whose shape then takes the place of (n_positions, width).

    Examples
    --------
    >>> positions = LearnedPositions(4, 2, np.random.default_rng(0))
    >>> positions.load_state_dict({"weight": np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])})
    >>> positions(2).data.tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    >>> positions(2, first=1).data.tolist()
    [[2.0, 3.0], [4.0, 5.0]]
    """

    def __init__(
        self,
        n_positions: int,
        width: int,
        rng: np.random.Generator,
        std: float = 0.02,
        dtype: type = np.float64,
    ):
        self.weight = Embedding(n_positions, width, rng, std, dtype).weight

    def forward(self, n_tokens: int, first: int = 0) -> Tensor:
        """Return the rows of ``n_tokens`` neighbouring positions: (n_tokens, width).

        Parameters
        ----------
        n_tokens
            How many rows, 0 or more. Both numbers are integers, Python's or NumPy's of any dtype.
        first
            The position of the first of them, 0 or more: what stands before it was read in an earlier call.

        Returns
        -------
        Tensor
            Rows ``first`` to ``first + n_tokens - 1``, of the dtype of the table; its data is a new array.
            Gradients flow to the table: a row that was not returned gets 0.

        Raises
        ------
        ValueError
            When ``n_tokens`` or ``first`` is negative, or ``first + n_tokens`` exceeds the number of rows: a
            table has no answer for positions that it was not made for.
        """
        n_tokens, first, weight = int(n_tokens), int(first), self.weight
        end = first + n_tokens
        if n_tokens < 0 or first < 0:
            raise ValueError(f"n_tokens and first must not be negative; got {n_tokens} and {first}")
        if end > weight.shape[0]:
            raise ValueError(f"there are {weight.shape[0]} positions; got first + n_tokens = {end}")

        def back(g: np.ndarray) -> np.ndarray:
            whole = np.zeros(weight.shape, g.dtype)
            whole[first:end] = g
            return whole

        return record(weight.data[first:end].copy(), (weight, back))
