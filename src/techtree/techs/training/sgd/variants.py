"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math
from typing import ClassVar

import numpy as np

from techtree.techs.autodiff.modules import Parameter

_UPDATE = """        velocity = state["momentum"]
        velocity *= options["momentum"]
        velocity += gradient + options["weight_decay"] * weights
        weights -= options["lr"] * velocity"""


def _rule(*lines):
    """The edit that gives SGD another rule."""
    return [(_UPDATE, "\n".join("        " + line for line in lines))]


_GET = 'velocity = state["momentum"]'
_FADE = 'velocity *= options["momentum"]'
_PUSH = 'velocity += gradient + options["weight_decay"] * weights'
_MOVE = 'weights -= options["lr"] * velocity'

MISTAKES = {
    "the step goes up the gradient": _rule(_GET, _FADE, _PUSH, 'weights += options["lr"] * velocity'),
    "momentum is ignored": _rule(_GET, "velocity *= 0", _PUSH, _MOVE),
    "the velocity is an average: the gradient enters with the factor 1 - momentum": _rule(
        _GET,
        _FADE,
        'velocity += (1 - options["momentum"]) * (gradient + options["weight_decay"] * weights)',
        _MOVE,
    ),
    "the rate is part of the velocity, so that earlier rates live on in it": _rule(
        _GET,
        _FADE,
        'velocity += options["lr"] * (gradient + options["weight_decay"] * weights)',
        "weights -= velocity",
    ),
    "the step looks ahead, as Nesterov's does": _rule(
        _GET,
        _FADE,
        'push = gradient + options["weight_decay"] * weights',
        "velocity += push",
        'weights -= options["lr"] * (push + options["momentum"] * velocity)',
    ),
    "the step takes the velocity of before": _rule(_GET, _MOVE, _FADE, _PUSH),
    "the velocity fades after the gradient was added": _rule(_GET, _PUSH, _FADE, _MOVE),
    "the velocity is an average, corrected as Adam's is by 1 - momentum**n": _rule(
        "self.n = getattr(self, 'n', 0) + 1",
        _GET,
        _FADE,
        'velocity += (1 - options["momentum"]) * (gradient + options["weight_decay"] * weights)',
        'weights -= options["lr"] * velocity / (1 - options["momentum"] ** self.n)',
    ),
    "decay is ignored": _rule(_GET, _FADE, "velocity += gradient", _MOVE),
    "decay does not pass through the velocity": _rule(
        _GET,
        _FADE,
        "velocity += gradient",
        'weights -= options["lr"] * (velocity + options["weight_decay"] * weights)',
    ),
    "decay does not take the rate as a factor": _rule(
        _GET,
        'weights *= 1 - options["weight_decay"]',
        _FADE,
        "velocity += gradient",
        _MOVE,
    ),
    "decay pushes weights away from 0": _rule(
        _GET, _FADE, 'velocity += gradient - options["weight_decay"] * weights', _MOVE
    ),
    "decay is that of the sum of absolute values": _rule(
        _GET, _FADE, 'velocity += gradient + options["weight_decay"] * np.sign(weights)', _MOVE
    ),
    "decay is added to the gradient in place": _rule(
        _GET, _FADE, 'gradient += options["weight_decay"] * weights', "velocity += gradient", _MOVE
    ),
    "the first gradient itself becomes the velocity, not a copy": _rule(
        _GET,
        "if velocity.any():",
        "    " + _FADE,
        "    " + _PUSH,
        'elif options["weight_decay"]:',
        "    " + _PUSH,
        "else:",
        '    state["momentum"] = velocity = gradient',
        _MOVE,
    ),
    "the weights become a new array": [
        (
            "self.update(parameter.data, parameter.grad, state, group)",
            "parameter.data = parameter.data.copy()\n"
            "                self.update(parameter.data, parameter.grad, state, group)",
        )
    ],
    "the velocity is kept in float64": [("np.zeros_like(weights)}", "np.zeros(weights.shape)}")],
    "a parameter without a gradient moves on, as if its gradient were 0": [
        (
            "            if parameter.grad is not None:\n"
            "                self.update(parameter.data, parameter.grad, state, group)",
            "            grad = np.zeros_like(parameter.data) if parameter.grad is None else parameter.grad\n"
            "            self.update(parameter.data, grad, state, group)",
        )
    ],
    "a parameter without a gradient is an error": [("if parameter.grad is not None:", "if True:")],
    "a parameter without a gradient ends the step": [
        (
            "            if parameter.grad is not None:\n",
            "            if parameter.grad is None:\n                return\n            if True:\n",
        )
    ],
    "zero_grad fills the gradients with 0": [
        (
            "            parameter.grad = None",
            "            parameter.grad = None if parameter.grad is None else 0 * parameter.grad",
        )
    ],
    "zero_grad treats the first group only": [
        (
            "        for parameter, _, _ in self._members():\n",
            '        for parameter in self.groups[0]["parameters"]:\n',
        )
    ],
    "the options of the call win over those of a group": [
        (
            'group = {**options, **given, "parameters"',
            'group = {**given, **options, "parameters"',
        )
    ],
    "all groups take the options of the first": [
        (
            "                yield parameter, next(states), group",
            "                yield parameter, next(states), self.groups[0]",
        )
    ],
    "options are read when the optimizer is made": [
        (
            "        self._states = [",
            "        self._frozen = [dict(group) for group in self.groups]\n        self._states = [",
        ),
        (
            "        for group in self.groups:\n            for parameter in group",
            "        for group in self._frozen:\n            for parameter in group",
        ),
    ],
    "the caller's dictionaries become the groups": [
        (
            'group = {**options, **given, "parameters": list(given["parameters"])}',
            'group = given; group.update({**options, **given, "parameters": list(given["parameters"])})',
        )
    ],
    "the parameters are walked twice, so that a generator is used up": [
        ('"parameters": list(given["parameters"])}', '"parameters": given["parameters"]}')
    ],
    "no parameter at all is accepted": [("if not members:", "if False:")],
    "a parameter may come twice, and is updated twice": [
        ("if len(set(map(id, members))) < len(members):", "if False:")
    ],
    "an unknown option of a group is accepted": [
        ('if unknown := given.keys() - options.keys() - {"parameters"}:', "if unknown := ():")
    ],
    'a group without "parameters" is empty': [
        ('if "parameters" not in given:', "if False:"),
        ('list(given["parameters"])', 'list(given.get("parameters", []))'),
    ],
    "limits are not looked at": [("if not ((low <= value) & (value < high)).all():", "if False:")],
    "limits are looked at outside of groups only": [
        ("for name, (low, high) in self.limits.items():", "for name, (low, high) in self._limits(given):"),
        (
            "    def _members(self)",
            "    def _limits(self, given):\n"
            "        return [(k, v) for k, v in self.limits.items() if k not in given]\n\n"
            "    def _members(self)",
        ),
    ],
    "the upper limit is allowed": [("(value < high)", "(value <= high)")],
    "the lower limit is refused": [("(low <= value)", "(low < value)")],
    "NaN is within the limits": [
        (
            "if not ((low <= value) & (value < high)).all():",
            "if ((value < low) | (value >= high)).any():",
        )
    ],
    "one number of a tuple within the limits is enough": [("(value < high)).all()", "(value < high)).any()")],
    "parameters of one shape share what is remembered": [
        (
            "[dict(self.start(parameter.data)) for parameter in members]",
            "[shared.setdefault(p.shape, dict(self.start(p.data))) for p in members]",
        ),
        ("        self._states = [", "        shared = {}\n        self._states = ["),
    ],
    "all optimizers share what is remembered": [
        (
            "    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}\n",
            "    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}\n"
            "    _shared: ClassVar[dict] = {}\n",
        ),
        (
            "[dict(self.start(parameter.data)) for parameter in members]",
            "[\n"
            "            self._shared.setdefault((n, p.shape), dict(self.start(p.data)))\n"
            "            for n, p in enumerate(members)\n"
            "        ]",
        ),
    ],
    "state_dict gives the arrays themselves": [
        ("np.array(self._states[number][name])", "self._states[number][name]")
    ],
    "state_dict counts the parameters of each group from 0": [
        (
            'return [(f"{n}.{name}", n, name) for n, state in enumerate(self._states) for name in state]',
            'm = [n for group in self.groups for n in range(len(group["parameters"]))]\n'
            '        return [(f"{m[n]}.{name}", n, name) for n, s in enumerate(self._states) for name in s]',
        )
    ],
    "state_dict counts from 1": [('(f"{n}.{name}", n, name)', '(f"{n + 1}.{name}", n, name)')],
    "what is loaded is not copied": [
        ("np.array(state[key], own[key].dtype)", "np.asarray(state[key], own[key].dtype)")
    ],
    "what is loaded keeps its own dtype": [("np.array(state[key], own[key].dtype)", "np.array(state[key])")],
    "a state with missing entries is accepted": [
        ('problems = [f"{key} is missing" for key in own if key not in state]', "problems = []"),
        (
            "            self._states[number][name] = np.array(state[key], own[key].dtype)",
            "            self._states[number][name] = np.array(state.get(key, own[key]), own[key].dtype)",
        ),
    ],
    "a state with entries that are not expected is accepted": [
        (
            '        problems += [f"{key} is not expected" for key in state if key not in own]\n',
            "",
        )
    ],
    "a state of another shape is accepted": [("np.shape(state[key]) != value.shape", "False")],
    "a state of another shape is accepted when it can be broadcast": [
        (
            "np.shape(state[key]) != value.shape",
            "np.broadcast_shapes(np.shape(state[key]), value.shape) != value.shape",
        ),
        (
            "np.array(state[key], own[key].dtype)",
            "np.array(np.broadcast_to(state[key], own[key].shape), own[key].dtype)",
        ),
    ],
    "a state that is refused is loaded in part": [
        (
            "        if problems:\n",
            "        for key, number, name in self._keys():\n"
            "            if key in state and np.shape(state[key]) == own[key].shape:\n"
            "                self._states[number][name] = np.array(state[key], own[key].dtype)\n"
            "        if problems:\n",
        )
    ],
    "loading forgets what was remembered and starts anew": [
        (
            "            self._states[number][name] = np.array(state[key], own[key].dtype)",
            "            self._states[number][name] = np.zeros_like(own[key])",
        )
    ],
    "an optimizer without a rule does nothing": [
        (
            '        raise NotImplementedError(f"{type(self).__name__} must define update to take steps")',
            "        return",
        )
    ],
    "start is called anew for each saving, not once": [
        (
            "        return {key: np.array(self",
            "        for parameter, _, _ in self._members():\n"
            "            self.start(parameter.data)\n"
            "        return {key: np.array(self",
        )
    ],
}


class _OtherOptimizer:
    """One list of records, made by walking groups and parameters once; states saved under (number, name)."""

    limits: ClassVar = {}

    def __init__(self, parameters, **options):
        self.groups, self.records = [], []
        for each in self._as_groups(parameters):
            group = dict(options)
            for name, value in each.items():
                if name not in options and name != "parameters":
                    raise ValueError(f"unknown option {name}")
                group[name] = value
            if "parameters" not in each:
                raise ValueError("no parameters in a group")
            group["parameters"] = [*each["parameters"]]
            for name, (low, high) in self.limits.items():
                numbers = group[name] if isinstance(group[name], tuple | list) else [group[name]]
                if any(not low <= number < high for number in numbers):
                    raise ValueError(f"{name} is outside its limits")
            self.groups.append(group)
            for parameter in group["parameters"]:
                if any(parameter is record[0] for record in self.records):
                    raise ValueError("a parameter comes twice")
                self.records.append((parameter, group, {**self.start(parameter.data)}))
        if not self.records:
            raise ValueError("no parameters")

    @staticmethod
    def _as_groups(parameters):
        parameters = [*parameters]
        return parameters if parameters and isinstance(parameters[0], dict) else [{"parameters": parameters}]

    def start(self, weights):
        return {}

    def update(self, weights, gradient, state, options):
        raise NotImplementedError

    def step(self):
        for parameter, group, state in self.records:
            if parameter.grad is None:
                continue
            self.update(parameter.data, parameter.grad, state, group)

    def zero_grad(self):
        for record in self.records:
            record[0].grad = None

    def state_dict(self):
        found = {}
        for number, (_, _, state) in enumerate(self.records):
            found |= {f"{number}.{name}": np.copy(value) for name, value in state.items()}
        return found

    def load_state_dict(self, state):
        own = self.state_dict()
        if set(own) != set(state) or any(own[key].shape != np.shape(state[key]) for key in own):
            raise ValueError("the state of another optimizer")
        for key, value in state.items():
            number, _, name = key.partition(".")
            kept = np.empty_like(own[key])
            kept[...] = value
            self.records[int(number)][2][name] = kept


class _OtherSGD(_OtherOptimizer):
    limits: ClassVar = {"lr": (0, math.inf), "momentum": (0, 1), "weight_decay": (0, math.inf)}

    def __init__(self, parameters, lr, momentum=0.0, weight_decay=0.0):
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def start(self, weights):
        return {"momentum": 0 * weights}

    def update(self, weights, gradient, state, options):
        decayed = options["weight_decay"] * weights + gradient
        state["momentum"] = np.array(options["momentum"] * state["momentum"] + decayed, weights.dtype)
        np.subtract(weights, (options["lr"] * state["momentum"]).astype(weights.dtype), out=weights)


EQUIVALENTS = {
    "in float64 inside, rounded once": _rule(
        'w, g, v = (np.array(x, np.float64) for x in (weights, gradient, state["momentum"]))',
        'v = options["momentum"] * v + (g + options["weight_decay"] * w)',
        'weights[...] = w - options["lr"] * v',
        'state["momentum"] = v.astype(weights.dtype)',
    ),
    "entry by entry": _rule(
        'lr, momentum, decay = (options[name] for name in ("lr", "momentum", "weight_decay"))',
        "for place in np.ndindex(weights.shape):",
        "    push = gradient[place] + decay * weights[place]",
        '    state["momentum"][place] = momentum * state["momentum"][place] + push',
        '    weights[place] -= lr * state["momentum"][place]',
    ),
    "each part of the step subtracted by itself": _rule(
        'velocity, lr, decay = state["momentum"], options["lr"], options["weight_decay"]',
        "np.multiply(velocity, options['momentum'], out=velocity)",
        "old = weights.copy()",
        "weights -= lr * velocity",
        "weights -= lr * gradient",
        "weights -= lr * decay * old",
        "velocity += gradient",
        "velocity += decay * old",
    ),
    "another frame, with records": {"Optimizer": _OtherOptimizer, "SGD": _OtherSGD},
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    gradients = rng.normal(size=(3, 2))

    def pair():
        return Parameter([1.0, -2.0]), Parameter([3.0, 4.0])

    def walked(impl, *gradients, **options):
        w = Parameter([1.0, -2.0])
        optimizer = impl.SGD([w], **{"lr": 0.5, **options})
        for gradient in gradients:
            w.grad = np.array(gradient)
            optimizer.step()
        return w.data

    def velocity(impl):
        a, _ = pair()
        optimizer = impl.SGD([a], lr=0.5, momentum=0.5)
        a.grad = gradients[0].copy()
        optimizer.step()
        return optimizer.state_dict()["0.momentum"]

    def rate_changes(impl):
        a, _ = pair()
        optimizer = impl.SGD([a], lr=0.5, momentum=0.5)
        for lr in (0.5, 0.1):
            optimizer.groups[0]["lr"] = lr
            a.grad = gradients[0].copy()
            optimizer.step()
        return a.data

    def gradient_after(impl, weight_decay, n_steps):
        a, _ = pair()
        optimizer = impl.SGD([a], lr=0.5, momentum=0.5, weight_decay=weight_decay)
        a.grad = gradients[0].copy()
        for _ in range(n_steps):
            optimizer.step()
        return a.grad

    def in_place(impl):
        a, _ = pair()
        data = a.data
        a.grad = gradients[0].copy()
        impl.SGD([a], lr=0.5).step()
        return data

    def dtypes(impl):
        w = Parameter(np.ones(2, np.float32))
        optimizer = impl.SGD([w], lr=0.5)
        w.grad = np.ones(2, np.float32)
        optimizer.step()
        return f"{w.data.dtype} {optimizer.state_dict()['0.momentum'].dtype}"

    def without_gradient(impl, first):
        a, b = pair()
        optimizer = impl.SGD([a, b], lr=0.5, momentum=0.5)
        a.grad, b.grad = gradients[0].copy(), gradients[1].copy()
        optimizer.step()
        (a if first else b).grad = None
        optimizer.step()
        return np.concatenate([a.data, b.data])

    def zeroed(impl, n_groups):
        a, b = pair()
        optimizer = impl.SGD([{"parameters": [a]}, {"parameters": [b]}] if n_groups == 2 else [a, b], lr=0.5)
        a.grad, b.grad = gradients[0].copy(), gradients[1].copy()
        optimizer.zero_grad()
        return [str(each.grad) for each in (a, b)]

    def groups(impl, own):
        a, b = pair()
        optimizer = impl.SGD([{"parameters": [a], **own}, {"parameters": [b]}], lr=0.5)
        a.grad, b.grad = np.ones(2), np.ones(2)
        optimizer.step()
        return np.concatenate([a.data, b.data])

    def callers_dictionary(impl):
        given = {"parameters": [pair()[0]]}
        impl.SGD([given], lr=0.5)
        return sorted(given)

    def generator(impl):
        a, b = pair()
        optimizer = impl.SGD([{"parameters": iter([a, b])}], lr=0.5)
        a.grad, b.grad = np.ones(2), np.ones(2)
        optimizer.step()
        return np.concatenate([a.data, b.data])

    def made(impl, make, **options):
        return len(impl.SGD(make(), **{"lr": 0.5, **options}).groups)

    def twins(impl):
        a, b = pair()
        optimizer = impl.SGD([a, b], lr=0.5, momentum=0.5)
        a.grad, b.grad = gradients[0].copy(), gradients[1].copy()
        optimizer.step()
        return list(optimizer.state_dict().values())

    def second_optimizer(impl):
        a, _ = pair()
        for _ in range(2):
            a.data[:] = 1.0
            optimizer = impl.SGD([a], lr=0.5, momentum=0.5)
            a.grad = gradients[0].copy()
            optimizer.step()
        return a.data

    def saved_then_changed(impl):
        a, _ = pair()
        optimizer = impl.SGD([a], lr=0.5, momentum=0.5)
        a.grad = gradients[0].copy()
        optimizer.step()
        state = optimizer.state_dict()
        state["0.momentum"][:] = 7.0
        return next(iter(optimizer.state_dict().values()))

    def keys(impl):
        a, b = pair()
        return list(impl.SGD([{"parameters": [a]}, {"parameters": [b]}], lr=0.5).state_dict())

    def loaded(impl, change, dtype=np.float64):
        a, b = Parameter(np.ones(2, dtype)), Parameter(np.ones(3, dtype))
        optimizer = impl.SGD([a, b], lr=0.5, momentum=0.5)
        names = list(optimizer.state_dict())
        state = {names[0]: np.array([0.1, 0.2]), names[1]: np.array([0.3, 0.4, 0.5])}
        change(state, names)
        try:
            optimizer.load_state_dict(state)
        except ValueError:
            return ["refused", *map(list, optimizer.state_dict().values())]
        state[names[0]][...] = 9.0
        found = optimizer.state_dict()
        return [str(found[names[0]].dtype), *map(list, found.values())]

    def tuples(impl):
        rule = type("Rule", (impl.Optimizer,), {"limits": {"betas": (0.0, 1.0)}})
        return len(rule(pair(), betas=(0.5, 2.0)).groups)

    def starts(impl):
        calls = []

        def start(self, weights):
            calls.append(1)
            return {"x": np.zeros(2)}

        optimizer = type("Rule", (impl.Optimizer,), {"start": start})(pair())
        optimizer.state_dict()
        return len(calls)

    def without_rule(impl):
        a, _ = pair()
        a.grad = np.ones(2)
        return str(impl.Optimizer([a]).step())

    def without_parameters(impl):
        return made(impl, lambda: [{"parameters": [pair()[0]]}, {"lr": 0.5}])

    nothing = {}
    return {
        "one step": lambda impl: walked(impl, gradients[0]),
        "two steps with momentum": lambda impl: walked(impl, *gradients[:2], momentum=0.5),
        "the velocity": velocity,
        "a rate that changes": rate_changes,
        "decay": lambda impl: walked(impl, [0.0, 0.0], weight_decay=0.5),
        "decay at another rate": lambda impl: walked(impl, [0.0, 0.0], lr=0.25, weight_decay=0.5),
        "decay and momentum": lambda impl: walked(impl, *np.zeros((2, 2)), weight_decay=0.5, momentum=0.5),
        "the gradient after a step with decay": lambda impl: gradient_after(impl, 0.5, 1),
        "the gradient after two steps": lambda impl: gradient_after(impl, 0.0, 2),
        "who holds the array": in_place,
        "dtypes": dtypes,
        "the last without gradient": lambda impl: without_gradient(impl, False),
        "the first without gradient": lambda impl: without_gradient(impl, True),
        "zero_grad": lambda impl: zeroed(impl, 1),
        "zero_grad of two groups": lambda impl: zeroed(impl, 2),
        "a group's own rate": lambda impl: groups(impl, {"lr": 0.25}),
        "a group without own options": lambda impl: groups(impl, nothing),
        "the caller's dictionary": callers_dictionary,
        "a generator": generator,
        "no parameter": lambda impl: made(impl, list),
        "a parameter twice": lambda impl: made(impl, lambda: pair()[:1] * 2),
        "an unknown option": lambda impl: made(impl, lambda: [{"parameters": pair(), "momentun": 0.5}]),
        "a group without parameters": without_parameters,
        "an option outside": lambda impl: made(impl, pair, momentum=1.5),
        "an option outside, in a group": lambda impl: made(
            impl, lambda: [{"parameters": pair(), "momentum": 1.5}]
        ),
        "an option at the upper limit": lambda impl: made(impl, pair, momentum=1.0),
        "an option at the lower limit": lambda impl: made(impl, pair, momentum=0.0),
        "an option that is NaN": lambda impl: made(impl, pair, lr=np.nan),
        "a tuple outside": tuples,
        "two of one shape": twins,
        "a second optimizer": second_optimizer,
        "the saved state, changed": saved_then_changed,
        "names in the saved state": keys,
        "start, counted": starts,
        "an optimizer without a rule": without_rule,
        "a loaded state": lambda impl: loaded(impl, lambda state, names: None),
        "a loaded state, float32": lambda impl: loaded(impl, lambda state, names: None, np.float32),
        "a state with less": lambda impl: loaded(impl, lambda state, names: state.pop(names[1])),
        "a state with more": lambda impl: loaded(impl, lambda state, names: state.update(x=np.zeros(2))),
        "a state of another shape": lambda impl: loaded(
            impl, lambda state, names: state.update({names[1]: np.zeros(2)})
        ),
        "a state of a shape that broadcasts": lambda impl: loaded(
            impl, lambda state, names: state.update({names[1]: np.zeros(1)})
        ),
    }
