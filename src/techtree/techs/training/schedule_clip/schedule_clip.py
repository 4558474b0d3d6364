"""Start gently, run fast, land softly; and never let one bad batch decide a step.

Claim: no single learning rate is right for a whole run. The first steps know nothing yet, the last ones must
not overshoot, and a rare gradient that is a hundred times too long must not undo what others have learned.

Idea: a schedule is a function of the step alone, so that a run that resumes needs to remember nothing. Its
value multiplies the rate. Clipping scales all gradients by one factor, which keeps their direction.

Legend: ``step`` counts from 0; a *factor* of 1 is the full rate.

Left out: restarts, and schedules that look at the loss.

Paper: Loshchilov and Hutter (2016), https://arxiv.org/abs/1608.03983; Pascanu, Mikolov, Bengio (2013),
https://arxiv.org/abs/1211.5063
"""

import math
from collections.abc import Iterable

import numpy as np

from techtree.techs.autodiff.modules import Parameter


def warmup_cosine(step: int, n_steps: int, n_warmup: int, final: float = 0.0) -> float:
    """Return the factor on the learning rate in one step: up a line, then down half a cosine.

    Parameters
    ----------
    step
        From 0 to ``n_steps - 1``.
    n_steps
        Of the whole run.
    n_warmup
        The number of steps that rise, from 0 to ``n_steps``. They have the factors ``1 / n_warmup``,
        ``2 / n_warmup``, ... 1.
    final
        What the factor falls to, from 0 to 1. Step ``n_steps``, the first that is not taken, would have it.

    Returns
    -------
    float
        The first step after the warm-up has 1. Where a share t of the fall lies behind,
        ``final + (1 - final) * (1 + cos(pi * t)) / 2``. With a ``final`` of 0 the last step still moves.

    Raises
    ------
    ValueError
        When step, n_warmup or final is not in its range.

    Examples
    --------
    >>> [round(warmup_cosine(step, n_steps=6, n_warmup=2), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    _check(step, n_steps, n_warmup, n_steps - n_warmup, final)
    if step < n_warmup:
        return (step + 1) / n_warmup
    done = (step - n_warmup) / (n_steps - n_warmup)
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


def warmup_linear(step: int, n_steps: int, n_warmup: int, final: float = 0.0) -> float:
    """Return the factor on the learning rate in one step: up a line, then down a line.

    As `warmup_cosine`, but where a share t of the fall lies behind, the factor is
    ``final + (1 - final) * (1 - t)``.

    Examples
    --------
    >>> [warmup_linear(step, n_steps=6, n_warmup=2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    return warmup_stable_decay(step, n_steps, n_warmup, n_steps - n_warmup, final)


def warmup_stable_decay(step: int, n_steps: int, n_warmup: int, n_decay: int, final: float = 0.0) -> float:
    """Return the factor on the learning rate in one step: up a line, level, and down a line at the end.

    Parameters
    ----------
    step, n_steps, n_warmup, final
        As for `warmup_cosine`.
    n_decay
        The number of steps, the last ones, that fall as in `warmup_linear`: the first of them has 1. From 0
        to ``n_steps - n_warmup``.

    Returns
    -------
    float
        1 in the steps between.

    Raises
    ------
    ValueError
        When an argument is not in its range.

    Examples
    --------
    >>> [warmup_stable_decay(step, n_steps=8, n_warmup=2, n_decay=4) for step in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    _check(step, n_steps, n_warmup, n_decay, final)
    if step < n_warmup:
        return (step + 1) / n_warmup
    if step < n_steps - n_decay:
        return 1.0
    return final + (1 - final) * (n_steps - step) / n_decay


def _check(step: int, n_steps: int, n_warmup: int, n_decay: int, final: float) -> None:
    if not 0 <= step < n_steps:
        raise ValueError(f"step must be from 0 to n_steps - 1 = {n_steps - 1}; got {step}")
    if n_warmup < 0 or n_decay < 0 or n_warmup + n_decay > n_steps:
        raise ValueError(
            f"warm-up and decay must fit into the {n_steps} steps of the run; got {n_warmup} and {n_decay}"
        )
    if not 0 <= final <= 1:
        raise ValueError(f"final must be from 0 to 1; got {final}")


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients by one factor where they are, together, longer than ``max_norm``.

    Parameters
    ----------
    parameters
        Any iterable, walked once. Those without a gradient do not count.
    max_norm
        Larger than 0. With infinity, gradients are only measured.

    Returns
    -------
    float
        The norm before: the root of the sum of the squares of all entries of all gradients; 0 without any.
        Right for entries of any size: 1e200 must not overflow, nor 1e-200 vanish.

    Raises
    ------
    ValueError
        When ``max_norm`` is not larger than 0.

    Notes
    -----
    A norm that is larger becomes ``max_norm``: the arrays are scaled in place and keep their dtype. At or
    below it nothing is changed. Nor is anything when the norm is infinite or NaN, as one such entry makes it:
    such a step should be left out.

    Examples
    --------
    >>> a, b = Parameter([0.0]), Parameter([[0.0]])
    >>> a.grad, b.grad = np.array([3.0]), np.array([[4.0]])
    >>> clip_grad_norm([a, b], 1.0), a.grad.round(3).tolist(), b.grad.round(3).tolist()
    (5.0, [0.6], [[0.8]])
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be larger than 0; got {max_norm}")
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    largest = float(np.max([np.abs(each).max(initial=0) for each in gradients], initial=0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    # Measured in units of the largest entry, squares neither overflow nor vanish.
    squares = sum(float(np.sum((each.astype(np.float64) / largest) ** 2)) for each in gradients)
    norm = largest * math.sqrt(squares)
    if max_norm < norm < math.inf:
        for each in gradients:
            each *= np.float64(max_norm / norm)  # a plain float would be rounded to float16 beside it
    return norm
