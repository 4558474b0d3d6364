"""A row of numbers for each token: how ids become vectors, and vectors become scores of ids.

Claim: a token is a choice among many, and a network computes with numbers. A table with a row for each
token is all that is needed between the two; its rows are trained like any other weight. The same table can
be read in the other direction, as the scores of all tokens for a vector.

Idea: looking a row up is a product with a vector that is 1 at the id and 0 elsewhere, without the zeros. So
the backward pass is that product transposed: each place adds its gradient to the row that it took.

Legend: ``id`` the number of a token, from 0; ``weight`` (n_tokens, width) the table.

Left out: gradients that hold the rows that were used and no others; rows that are never trained.

Paper: Press, Wolf (2016), https://arxiv.org/abs/1608.05859
"""

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, record


class Embedding(Module):
    """A table with a row for each token.

    Parameters
    ----------
    n_tokens, width
        How many rows the table has and how long they are, at least 1 each; ``ValueError`` otherwise.
    rng
        Draws the table; the only source of randomness: the next table drawn from it is another.
    std
        The standard deviation of the table's entries: independent normal numbers of mean 0.
    dtype
        Of the table.

    Attributes
    ----------
    weight
        `Parameter` of shape (n_tokens, width), the only one. It is read anew at each call: it may have been
        changed in place, or exchanged for another, whose shape then takes the place of (n_tokens, width).

    Examples
    --------
    >>> table = Embedding(3, 2, np.random.default_rng(0))
    >>> table.load_state_dict({"weight": np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])})
    >>> x = table(np.array([2, 0, 2]))
    >>> x.data.tolist()
    [[0.0, 3.0], [1.0, 0.0], [0.0, 3.0]]
    >>> x.backward(np.array([[1.0, 1.0], [5.0, 5.0], [10.0, 20.0]]))
    >>> table.weight.grad.tolist()  # row 2 was used twice, row 1 never
    [[5.0, 5.0], [0.0, 0.0], [11.0, 21.0]]
    >>> table.unembed(Tensor([10.0, 1.0])).data.tolist()
    [10.0, 20.0, 3.0]
    """

    def __init__(
        self, n_tokens: int, width: int, rng: np.random.Generator, std: float = 0.02, dtype: type = np.float64
    ):
        if n_tokens < 1 or width < 1:
            raise ValueError(f"n_tokens and width must be at least 1; got n_tokens={n_tokens}, width={width}")
        self.weight = Parameter((std * rng.normal(size=(n_tokens, width))).astype(dtype))

    def forward(self, ids: np.ndarray) -> Tensor:
        """Return the row of each id: (..., width) for ids of the shape (...).

        Parameters
        ----------
        ids
            An array of any integer dtype and any shape, also without axes or entries; each from 0 to
            n_tokens - 1. Not changed.

        Returns
        -------
        Tensor
            Of the dtype of the table; its data is a new array.

        Raises
        ------
        ValueError
            When an id is negative (-1 is not the last row) or too large, or the dtype is not one of integers
            (booleans are none).

        Notes
        -----
        The gradient of the table is, for each row, the sum of the gradients that arrive at all places where
        its id stands, added up in float32 at least; 0 where the id stands nowhere.
        """
        ids, weight = np.asarray(ids), self.weight
        if ids.dtype.kind not in "iu":
            raise ValueError(f"ids must be integers; got dtype {ids.dtype}")
        if ids.size and not 0 <= (wrong := ids.min() if ids.min() < 0 else ids.max()) < weight.shape[0]:
            raise ValueError(f"each id must be from 0 to {weight.shape[0] - 1}; got {wrong}")

        places = ids.astype(np.intp)

        def scatter_add(g: np.ndarray) -> np.ndarray:
            whole = np.zeros(weight.shape, np.result_type(g, np.float32))
            np.add.at(whole, places, g)  # whole[places] += g would keep one gradient for each row
            return whole

        return record(weight.data.take(places, axis=0), (weight, scatter_add))

    def unembed(self, x: Tensor) -> Tensor:
        """Return the score of each token, ``x @ weight.T``: (..., n_tokens) for an x of (..., width).

        Any leading axes or none. Gradients flow to x and to the table, where they are added to those of
        `forward`. ``ValueError`` if the last axis of x is not ``width`` long, or x has no axis.
        """
        width = self.weight.shape[1]
        if x.ndim == 0 or x.shape[-1] != width:
            raise ValueError(f"x must have a last axis of {width}; got the shape {x.shape}")
        return x @ self.weight.swapaxes(0, 1)
