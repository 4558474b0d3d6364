"""Several small attentions beside each other, each looking for something else.

Claim: one softmax gives one average. A token that needs two things from two places gets, from one head, a
mixture of both; from two heads of half the width, at the same number of weights, it gets them apart.

Idea: project the tokens to queries, keys and values of the full width, cut each into heads along the width,
let every head attend by itself, put the answers beside each other again, and mix them by one more matrix.

Legend: ``x`` (..., T, W) tokens; ``T`` their number, ``W`` the width, ``H`` the number of heads, each of
width ``W / H``. The leading axes are samples.

Left out: queries from one text and keys from another, fewer keys than queries (`gqa`), positions (`rope`),
dropout.

Paper: Vaswani et al. (2017), https://arxiv.org/abs/1706.03762, section 3.2.2
"""

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.attention import attention


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Cut the width into heads, each a neighbouring part of it.

    Parameters
    ----------
    x
        (..., T, W), with any leading axes or none.
    n_heads
        H, at least 1, a divisor of W.

    Returns
    -------
    Tensor
        (..., H, T, W / H): head 0 has the first W / H numbers of each token, head 1 the next, and so on.
        Gradients flow to x.

    Raises
    ------
    ValueError
        When x has fewer than two axes, or H is less than 1 or does not divide W.

    Examples
    --------
    >>> split_heads(Tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]), 2).data.tolist()
    [[[1.0, 2.0], [5.0, 6.0]], [[3.0, 4.0], [7.0, 8.0]]]
    """
    if x.ndim < 2:
        raise ValueError(f"x must have the shape (..., T, W); got {x.shape}")
    *leading, n_tokens, width = x.shape
    _check_heads(width, n_heads)
    return x.reshape(*leading, n_tokens, n_heads, width // n_heads).swapaxes(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """Put the heads' answers beside each other again: the inverse of `split_heads`.

    Parameters
    ----------
    x
        (..., H, T, D), with any leading axes or none.

    Returns
    -------
    Tensor
        (..., T, H * D). Gradients flow to x.

    Raises
    ------
    ValueError
        When x has fewer than three axes.

    Examples
    --------
    >>> merge_heads(Tensor([[[1.0, 2.0], [5.0, 6.0]], [[3.0, 4.0], [7.0, 8.0]]])).data.tolist()
    [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    """
    if x.ndim < 3:
        raise ValueError(f"x must have the shape (..., H, T, D); got {x.shape}")
    *leading, n_heads, n_tokens, width = x.shape
    return x.swapaxes(-2, -3).reshape(*leading, n_tokens, n_heads * width)


class MultiHeadAttention(Module):
    """Self-attention with several heads.

    Parameters
    ----------
    width
        W, of the tokens that come in and go out.
    n_heads
        H, at least 1, a divisor of W; ``ValueError`` otherwise.
    rng
        Draws the four weights, in the order of the attributes; the only source of randomness.
    has_bias
        Whether the four layers have biases.
    gain
        Of the output layer's weight, as for `Linear`; 0 makes a module that starts as the constant 0.
    dtype
        Of all parameters.

    Attributes
    ----------
    query, key, value, output
        `Linear` layers from W to W, the module's first, in this order.
    n_heads
        H.
    """

    def __init__(
        self,
        width: int,
        n_heads: int,
        rng: np.random.Generator,
        has_bias: bool = True,
        gain: float = 1.0,
        dtype: type = np.float64,
    ):
        _check_heads(width, n_heads)
        self.query = Linear(width, width, rng, has_bias, dtype=dtype)
        self.key = Linear(width, width, rng, has_bias, dtype=dtype)
        self.value = Linear(width, width, rng, has_bias, dtype=dtype)
        self.output = Linear(width, width, rng, has_bias, gain, dtype)
        self.n_heads = n_heads

    def forward(self, x: Tensor, mask: np.ndarray | None = None) -> Tensor:
        """Let every token look at the tokens that it may see.

        Parameters
        ----------
        x
            (..., T, W), with any leading axes or none.
        mask
            Boolean, True where the token of the row may see that of the column: (T, T), or (..., T, T) with
            leading axes that broadcast against those of x. It is the same for all heads. None if every
            token sees all.

        Returns
        -------
        Tensor
            (..., T, W): for each head, `attention` among its queries, keys and values, whose scores are
            divided by the root of the *head's* width; all heads beside each other, through the output layer.
            A token that may see none gets the output layer's bias. Gradients flow to x and the parameters.

        Raises
        ------
        ValueError
            As `Linear` and `attention` do: a last axis that is not W, a mask that is not boolean or does not
            fit; also when x has fewer than two axes.
        """
        q, k, v = (split_heads(layer(x), self.n_heads) for layer in (self.query, self.key, self.value))
        seen = None if mask is None else np.asarray(mask)[..., None, :, :]
        return self.output(merge_heads(attention(q, k, v, seen)))


def _check_heads(width: int, n_heads: int) -> None:
    if n_heads < 1 or width % n_heads:
        raise ValueError(f"n_heads must be at least 1 and divide the width; got {n_heads} heads of {width}")
