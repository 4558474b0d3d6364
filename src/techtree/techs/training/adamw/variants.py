"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math
from typing import ClassVar

import numpy as np

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.training.sgd import Optimizer

_MOVE = "weights -= lr / (1 - beta1**n) * mean / size"
_SHRINK = 'weights *= 1 - lr * options["weight_decay"]'
_SIZE = 'size = np.sqrt(square / (1 - beta2**n)) + options["eps"]'
_MEAN = "mean *= beta1\n        mean += (1 - beta1) * gradient"
_SQUARE = "square *= beta2\n        square += (1 - beta2) * gradient * gradient"

MISTAKES = {
    "decay is added to the gradient, where it is divided by the gradient's size": [
        (_SHRINK, "pass"),
        (
            '        state["n_steps"] += 1\n',
            "        gradient = gradient + options['weight_decay'] * weights\n        state[\"n_steps\"] += 1\n",
        ),
    ],
    "decay does not depend on the rate": [(_SHRINK, 'weights *= 1 - options["weight_decay"]')],
    "decay acts after the step": [(_SHRINK, "pass"), (_MOVE, f"{_MOVE}\n        {_SHRINK}")],
    "decay stops at 0, where it should turn the sign": [
        (_SHRINK, 'weights *= max(1 - lr * options["weight_decay"], 0)')
    ],
    "decay is left out": [(_SHRINK, "pass")],
    "decay pushes away from 0": [(_SHRINK, 'weights *= 1 + lr * options["weight_decay"]')],
    "epsilon is inside the root": [(_SIZE, 'size = np.sqrt(square / (1 - beta2**n) + options["eps"])')],
    "epsilon is added before the square is corrected": [
        (_SIZE, 'size = (np.sqrt(square) + options["eps"]) / math.sqrt(1 - beta2**n)')
    ],
    "epsilon is left out": [(_SIZE, "size = np.sqrt(square / (1 - beta2**n)) + 1e-300")],
    "epsilon is a lower limit in place of a summand": [
        (_SIZE, 'size = np.maximum(np.sqrt(square / (1 - beta2**n)), options["eps"])')
    ],
    "the average gradient is not corrected": [(_MOVE, "weights -= lr * mean / size")],
    "the average square is not corrected": [(_SIZE, 'size = np.sqrt(square) + options["eps"]')],
    "neither average is corrected": [
        (_MOVE, "weights -= lr * mean / size"),
        (_SIZE, 'size = np.sqrt(square) + options["eps"]'),
    ],
    "steps are counted from 0, so that the first correction is a division by 0": [
        ('n = int(state["n_steps"])', 'n = int(state["n_steps"]) - 1')
    ],
    "steps are counted from 2": [('n = int(state["n_steps"])', 'n = int(state["n_steps"]) + 1')],
    "the count is one for all parameters": [
        (
            'state["n_steps"] += 1',
            'self.n_all = getattr(self, "n_all", 0) + 1\n        state["n_steps"] += 1',
        ),
        ('n = int(state["n_steps"])', "n = self.n_all"),
    ],
    "the corrections are exchanged": [
        (_SIZE, 'size = np.sqrt(square / (1 - beta1**n)) + options["eps"]'),
        (_MOVE, "weights -= lr / (1 - beta2**n) * mean / size"),
    ],
    "the betas are exchanged": [('beta1, beta2 = options["betas"]', 'beta2, beta1 = options["betas"]')],
    "the step has no root": [(_SIZE, 'size = square / (1 - beta2**n) + options["eps"]')],
    "the step goes uphill": [(_MOVE, "weights += lr / (1 - beta1**n) * mean / size")],
    "the step follows the newest gradient, not the average": [(_MOVE, "weights -= lr * gradient / size")],
    "gradients are added up without the share 1 - beta": [(_MEAN, "mean *= beta1\n        mean += gradient")],
    "squares are added up without the share 1 - beta": [
        (_SQUARE, "square *= beta2\n        square += gradient * gradient")
    ],
    "the second average is of sizes, not of squares": [
        (_SQUARE, "square += (1 - beta2) * (np.abs(gradient) - square)"),
        (_SIZE, 'size = square / (1 - beta2**n) + options["eps"]'),
    ],
    "the second average is of the deviation from the mean": [
        (_SQUARE, "square += (1 - beta2) * ((gradient - mean) ** 2 - square)")
    ],
    "the averages start at the first gradient, and are corrected too": [
        (_MEAN, f"if n == 1:\n            mean += gradient\n        {_MEAN}")
    ],
    "the average square never falls (AMSGrad)": [
        (
            _SQUARE,
            f"before = square.copy()\n        {_SQUARE}\n        np.maximum(square, before, out=square)",
        ),
    ],
    "the square of all entries is averaged, one size for the whole parameter": [
        (_SQUARE, "square += (1 - beta2) * (np.mean(gradient * gradient) - square)")
    ],
    "the weights get a new array": [(_SHRINK, 'weights = weights * (1 - lr * options["weight_decay"])')],
    "the gradient is changed": [(_MEAN, f"gradient *= 1 - 1e-3\n        {_MEAN}")],
    "the averages are float64 whatever the weights are": [
        ('"mean": np.zeros_like(weights)', '"mean": np.zeros(weights.shape)'),
        ('"square": np.zeros_like(weights)', '"square": np.zeros(weights.shape)'),
    ],
    "the two averages are one array": [
        (
            '        return {\n            "mean": np.zeros_like(weights),\n            "square": np.zeros_like(weights),\n',
            '        both = np.zeros_like(weights)\n        return {\n            "mean": both,\n            "square": both,\n',
        )
    ],
    "the count is not remembered in the state": [
        ('            "n_steps": np.zeros((), np.int64),\n', ""),
        (
            'state["n_steps"] += 1',
            "self.counts = getattr(self, 'counts', {})\n        self.counts[id(weights)] = self.counts.get(id(weights), 0) + 1",
        ),
        ('int(state["n_steps"])', "self.counts[id(weights)]"),
    ],
    "the count has 16 bits": [("np.zeros((), np.int64)", "np.zeros((), np.int16)")],
    "a gradient that is not finite is left out": [
        (
            'state["n_steps"] += 1',
            'if not np.isfinite(gradient).all():\n            return\n        state["n_steps"] += 1',
        )
    ],
    "beta2 is .95 if it is not given": [("= (0.9, 0.999)", "= (0.9, 0.95)")],
    "epsilon is 1e-6 if it is not given": [("eps: float = 1e-8", "eps: float = 1e-6")],
    "decay is 0 if it is not given": [("weight_decay: float = 0.01", "weight_decay: float = 0.0")],
    "a beta of 1 is accepted": [('"betas": (0.0, 1.0)', '"betas": (0.0, 1.5)')],
    "a negative rate is accepted": [('"lr": (0.0, math.inf)', '"lr": (-math.inf, math.inf)')],
    "a negative epsilon is accepted": [('"eps": (0.0, math.inf)', '"eps": (-math.inf, math.inf)')],
    "a negative decay is accepted": [
        ('"weight_decay": (0.0, math.inf),\n    }', '"weight_decay": (-math.inf, math.inf),\n    }')
    ],
    "decay_groups gives decay to vectors": [
        ("each.ndim >= 2]", "each.ndim >= 1]"),
        ("each.ndim < 2]", "each.ndim < 1]"),
    ],
    "decay_groups takes two axes exactly": [
        ("each.ndim >= 2]", "each.ndim == 2]"),
        ("each.ndim < 2]", "each.ndim != 2]"),
    ],
    "decay_groups puts what does not decay first": [
        ("return [group for group in groups if", "return [group for group in groups[::-1] if")
    ],
    "decay_groups returns empty groups, too": [(' if group["parameters"]]', "]")],
    "decay_groups walks a generator twice": [("    parameters = list(parameters)\n", "")],
    "decay_groups leaves the second group to the optimizer's own decay": [
        ('each.ndim < 2], "weight_decay": 0.0}', "each.ndim < 2]}")
    ],
    "decay_groups leaves out what is frozen": [
        ("parameters = list(parameters)", "parameters = [each for each in parameters if each.requires_grad]")
    ],
    "decay_groups decays everything": [
        ('each.ndim < 2], "weight_decay": 0.0}', 'each.ndim < 2], "weight_decay": weight_decay}')
    ],
}


def _rule(*lines):
    """Another body for the update, as edits."""
    body = "\n        ".join(lines)
    return [
        (_MEAN, "pass"),
        (_SQUARE, "pass"),
        (_SIZE, body),
        (_SHRINK, "pass"),
        (_MOVE, "pass"),
    ]


class _InFloat64(Optimizer):
    limits: ClassVar = {
        "lr": (0, math.inf),
        "betas": (0, 1),
        "eps": (0, math.inf),
        "weight_decay": (0, math.inf),
    }

    def __init__(self, parameters, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def start(self, weights):
        return {"square": 0 * weights, "mean": 0 * weights, "n_steps": np.array(0)}

    def update(self, weights, gradient, state, options):
        g, w = np.array(gradient, np.float64), np.array(weights, np.float64)
        state["n_steps"] = state["n_steps"] + 1
        n, lr = float(state["n_steps"]), options["lr"]
        for name, value, beta in (("mean", g, options["betas"][0]), ("square", g * g, options["betas"][1])):
            state[name] = np.array(beta * state[name].astype(np.float64) + (1 - beta) * value, weights.dtype)
        mean, square = (state[name].astype(np.float64) for name in ("mean", "square"))
        mean, square = mean / (1 - options["betas"][0] ** n), square / (1 - options["betas"][1] ** n)
        w -= lr * options["weight_decay"] * w
        weights[...] = w - lr * mean / (square**0.5 + options["eps"])


def _one_by_one(parameters, weight_decay):
    found = {True: [], False: []}
    for each in parameters:
        found[len(each.shape) > 1].append(each)
    return [
        {"weight_decay": weight_decay if is_matrix else 0.0, "parameters": members}
        for is_matrix, members in found.items()
        if members
    ]


EQUIVALENTS = {
    "in float64 inside, rounded once": {"AdamW": _InFloat64},
    "entry by entry": _rule(
        "for place in np.ndindex(weights.shape):",
        "    g = gradient[place]",
        "    mean[place] = beta1 * mean[place] + (1 - beta1) * g",
        "    square[place] = beta2 * square[place] + (1 - beta2) * g * g",
        "    weights[place] -= lr * options['weight_decay'] * weights[place]",
        "    root = math.sqrt(float(square[place]) / (1 - beta2**n)) + options['eps']",
        "    weights[place] -= lr * (float(mean[place]) / (1 - beta1**n)) / root",
    ),
    "the corrections are put into the rate, and epsilon is scaled to match": _rule(
        _MEAN,
        _SQUARE,
        "root = math.sqrt(1 - beta2**n)",
        "weights -= lr * options['weight_decay'] * weights",
        "weights -= (lr * root / (1 - beta1**n)) * mean / (np.sqrt(square) + options['eps'] * root)",
    ),
    "the averages are scaled and added": _rule(
        "np.multiply(mean, beta1, out=mean)",
        "mean += gradient * (1 - beta1)",
        "np.multiply(square, beta2, out=square)",
        "square += np.square(gradient) * (1 - beta2)",
        "step = (mean / (1 - beta1**n)) / (np.sqrt(square / (1 - beta2**n)) + options['eps'])",
        "weights -= lr * options['weight_decay'] * weights",
        "weights -= lr * step",
    ),
    "decay_groups parameter by parameter": {"decay_groups": _one_by_one},
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    gradients = rng.normal(size=(4, 2)) * np.array([1.0, 30.0])

    def walked(impl, *course, start=(1.0, -2.0), **options):
        w = Parameter(np.array(start))
        kept = w.data
        optimizer = impl.AdamW([w], **{"lr": 0.1, "weight_decay": 0.0, **options})
        for gradient in course:
            w.grad = np.array(gradient)
            optimizer.step()
        return [kept, w.data]

    def averages(impl, dtype=np.float64):
        w = Parameter(np.ones(2, dtype))
        optimizer = impl.AdamW([w], lr=0.1)
        for gradient in gradients[:2]:
            w.grad = gradient.astype(dtype)
            optimizer.step()
        return dict(optimizer.state_dict())

    def gradient_after(impl):
        w = Parameter([1.0, 2.0])
        w.grad = gradients[0].copy()
        impl.AdamW([w], lr=0.1, weight_decay=0.5).step()
        return w.grad

    def unequal(impl):
        """Two parameters, of which the second misses two steps."""
        a, b = Parameter([1.0]), Parameter([1.0])
        optimizer = impl.AdamW([a, b], lr=0.1, weight_decay=0.0)
        for step, gradient in enumerate(gradients):
            a.grad = gradient[:1].copy()
            b.grad = gradient[:1].copy() if step in (0, 3) else None
            optimizer.step()
        return [a.data, b.data]

    def later(impl):
        w = Parameter([1.0])
        optimizer = impl.AdamW([w], lr=0.5, weight_decay=0.0)
        state = {"0.mean": np.array([3.0]), "0.square": np.array([2.0]), "0.n_steps": np.array(99_999)}
        optimizer.load_state_dict(state)
        w.grad = np.array([1.0])
        optimizer.step()
        return dict(optimizer.state_dict())

    def infinite(impl):
        return np.nan_to_num(walked(impl, [math.inf, 1.0])[1], nan=99.0)

    def frozen(impl):
        members = [Parameter(np.zeros((2, 2))), Parameter(np.zeros((2, 2)))]
        members[0].requires_grad = False
        return [len(each["parameters"]) for each in impl.decay_groups(members, 0.5)]

    def defaults(impl):
        return {
            name: value
            for name, value in impl.AdamW([Parameter([1.0])], lr=0.1).groups[0].items()
            if name != "parameters"
        }

    def made(impl, **options):
        return len(impl.AdamW([Parameter([1.0])], **{"lr": 0.1, **options}).groups)

    def groups(impl, *shapes, wrap=list):
        members = [Parameter(np.zeros(shape)) for shape in shapes]
        found = impl.decay_groups(wrap(members), 0.5)
        return [
            [sorted(each), each.get("weight_decay"), [p.ndim for p in each["parameters"]]] for each in found
        ]

    return {
        "one step": lambda impl: walked(impl, gradients[0]),
        "two steps": lambda impl: walked(impl, *gradients[:2]),
        "four steps": lambda impl: walked(impl, *gradients),
        "steps that fall": lambda impl: walked(impl, *gradients[:2], *(gradients[2:] * 1e-3)),
        "other betas": lambda impl: walked(impl, *gradients[:3], betas=(0.5, 0.8)),
        "small gradients": lambda impl: walked(impl, *(gradients * 1e-8)),
        "a gradient of 0": lambda impl: walked(impl, [0.0, 0.0], eps=1e-3),
        "a large epsilon": lambda impl: walked(impl, *gradients[:2], eps=0.5),
        "decay": lambda impl: walked(impl, *gradients[:2], weight_decay=0.5),
        "decay alone": lambda impl: walked(impl, [0.0, 0.0], weight_decay=0.5, eps=1e-3),
        "much decay": lambda impl: walked(impl, *gradients[:2], weight_decay=30.0),
        "a long run": later,
        "an infinite gradient": infinite,
        "the averages": averages,
        "the averages, float32": lambda impl: averages(impl, np.float32),
        "the gradient after a step": gradient_after,
        "parameters with unequal counts": unequal,
        "defaults": defaults,
        "a beta of 1": lambda impl: made(impl, betas=(0.9, 1.0)),
        "a negative rate": lambda impl: made(impl, lr=-0.1),
        "a negative epsilon": lambda impl: made(impl, eps=-1e-8),
        "a negative decay": lambda impl: made(impl, weight_decay=-0.1),
        "groups": lambda impl: groups(impl, (2,), (2, 2), (), (2, 2, 2)),
        "groups with a frozen parameter": frozen,
        "groups of vectors": lambda impl: groups(impl, (2,), (3,)),
        "groups of a generator": lambda impl: groups(impl, (2,), (2, 2), wrap=iter),
    }
