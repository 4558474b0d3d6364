"""A feed-forward layer in which one projection of the token decides how much of another one passes.

Claim: a layer that multiplies two numbers made from its input learns products and conditions which a layer
with a bend can only assemble from many pieces. At the same number of weights it has the lower error.

Idea: project the token twice. One projection goes through SiLU and becomes a gate for each hidden unit, the
other one is what passes. A third layer leads back to the width of the token.

Legend: ``x`` (..., width) tokens; ``hidden`` the number of units between; ``gate`` and ``up`` lead from width
to hidden, ``down`` from hidden to width.

Left out: gates with other curves (GELU, ReLU, the sigmoid), and several such layers to choose from (`moe`).

Paper: Shazeer (2020), https://arxiv.org/abs/2002.05202
"""

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.activations import silu
from techtree.techs.training.linear import Linear


def hidden_width(width: int, multiple_of: int = 64) -> int:
    """Return how many hidden units a gated layer has for the weights of an ungated one of 4 * width.

    Parameters
    ----------
    width
        Of a token, at least 1; ``ValueError`` otherwise.
    multiple_of
        At least 1; ``ValueError`` otherwise.

    Returns
    -------
    int
        The smallest multiple of ``multiple_of`` that is at least 8/3 of ``width``. Exact for integers of any
        size.

    Examples
    --------
    >>> hidden_width(576), hidden_width(4096, 256), hidden_width(3, 1), hidden_width(4, 1)
    (1536, 11008, 8, 11)
    """
    if width < 1 or multiple_of < 1:
        raise ValueError(
            f"width and multiple_of must be at least 1; got width={width}, multiple_of={multiple_of}"
        )
    n_multiples = -(-8 * int(width) // (3 * int(multiple_of)))  # rounded up, without a float between
    return n_multiples * int(multiple_of)


class SwiGLU(Module):
    """A gated feed-forward layer: ``down(silu(gate(x)) * up(x))``.

    Parameters
    ----------
    width, hidden
        The numbers of a token, and of the units between, at least 1 each; ``ValueError`` otherwise.
    rng
        Draws the weights of gate, up and down, in this order, as `Linear` does; the only source of
        randomness.
    has_bias
        Whether the three layers have biases.
    gain
        Of the down layer's weight, as for `Linear`; 0 makes a layer that starts as the constant 0.
    dtype
        Of all parameters.

    Attributes
    ----------
    gate, up
        `Linear` layers from width to hidden, the module's first.
    down
        `Linear` layer from hidden to width, the module's third.

    Examples
    --------
    >>> layer = SwiGLU(1, 1, np.random.default_rng(0))
    >>> layer.load_state_dict({"gate.weight": [[1.0]], "up.weight": [[2.0]], "down.weight": [[10.0]]})
    >>> layer(Tensor([[0.0], [np.log(3.0)]])).data.round(4).tolist()  # 10 * 3/4 * log(3) * 2 * log(3)
    [[0.0], [18.1042]]
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        rng: np.random.Generator,
        has_bias: bool = False,
        gain: float = 1.0,
        dtype: type = np.float64,
    ):
        self.gate = Linear(width, hidden, rng, has_bias, dtype=dtype)
        self.up = Linear(width, hidden, rng, has_bias, dtype=dtype)
        self.down = Linear(hidden, width, rng, has_bias, gain, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., width) for an ``x`` of (..., width) with any leading axes or none.

        Each token is treated alone. Gradients flow to x and to all parameters. The three layers, and their
        parameters, are read anew at each call: they may have been changed in place, or exchanged for others
        of the same shapes. ``ValueError`` if the last axis of x is not ``width`` long, or x has no axis.
        """
        return self.down(silu(self.gate(x)) * self.up(x))
