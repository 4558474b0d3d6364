"""Measure a derivative, to find out whether a computed one is right.

Claim: two evaluations of a function, a small step to either side, give its slope to about ten digits, if
the step is the cube root of the rounding unit. That tells a right gradient from one that only looks right.

Legend: ``f`` a function from an array to one number; ``x`` the point, any shape; ``h`` the step;
``eps`` = 2.2e-16, the distance from 1 to the next larger float64.

Left out: steps chosen by looking at f (extrapolation to h = 0, error estimates), complex steps, and
float32, which has too few digits to share between f and h: everything is computed in float64.

Paper: Gill, Murray, Saunders, Wright (1983), https://doi.org/10.1137/0904025
"""

from collections.abc import Callable

import numpy as np

from techtree.techs.ground.numerics import relative_error

RELATIVE_STEP = float(np.cbrt(np.finfo(np.float64).eps))  # 6.06e-6


def numerical_gradient(f: Callable, x: np.ndarray, step: float | None = None) -> np.ndarray:
    """Measure the derivative of a function with respect to every entry of its argument.

    Parameters
    ----------
    f
        Takes a float64 array of the shape of ``x``, gives one number (a float, or an array without axes).
        Called twice for each entry. Each call gets an array of its own, which f may change or keep.
    x
        The point: an array of any shape and memory layout, a nested list or a number; integers and float32
        are converted to float64. Not changed.
    step
        How far each entry is moved to either side, above 0. When left out, it is chosen for each entry:
        ``eps**(1/3) * max(1, |x_i|)``.

    Returns
    -------
    np.ndarray
        float64, of the shape of ``x``, also if that is ``()`` or has no entries.

    Raises
    ------
    ValueError
        When f gives an array with axes, when the step is not above 0, or when it is so small that it is lost
        in rounding, ``x_i + step == x_i - step``.

    Notes
    -----
    ``(f(x + h e_i) - f(x - h e_i)) / ((x_i + h) - (x_i - h))``, every other entry exactly as in ``x``.
    The divisor is the distance between the two points as they were rounded, not ``2 * h``: therefore the
    result for f(x) = x is exactly 1, at every x and with every step.

    Examples
    --------
    >>> numerical_gradient(lambda x: x[0] ** 2 * x[1], np.array([3.0, 5.0])).round(6).tolist()
    [30.0, 9.0]
    """
    x = np.array(x, dtype=np.float64)
    gradient, steps = np.empty(x.shape), _steps(x, step)
    for index in np.ndindex(x.shape):
        right, left = x.copy(), x.copy()
        right[index] += steps[index]
        left[index] -= steps[index]
        distance = right[index] - left[index]  # before f can change the two arrays
        if not distance > 0:
            raise ValueError(f"the step must move x; it is lost in rounding at {x[index]}: use a larger one")
        gradient[index] = (_number(f(right)) - _number(f(left))) / distance
    return gradient


def directional_derivative(
    f: Callable, x: np.ndarray, direction: np.ndarray, step: float | None = None
) -> float:
    """Measure how fast a function changes along one direction, in two evaluations whatever the size of ``x``.

    For a right gradient it is ``(gradient * direction).sum()``. A random direction makes
    that a check of all entries at once, for arrays that are too large for `numerical_gradient`.

    Parameters
    ----------
    f
        As for `numerical_gradient`; called twice, or not at all.
    x
        The point, as for `numerical_gradient`. Not changed.
    direction
        Array or nested list of the shape of ``x``, any length: twice the direction gives twice the
        derivative. If it is all zeros or empty, the result is exactly 0.
    step
        The factor on the direction, above 0. When left out, the largest for which no entry moves by more than
        the step that `numerical_gradient` would choose for it.

    Returns
    -------
    float
        ``(f(x + step * direction) - f(x - step * direction)) / (2 * step)``.

    Raises
    ------
    ValueError
        When the shapes differ, f gives an array with axes, or the step is not above 0.

    Examples
    --------
    >>> round(directional_derivative(lambda x: x[0] * x[1], np.array([3.0, 5.0]), np.array([1.0, 2.0])), 6)
    11.0
    """
    x, direction = np.array(x, dtype=np.float64), np.asarray(direction, dtype=np.float64)
    if direction.shape != x.shape:
        raise ValueError(f"the direction must have the shape of x, {x.shape}; got {direction.shape}")
    steps = _steps(x, step)
    if not direction.any():
        return 0.0
    if step is None:
        step = float(1 / (np.abs(direction) / steps).max())
    right, left = np.array(x + step * direction), np.array(x - step * direction)  # also without axes
    return (_number(f(right)) - _number(f(left))) / (2 * step)


def check_gradient(
    f: Callable,
    gradient: np.ndarray,
    x: np.ndarray,
    tolerance: float = 1e-5,
    floor: float = 1e-2,
    step: float | None = None,
) -> float:
    """Compare a claimed gradient with the measured one; return the largest relative error.

    Parameters
    ----------
    f
        As for `numerical_gradient`.
    gradient
        The claim: an array or nested list of the shape of ``x``. Not changed.
    x
        The point, as for `numerical_gradient`. Not changed.
    tolerance
        The largest relative error that passes, as `relative_error` measures it entry by entry.
    floor
        What smaller entries are measured against, as in `relative_error`: rounding in f blurs the
        measurement by about ``4e-11 * |f|``, and relative to an entry near 0 that would count as a large
        error.
    step
        As for `numerical_gradient`.

    Returns
    -------
    float
        The largest relative error of all entries, 0 if there are none.

    Raises
    ------
    AssertionError
        When an error is larger than the tolerance, or NaN is on either side. The message names the index
        of the worst entry as a tuple, such as ``(1, 2)``, its claimed and its measured value.
    ValueError
        When the shape of the gradient is not that of ``x``, or as for `numerical_gradient`.

    Examples
    --------
    >>> check_gradient(lambda x: (x**2).sum(), [6.0, 10.0], [3.0, 5.0]) < 1e-9
    True
    >>> check_gradient(lambda x: (x**2).sum(), [6.0, 10.1], [3.0, 5.0])
    Traceback (most recent call last):
    AssertionError: the gradient is wrong by 0.0099 at (1,): claimed 10.1, measured 10
    """
    if np.shape(gradient) != np.shape(x):
        raise ValueError(f"the gradient must have the shape of x, {np.shape(x)}; got {np.shape(gradient)}")
    claimed, measured = np.asarray(gradient, dtype=np.float64), numerical_gradient(f, x, step)
    errors = {i: relative_error(claimed[i], measured[i], floor) for i in np.ndindex(claimed.shape)}
    worst = max(errors, key=errors.__getitem__, default=None)
    if worst is None:
        return 0.0
    if errors[worst] > tolerance:
        found = f"claimed {claimed[worst]:.9g}, measured {measured[worst]:.9g}"
        raise AssertionError(f"the gradient is wrong by {errors[worst]:.2g} at {worst}: {found}")
    return errors[worst]


def _steps(x: np.ndarray, step: float | None) -> np.ndarray:
    if step is None:
        return RELATIVE_STEP * np.maximum(1.0, np.abs(x))
    if not step > 0:
        raise ValueError(f"the step must be above 0; got {step}")
    return np.full(x.shape, step)


def _number(value) -> float:
    if np.ndim(value) != 0:
        raise ValueError(f"f must give one number; got an array of shape {np.shape(value)}: sum it")
    return float(value)
