"""Positions as rotations of queries and keys, so that a score depends on the distance alone.

Claim: a query at position t and a key at position s, each rotated by the angle of its position, have the
same dot product wherever they stand, as long as t - s is the same: it depends on the difference of the
angles. Nothing is added to the tokens, and values are not touched.

Idea: the numbers of a query are taken in pairs, each pair a point in the plane. Pair i of W / 2 turns by
``base ** (-2 i / W)`` from one position to the next: the first by one radian, the last hardly at all. Fast
pairs tell near tokens apart, slow ones far tokens.

Legend: ``x`` (..., T, W) queries or keys, with any leading axes or none; ``T`` the number of tokens, ``W``
the width of a head; *wavelength* of a pair: the positions that one full turn takes, 2 pi / frequency.

Left out: scalings that change the scores, too (YaRN); rotating a part of the width only.

Paper: Su et al. (2021), https://arxiv.org/abs/2104.09864
"""

import math
from dataclasses import dataclass

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, record


@dataclass(frozen=True)
class RopeScaling:
    """How frequencies are slowed down, so that a model reads further than it was trained to.

    Equal to, and hashed like, one of the same numbers; nothing in it can be changed (``AttributeError``).

    Parameters
    ----------
    kind
        "linear": all are divided by the factor (Chen et al. 2023). "llama3": only those whose wavelength is
        long beside the original context. ``ValueError`` for anything else.
    factor
        Finite and above 0; ``ValueError`` otherwise.
    low_freq_factor, high_freq_factor
        llama3: a pair that turns at most ``low_freq_factor`` times within the original context is slowed by
        the whole factor, one that turns at least ``high_freq_factor`` times stays. Finite, above 0, and the
        low one below the high one; ``ValueError`` otherwise, for both kinds.
    original_max_seq_len
        llama3: the number of positions of the first training. Finite and at least 1; ``ValueError``
        otherwise, for both kinds.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_seq_len: int = 8192

    def __post_init__(self):
        if self.kind not in ("linear", "llama3"):
            raise ValueError(f'kind must be "linear" or "llama3"; got {self.kind!r}')
        for name in ("factor", "low_freq_factor", "high_freq_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and above 0; got {getattr(self, name)}")
        if not 1 <= self.original_max_seq_len < math.inf:
            raise ValueError(f"original_max_seq_len must be at least 1; got {self.original_max_seq_len}")
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor must be below high_freq_factor; got {self.low_freq_factor} and "
                f"{self.high_freq_factor}"
            )


def frequencies(width: int, base: float = 10_000.0, scaling: RopeScaling | None = None) -> np.ndarray:
    """Compute by how much the angle of each pair grows from one position to the next.

    Parameters
    ----------
    width
        W, even and at least 2.
    base
        Finite and above 0; the larger, the slower the slow pairs.
    scaling
        How the frequencies are slowed down; None to leave them.

    Returns
    -------
    np.ndarray
        (W / 2,), float64, new in each call: ``base ** (-2 i / W)`` for the pair i = 0, 1, ..., W / 2 - 1.
        With the scaling "linear" each is divided by the factor. With "llama3" a pair that turns n times
        within the original context (its length divided by the wavelength of the unscaled frequency f) gets
        ``share * f + (1 - share) * f / factor``, where
        ``share = (n - low_freq_factor) / (high_freq_factor - low_freq_factor)``, cut to 0 ... 1.

    Raises
    ------
    ValueError
        When the width is odd or less than 2, or the base is not finite and above 0.

    Examples
    --------
    >>> frequencies(4).tolist(), frequencies(4, base=25.0).tolist()
    ([1.0, 0.01], [1.0, 0.2])
    >>> frequencies(4, scaling=RopeScaling("linear", 2.0)).tolist()
    [0.5, 0.005]
    """
    _check_width(width)
    if not 0 < base < math.inf:
        raise ValueError(f"the base must be finite and above 0; got {base}")
    plain = base ** (-np.arange(0, width, 2) / width)
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    turns = scaling.original_max_seq_len * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    share = np.clip((turns - low) / (high - low), 0, 1)
    return share * plain + (1 - share) * plain / scaling.factor


def rotation(
    positions: np.ndarray, width: int, base: float = 10_000.0, scaling: RopeScaling | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the cosines and sines of the angles of all positions.

    Parameters
    ----------
    positions
        (T,), or (..., T) where each text has its own: an array or a list, of any real dtype, in any order.
        The first token of a text has position 0.
    width, base, scaling
        As for `frequencies`.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        cos and sin, each (..., T, W / 2), float64, new in each call: of position * frequency, computed in
        float64 whatever the dtype of the positions.

    Raises
    ------
    ValueError
        As for `frequencies`, and when the positions have no axis.

    Examples
    --------
    >>> cos, sin = rotation([0, 1, 100], 4)
    >>> cos.round(3).tolist(), sin.round(3).tolist()
    ([[1.0, 1.0], [0.54, 1.0], [0.862, 0.54]], [[0.0, 0.0], [0.841, 0.01], [-0.506, 0.841]])
    """
    positions = np.asarray(positions, np.float64)
    if positions.ndim == 0:
        raise ValueError("positions must have an axis of tokens; got a single number")
    angles = positions[..., None] * frequencies(width, base, scaling)  # (..., T, W / 2)
    return np.cos(angles), np.sin(angles)


def rotate(x: Tensor, cos: np.ndarray, sin: np.ndarray, is_interleaved: bool = False) -> Tensor:
    """Turn each pair (a, b) of the width by its angle: to (a cos - b sin, a sin + b cos).

    Parameters
    ----------
    x
        (..., T, W), finite, W even and at least 2; T may be 0.
    cos, sin
        From `rotation`: (T, W / 2), or (..., T, W / 2) with leading axes that broadcast to those of x; both
        of the same shape. Constants.
    is_interleaved
        Which numbers are a pair: i and i + W / 2 (half-split), or 2 i and 2 i + 1 (interleaved).

    Returns
    -------
    Tensor
        Of the shape and dtype of x, new; x stays unchanged. Gradients flow to x.

    Raises
    ------
    ValueError
        When x has fewer than two axes; when W is odd or 0; when cos and sin differ in shape; when their last
        two axes are not (T, W / 2), also if one is 1 long; when their leading axes do not broadcast to those
        of x, which they may not lengthen or add to.

    Examples
    --------
    >>> x, cos, sin = Tensor([[1.0, 2.0, 3.0, 4.0]]), np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    >>> rotate(x, cos, sin).data.tolist()  # the pair (1, 3) turns by a right angle, the pair (2, 4) stays
    [[-3.0, 2.0, 1.0, 4.0]]
    >>> rotate(x, cos, sin, is_interleaved=True).data.tolist()  # the pairs are (1, 2) and (3, 4)
    [[-2.0, 1.0, 3.0, 4.0]]
    """
    if x.ndim < 2:
        raise ValueError(f"x must have the shape (..., T, W); got {x.shape}")
    *leading, n_tokens, width = x.shape
    _check_width(width)
    expected = (n_tokens, width // 2)
    if cos.shape != sin.shape or cos.shape[-2:] != expected:
        raise ValueError(
            f"cos and sin must both have the shape (..., {n_tokens}, {width // 2}); got "
            f"{cos.shape} and {sin.shape}"
        )
    if np.broadcast_shapes(cos.shape[:-2], tuple(leading)) != tuple(leading):
        raise ValueError(f"cos and sin must broadcast to x, {x.shape}; got {cos.shape}")
    cos, sin = cos.astype(x.dtype), sin.astype(x.dtype)
    pairs = (np.s_[..., 0::2], np.s_[..., 1::2])
    if not is_interleaved:
        pairs = (np.s_[..., : width // 2], np.s_[..., width // 2 :])
    # What turns the gradient is the transpose of a rotation, and that is the rotation back.
    return record(_turned(x.data, cos, sin, *pairs), (x, lambda g: _turned(g, cos, -sin, *pairs)))


def to_half_split(width: int) -> np.ndarray:
    """Return the order in which interleaved pairs become half-split ones.

    Parameters
    ----------
    width
        W, even and at least 2; ``ValueError`` otherwise.

    Returns
    -------
    np.ndarray
        ``order``, (W,), whole numbers, new in each call: rotating x interleaved and then taking
        ``[..., order]`` gives the same as taking ``x[..., order]`` and rotating it half-split.

    Examples
    --------
    >>> to_half_split(6).tolist()
    [0, 2, 4, 1, 3, 5]
    """
    _check_width(width)
    return np.arange(width).reshape(width // 2, 2).T.reshape(width)


def _turned(x, cos, sin, first, second):
    y = np.empty(x.shape, x.dtype)
    y[first] = x[first] * cos - x[second] * sin
    y[second] = x[first] * sin + x[second] * cos
    return y


def _check_width(width: int) -> None:
    if width < 2 or width % 2:
        raise ValueError(f"the width must be even, for pairs, and at least 2; got {width}")
