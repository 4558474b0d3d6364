"""Each row is divided by its root mean square, and by nothing else: no mean, no bias.

Claim: what a norm is there for is the size. Without the mean and the bias one of layer normalization's two
statistics and one of its gradient's three terms are gone, and networks train as well.

Idea: a row is scaled to the length of the root of its width. Its direction stays, so the gradient loses the
part that points along the row, and that is the one term that comes back through the size.

Legend: ``x`` (..., width) rows; ``y`` the row with mean square 1, before ``weight``; ``g`` the gradient that
arrives. Entries up to 1e10 in size for float32, 1e100 for float64, any for float16.

Left out: norms without a weight, and those that add 1 to it.

Paper: Zhang, Sennrich (2019), https://arxiv.org/abs/1910.07467
"""

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, record


class RMSNorm(Module):
    """Normalize the last axis: ``x / sqrt(mean(x**2) + eps) * weight``.

    Parameters
    ----------
    width
        The length of a row, at least 1; ``ValueError`` otherwise.
    eps
        Added to the mean square, under the root. Above 0; ``ValueError`` otherwise.
    dtype
        Of the weight.

    Attributes
    ----------
    weight
        `Parameter` of shape (width,), the only one. It starts at 1.

    Examples
    --------
    >>> norm = RMSNorm(2, eps=11.0)
    >>> norm.load_state_dict({"weight": np.array([6.0, 12.0])})
    >>> norm(Tensor([1.0, 7.0])).data.round(9).tolist()  # the mean square is 25, the root of 25 + 11 is 6
    [1.0, 14.0]
    """

    def __init__(self, width: int, eps: float = 1e-6, dtype: type = np.float64):
        if width < 1:
            raise ValueError(f"width must be at least 1; got {width}")
        if not eps > 0:
            raise ValueError(f"eps must be above 0, or a row of zeros is divided by 0; got {eps}")
        self.weight = Parameter(np.ones(width, dtype))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each row of an ``x`` of (..., width), with any leading axes or none.

        The weight is read anew at each call: it may have been changed in place, or exchanged for another
        parameter of the same shape.

        Returns
        -------
        Tensor
            Of the shape and dtype of x, whatever the dtype of the weight; its data is a new array.

        Raises
        ------
        ValueError
            When the last axis of x is not ``width`` long, or x has no axis.

        Notes
        -----
        All is computed, and for the weight's gradient summed over rows, in the dtype of x, or in float32 if
        that is narrower; only the results are rounded, to their own dtypes, gradients to that of x or weight.
        """
        weight, width = self.weight, self.weight.shape[0]
        if x.ndim == 0 or x.shape[-1] != width:
            raise ValueError(f"x must have a last axis of {width}; got the shape {x.shape}")
        wide = x.data.astype(np.result_type(x.dtype, np.float32))
        inverse = 1 / np.sqrt((wide * wide).mean(axis=-1, keepdims=True) + self.eps)
        y = wide * inverse
        rows = tuple(range(x.ndim - 1))

        def pull_back(g: np.ndarray) -> np.ndarray:
            h = g * weight.data.astype(wide.dtype)
            return inverse * (h - y * (h * y).mean(axis=-1, keepdims=True))

        value = (y * weight.data).astype(x.dtype)
        return record(value, (x, pull_back), (weight, lambda g: (g * y).sum(axis=rows)))
