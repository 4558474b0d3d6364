"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math
from fractions import Fraction

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, concatenate, no_grad, record
from techtree.techs.training.activations import gelu, gelu_tanh, relu, sigmoid, silu
from techtree.techs.training.linear import Linear

_END = "return self.down(silu(self.gate(x)) * self.up(x))"
_GATE = "self.gate = Linear(width, hidden, rng, has_bias, dtype=dtype)"
_UP = "self.up = Linear(width, hidden, rng, has_bias, dtype=dtype)"
_DOWN = "self.down = Linear(hidden, width, rng, has_bias, gain, dtype)"
_CHECK = "if width < 1 or multiple_of < 1:"
_COUNT = "n_multiples = -(-8 * int(width) // (3 * int(multiple_of)))"
_RETURN = "return n_multiples * int(multiple_of)"


def _layer(forward=None, init=None):
    """Make a SwiGLU with another forward pass or another start."""

    class SwiGLU(Module):
        def __init__(self, width, hidden, rng, has_bias=False, gain=1.0, dtype=np.float64):
            for name in ("gate", "up"):
                setattr(self, name, Linear(width, hidden, rng, has_bias=has_bias, dtype=dtype))
            self.down = Linear(hidden, width, rng, has_bias=has_bias, gain=gain, dtype=dtype)

        def forward(self, x):
            return self.down(silu(self.gate(x)) * self.up(x))

    if forward:
        SwiGLU.forward = forward
    if init:
        SwiGLU.__init__ = init
    return SwiGLU


def _with(curve):
    """Make a layer whose gate has another curve."""
    return {"SwiGLU": _layer(lambda self, x: self.down(curve(self.gate(x)) * self.up(x)))}


def _stacked(self, x):
    """Both projections as one product with a matrix of twice the height."""
    if x.ndim == 0 or x.shape[-1] != self.gate.weight.shape[1]:
        raise ValueError("x must be as wide as the weights")
    hidden = self.gate.weight.shape[0]
    weight = concatenate([self.gate.weight, self.up.weight])
    both = x @ weight.swapaxes(0, 1)
    if self.gate.bias is not None:
        both = both + concatenate([self.gate.bias, self.up.bias])
    gate, up = both[..., :hidden], both[..., hidden:]
    return self.down(gate * sigmoid(gate) * up)


def _one_operation(self, x):
    """One operation on the tape, with the slope of SiLU written out."""
    a, u = self.gate(x), self.up(x)
    e = np.exp(-np.abs(a.data))
    s = np.where(a.data < 0, e, 1) / (1 + e)
    product = record(
        a.data * s * u.data,
        (a, lambda g: g * u.data * (s + a.data * s * (1 - s))),
        (u, lambda g: g * (a.data * s)),
    )
    return self.down(product)


def _unit_by_unit(self, x):
    """Each hidden unit adds its own part."""
    if x.ndim == 0 or x.shape[-1] != self.gate.weight.shape[1]:
        raise ValueError("x must be as wide as the weights")
    total = None
    for n in range(self.gate.weight.shape[0]):
        gate, up = ((x * each.weight[n]).sum(axis=-1, keepdims=True) for each in (self.gate, self.up))
        if self.gate.bias is not None:
            gate, up = gate + self.gate.bias[n], up + self.up.bias[n]
        part = silu(gate) * up * self.down.weight[:, n]
        total = part if total is None else total + part
    return total if self.down.bias is None else total + self.down.bias


def _flat(self, x):
    """All tokens as the rows of one matrix, and back."""
    if x.ndim == 0 or x.shape[-1] != self.gate.weight.shape[1]:
        raise ValueError("x must be as wide as the weights")
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    z = rows @ self.gate.weight.transpose()
    u = rows @ self.up.weight.transpose()
    if self.gate.bias is not None:
        z, u = z + self.gate.bias, u + self.up.bias
    y = (u * silu(z)) @ self.down.weight.transpose()
    return (y if self.down.bias is None else y + self.down.bias).reshape(x.shape)


def _by_fractions(width, multiple_of=64):
    if min(width, multiple_of) <= 0:
        raise ValueError("both must be at least 1")
    return math.ceil(Fraction(8 * width, 3 * multiple_of)) * multiple_of


def _by_steps(width, multiple_of=64):
    if not (width >= 1 and multiple_of >= 1):
        raise ValueError("both must be at least 1")
    least = (8 * width + 2) // 3
    rest = least % multiple_of
    return least + (multiple_of - rest if rest else 0)


_KNOWN: dict = {}


def _shared(self, width, hidden, rng, has_bias=False, gain=1.0, dtype=np.float64):
    made = [Linear(width, hidden, rng, has_bias, dtype=dtype) for _ in range(2)]
    made.append(Linear(hidden, width, rng, has_bias, gain, dtype))
    key = (width, hidden, has_bias, gain, np.dtype(dtype).name)
    self.gate, self.up, self.down = _KNOWN.setdefault(key, made)


def _kept(self, width, hidden, rng, has_bias=False, gain=1.0, dtype=np.float64):
    self.gate, self.up = (Linear(width, hidden, rng, has_bias, dtype=dtype) for _ in range(2))
    self.down = Linear(hidden, width, rng, has_bias, gain, dtype)
    first = (self.gate, self.up, self.down)
    self.first = lambda: first


def _first(self, x):
    gate, up, down = self.first()
    return down(silu(gate(x)) * up(x))


MISTAKES = {
    "the curve is on the other projection": [(_END, "return self.down(self.gate(x) * silu(self.up(x)))")],
    "the gate has no curve": [(_END, "return self.down(self.gate(x) * self.up(x))")],
    "the gate is a sigmoid, as in the first gated layers": _with(sigmoid),
    "the gate is GELU": _with(gelu),
    "the gate is GELU in its tanh form": _with(gelu_tanh),
    "the gate is ReLU": _with(relu),
    "the gate is a tanh": _with(Tensor.tanh),
    "the curve is on both projections": [(_END, "return self.down(silu(self.gate(x)) * silu(self.up(x)))")],
    "the curve is on the product": [(_END, "return self.down(silu(self.gate(x) * self.up(x)))")],
    "the projections are added": [(_END, "return self.down(silu(self.gate(x)) + self.up(x))")],
    "the gate lets 1 more pass": [(_END, "return self.down((silu(self.gate(x)) + 1) * self.up(x))")],
    "the gate takes 1 more of the other projection": [
        (_END, "return self.down(silu(self.gate(x)) * (self.up(x) + 1))")
    ],
    "there is a curve at the end": [(_END, "return silu(self.down(silu(self.gate(x)) * self.up(x)))")],
    "the token is added to the result": [(_END, "return x + self.down(silu(self.gate(x)) * self.up(x))")],
    "the other projection is left out": [(_END, "return self.down(silu(self.gate(x)))")],
    "both projections are the gate": [(_END, "return self.down(silu(self.gate(x)) * self.gate(x))")],
    "both projections are the up layer": [(_END, "return self.down(silu(self.up(x)) * self.up(x))")],
    "the gate learns nothing": [(_END, "return self.down(silu(self.gate(x)).detach() * self.up(x))")],
    "what passes learns nothing": [(_END, "return self.down(silu(self.gate(x)) * self.up(x).detach())")],
    "the token gets no gradient": [
        (_END, "return self.down(silu(self.gate(x.detach())) * self.up(x.detach()))")
    ],
    "the token gets its gradient through the gate alone": [
        (_END, "return self.down(silu(self.gate(x)) * self.up(x.detach()))")
    ],
    "the slope of SiLU is its sigmoid": {
        "SwiGLU": _layer(
            lambda self, x: self.down(self.gate(x) * sigmoid(self.gate(x)).detach() * self.up(x))
        )
    },
    "the product is divided by the root of its width": [
        (_END, "return self.down(silu(self.gate(x)) * self.up(x) / self.down.weight.shape[1] ** 0.5)")
    ],
    "the tokens come out as rows, whatever axes they had": [
        (_END, "return self.down(silu(self.gate(x)) * self.up(x)).reshape(-1, self.down.weight.shape[0])")
    ],
    "a single token is refused": [(_END, "assert x.ndim > 1\n        " + _END)],
    "the result is always float64": [
        (_END, "y = self.down(silu(self.gate(x)) * self.up(x))\n        return y * np.ones(y.shape)")
    ],
    "the up layer is drawn before the gate": [(f"{_GATE}\n        {_UP}", f"{_UP}\n        {_GATE}")],
    "the down layer is drawn first": [
        (f"{_GATE}\n        {_UP}\n        {_DOWN}", f"{_DOWN}\n        {_GATE}\n        {_UP}")
    ],
    "gate and up start equal": [(_UP, _UP + "\n        self.up.load_state_dict(self.gate.state_dict())")],
    "the gain is ignored": [(_DOWN, _DOWN.replace("gain", "1.0"))],
    "the gain is that of all three layers": [
        (_GATE, _GATE.replace("has_bias, dtype", "has_bias, gain, dtype")),
        (_UP, _UP.replace("has_bias, dtype", "has_bias, gain, dtype")),
    ],
    "the gain is that of the gate": [
        (_GATE, _GATE.replace("has_bias, dtype", "has_bias, gain, dtype")),
        (_DOWN, _DOWN.replace("gain", "1.0")),
    ],
    "the generator is one of its own": [(_GATE, "rng = np.random.default_rng(0)\n        " + _GATE)],
    "there are biases unless they are refused": [("has_bias: bool = False", "has_bias: bool = True")],
    "there are never biases": [(_GATE, "has_bias = False\n        " + _GATE)],
    "the down layer never has a bias": [(_DOWN, _DOWN.replace("has_bias", "False"))],
    "dtype is ignored": [(_GATE, "dtype = np.float64\n        " + _GATE)],
    "the down layer is always float64": [(_DOWN, _DOWN.replace(", dtype", ""))],
    "the layers have other names": [
        (_GATE, _GATE.replace("gate", "w1")),
        (_UP, _UP.replace("self.up", "self.w3")),
        (_DOWN, _DOWN.replace("down", "w2")),
        (_END, "return self.w2(silu(self.w1(x)) * self.w3(x))"),
    ],
    "all layers of one shape share their weights": {"SwiGLU": _layer(init=_shared)},
    "the layers of the start are used, whatever takes their place": {"SwiGLU": _layer(_first, _kept)},
    "the hidden width is rounded down": [(_COUNT, "n_multiples = 8 * width // (3 * multiple_of)")],
    "the hidden width is rounded to the nearest multiple": [
        (_COUNT, "n_multiples = (16 * width + 3 * multiple_of) // (6 * multiple_of)")
    ],
    "8/3 of the width is rounded down before it is rounded up": [
        (_COUNT, "n_multiples = -(-(8 * width // 3) // multiple_of)")
    ],
    "the hidden width is always beyond 8/3 of the width": [
        (_COUNT, "n_multiples = 8 * width // (3 * multiple_of) + 1")
    ],
    "the hidden width is computed with floats": [
        (_COUNT, "n_multiples = int(np.ceil(8 * width / 3 / multiple_of))")
    ],
    "the hidden width is 4 times the width": [(_COUNT, "n_multiples = -(-4 * width // multiple_of)")],
    "the hidden width is 2/3 of the width": [(_COUNT, "n_multiples = -(-2 * width // (3 * multiple_of))")],
    "the hidden width is the number of multiples": [(_RETURN, "return n_multiples")],
    "the hidden width is a multiple of 256 unless another number is given": [
        ("multiple_of: int = 64", "multiple_of: int = 256")
    ],
    "the hidden width is always a multiple of 64": [(_COUNT, "multiple_of = 64\n    " + _COUNT)],
    "a token of width 0 has a hidden width": [(_CHECK, "if width < 0 or multiple_of < 1:")],
    "a negative multiple is accepted": [(_CHECK, "if width < 1 or multiple_of == 0:")],
}

EQUIVALENTS = {
    "one matrix for both projections": {"SwiGLU": _layer(_stacked), "hidden_width": _by_fractions},
    "one operation on the tape": {"SwiGLU": _layer(_one_operation), "hidden_width": _by_steps},
    "one hidden unit after the other": {"SwiGLU": _layer(_unit_by_unit)},
    "all tokens as rows of one matrix": {"SwiGLU": _layer(_flat)},
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x, g = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    shapes = {"gate.weight": (5, 4), "gate.bias": 5, "up.weight": (5, 4), "up.bias": 5}
    shapes |= {"down.weight": (4, 5), "down.bias": 4}
    state = {name: rng.normal(size=shape) for name, shape in shapes.items()}

    def layer(impl, has_bias=True):
        found = impl.SwiGLU(4, 5, np.random.default_rng(0), has_bias=has_bias)
        mine = {name for name, _ in found.named_parameters()}
        found.load_state_dict({name: each for name, each in state.items() if name in mine})
        return found

    def value(given, has_bias=True):
        return lambda impl: layer(impl, has_bias)(Tensor(given)).data

    def gradients(impl):
        one, leaf = layer(impl, False), Tensor(x.copy(), requires_grad=True)
        one(leaf).backward(g)
        return [np.zeros(1) if each.grad is None else each.grad for each in (leaf, *one.parameters())]

    def made(look, *arguments, **options):
        return lambda impl: look(impl.SwiGLU(4, 5, np.random.default_rng(3), *arguments, **options))

    def names(found):
        return str([(name, each.shape) for name, each in found.named_parameters()])

    def draws(found):
        return [float(np.abs(each.data).sum()) for each in found.parameters()]

    def dtypes(found):
        return str([str(each.dtype) for each in found.parameters()])

    def answer_dtype(impl):
        found = impl.SwiGLU(4, 5, np.random.default_rng(0), dtype=np.float32)
        return str(found(Tensor(x.astype(np.float32))).dtype)

    def exchanged(impl):
        one = layer(impl)
        one.gate = Linear(4, 5, np.random.default_rng(8))
        return one(Tensor(x)).data

    def shared(impl):
        one, two = (impl.SwiGLU(4, 7, np.random.default_rng(seed)) for seed in (0, 1))
        return float(np.abs(one.gate.weight.data - two.gate.weight.data).sum())

    def wants_gradient(impl):
        one = layer(impl)
        with no_grad():
            outside = one(Tensor(x, requires_grad=True)).requires_grad
        return [outside, one(Tensor(x)).requires_grad]

    def width(*arguments):
        def probe(impl):
            try:
                return float(impl.hidden_width(*arguments) % 1_000_003)
            except ValueError:
                return "refused"

        return probe

    return {
        "tokens": value(x, False),
        "tokens with biases": value(x),
        "one token": value(x[0, 0], False),
        "gradients": gradients,
        "names": made(names),
        "names with biases": made(names, has_bias=True),
        "draws": made(draws),
        "draws with a gain": made(draws, gain=0.25),
        "dtypes": made(dtypes, dtype=np.float32),
        "dtype of the answer": answer_dtype,
        "exchanged": exchanged,
        "shared": shared,
        "wants a gradient": wants_gradient,
        **{
            f"hidden width of {arguments}": width(*arguments)
            for arguments in [
                (4, 1),
                (3, 1),
                (24, 64),
                (25, 64),
                (100, 8),
                (100,),
                (1000, 7),
                (3 * 10**20 + 1, 1),
            ]
        },
        "hidden width of 0": width(0, 64),
        "hidden width in multiples of -1": width(8, -1),
    }
