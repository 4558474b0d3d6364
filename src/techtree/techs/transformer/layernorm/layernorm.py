"""Each row is moved and scaled to mean 0 and variance 1, so that no layer depends on the size of its inputs.

Claim: in a deep network sizes multiply up. A layer that measures the size of each row and divides by it makes
everything after it independent of everything before it, in size, and its backward pass does the same to
gradients.

Idea: mean and variance belong to the row, so each entry moves all others of its row. The gradient has three
terms: the direct one, and what comes back through the mean and through the variance.

Legend: ``x`` (..., width) rows; ``y`` the row with mean 0 and variance 1, before ``weight`` and ``bias``;
``g`` the gradient that arrives, ``h = g * weight`` that with respect to ``y``. Entries up to 1e15 in size for
float32, 1e150 for float64, any for float16.

Left out: statistics over samples in place of features (batch normalization).

Paper: Ba, Kiros, Hinton (2016), https://arxiv.org/abs/1607.06450
"""

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, record


class LayerNorm(Module):
    """Normalize the last axis: ``(x - mean) / sqrt(variance + eps) * weight + bias``.

    Parameters
    ----------
    width
        The length of a row, at least 1; ``ValueError`` otherwise.
    eps
        Added to the variance, under the root. Above 0; ``ValueError`` otherwise.
    has_bias
        Whether there is a bias.
    dtype
        Of weight and bias.

    Attributes
    ----------
    weight
        `Parameter` of shape (width,), the layer's first. It starts at 1.
    bias
        `Parameter` of shape (width,), which starts at 0, or None.

    Examples
    --------
    >>> norm = LayerNorm(2, eps=7.0)
    >>> norm.load_state_dict({"weight": np.array([4.0, 8.0]), "bias": np.array([0.0, 1.0])})
    >>> norm(Tensor([1.0, 7.0])).data.tolist()  # the mean is 4, the variance 9, the root of 9 + 7 is 4
    [-3.0, 7.0]
    """

    def __init__(self, width: int, eps: float = 1e-5, has_bias: bool = True, dtype: type = np.float64):
        if width < 1:
            raise ValueError(f"width must be at least 1; got {width}")
        if not eps > 0:
            raise ValueError(f"eps must be above 0, or a row of equal entries is divided by 0; got {eps}")
        self.weight = Parameter(np.ones(width, dtype))
        self.bias = Parameter(np.zeros(width, dtype)) if has_bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each row of an ``x`` of (..., width), with any leading axes or none.

        Weight and bias are read anew at each call: they may have been changed in place, or exchanged for
        parameters of the same shape.

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
        The variance is the mean of the squared distances from the mean, divided by ``width``. All is
        computed, and for gradients summed over rows, in the dtype of x, or in float32 if that is narrower;
        only the results are rounded to their own dtypes, gradients to those of x, weight and bias. What all
        entries of a row have in common costs no digits but those of its own rounding: rows may lie around
        1e4 with distances of 1 in float32.
        """
        weight, bias, width = self.weight, self.bias, self.weight.shape[0]
        if x.ndim == 0 or x.shape[-1] != width:
            raise ValueError(f"x must have a last axis of {width}; got the shape {x.shape}")
        wide = x.data.astype(np.result_type(x.dtype, np.float32))
        away = wide - wide.mean(axis=-1, keepdims=True)
        inverse = 1 / np.sqrt((away * away).mean(axis=-1, keepdims=True) + self.eps)
        y = away * inverse
        rows = tuple(range(x.ndim - 1))

        def pull_back(g: np.ndarray) -> np.ndarray:
            h = g * weight.data.astype(wide.dtype)
            return inverse * (h - h.mean(axis=-1, keepdims=True) - y * (h * y).mean(axis=-1, keepdims=True))

        edges = [(x, pull_back), (weight, lambda g: (g * y).sum(axis=rows))]
        value = y * weight.data
        if bias is not None:
            value = value + bias.data
            edges.append((bias, lambda g: g.sum(axis=rows, dtype=wide.dtype)))
        return record(value.astype(x.dtype), *edges)
