"""The learning rate's course: warm up, stay, decay linearly to zero."""


def lr_scale(step: int, n_steps: int, warmup_steps: int, decay_fraction: float) -> float:
    """Return what the learning rates are multiplied with in step ``step`` of 0, ..., n_steps - 1.

    The scale rises linearly over the first ``warmup_steps`` steps, is 1, and falls linearly over the
    last ``decay_fraction`` of all steps. The first step and the last one move a little: the scale is
    never 0.

    >>> [round(lr_scale(step, 10, 2, 0.4), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    rise = (step + 1) / warmup_steps if warmup_steps else 1.0
    fall = (n_steps - step) / (decay_fraction * n_steps) if decay_fraction else 1.0
    return min(1.0, rise, fall)
