"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Parameter

_COSINE = """    done = (step - n_warmup) / (n_steps - n_warmup)
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2"""
_RISE = """    _check(step, n_steps, n_warmup, n_steps - n_warmup, final)
    if step < n_warmup:
        return (step + 1) / n_warmup"""
_STABLE_RISE = """    _check(step, n_steps, n_warmup, n_decay, final)
    if step < n_warmup:
        return (step + 1) / n_warmup"""
_LINE = "    return warmup_stable_decay(step, n_steps, n_warmup, n_steps - n_warmup, final)"
_FALL = "    return final + (1 - final) * (n_steps - step) / n_decay"


def _both(new):
    """The edits that change the rise in all three schedules."""
    return [
        (_RISE, _RISE.replace("return (step + 1) / n_warmup", new)),
        (_STABLE_RISE, _STABLE_RISE.replace("return (step + 1) / n_warmup", new)),
    ]


_NORM = """    largest = float(np.max([np.abs(each).max(initial=0) for each in gradients], initial=0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    # Measured in units of the largest entry, squares neither overflow nor vanish.
    squares = sum(float(np.sum((each.astype(np.float64) / largest) ** 2)) for each in gradients)
    norm = largest * math.sqrt(squares)
"""
_SCALE = """    if max_norm < norm < math.inf:
        for each in gradients:
            each *= np.float64(max_norm / norm)  # a plain float would be rounded to float16 beside it
    return norm"""


def _norm(*lines):
    return [(_NORM, "".join(f"    {line}\n" for line in lines))]


def _scale(*lines):
    return [(_SCALE, "\n".join(f"    {line}" for line in lines))]


MISTAKES = {
    "the first step has the factor 0": _both("return step / n_warmup"),
    "the warm-up ends below 1": _both("return (step + 1) / (n_warmup + 1)"),
    "the warm-up begins at the final factor": _both("return final + (1 - final) * (step + 1) / n_warmup"),
    "the warm-up is bent like a cosine": _both("return (1 - math.cos(math.pi * (step + 1) / n_warmup)) / 2"),
    "there is no warm-up": _both("return 1.0"),
    "the warm-up is one step longer": [
        (_RISE, _RISE.replace("step < n_warmup", "step <= n_warmup")),
        (_STABLE_RISE, _STABLE_RISE.replace("step < n_warmup", "step <= n_warmup")),
    ],
    "the cosine is counted from the first step of the run": [
        ("done = (step - n_warmup) / (n_steps - n_warmup)", "done = step / n_steps")
    ],
    "the cosine ends at the last step, which stands still": [
        (
            "done = (step - n_warmup) / (n_steps - n_warmup)",
            "done = (step - n_warmup) / max(1, n_steps - n_warmup - 1)",
        )
    ],
    "the first step after the warm-up has begun to fall along the cosine": [
        (
            "done = (step - n_warmup) / (n_steps - n_warmup)",
            "done = (step - n_warmup + 1) / (n_steps - n_warmup + 1)",
        )
    ],
    "the cosine runs through a whole period, and rises again": [
        ("math.cos(math.pi * done)", "math.cos(2 * math.pi * done)")
    ],
    "the cosine is a quarter of a period": [
        ("(1 + math.cos(math.pi * done)) / 2", "math.cos(math.pi * done / 2)")
    ],
    "the cosine rises": [("(1 + math.cos(math.pi * done))", "(1 - math.cos(math.pi * done))")],
    "the cosine falls to 0 whatever the final factor": [
        (
            "return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2",
            "return (1 + math.cos(math.pi * done)) / 2",
        )
    ],
    "the cosine adds the final factor to a fall from 1": [
        ("return final + (1 - final) * (1 + math.cos", "return final + (1 + math.cos")
    ],
    "the cosine is cut off at the final factor": [
        (
            "return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2",
            "return max(final, (1 + math.cos(math.pi * done)) / 2)",
        )
    ],
    "the line is counted from the first step of the run": [
        (
            _LINE,
            _LINE.replace("    return ", "    flat = ")
            + "\n    return flat if step < n_warmup else final + (1 - final) * (n_steps - step) / n_steps",
        )
    ],
    "the line of warmup_linear is a cosine": [
        (_LINE, "    return warmup_cosine(step, n_steps, n_warmup, final)")
    ],
    "warmup_linear falls to 0 whatever the final factor": [(_LINE, _LINE.replace("final)", "0 * final)"))],
    "lines end at the last step, which stands still": [
        (_FALL, "    return final + (1 - final) * (n_steps - 1 - step) / max(1, n_decay - 1)")
    ],
    "lines fall at once, the first of their steps included": [
        (_FALL, "    return final + (1 - final) * (n_steps - step) / (n_decay + 1)")
    ],
    "lines fall to 0 whatever the final factor": [(_FALL, "    return (n_steps - step) / n_decay")],
    "lines are cut off at the final factor": [(_FALL, "    return max(final, (n_steps - step) / n_decay)")],
    "the decay follows the warm-up at once, and the level part comes last": [
        (
            "    if step < n_steps - n_decay:\n        return 1.0\n" + _FALL,
            "    if step < n_warmup + n_decay:\n"
            "        return final + (1 - final) * (n_warmup + n_decay - step) / n_decay\n"
            "    return final if n_decay else 1.0",
        )
    ],
    "there is no decay after the level part": [(_FALL, "    return 1.0")],
    "a step beyond the run is accepted": [("if not 0 <= step < n_steps:", "if not 0 <= step:")],
    "the step after the last is accepted": [("if not 0 <= step < n_steps:", "if not 0 <= step <= n_steps:")],
    "a step below 0 is accepted": [("if not 0 <= step < n_steps:", "if step >= n_steps:")],
    "a warm-up below 0 is accepted": [("if n_warmup < 0 or n_decay < 0 or", "if n_decay < 0 or")],
    "a decay below 0 is accepted": [("if n_warmup < 0 or n_decay < 0 or", "if n_warmup < 0 or")],
    "a warm-up longer than the run is accepted": [
        (_RISE, _RISE.replace("n_steps - n_warmup", "max(0, n_steps - n_warmup)")),
        (_LINE, _LINE.replace("n_steps - n_warmup", "max(0, n_steps - n_warmup)")),
        ("n_warmup + n_decay > n_steps:", "n_warmup + n_decay > max(n_steps, n_warmup):"),
    ],
    "a warm-up and a decay that overlap are accepted": [
        ("n_warmup + n_decay > n_steps:", "max(n_warmup, n_decay) > n_steps:")
    ],
    "a final factor outside 0 to 1 is accepted": [("if not 0 <= final <= 1:", "if final != final:")],
    "a final factor of NaN is accepted": [("if not 0 <= final <= 1:", "if final < 0 or final > 1:")],
    "each tensor is clipped by itself": _scale(
        "for each in gradients:",
        "    own = math.sqrt(float((each.astype(np.float64) ** 2).sum()))",
        "    if own > max_norm:",
        "        each *= max_norm / own",
        "return norm",
    ),
    "each entry is clipped by itself": _scale(
        "if math.isfinite(norm):",
        "    for each in gradients:",
        "        np.clip(each, -max_norm, max_norm, out=each)",
        "return norm",
    ),
    "short gradients are lengthened": [("if max_norm < norm < math.inf:", "if 0 < norm < math.inf:")],
    "the norm is the sum of absolute values": _norm(
        "norm = float(sum(np.abs(each.astype(np.float64)).sum() for each in gradients))"
    ),
    "the norm is the largest entry": _norm(
        "norm = float(np.max([np.abs(each).max(initial=0) for each in gradients], initial=0))"
    ),
    "the norm is the largest of the tensors' norms": [
        ("squares = sum(float(", "squares = max(float("),
    ],
    "the norm is the sum of the tensors' norms": [
        (
            "norm = largest * math.sqrt(squares)",
            "norm = largest * sum(float(np.sqrt(np.sum((each.astype(np.float64) / largest) ** 2))) "
            "for each in gradients)",
        )
    ],
    "the norm is a mean over the entries": [
        (
            "norm = largest * math.sqrt(squares)",
            "norm = largest * math.sqrt(squares / sum(each.size for each in gradients))",
        )
    ],
    "the square of the norm is returned": [("    return norm", "    return norm * norm")],
    "the norm after is returned": [
        ("    return norm", "    return min(norm, max_norm) if math.isfinite(norm) else norm")
    ],
    "nothing is returned": [("    return norm", "    return None")],
    "the factor has 1e-6 added below": [
        ("np.float64(max_norm / norm)", "np.float64(max_norm / (norm + 1e-6))")
    ],
    "the factor is rounded to the dtype of the gradient": [
        ("each *= np.float64(max_norm / norm)", "each *= max_norm / norm")
    ],
    "the gradients become new arrays": [
        (
            "    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]",
            "    members = [parameter for parameter in parameters if parameter.grad is not None]\n"
            "    for parameter in members:\n"
            "        parameter.grad = parameter.grad.copy()\n"
            "    gradients = [parameter.grad for parameter in members]",
        )
    ],
    "the gradients become float64": [
        (
            "    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]",
            "    members = [parameter for parameter in parameters if parameter.grad is not None]\n"
            "    for parameter in members:\n"
            "        parameter.grad = np.asarray(parameter.grad, np.float64)\n"
            "    gradients = [parameter.grad for parameter in members]",
        )
    ],
    "the weights are scaled, not the gradients": [
        (
            "    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]",
            "    members = [parameter for parameter in parameters if parameter.grad is not None]\n"
            "    gradients = [parameter.grad for parameter in members]",
        ),
        (
            "        for each in gradients:\n            each *=",
            "        for each in [parameter.data for parameter in members]:\n            each *=",
        ),
    ],
    "the parameters are walked twice, so that of a generator nothing is scaled": [
        (
            "        for each in gradients:\n            each *=",
            "        for each in [p.grad for p in parameters if p.grad is not None]:\n            each *=",
        )
    ],
    "a parameter without a gradient is an error": [(" if parameter.grad is not None]", "]")],
    "without any gradient there is an error": [
        ("    largest = float(", "    if not gradients:\n        raise ValueError\n    largest = float(")
    ],
    "large entries overflow when they are squared": _norm(
        "with np.errstate(over='ignore'):",
        "    squares = sum(float(np.sum((each / 1e-20) ** 2)) for each in gradients)",
        "norm = 1e-20 * math.sqrt(squares)",
    ),
    "small entries vanish when they are squared": _norm(
        "squares = sum(float(np.sum((each.astype(np.float64) / 1e150) ** 2)) for each in gradients)",
        "norm = 1e150 * math.sqrt(squares)",
    ),
    "an infinite norm scales, so that gradients become 0 and NaN": [
        ("or not math.isfinite(largest):", "or math.isnan(largest):"),
        ("(each.astype(np.float64) / largest)", "(each.astype(np.float64) / min(largest, 1e308))"),
        ("max_norm < norm < math.inf:", "norm > max_norm:"),
    ],
    "NaN and infinity are set to 0": [
        (
            "    largest = float(",
            "    for each in gradients:\n"
            "        np.nan_to_num(each, copy=False, posinf=0, neginf=0)\n"
            "    largest = float(",
        )
    ],
    "NaN and infinity do not count in the norm": [
        (
            "    largest = float(",
            "    all_gradients = gradients\n"
            "    gradients = [np.where(np.isfinite(each), each, 0) for each in all_gradients]\n"
            "    largest = float(",
        ),
        (
            "        for each in gradients:\n            each *=",
            "        for each in all_gradients:\n            each *=",
        ),
    ],
    "a norm that is not finite is an error": [
        (
            "    if largest == 0 or not math.isfinite(largest):",
            "    if not math.isfinite(largest):\n        raise ValueError\n    if largest == 0:",
        )
    ],
    "a largest norm of 0 is accepted": [("if not max_norm > 0:", "if not max_norm >= 0:")],
    "a largest norm below 0 is accepted": [
        ("if not max_norm > 0:", "if max_norm == 0 or max_norm != max_norm:")
    ],
    "a largest norm of NaN is accepted": [("if not max_norm > 0:", "if max_norm <= 0:")],
}


def _by_table(kind):
    """All factors of the run in a list, from which the step picks one."""

    def schedule(step, n_steps, n_warmup, final=0.0):
        if step not in range(n_steps) or n_warmup not in range(n_steps + 1) or not final >= 0 or final > 1:
            raise ValueError("outside its range")
        rise = [n / n_warmup for n in range(1, n_warmup + 1)]
        shares = np.arange(n_steps - n_warmup) / max(1, n_steps - n_warmup)
        fall = 1 - shares if kind == "line" else np.cos(np.pi * shares / 2) ** 2
        return float([*rise, *(fall + final * (1 - fall))][step])

    return schedule


def _as_minimum(step, n_steps, n_warmup, n_decay, final=0.0):
    if min(step, n_warmup, n_decay, n_steps - 1 - step, n_steps - n_warmup - n_decay) < 0:
        raise ValueError("does not fit")
    if not abs(final - 0.5) <= 0.5:
        raise ValueError("final must be from 0 to 1")
    rise = (step + 1) / n_warmup if step < n_warmup else 1.0
    fall = (n_steps - step) / n_decay if n_decay else 1.0
    return min(rise, 1.0 - (1 - final) * (1 - min(1.0, fall)))


def _by_hypot(parameters, max_norm):
    """`math.hypot` neither overflows nor underflows."""
    if max_norm <= 0 or math.isnan(max_norm):
        raise ValueError("max_norm must be larger than 0")
    members = [each for each in parameters if each.grad is not None]
    norm = math.hypot(*(math.hypot(*each.grad.ravel().tolist()) for each in members))
    if math.isfinite(norm) and norm > max_norm:
        for each in members:
            each.grad[...] = each.grad / np.float64(norm / max_norm)
    return norm


def _by_entries(parameters, max_norm):
    """In extended precision, whose range holds every square; entry by entry."""
    if not max_norm > 0:
        raise ValueError("max_norm must be larger than 0")
    gradients = []
    for each in parameters:
        if each.grad is not None:
            gradients.append(each.grad)
    total, scale = 0.0, 0.0  # the sum of squares is total * scale**2
    for gradient in gradients:
        for value in map(abs, map(float, gradient.ravel())):
            if not math.isfinite(value):
                return value
            if value > scale:
                total, scale = 1.0 + total * (scale / value) ** 2, value
            elif value:
                total += (value / scale) ** 2
    norm = scale * total**0.5
    if max_norm < norm < math.inf:
        for gradient in gradients:
            for place in np.ndindex(gradient.shape):
                gradient[place] = float(gradient[place]) * (max_norm / norm)
    return norm


EQUIVALENTS = {
    "schedules picked from a table of all steps": {
        "warmup_cosine": _by_table("cosine"),
        "warmup_linear": _by_table("line"),
    },
    "the smaller of a rise and a fall": {"warmup_stable_decay": _as_minimum},
    "clipping by math.hypot": {"clip_grad_norm": _by_hypot},
    "clipping entry by entry, with a running scale": {"clip_grad_norm": _by_entries},
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    first, second = rng.normal(size=(2, 3)) * 4, rng.normal(size=2)

    def course(schedule, *arguments):
        def ask(impl):
            n_steps = arguments[0]
            return [getattr(impl, schedule)(step, *arguments) for step in range(n_steps)]

        return ask

    def one(schedule, *arguments):
        return lambda impl: getattr(impl, schedule)(*arguments)

    def clipped(max_norm, *arrays, is_generator=False, grads=True):
        def ask(impl):
            members = [Parameter(np.ones(2 if x is None else np.shape(x))) for x in arrays]
            for each, x in zip(members, arrays, strict=True):
                each.grad = None if x is None else np.array(x)
            held = [each.grad for each in members]
            norm = impl.clip_grad_norm(iter(members) if is_generator else members, max_norm)
            if not grads:
                return norm if norm is None or math.isfinite(norm) else "not finite"
            found = [each.grad for each in members if each.grad is not None]
            are_same = all(each.grad is array for each, array in zip(members, held, strict=True))
            weights = [each.data for each in members]
            return [are_same, *(str(x.dtype) for x in found), *found, *weights]

        return ask

    return {
        "a cosine with warm-up": course("warmup_cosine", 7, 3),
        "a cosine without warm-up": course("warmup_cosine", 5, 0),
        "a cosine to a half": course("warmup_cosine", 7, 3, 0.5),
        "a line with warm-up": course("warmup_linear", 7, 3),
        "a line without warm-up": course("warmup_linear", 5, 0),
        "a line to a half": course("warmup_linear", 7, 3, 0.5),
        "level, then a decay": course("warmup_stable_decay", 9, 2, 4),
        "level, then a decay to a half": course("warmup_stable_decay", 9, 2, 4, 0.5),
        "the step after the last": one("warmup_stable_decay", 9, 9, 2, 4),
        "a step far beyond": one("warmup_stable_decay", 20, 9, 2, 4),
        "a step below 0": one("warmup_cosine", -1, 9, 2),
        "a warm-up below 0": one("warmup_stable_decay", 3, 9, -1, 4),
        "a decay below 0": one("warmup_stable_decay", 3, 9, 2, -1),
        "a warm-up longer than the run": one("warmup_linear", 0, 9, 10),
        "a decay that overlaps": one("warmup_stable_decay", 0, 9, 4, 6),
        "a final factor of 2": one("warmup_linear", 3, 9, 2, 2.0),
        "a final factor of NaN": one("warmup_linear", 3, 9, 2, math.nan),
        "two gradients": clipped(1.0, first, second),
        "the norm of two gradients": clipped(1.0, first, second, grads=False),
        "two short gradients": clipped(100.0, first, second),
        "a generator": clipped(1.0, first, second, is_generator=True),
        "float32": clipped(100.0, first.astype(np.float32)),
        "float16, a small factor": clipped(1e-3, np.array([6e4, 3e4], np.float16)),
        "one without a gradient": clipped(1.0, first, None, grads=False),
        "none with a gradient": clipped(1.0, None, grads=False),
        "large entries": clipped(1.0, np.full(3, 1e200), grads=False),
        "small entries": clipped(1.0, np.full(3, 1e-200), grads=False),
        "NaN": clipped(1.0, first, [1.0, math.nan]),
        "the norm with NaN": clipped(1.0, first, [1.0, math.nan], grads=False),
        "infinity": clipped(1.0, first, [1.0, math.inf]),
        "a largest norm of 0": clipped(0.0, first, grads=False),
        "a largest norm below 0": clipped(-1.0, first, grads=False),
        "a largest norm of NaN": clipped(math.nan, first, grads=False),
    }


HARMLESS = {
    "if step < n_steps - n_decay: => if step <= n_steps - n_decay:": (
        "the first step of the decay has the factor 1 by either formula"
    ),
    "largest = float(np.max([np.abs(each).max(initial=0) for each in gradients], initial=0)) => "
    "largest = float(np.max([np.abs(each).max(initial=-1) for each in gradients], initial=0))": (
        "the 0 outside is larger than the -1 of an empty gradient"
    ),
    "largest = float(np.max([np.abs(each).max(initial=0) for each in gradients], initial=0)) => "
    "largest = float(np.max([np.abs(each).max(initial=0) for each in gradients], initial=-1))": (
        "without any gradient the norm becomes -1 times a sum of nothing, and -0.0 equals 0"
    ),
    "if max_norm < norm < math.inf: => if max_norm <= norm < math.inf:": (
        "at equality the factor is 1, and changes nothing"
    ),
}
