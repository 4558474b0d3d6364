"""Walk downhill with a memory: steps in which gradients agree add up, steps in which they fight cancel.

Claim: a step against the gradient is stable only up to a rate that the steepest direction dictates, and then
the flattest one hardly moves. A velocity that remembers about 1 / (1 - momentum) gradients mends both.

Idea: an optimizer is a rule for one parameter, and a frame that applies it to all: groups with their own
options, what is remembered for each parameter, and a way to save that. `Optimizer` is the frame, `SGD` the
first rule.

Legend: ``weights`` the data of a parameter; ``gradient`` of the loss by it; ``state`` what is remembered for
it. All are arrays.

Left out: Nesterov's look ahead (`muon` has it); gradients that are zero almost everywhere.

Paper: Polyak (1964), https://doi.org/10.1016/0041-5553(64)90137-5
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import numpy as np

from techtree.techs.autodiff.modules import Parameter


class Optimizer:
    """What all optimizers share; a subclass writes the rule for one parameter: `start` and `update`.

    Parameters
    ----------
    parameters
        Parameters, or groups: dictionaries with ``"parameters"`` and the options that are special to them.
        Any iterables, each walked once.
    **options
        All options of the rule, by name: the values where a group does not say otherwise.

    Attributes
    ----------
    limits
        Set by the subclass, option -> (low, high): a value, or each number in a tuple, must be at least low
        and less than high. Without it every value is allowed.
    groups
        A list of new dictionaries, in the order given; each has ``"parameters"``, a list, and every option.
        Parameters that came without groups form one. Options may be changed between steps.

    Raises
    ------
    ValueError
        When there is no parameter at all, or one comes twice; when a group has no ``"parameters"``, or an
        option that is unknown; when a value is outside its limits, in a group too.

    Examples
    --------
    >>> class SignDescent(Optimizer):
    ...     def update(self, weights, gradient, state, options):
    ...         weights -= options["lr"] * np.sign(gradient)
    >>> a, b = Parameter([1.0, 2.0]), Parameter([3.0])
    >>> optimizer = SignDescent([{"parameters": [a]}, {"parameters": [b], "lr": 1.0}], lr=0.5)
    >>> a.grad = np.array([7.0, -7.0])  # and b has none
    >>> optimizer.step()
    >>> a.data.tolist(), b.data.tolist()
    ([0.5, 2.5], [3.0])
    """

    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __init__(self, parameters: Iterable[Parameter] | Iterable[Mapping], **options):
        given: list = list(parameters)
        if not any(isinstance(each, Mapping) for each in given):
            given = [{"parameters": given}]
        self.groups = [self._group(each, options) for each in given]
        members = [parameter for group in self.groups for parameter in group["parameters"]]
        if not members:
            raise ValueError("an optimizer needs parameters; got none (was a generator used up before?)")
        if len(set(map(id, members))) < len(members):
            raise ValueError("each parameter must come once; one is given twice")
        self._states = [dict(self.start(parameter.data)) for parameter in members]

    def _group(self, given: Mapping, options: Mapping) -> dict:
        if "parameters" not in given:
            raise ValueError(f'a group must have "parameters"; got {", ".join(given) or "nothing"}')
        if unknown := given.keys() - options.keys() - {"parameters"}:
            raise ValueError(
                f"a group may set {', '.join(options)}; got {', '.join(sorted(map(str, unknown)))}"
            )
        group = {**options, **given, "parameters": list(given["parameters"])}
        for name, (low, high) in self.limits.items():
            value = np.asarray(group[name])
            if not ((low <= value) & (value < high)).all():
                raise ValueError(f"{name} must be at least {low} and less than {high}; got {group[name]}")
        return group

    def _members(self) -> Iterator[tuple[Parameter, dict, dict]]:
        """Give each parameter with its state and its group."""
        states = iter(self._states)
        for group in self.groups:
            for parameter in group["parameters"]:
                yield parameter, next(states), group

    def start(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is remembered for a parameter before the first step: arrays, by name.

        Called once for each parameter, in order. A subclass that remembers nothing need not write it.

        Parameters
        ----------
        weights
            The data of the parameter, not to be changed.
        """
        return {}

    def update(self, weights: np.ndarray, gradient: np.ndarray, state: dict, options: Mapping) -> None:
        """Take one step with one parameter: written by the subclass; ``NotImplementedError`` if it was not.

        Parameters
        ----------
        weights
            The parameter's ``data`` itself, to be changed in place.
        gradient
            Its ``grad``, not to be changed.
        state
            What `start` returned for this parameter, as the last `update` left it: entries are changed in
            place, or assigned.
        options
            The group of the parameter.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update to take steps")

    def step(self) -> None:
        """Update every parameter that has a gradient.

        One whose ``grad`` is None is left alone, and so is what is remembered for it.
        """
        for parameter, state, group in self._members():
            if parameter.grad is not None:
                self.update(parameter.data, parameter.grad, state, group)

    def zero_grad(self) -> None:
        """Set the ``grad`` of every parameter to None."""
        for parameter, _, _ in self._members():
            parameter.grad = None

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of all that is remembered; options are not.

        ``"3.momentum"`` is the entry ``"momentum"`` of the fourth parameter, counted through all groups.
        """
        return {key: np.array(self._states[number][name]) for key, number, name in self._keys()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state: with the same weights and options, all further steps are equal to the bit.

        The values are copied, and take the dtype of what they replace.

        Raises
        ------
        ValueError
            When a name is missing or not expected, or a shape is another. Nothing is changed then.
        """
        own = self.state_dict()
        problems = [f"{key} is missing" for key in own if key not in state]
        problems += [f"{key} is not expected" for key in state if key not in own]
        problems += [
            f"{key} must have the shape {value.shape}; got {np.shape(state[key])}"
            for key, value in own.items()
            if key in state and np.shape(state[key]) != value.shape
        ]
        if problems:
            raise ValueError(f"the state must be of an optimizer like this one: {'; '.join(problems)}")
        for key, number, name in self._keys():
            self._states[number][name] = np.array(state[key], own[key].dtype)

    def _keys(self) -> list[tuple[str, int, str]]:
        """Return the key of each entry in a saved state, the parameter's number, and the entry's name."""
        return [(f"{n}.{name}", n, name) for n, state in enumerate(self._states) for name in state]


class SGD(Optimizer):
    """Gradient descent with momentum: the step follows a velocity, to which each gradient adds a push.

    Parameters
    ----------
    parameters
        As for `Optimizer`.
    lr
        The learning rate, at least 0.
    momentum
        The share of the velocity that stays from one step to the next, at least 0 and less than 1.
    weight_decay
        The share of the weights that is added to the gradient, at least 0.

    Notes
    -----
    ``velocity = momentum * velocity + gradient + weight_decay * weights``, and then
    ``weights -= lr * velocity``. The velocity starts at 0, so that the first one is the first gradient. It is
    what is remembered, as ``"momentum"``. Weights and velocity keep the dtype of the weights.

    Examples
    --------
    >>> w = Parameter([1.0])
    >>> optimizer = SGD([w], lr=0.25, momentum=0.5)
    >>> for _ in range(3):
    ...     w.grad = np.array([1.0])
    ...     optimizer.step()  # velocities 1, 1.5 and 1.75
    >>> w.data.tolist(), optimizer.state_dict()["0.momentum"].tolist()
    ([-0.0625], [1.75])
    """

    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "lr": (0.0, math.inf),
        "momentum": (0.0, 1.0),
        "weight_decay": (0.0, math.inf),
    }

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[Mapping],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def start(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return a velocity of 0."""
        return {"momentum": np.zeros_like(weights)}

    def update(self, weights: np.ndarray, gradient: np.ndarray, state: dict, options: Mapping) -> None:
        """Push the velocity, and move along it."""
        velocity = state["momentum"]
        velocity *= options["momentum"]
        velocity += gradient + options["weight_decay"] * weights
        weights -= options["lr"] * velocity
