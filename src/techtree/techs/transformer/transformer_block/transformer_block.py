"""Tokens look at each other, then each thinks for itself; both are added to what the token was before.

Claim: a part that is added, and reads a normalized copy, cannot harm what lies before it. The token itself
goes through any number of blocks unchanged but for sums, and so does the gradient on its way back.

Idea: ``x + f(norm(x))``, twice: once with attention for f, which moves information between tokens, once with
a feed-forward network, which works on each token alone and holds two thirds of the weights.

Legend: ``x`` (..., T, W) tokens, the *stream*; ``T`` their number, ``W`` the width. The leading axes are
samples.

Left out: dropout; the norm after the sum, as in the paper of 2017 (post-norm).

Paper: Xiong et al. (2020), https://arxiv.org/abs/2002.04745
"""

from collections.abc import Callable

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.activations import gelu_tanh
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.layernorm import LayerNorm
from techtree.techs.transformer.mha import MultiHeadAttention


class FeedForward(Module):
    """Two linear layers with an activation between them: ``down(activation(up(x)))``.

    Parameters
    ----------
    width
        Of the tokens that come in and go out.
    hidden
        The number of units between the layers, at least 1.
    rng
        Draws the weights of ``up``, then of ``down``; the only source of randomness.
    activation
        Takes a tensor and returns one of the same shape.
    has_bias
        Whether both layers have biases.
    gain
        Of ``down``'s weight, as for `Linear`; that of ``up`` is 1.
    dtype
        Of all parameters.

    Attributes
    ----------
    up, down
        `Linear` layers from width to hidden and back, the module's first, in this order.
    activation
        As given.

    Raises
    ------
    ValueError
        When width or hidden is less than 1.

    Examples
    --------
    >>> part = FeedForward(1, 2, np.random.default_rng(0), activation=lambda x: x * x)
    >>> part.load_state_dict({"up.weight": [[1.0], [2.0]], "up.bias": [0.0, 1.0],
    ...                       "down.weight": [[10.0, 1.0]], "down.bias": [0.5]})
    >>> part(Tensor([[3.0]])).data.tolist()  # 10 * 3**2 + 7**2 + 0.5
    [[139.5]]
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        rng: np.random.Generator,
        activation: Callable[[Tensor], Tensor] = gelu_tanh,
        has_bias: bool = True,
        gain: float = 1.0,
        dtype: type = np.float64,
    ):
        self.up = Linear(width, hidden, rng, has_bias, dtype=dtype)
        self.down = Linear(hidden, width, rng, has_bias, gain, dtype)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map each token of an ``x`` of (..., width), with any leading axes or none, by itself.

        Layers, their parameters and the activation are read anew at each call: they may have been exchanged.
        The result is new; gradients flow to x and the parameters. ``ValueError`` if the last axis of x is
        not ``width`` long, or x has no axis.
        """
        return self.down(self.activation(self.up(x)))


class TransformerBlock(Module):
    """A pre-norm block: ``x + attention(norm(x))``, and then the same with the feed-forward part.

    Parameters
    ----------
    width
        W, of the tokens that come in and go out.
    n_heads
        Of the attention: at least 1, a divisor of W.
    rng
        Draws the weights of the attention, then of the feed-forward part; the only source of randomness.
    hidden
        The number of hidden units, at least 1; None for ``4 * width``.
    has_bias
        Whether there are biases: those of the linear layers and of the norms.
    gain
        Of the weights of the two layers whose answers are added to the stream, ``attention.output`` and
        ``feed_forward.down``. With 0 the block starts as the identity.
    eps
        Of the norms; above 0.
    dtype
        Of all parameters.

    Attributes
    ----------
    attention_norm, attention, feed_forward_norm, feed_forward
        `LayerNorm`, `MultiHeadAttention`, `LayerNorm`, `FeedForward` (with `gelu_tanh`), the module's
        first, in this order.

    Raises
    ------
    ValueError
        When width or hidden is less than 1, n_heads does not divide W or is less than 1, or eps is not
        above 0.
    """

    def __init__(
        self,
        width: int,
        n_heads: int,
        rng: np.random.Generator,
        hidden: int | None = None,
        has_bias: bool = True,
        gain: float = 1.0,
        eps: float = 1e-5,
        dtype: type = np.float64,
    ):
        hidden = 4 * width if hidden is None else hidden
        self.attention_norm = LayerNorm(width, eps, has_bias, dtype)
        self.attention = MultiHeadAttention(width, n_heads, rng, has_bias, gain, dtype)
        self.feed_forward_norm = LayerNorm(width, eps, has_bias, dtype)
        self.feed_forward = FeedForward(width, hidden, rng, has_bias=has_bias, gain=gain, dtype=dtype)

    def forward(self, x: Tensor, mask: np.ndarray | None = None) -> Tensor:
        """Add to each token what attention says, and to the sum what the feed-forward part says.

        Parameters
        ----------
        x
            (..., T, W), with any leading axes or none. Not changed.
        mask
            As for `MultiHeadAttention`: boolean, (..., T, T), True where the token of the row may see that
            of the column; None if every token sees all.

        Returns
        -------
        Tensor
            (..., T, W): ``y + feed_forward(feed_forward_norm(y))`` with
            ``y = x + attention(attention_norm(x), mask)``. The four parts are read anew at each call: each
            may have been exchanged for another module that takes the same. The result is new; gradients
            flow to x and the parameters.

        Raises
        ------
        ValueError
            As `MultiHeadAttention` does, for a mask or an x that does not fit.
        """
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.feed_forward(self.feed_forward_norm(x))
