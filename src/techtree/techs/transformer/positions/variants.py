"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, record
from techtree.techs.transformer.embedding import Embedding

_FREQUENCIES = "frequencies = float(base) ** (-np.arange(0, width, 2) / width)"
_ANGLES = "angles = np.arange(n_positions)[:, None] * frequencies  # (n_positions, width / 2)"
_WAVES = "return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(n_positions, width)"
_WIDTH = "if width < 2 or width % 2:"
_BASE = "if not 0 < base < math.inf:"
_MADE = "self.weight = Embedding(n_positions, width, rng, std, dtype).weight"
_INTS = "n_tokens, first, weight = int(n_tokens), int(first), self.weight"
_END = "end = first + n_tokens"
_NEGATIVE = "if n_tokens < 0 or first < 0:"
_BEYOND = "if end > weight.shape[0]:"
_BACK = "whole[first:end] = g"
_ROWS = "return record(weight.data[first:end].copy(), (weight, back))"


def _before(line, *lines, indent=8):
    return [(line, ("\n" + " " * indent).join((*lines, line)))]


_KEPT: dict = {}


def _cached(n_positions, width, base=10_000.0):
    """Computed once for each size and kept."""
    if n_positions < 1 or width < 2 or width % 2 or not 0 < base < math.inf:
        raise ValueError("no such waves")
    if (n_positions, width) not in _KEPT:
        angles = np.arange(n_positions)[:, None] * float(base) ** (-np.arange(0, width, 2) / width)
        _KEPT[n_positions, width] = np.dstack([np.sin(angles), np.cos(angles)]).reshape(n_positions, width)
    return _KEPT[n_positions, width].copy()


MISTAKES = {
    "sine and cosine are exchanged": [
        (_WAVES, _WAVES.replace("np.sin(angles), np.cos", "np.cos(angles), np.sin"))
    ],
    "all sines come first, then all cosines": [
        (_WAVES, "return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)")
    ],
    "the exponent is i / width: the waves grow to the root of the base only": [
        (_FREQUENCIES, "frequencies = float(base) ** (-np.arange(width // 2) / width)")
    ],
    "the exponent ends at 1: the last wave has the whole base": [
        (_FREQUENCIES, "frequencies = float(base) ** (-np.arange(width // 2) / max(width // 2 - 1, 1))")
    ],
    "each column has a frequency of its own, so that sine and cosine are no pair": [
        (_FREQUENCIES, "frequencies = float(base) ** (-np.arange(width) / width)"),
        (_WAVES, "return np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles))"),
    ],
    "positions are counted from 1": [(_ANGLES, _ANGLES.replace("(n_positions)", "(1, n_positions + 1)"))],
    "the slowest wave comes first": [
        (_ANGLES, "angles = np.arange(n_positions)[:, None] * frequencies[::-1]")
    ],
    "the base multiplies where it should divide": [(_FREQUENCIES, _FREQUENCIES.replace("(-np", "(np"))],
    "the base is always 10,000": [(_FREQUENCIES, _FREQUENCIES.replace("float(base)", "10_000.0"))],
    "angles are turns: multiplied by 2 pi": [
        (_ANGLES, "angles = np.arange(n_positions)[:, None] * frequencies * math.tau")
    ],
    "waves are float32": [(_WAVES, _WAVES + ".astype(np.float32)")],
    "angles are rounded to float32": [
        (
            _FREQUENCIES,
            "frequencies = np.float32(base) ** (-np.arange(0, width, 2, dtype=np.float32) / width)",
        )
    ],
    "each row is the one before, turned: rounding adds up": [
        (
            _WAVES,
            "turns = np.ones((n_positions, width // 2), complex)\n    turns[1:] = np.exp(1j * frequencies)\n"
            "    z = np.cumprod(turns, axis=0)\n"
            "    return np.stack([z.imag, z.real], axis=-1).reshape(n_positions, width)",
        )
    ],
    "rows are scaled to length 1": [(_WAVES, _WAVES + " / math.sqrt(width / 2)")],
    "waves are kept by size and answer for the base of an earlier call": {"sinusoidal": _cached},
    "the result has a column for each position": [(_WAVES, _WAVES + ".T.copy()")],
    "an odd width is accepted, and the last pair has a sine only": [
        (_WIDTH, "if width < 2:"),
        (_WAVES, _WAVES.replace(".reshape(n_positions, width)", ".reshape(n_positions, -1)[:, :width]")),
    ],
    "a width of 0 is accepted": [(_WIDTH, "if width < 0 or width % 2:")],
    "no positions are accepted": [("if n_positions < 1:", "if n_positions < 0:")],
    "a base of 0 or less is accepted": [
        (_BASE, "if not base < math.inf:"),
        (_FREQUENCIES, _FREQUENCIES.replace("float(base)", "abs(float(base) or 1.0)")),
    ],
    "an infinite base is accepted": [(_BASE, "if not 0 < base:")],
    "a base that is not a number is accepted": [(_BASE, "if base <= 0 or base == math.inf:")],
    "first is ignored": [(_INTS, _INTS + "\n        first = 0")],
    "first is ignored when the rows are looked up, not when they are checked": [
        (_ROWS, "return record(weight.data[:n_tokens].copy(), (weight, back))")
    ],
    "n_tokens is taken for the end": [(_END, "end = max(first, n_tokens)")],
    "rows are counted from 1": [(_END, "first, end = first + 1, first + n_tokens + 1")],
    "beyond the table the last row is repeated": [
        (_BEYOND, "if first >= weight.shape[0]:"),
        (_BACK, "np.add.at(whole, np.minimum(np.arange(first, end), len(whole) - 1), g)"),
        (
            _ROWS,
            "rows = np.minimum(np.arange(first, end), weight.shape[0] - 1)\n        return record(weight.data[rows], (weight, back))",
        ),
    ],
    "beyond the table it begins again": [
        (_BEYOND, "if False:"),
        (_BACK, "np.add.at(whole, np.arange(first, end) % len(whole), g)"),
        (_ROWS, "return record(weight.data[np.arange(first, end) % weight.shape[0]], (weight, back))"),
    ],
    "beyond the table there are fewer rows": [(_BEYOND, "if first > weight.shape[0]:")],
    "beyond the table rows are 0": [
        (_BEYOND, "if False:"),
        (_BACK, "whole[first:end] = g[: max(len(whole) - first, 0)]"),
        (
            _ROWS,
            "rows = np.zeros((n_tokens, weight.shape[1]), weight.dtype)\n        rows[: max(weight.shape[0] - first, 0)] = weight.data[first:end]\n        return record(rows, (weight, back))",
        ),
    ],
    "the last row cannot be asked for": [(_BEYOND, "if end >= weight.shape[0]:")],
    "a table that is too short is an IndexError": [
        ('raise ValueError(f"there are', 'raise IndexError(f"there are')
    ],
    "a negative first counts from the end": [
        (_NEGATIVE, "if n_tokens < 0:"),
        (
            _END,
            "first = first % self.weight.shape[0] if first < 0 else first\n        end = first + n_tokens",
        ),
    ],
    "a negative number of tokens gives no rows": [
        (_NEGATIVE, "n_tokens = max(n_tokens, 0)\n        end = first + n_tokens\n        if first < 0:")
    ],
    "no rows cannot be asked for": [(_NEGATIVE, "if n_tokens < 1 or first < 0:")],
    "numbers are added in their own dtype, which overflows": [
        (_INTS, "weight = self.weight"),
        (_END, "end = int(first + n_tokens)\n        first, n_tokens = int(first), int(n_tokens)"),
        (_ROWS, "rows = weight.data[first:end].copy()\n        return record(rows, (weight, back))"),
    ],
    "the table gets no gradient": [(_ROWS, "return Tensor(weight.data[first:end].copy())")],
    "the gradient goes to the first rows": [(_BACK, "whole[:n_tokens] = g")],
    "rows that were not asked for get the gradient's mean": [
        (_BACK, "whole[:] = g.mean(axis=0) if len(g) else 0\n            whole[first:end] = g")
    ],
    "the gradient is divided by the number of tokens": [(_BACK, "whole[first:end] = g / max(n_tokens, 1)")],
    "in use, after eval, rows are constants": [
        (_ROWS, _ROWS.replace("(weight, back)", "*[(weight, back)] * self.is_training"))
    ],
    "the gradient has the shape of the table that is there when it arrives": [
        ("whole = np.zeros(weight.shape", "whole = np.zeros(self.weight.shape")
    ],
    "the result is a part of the table, not a new array": [(_ROWS, _ROWS.replace(".copy()", ""))],
    "rows are multiplied by the root of the width": [
        (_ROWS, _ROWS.replace(".copy()", " * weight.shape[1] ** 0.5"))
    ],
    "rows have an axis of samples": [
        (_BACK, "whole[first:end] = g.reshape(n_tokens, -1)"),
        (_ROWS, _ROWS.replace(".copy()", "[None].copy()")),
    ],
    "a call without first goes on where the last one ended": [
        (
            _INTS,
            _INTS
            + "\n        first = first or getattr(self, 'n_seen', 0)\n        first = 0 if first + n_tokens > weight.shape[0] and first == getattr(self, 'n_seen', 0) else first",
        ),
        (_ROWS, "self.n_seen = end\n        " + _ROWS),
    ],
    "std is ignored": [(_MADE, _MADE.replace("std", "0.02"))],
    "the table starts with the standard deviation 1": [("std: float = 0.02", "std: float = 1.0")],
    "the table starts at 0": [(_MADE, _MADE + "\n        self.weight.data[...] = 0")],
    "the table starts as waves": [
        (
            _MADE,
            _MADE + "\n        self.weight.data[...] = sinusoidal(n_positions, width + width % 2)[:, :width]",
        )
    ],
    "the table is drawn from a generator of its own": [
        (_MADE, _MADE.replace("rng", "np.random.default_rng(0)"))
    ],
    "the table is drawn twice, and the second one taken": [
        (_MADE, f"Embedding(n_positions, width, rng)\n        {_MADE}")
    ],
    "dtype is ignored": [(_MADE, _MADE.replace(", dtype", ""))],
    "the table is a plain tensor, neither trained nor saved": [
        (_MADE, _MADE.replace("Embedding(", "Tensor(Embedding(") + ".data)")
    ],
    "the table has another name": [
        (_MADE, _MADE.replace("self.weight", "self.table")),
        (_INTS, _INTS.replace("self.weight", "self.table")),
    ],
    "the length of the table is remembered from its making": [
        (_MADE, _MADE + "\n        self.n_positions = n_positions"),
        (_BEYOND, "if end > self.n_positions:"),
    ],
}


def _loop_waves(n_positions, width, base=10_000.0):
    """Number by number, with the wavelength."""
    if n_positions <= 0 or width <= 0 or width % 2 == 1 or not math.isfinite(base) or base <= 0:
        raise ValueError("no such waves")
    found = np.empty((n_positions, width))
    for column in range(width):
        wavelength = 2 * math.pi * math.pow(base, (column - column % 2) / width)
        wave = math.cos if column % 2 else math.sin
        for p in range(n_positions):
            found[p, column] = wave(2 * math.pi * p / wavelength)
    return found


def _complex_waves(n_positions, width, base=10_000.0):
    """Real and imaginary parts of exp(i angle), with logarithms for the powers."""
    if n_positions < 1 or width < 2 or width % 2 or not base > 0 or base == math.inf:
        raise ValueError("no such waves")
    frequencies = np.exp(np.arange(0, width, 2) * (-math.log(base) / width))
    z = np.exp(1j * np.outer(np.arange(n_positions), frequencies))
    found = np.zeros((n_positions, width))
    found[:, 0::2], found[:, 1::2] = z.imag, z.real
    return found


def _one_sine_waves(n_positions, width, base=10_000.0):
    """A cosine is a sine a quarter of a turn later; the pair of a column is its half."""
    if min(n_positions, width) < 1 or width & 1 or not 0 < base <= np.finfo(float).max:
        raise ValueError("no such waves")
    column = np.arange(width)
    p = np.arange(n_positions, dtype=float).reshape(-1, 1)
    return np.sin(p / np.power(float(base), 2 * (column // 2) / width) + (column % 2) * (math.pi / 2))


class _Learned(Module):
    def __init__(self, n_positions, width, rng, std=0.02, dtype=np.float64):
        if min(n_positions, width) < 1:
            raise ValueError("a table has rows and columns")
        self.weight = Parameter((std * rng.normal(size=(n_positions, width))).astype(dtype))

    def forward(self, n_tokens, first=0):
        chosen = range(int(first), int(first) + int(n_tokens))
        if n_tokens < 0 or first < 0 or chosen.stop > len(self.weight.data):
            raise ValueError("there are no such positions")
        return self.rows(chosen)


class _Sliced(_Learned):
    """The tensor's own slices."""

    def rows(self, chosen):
        part = self.weight[chosen.start : chosen.stop]
        return part * 1.0


class _OneHot(_Learned):
    """A product with rows that are 1 at the position."""

    def rows(self, chosen):
        weight = self.weight
        hot = np.equal.outer(np.arange(chosen.start, chosen.stop), np.arange(len(weight.data)))
        value = np.array([weight.data[p] for p in chosen], weight.dtype).reshape(-1, weight.shape[1])

        def back(g):
            return np.stack(
                [g[column].sum(axis=0) if column.any() else np.zeros_like(weight.data[0]) for column in hot.T]
            )

        return record(value, (weight, back))


class _Padded(_Learned):
    """The gradient between two blocks of zeros."""

    def rows(self, chosen):
        weight = self.weight
        around = ((chosen.start, len(weight.data) - chosen.stop), (0, 0))
        value = np.take(weight.data, np.asarray(chosen, dtype=int), axis=0)
        return record(value, (weight, lambda g: np.pad(g, around)))


class _AnEmbedding(Embedding):
    """A table of tokens whose ids are the positions."""

    def forward(self, n_tokens, first=0):
        n_tokens, first = int(n_tokens), int(first)
        if n_tokens < 0 or not 0 <= first <= self.weight.shape[0] - n_tokens:
            raise ValueError("there are no such positions")
        return super().forward(np.arange(first, first + n_tokens))


EQUIVALENTS = {
    "waves number by number; the tensor's own slices": {
        "sinusoidal": _loop_waves,
        "LearnedPositions": _Sliced,
    },
    "complex numbers; rows that are 1 at the position": {
        "sinusoidal": _complex_waves,
        "LearnedPositions": _OneHot,
    },
    "one sine for both; a gradient between zeros": {
        "sinusoidal": _one_sine_waves,
        "LearnedPositions": _Padded,
    },
    "a table of tokens whose ids are positions": {"LearnedPositions": _AnEmbedding},
}

HARMLESS = {
    "if width < 2 or width % 2: => if width < 1 or width % 2:": "1 is odd",
    "if width < 2 or width % 2: => if width < 2 or width % 1:": "the reshape refuses an odd width, too",
    "sinusoidal: float32 becomes float64": "it takes no arrays",
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    weight = rng.normal(size=(5, 3))

    def table(impl):
        found = impl.LearnedPositions(5, 3, np.random.default_rng(0))
        found.load_state_dict({"weight": weight})
        return found

    def refused(call):
        def probe(impl):
            try:
                found = call(impl)
            except Exception as error:
                return "ValueError" if isinstance(error, ValueError) else type(error).__name__
            return found.data if isinstance(found, Tensor) else found

        return probe

    def waves(*arguments, **options):
        def call(impl):
            with np.errstate(all="ignore"):
                return np.nan_to_num(np.asarray(impl.sinusoidal(*arguments, **options), float), nan=7.0)

        return refused(call)

    def far(impl):
        """Whether cosines of hands that hardly move are off by more than their rounding."""
        rows, p = np.asarray(impl.sinusoidal(2500, 8, 1e8), float), np.arange(2500)
        return [
            bool(np.any(abs(rows[:, 2 * i + 1] - [math.cos(each / 1e8 ** (i / 4)) for each in p]) > 5e-14))
            for i in (2, 3)
        ]

    def other_base(impl):
        return [impl.sinusoidal(6, 4, base) for base in (3.0, 50.0)]

    def rows(*arguments):
        return refused(lambda impl: table(impl)(*arguments))

    def gradient(n_tokens, first):
        def call(impl):
            one = table(impl)
            y = one(n_tokens, first)
            y.backward(np.cos(np.arange(y.data.size)).reshape(y.shape))
            return one.weight.grad

        return refused(call)

    def start(n_positions, width, **options):
        return lambda impl: impl.LearnedPositions(n_positions, width, np.random.default_rng(1), **options)

    def drawn(**options):
        return refused(lambda impl: start(6, 4, **options)(impl).weight.data.astype(float))

    def names(impl):
        found = start(4, 2, dtype=np.float32)(impl)
        return str([(name, each.shape, str(each.dtype)) for name, each in found.named_parameters()])

    def shares(impl):
        one = table(impl)
        y = one(2)
        y.data[...] = 0
        return one.weight.data

    def exchanged(impl):
        one = table(impl)
        one.weight = Parameter(np.ones((7, 2)))
        return one(6)

    def exchanged_before_the_gradient(impl):
        one = table(impl)
        read, y = one.weight, one(5)
        one.weight = Parameter(np.ones((7, 2)))
        y.backward(np.ones(y.shape))
        return read.grad

    def bytes_(impl):
        one = impl.LearnedPositions(300, 1, np.random.default_rng(0))
        one.load_state_dict({"weight": np.arange(300.0)[:, None]})
        with np.errstate(all="ignore"):
            return one(np.uint8(150), np.uint8(120))

    def twice(impl):
        one = table(impl)
        one(2)
        return one(2)

    return {
        "waves": waves(5, 6),
        "waves of width 2": waves(4, 2),
        "waves that hardly move": far,
        "waves of base 7": waves(5, 6, base=7.0),
        "square waves": waves(4, 4),
        "two bases": other_base,
        "float32 or float64": lambda impl: impl.sinusoidal(3, 4).dtype.name,
        "a width of 3": waves(3, 3),
        "a width of 0": waves(3, 0),
        "no positions": waves(0, 4),
        "base 0": waves(3, 4, 0.0),
        "base -2": waves(3, 4, -2.0),
        "an infinite base": waves(3, 4, math.inf),
        "base nan": waves(3, 4, math.nan),
        "rows": rows(3),
        "later rows": rows(2, 2),
        "the last row": rows(1, 4),
        "no rows": rows(0, 1),
        "no rows at the end": rows(0, 5),
        "all rows": rows(5),
        "beyond": rows(3, 4),
        "far beyond": rows(2, 9),
        "before": rows(2, -2),
        "fewer than none": rows(-1, 2),
        "bytes": refused(bytes_),
        "gradient": gradient(2, 0),
        "gradient of later rows": gradient(2, 3),
        "wants a gradient": lambda impl: table(impl)(2).requires_grad,
        "drawn": drawn(),
        "drawn with std": drawn(std=0.5),
        "names": refused(names),
        "shares": refused(shares),
        "exchanged": refused(exchanged),
        "exchanged before the gradient": refused(exchanged_before_the_gradient),
        "in use": lambda impl: table(impl).eval()(2).requires_grad,
        "twice": refused(twice),
    }
