"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.ground.numerics import relative_error

STEP = float(np.cbrt(np.finfo(np.float64).eps))


def _checked_steps(x, step):
    if step is None:
        return STEP * np.maximum(1.0, np.abs(x))
    if not step > 0:
        raise ValueError("the step must be above 0")
    return np.full(np.shape(x), float(step))


def _one_number(value):
    if np.ndim(value):
        raise ValueError("f must give one number")
    return float(value)


def _flat(f, x, step=None):
    """Walk over `ravel`, which is a copy where the memory is not contiguous: then nothing moves."""
    x = np.array(x, dtype=np.float64, order="K") if np.ndim(x) else np.array(x, dtype=np.float64)
    steps, gradient = _checked_steps(x, step), np.zeros(x.shape)
    entries = x.ravel()
    for i in range(x.size):
        before = entries[i]
        entries[i] = before + steps.ravel()[i]
        above = _one_number(f(x.copy()))
        entries[i] = before - steps.ravel()[i]
        below = _one_number(f(x.copy()))
        distance = (before + steps.ravel()[i]) - (before - steps.ravel()[i])
        entries[i] = before
        if not distance > 0:
            raise ValueError("lost in rounding")
        gradient.ravel()[i] = (above - below) / distance
    return gradient


def _in_place(f, x, step=None, restores=False):
    """Move the entries of the caller's own array, and give f that array."""
    x = np.asarray(x, dtype=np.float64)
    steps, gradient = _checked_steps(x, step), np.empty(x.shape)
    for index in np.ndindex(x.shape):
        before, h = float(x[index]), steps[index]
        distance = (before + h) - (before - h)
        if not distance > 0:
            raise ValueError("lost in rounding")
        x[index] = before + h
        above = _one_number(f(x))
        x[index] = before - h if restores else x[index] - 2 * h
        below = _one_number(f(x))
        x[index] = before if restores else x[index] + h
        gradient[index] = (above - below) / distance
    return gradient


def _restoring_in_place(f, x, step=None):
    return _in_place(f, x, step, restores=True)


MISTAKES = {
    "the difference is one-sided: its error is proportional to h, not to h**2": [
        ("        left[index] -= steps[index]\n", "")
    ],
    "the difference over two steps is divided by one": [
        ("/ distance\n", "/ (right[index] - x[index])\n"),
        ("        distance = right[index] - left[index]  # before f can change the two arrays\n", ""),
        ("if not distance > 0:", "if not right[index] > left[index]:"),
    ],
    "the sides are exchanged, so that every derivative has the wrong sign": [
        (
            "(_number(f(right)) - _number(f(left))) / distance",
            "(_number(f(left)) - _number(f(right))) / distance",
        )
    ],
    "the divisor is 2 h, although the points were rounded": [
        ("- _number(f(left))) / distance", "- _number(f(left))) / (2 * steps[index])")
    ],
    "the step is the same for every size of x, and is lost in rounding for large ones": [
        ("RELATIVE_STEP * np.maximum(1.0, np.abs(x))", "np.full(x.shape, RELATIVE_STEP)")
    ],
    "the step does not take the absolute value, and stays small for large negative entries": [
        ("np.maximum(1.0, np.abs(x))", "np.maximum(1.0, x)")
    ],
    "the step is proportional to |x| and vanishes at 0": [
        ("RELATIVE_STEP * np.maximum(1.0, np.abs(x))", "RELATIVE_STEP * np.abs(x)")
    ],
    "one step for all entries, as large as the largest needs": [
        (
            "RELATIVE_STEP * np.maximum(1.0, np.abs(x))",
            "np.full(x.shape, RELATIVE_STEP * np.abs(x).max(initial=1.0))",
        )
    ],
    "the step is the square root of eps, right for one-sided differences, too small for central ones": [
        ("np.cbrt(np.finfo(np.float64).eps)", "np.sqrt(np.finfo(np.float64).eps)")
    ],
    "the caller's array is moved in place and moved back by adding, which leaves rounding behind": {
        "numerical_gradient": _in_place
    },
    "f gets the caller's own array, and may change or keep it": {"numerical_gradient": _restoring_in_place},
    "x keeps its dtype: the step is lost in float32, and cut to 0 in integers": [
        ("x = np.array(x, dtype=np.float64)\n    gradient,", "x = np.array(x)\n    gradient,")
    ],
    "the entries are moved in ravel(), a copy where the memory is not contiguous": {
        "numerical_gradient": _flat
    },
    "the gradient comes back flat, without the shape of x": [
        ("    return gradient\n", "    return gradient.ravel()\n")
    ],
    "an f that gives an array is summed up silently": [
        ("    if np.ndim(value) != 0:\n        raise ValueError", "    if False:\n        raise ValueError"),
        ("return float(value)", "return float(np.sum(value))"),
    ],
    "a step lost in rounding is not noticed, and 0 / 0 is NaN": [("if not distance > 0:", "if False:")],
    "the direction is made one unit long": [
        (
            "    steps = _steps(x, step)\n    if not direction.any():\n        return 0.0\n",
            "    steps = _steps(x, step)\n    if not direction.any():\n        return 0.0\n"
            "    direction = direction / np.sqrt((direction**2).sum())\n",
        )
    ],
    "the step along a direction ignores how long the direction is": [
        ("step = float(1 / (np.abs(direction) / steps).max())", "step = float(steps.min())")
    ],
    "the step along a direction lets the slowest entry decide": [
        (
            "step = float(1 / (np.abs(direction) / steps).max())",
            "step = float((steps[direction != 0] / np.abs(direction[direction != 0])).max())",
        )
    ],
    "the derivative along a direction is one-sided": [
        ("_number(f(left))) / (2 * step)", "_number(f(x))) / step")
    ],
    "the derivative along a direction is divided by one step": [
        ("_number(f(left))) / (2 * step)", "_number(f(left))) / step")
    ],
    "the zero direction divides 0 by 0": [("    if not direction.any():\n        return 0.0\n", "")],
    "a direction of another shape is broadcast": [("if direction.shape != x.shape:", "if False:")],
    "the check measures the absolute error, blind to small entries and strict with large ones": [
        ("relative_error(claimed[i], measured[i], floor)", "float(abs(claimed[i] - measured[i]))")
    ],
    "the check divides by the largest entry of all, so that small wrong entries disappear": [
        (
            "relative_error(claimed[i], measured[i], floor)",
            "relative_error(claimed[i], measured[i], np.abs(measured).max())",
        )
    ],
    "the check averages over the entries, so that one wrong one disappears": [
        (
            "    if errors[worst] > tolerance:",
            "    if not np.mean(list(errors.values())) <= tolerance:",
        )
    ],
    "the check lets NaN pass, because NaN is larger than nothing": [
        (
            "relative_error(claimed[i], measured[i], floor)",
            "float(abs(claimed[i] - measured[i]) / max(abs(claimed[i]), abs(measured[i]), floor))",
        )
    ],
    "the check ignores its floor": [
        ("relative_error(claimed[i], measured[i], floor)", "relative_error(claimed[i], measured[i])")
    ],
    "the check ignores its tolerance": [("if errors[worst] > tolerance:", "if errors[worst] > 1e-5:")],
    "the check does not pass the step on": [
        ("numerical_gradient(f, x, step)\n", "numerical_gradient(f, x)\n")
    ],
    "the check returns its verdict and raises nothing, so that a forgotten assert hides every error": [
        (
            '        raise AssertionError(f"the',
            '        return errors[worst]\n        raise AssertionError(f"the',
        )
    ],
    "the check names the entry with the largest absolute error": [
        (
            "    worst = max(errors, key=errors.__getitem__, default=None)",
            "    worst = max(errors, key=lambda i: abs(claimed[i] - measured[i]), default=None)",
        )
    ],
    "the check names the entry by its place in the flat array": [
        ("at {worst}: {found}", "at {list(errors).index(worst)}: {found}")
    ],
    "a gradient of another shape is broadcast": [
        (
            "    if np.shape(gradient) != np.shape(x):\n        raise ValueError",
            "    gradient = np.broadcast_to(np.squeeze(gradient), np.shape(x))\n"
            "    if False:\n        raise ValueError",
        )
    ],
}


def _by_unit_arrays(f, x, step=None):
    """Add a multiple of each unit array."""
    x = np.array(x, dtype=np.float64)
    steps, slopes = _checked_steps(x, step), []
    for i in range(x.size):
        unit = np.zeros(x.size)
        unit[i] = steps.flat[i]
        unit = unit.reshape(x.shape)
        above, below = np.array(x + unit), np.array(x - unit)
        distance = above.flat[i] - below.flat[i]
        if distance == 0:
            raise ValueError("the step is lost in rounding")
        rise = _one_number(f(above)) - _one_number(f(below))
        slopes.append(rise / distance)
    return np.array(slopes, dtype=np.float64).reshape(x.shape)


def _all_points_first(f, x, step=None):
    """Make all points, evaluate the left ones first, the last entry first."""
    x = np.array(x, dtype=np.float64)
    indices, steps = list(np.ndindex(x.shape))[::-1], _checked_steps(x, step)
    points = {}
    for sign in (-1, 1):
        for i in indices:
            points[sign, i] = x.copy()
            points[sign, i][i] = float(x[i]) + sign * float(steps[i])
    distances = {i: float(points[1, i][i]) - float(points[-1, i][i]) for i in indices}
    if any(distance <= 0 for distance in distances.values()):
        raise ValueError("the step is lost in rounding")
    values = {key: _one_number(f(point)) for key, point in points.items()}
    gradient = np.zeros_like(x)
    for i in indices:
        gradient[i] = (values[1, i] - values[-1, i]) / distances[i]
    return gradient


def _along_a_line(f, x, direction, step=None):
    """Reduce it to a function of one variable."""
    x, direction = np.array(x, np.float64), np.array(direction, np.float64)
    if x.shape != direction.shape:
        raise ValueError("the shapes differ")
    steps = _checked_steps(x, step)
    moving = direction != 0
    if not moving.any():
        return 0.0
    h = float(step) if step is not None else float(np.min(steps[moving] / np.abs(direction[moving])))

    def on_the_line(t):
        return _one_number(f(np.array(x + t * direction)))

    return (on_the_line(h) - on_the_line(-h)) / h / 2


def _vectorised_check(f, gradient, x, tolerance=1e-5, floor=1e-2, step=None):
    claimed = np.array(gradient, dtype=np.float64)
    if claimed.shape != np.shape(x):
        raise ValueError("the shapes differ")
    measured = _by_unit_arrays(f, x, step)
    with np.errstate(invalid="ignore"):
        errors = np.abs(claimed - measured) / np.maximum(np.maximum(np.abs(claimed), np.abs(measured)), floor)
    errors = np.where(np.isfinite(claimed) & np.isfinite(measured), errors, math.inf)
    if errors.size == 0:
        return 0.0
    worst = tuple(int(i) for i in np.unravel_index(errors.argmax(), errors.shape))
    if not errors[worst] <= tolerance:
        raise AssertionError(f"entry {worst}: claimed {claimed[worst]}, measured {measured[worst]}")
    return float(errors[worst])


def _scanning_check(f, gradient, x, tolerance=1e-5, floor=1e-2, step=None):
    """The first entry that is worse than all before it wins; raise at the end."""
    if np.shape(gradient) != np.shape(x):
        raise ValueError("the shapes differ")
    measured = np.asarray(_all_points_first(f, x, step))
    error = relative_error(gradient, measured, floor)
    if error > tolerance:
        for index, value in np.ndenumerate(np.asarray(gradient, np.float64)):
            if relative_error(value, measured[index], floor) == error:
                message = f"at {tuple(index)} the gradient should be {measured[index]} and is {value}"
                raise AssertionError(message)
    return error


EQUIVALENTS = {
    "numerical_gradient by adding unit arrays": {"numerical_gradient": _by_unit_arrays},
    "numerical_gradient from a list of all points, backwards": {"numerical_gradient": _all_points_first},
    "directional_derivative of a function of one variable": {"directional_derivative": _along_a_line},
    "check_gradient with arrays of errors": {"check_gradient": _vectorised_check},
    "check_gradient that compares everything first and looks for the culprit afterwards": {
        "check_gradient": _scanning_check
    },
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x = np.array([[0.0, 1 / 3, -2.0], [1e7, 0.7, -1e7]])
    weights = rng.normal(size=(2, 3))
    fortran = np.asfortranarray(rng.normal(size=(2, 3)))

    def waves(v):
        return float((weights * np.sin(v)).sum())

    def points(impl, function, *arguments):
        seen = []

        def flat(v):
            seen.append(np.array(v, dtype=np.float64))
            return 0.0

        getattr(impl, function)(flat, *arguments)
        return np.sort(np.array(seen), axis=0)

    def untouched(impl):
        own = x.copy()
        impl.numerical_gradient(lambda v: v.sum(), own)
        return own

    def rude(impl):
        def f(v):
            result = float((v**2).sum())
            v[...] = 5.0
            return result

        return np.round(impl.numerical_gradient(f, np.array([1.0, 2.0])), 6)

    def cube(v):
        return float((v**3).sum())

    def steep(v):
        return float(1000 * v[0] + v[1] + v[2])

    def message_of(impl, *arguments, **options):
        try:
            return f"passes, {impl.check_gradient(*arguments, **options):.6f}"
        except AssertionError as error:
            # Wordings differ; the indices that are named do not.
            return "refused: " + ", ".join(
                name for name in ("(0,)", "(1,)", "(2,)", "(3,)") if name in str(error)
            )

    return {
        "gradient of waves": lambda impl: np.round(impl.numerical_gradient(waves, fortran), 7),
        "shape of the gradient": lambda impl: str(np.shape(impl.numerical_gradient(waves, fortran))),
        "gradient of a transposed array": lambda impl: np.round(
            impl.numerical_gradient(lambda v: (weights.T * v * v).sum(), fortran.T), 6
        ),
        "points of the gradient": lambda impl: points(impl, "numerical_gradient", x),
        "identity": lambda impl: impl.numerical_gradient(lambda v: v[0], [0.1], 1e-13),
        "cube, step 0.5": lambda impl: impl.numerical_gradient(cube, np.array([2.0]), 0.5),
        "cubes of float32": lambda impl: np.round(impl.numerical_gradient(cube, np.float32([2, 3])), 5),
        "x after the gradient": untouched,
        "f that changes its argument": rude,
        "f that gives an array": lambda impl: impl.numerical_gradient(lambda v: v, np.ones(2)),
        "a step lost in rounding": lambda impl: impl.numerical_gradient(cube, [1e10], 1e-8),
        "waves along a direction": lambda impl: round(
            impl.directional_derivative(waves, fortran, weights), 7
        ),
        "points along a direction": lambda impl: points(
            impl, "directional_derivative", [1e6, 0.5, 1.0], [1.0, 1000.0, 0.0]
        ),
        "cube along a direction, step 0.25": lambda impl: impl.directional_derivative(
            cube, [2.0], [2.0], 0.25
        ),
        "the zero direction": lambda impl: impl.directional_derivative(cube, [2.0], [0.0]),
        "a direction of another shape": lambda impl: impl.directional_derivative(
            cube, np.ones(3), np.ones(1)
        ),
        "check, one of four 1 % off": lambda impl: message_of(impl, np.sum, [1, 1, 1.01, 1], np.zeros(4)),
        "check, small entry off": lambda impl: message_of(impl, steep, [1000, 1, 1.001], np.zeros(3)),
        "check, two entries off": lambda impl: message_of(impl, steep, [1010, 1.5, 1], np.zeros(3)),
        "check, one of many, slightly off": lambda impl: message_of(
            impl, np.sum, [1, 1, 1, 1.03], np.zeros(4), tolerance=0.01
        ),
        "check, tolerance": lambda impl: message_of(impl, np.sum, [1, 1.25], np.zeros(2), tolerance=0.5),
        "check, floor": lambda impl: message_of(impl, lambda v: 0.0, [0, 9e-8], np.zeros(2)),
        "check, NaN": lambda impl: message_of(impl, np.sum, [1, np.nan, 1], np.zeros(3)),
        "check, step": lambda impl: message_of(impl, cube, [12.25, 12.25], [2.0, 2.0], step=0.5),
        "check, another shape": lambda impl: impl.check_gradient(np.sum, np.ones((3, 1)), np.zeros(3)),
    }
