"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import contextlib
import functools
import math

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, concatenate, einsum, record

_PLAIN = "plain = base ** (-np.arange(0, width, 2) / width)"
_LINEAR = "return plain / scaling.factor"
_TURNS = "turns = scaling.original_max_seq_len * plain / (2 * math.pi)"
_EDGES = "low, high = scaling.low_freq_factor, scaling.high_freq_factor"
_SHARE = "share = np.clip((turns - low) / (high - low), 0, 1)"
_MIXED = "return share * plain + (1 - share) * plain / scaling.factor"
_BASE = "if not 0 < base < math.inf:"
_WIDTH = "if width < 2 or width % 2:"
_POSITIONS = "positions = np.asarray(positions, np.float64)"
_SINGLE = "if positions.ndim == 0:"
_ANGLES = "angles = positions[..., None] * frequencies(width, base, scaling)"
_WAVES = "return np.cos(angles), np.sin(angles)"
_AXES = "if x.ndim < 2:"
_SHAPES = "if cos.shape != sin.shape or cos.shape[-2:] != expected:"
_LEADING = "if np.broadcast_shapes(cos.shape[:-2], tuple(leading)) != tuple(leading):"
_CAST = "cos, sin = cos.astype(x.dtype), sin.astype(x.dtype)"
_CHOICE = "if not is_interleaved:"
_EVEN = "pairs = (np.s_[..., 0::2], np.s_[..., 1::2])"
_HALVES = "pairs = (np.s_[..., : width // 2], np.s_[..., width // 2 :])"
_RECORD = "return record(_turned(x.data, cos, sin, *pairs), (x, lambda g: _turned(g, cos, -sin, *pairs)))"
_FIRST = "y[first] = x[first] * cos - x[second] * sin"
_SECOND = "y[second] = x[first] * sin + x[second] * cos"
_EMPTY = "y = np.empty(x.shape, x.dtype)"
_ORDER = "return np.arange(width).reshape(width // 2, 2).T.reshape(width)"
_KIND = 'if self.kind not in ("linear", "llama3"):'
_NAMES = 'for name in ("factor", "low_freq_factor", "high_freq_factor"):'
_FINITE = "if not 0 < getattr(self, name) < math.inf:"
_LENGTH = "if not 1 <= self.original_max_seq_len < math.inf:"
_RAMP = "if self.low_freq_factor >= self.high_freq_factor:"


@functools.cache
def _kept_order(width):
    if width < 2 or width % 2:
        raise ValueError("the width must be even")
    return np.arange(width).reshape(width // 2, 2).T.reshape(width)


MISTAKES = {
    "frequencies: the exponent is i / W, half of what it should be": [
        (_PLAIN, "plain = base ** (-np.arange(width // 2) / width)")
    ],
    "frequencies: the slowest pair gets exactly 1 / base": [
        (_PLAIN, "plain = base ** (-np.arange(0, width, 2) / max(width - 2, 1))")
    ],
    "frequencies: pairs are counted from 1": [
        (_PLAIN, "plain = base ** (-np.arange(2, width + 2, 2) / width)")
    ],
    "frequencies: they are the wavelengths": [(_PLAIN, "plain = base ** (np.arange(0, width, 2) / width)")],
    "frequencies: the slowest pair comes first": [(_PLAIN, _PLAIN + "[::-1]")],
    "frequencies: the base is always 10,000": [(_PLAIN, _PLAIN.replace("base", "10_000.0", 1))],
    "frequencies: they fall evenly, not by a factor": [
        (_PLAIN, "plain = np.linspace(1, 1 / base, width // 2)")
    ],
    "frequencies: computed in float32": [(_PLAIN, _PLAIN + ".astype(np.float32)")],
    "frequencies: a full turn per position is meant where a radian is": [
        (_PLAIN, "plain = 2 * math.pi * base ** (-np.arange(0, width, 2) / width)")
    ],
    "frequencies: each stands there for both numbers of its pair": [(_PLAIN, _PLAIN + ".repeat(2)")],
    "frequencies: the scaling is ignored": [("if scaling is None:", "if True:")],
    "frequencies: linear multiplies by the factor": [(_LINEAR, _LINEAR.replace("/", "*"))],
    "frequencies: linear makes the base larger by the factor": [
        (_LINEAR, "return (base * scaling.factor) ** (-np.arange(0, width, 2) / width)")
    ],
    "frequencies: llama3 slows every pair, as linear does": [
        ('if scaling.kind == "linear":', "if scaling.kind:")
    ],
    "frequencies: llama3 counts radians for turns": [(_TURNS, _TURNS.replace("/ (2 * math.pi)", ""))],
    "frequencies: llama3 takes the original context for 8192": [
        (_TURNS, _TURNS.replace("scaling.original_max_seq_len", "8192"))
    ],
    "frequencies: llama3 takes 1 and 4 for the ends of the ramp": [(_EDGES, "low, high = 1.0, 4.0")],
    "frequencies: llama3 lets the ramp go on beyond its ends": [
        (_SHARE, "share = (turns - low) / (high - low)")
    ],
    "frequencies: llama3 slows the fast pairs and keeps the slow ones": [
        (_MIXED, "return (1 - share) * plain + share * plain / scaling.factor")
    ],
    "frequencies: llama3 has no ramp: below the high factor everything is slowed": [
        (_SHARE, "share = (turns >= high) * 1.0")
    ],
    "frequencies: llama3 has no ramp: above the low factor everything stays": [
        (_SHARE, "share = (turns > low) * 1.0")
    ],
    "frequencies: llama3 mixes the wavelengths": [
        (_MIXED, "return 1 / (share / plain + (1 - share) * scaling.factor / plain)")
    ],
    "frequencies: llama3's ramp is straight in the wavelength": [
        (_SHARE, "share = np.clip((1 / low - 1 / turns) / (1 / low - 1 / high), 0, 1)")
    ],
    "frequencies: llama3 counts the turns of the slowed frequency": [
        (_TURNS, _TURNS.replace("* plain /", "* plain / scaling.factor /"))
    ],
    "frequencies: a base below 0 is taken as it is": [
        (_BASE, "if base == 0 or not -math.inf < base < math.inf:")
    ],
    "frequencies: a base of 0 is taken as it is": [(_BASE, "if not 0 <= base < math.inf:")],
    "frequencies: an infinite base is taken as it is": [(_BASE, "if not 0 < base:")],
    "an odd width loses its last number": [(_WIDTH, "if width < 2:")],
    "a width of 0 has no pairs, and is no error": [(_WIDTH, "if width < 0 or width % 2:")],
    "rotation: the first token has position 1": [
        (_ANGLES, _ANGLES.replace("positions[", "(positions + 1)["))
    ],
    "rotation: tokens are counted, whatever their positions": [
        (
            _ANGLES,
            "positions = np.broadcast_to(np.arange(positions.shape[-1]), positions.shape)\n    " + _ANGLES,
        )
    ],
    "rotation: sines come first": [(_WAVES, "return np.sin(angles), np.cos(angles)")],
    "rotation: angles are made in float32": [
        (_ANGLES, _ANGLES.replace("frequencies(width, base, scaling)", "frequencies(width, base, scaling)")),
        (_WAVES, "angles = angles.astype(np.float32).astype(np.float64)\n    " + _WAVES),
    ],
    "rotation: the result is float32": [
        (_WAVES, "return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)")
    ],
    "rotation: each angle stands there twice, for the whole width": [
        (_WAVES, "angles = np.concatenate([angles, angles], axis=-1)\n    " + _WAVES)
    ],
    "rotation: the base is left out": [(_ANGLES, _ANGLES.replace("base, ", "10_000.0, "))],
    "rotation: the scaling is left out": [(_ANGLES, _ANGLES.replace("base, scaling", "base"))],
    "rotation: positions are cut to whole numbers": [
        (_POSITIONS, _POSITIONS + "\n    positions = np.trunc(positions)")
    ],
    "rotation: bytes wrap, so that position 200 is -56": [
        (
            _POSITIONS,
            f"positions = np.asarray(positions)\n"
            "    positions = positions.astype(np.int8) if positions.dtype == np.uint8 else positions\n"
            f"    {_POSITIONS}",
        )
    ],
    "rotation: a single number is one token": [
        (_SINGLE, "positions = np.atleast_1d(positions)\n    if False:")
    ],
    "rotation: the positions of all texts stand in one row": [
        (_ANGLES, _ANGLES.replace("positions[", "positions.ravel()["))
    ],
    "rotate turns the other way": [
        (_FIRST, _FIRST.replace("-", "+")),
        (_SECOND, "y[second] = x[second] * cos - x[first] * sin"),
    ],
    "rotate ignores is_interleaved": [(_CHOICE, "if True:")],
    "rotate is always interleaved": [(_CHOICE, "if False:")],
    "rotate takes each pairing for the other": [(_CHOICE, "if is_interleaved:")],
    "rotate pairs the number i with the number W - 1 - i": [
        (_HALVES, "pairs = (np.s_[..., : width // 2], np.s_[..., : width // 2 - 1 : -1])")
    ],
    "rotate reads interleaved pairs and writes them half-split": [
        (
            _RECORD,
            "order = to_half_split(width) if is_interleaved else np.arange(width)\n    "
            "return record(_turned(x.data, cos, sin, *pairs)[..., order], "
            "(x, lambda g: _turned(g[..., np.argsort(order)], cos, -sin, *pairs)))",
        )
    ],
    "rotate turns each pass of gradients the other way than the last one": [
        (
            _RECORD,
            "def back(g):\n"
            "        nonlocal sin\n"
            "        sin = -sin\n"
            "        return _turned(g, cos, sin, *pairs)\n\n"
            "    return record(_turned(x.data, cos, sin, *pairs), (x, back))",
        )
    ],
    "rotate reads a gradient as it lies in memory": [
        (_RECORD, _RECORD.replace("_turned(g,", "_turned(g.ravel(order='K').reshape(g.shape),"))
    ],
    "rotate turns the gradient forwards, too": [(_RECORD, _RECORD.replace("-sin", "sin"))],
    "rotate passes the gradient on unturned": [
        (_RECORD, _RECORD.replace("_turned(g, cos, -sin, *pairs)", "g"))
    ],
    "rotate leaves the tape: no gradient reaches x": [
        (_RECORD, "return Tensor(_turned(x.data, cos, sin, *pairs))")
    ],
    "rotate writes into x": [(_EMPTY, "y, x = x, x.copy()")],
    "rotate computes the second number from the first one turned": [
        (_EMPTY, "y = x.copy()"),
        (_FIRST, "y[first] = y[first] * cos - y[second] * sin"),
        (_SECOND, "y[second] = y[first] * sin + y[second] * cos"),
    ],
    "rotate forgets a minus: both sums add": [(_FIRST, _FIRST.replace("-", "+"))],
    "rotate mirrors the pair": [(_SECOND, "y[second] = x[first] * sin - x[second] * cos")],
    "rotate returns the dtype of cos and sin": [
        (_CAST, ""),
        (_EMPTY, "y = np.empty(x.shape, np.result_type(x, cos))"),
    ],
    "rotate takes cos for sin": [(_FIRST, _FIRST.replace("* sin", "* cos"))],
    "rotate takes a longer table than there are tokens, and cuts it": [
        (
            _SHAPES,
            "if cos.ndim > 1 and cos.shape[-2] > n_tokens:\n"
            "        cos, sin = cos[..., :n_tokens, :], sin[..., :n_tokens, :]\n    " + _SHAPES,
        )
    ],
    "rotate turns all tokens by one row of angles": [
        (
            _SHAPES,
            "if cos.shape[-2:-1] == (1,):\n"
            "        cos, sin = (each.repeat(n_tokens, axis=-2) for each in (cos, sin))\n    " + _SHAPES,
        )
    ],
    "rotate turns all pairs by one column of angles": [
        (
            _SHAPES,
            "if cos.ndim > 1 and cos.shape[-1] == 1:\n"
            "        cos, sin = (each.repeat(width // 2, axis=-1) for each in (cos, sin))\n    " + _SHAPES,
        )
    ],
    "rotate repeats x where the angles have more texts": [
        (
            _LEADING,
            "x = x + np.zeros((*np.broadcast_shapes(cos.shape[:-2], tuple(leading)), 1, 1), x.dtype)\n    if False:",
        )
    ],
    "rotate lets sin have another shape": [
        (_SHAPES, "sin = np.broadcast_to(sin, cos.shape) if sin.ndim else sin\n    " + _SHAPES)
    ],
    "rotate takes a single vector for a single token": [
        (_AXES, "if x.ndim == 1:\n        x = x.reshape(1, -1)\n    " + _AXES)
    ],
    "rotate turns the texts by the angles of the first": [
        (
            _CAST,
            _CAST
            + "\n    cos, sin = (each[(0,) * (each.ndim - 2)] if each.size else each for each in (cos, sin))",
        )
    ],
    "to_half_split gives the way back": [
        (_ORDER, "return np.arange(width).reshape(2, width // 2).T.reshape(width)")
    ],
    "to_half_split puts the second numbers first": [
        (_ORDER, "return np.arange(width).reshape(width // 2, 2)[:, ::-1].T.reshape(width)")
    ],
    "to_half_split changes nothing": [(_ORDER, "return np.arange(width)")],
    "to_half_split returns the same array in each call": {"to_half_split": _kept_order},
    "to_half_split turns the second half around": [
        (_ORDER, "return np.concatenate([np.arange(0, width, 2), np.arange(1, width, 2)[::-1]])")
    ],
    "RopeScaling can be changed, and then holds what it would refuse": [
        ("@dataclass(frozen=True)", "@dataclass(unsafe_hash=True)")
    ],
    "RopeScaling takes any kind": [(_KIND, "if not self.kind:")],
    "RopeScaling takes any factor": [(_NAMES, _NAMES.replace('"factor", ', ""))],
    "RopeScaling takes a factor of 0": [(_FINITE, "if not (0 <= getattr(self, name) < math.inf):")],
    "RopeScaling takes an infinite factor": [(_FINITE, "if not getattr(self, name) > 0:")],
    "RopeScaling looks at the ramp for llama3 only": [
        (_RAMP, _RAMP.replace("if ", 'if self.kind == "llama3" and '))
    ],
    "RopeScaling takes a ramp that falls": [(_RAMP, _RAMP.replace(">=", "=="))],
    "RopeScaling takes a ramp without a width": [(_RAMP, _RAMP.replace(">=", ">"))],
    "RopeScaling takes any original length": [(_LENGTH, "if False:")],
    "RopeScaling makes a factor below 1 its inverse": [
        (
            _KIND,
            'object.__setattr__(self, "factor", max(self.factor, 1 / self.factor) if self.factor else 0)\n        '
            + _KIND,
        )
    ],
    "RopeScaling has the ramp of 1 to 32": [
        ("high_freq_factor: float = 4.0", "high_freq_factor: float = 32.0")
    ],
    "RopeScaling has an original length of 4096": [
        ("original_max_seq_len: int = 8192", "original_max_seq_len: int = 4096")
    ],
}


def _check(x, cos, sin):
    if x.ndim < 2 or x.shape[-1] < 2 or x.shape[-1] % 2:
        raise ValueError("x must be (..., T, W), W even")
    if cos.shape != sin.shape or cos.shape[-2:] != (x.shape[-2], x.shape[-1] // 2):
        raise ValueError("cos and sin must be (..., T, W / 2)")
    if np.broadcast_shapes((*cos.shape[:-1], 1), (*x.shape[:-1], 1)) != (*x.shape[:-1], 1):
        raise ValueError("cos and sin must broadcast to x")


def _by_slices(x, cos, sin, is_interleaved=False):
    """Slices of the tensor, so that the gradient comes from the tape."""
    _check(x, cos, sin)
    half = x.shape[-1] // 2
    cos, sin = (each.astype(x.dtype) for each in (cos, sin))
    if is_interleaved:
        a, b = x[..., ::2], x[..., 1::2]
        turned = [(a * cos - b * sin).reshape(*x.shape[:-1], half, 1)]
        turned += [(b * cos + a * sin).reshape(*x.shape[:-1], half, 1)]
        return concatenate(turned, axis=-1).reshape(*x.shape)
    a, b = x[..., :half], x[..., half:]
    return concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _by_complex(x, cos, sin, is_interleaved=False):
    """A pair is a complex number, and a turn is a product."""
    _check(x, cos, sin)
    half = x.shape[-1] // 2
    turn = cos.astype(np.float64) + 1j * sin.astype(np.float64)

    def turned(numbers, turn):
        wide = numbers.astype(np.float64)
        if is_interleaved:
            z = np.ascontiguousarray(wide).view(np.complex128) * turn
            return np.ascontiguousarray(z).view(np.float64).astype(numbers.dtype)
        z = (wide[..., :half] + 1j * wide[..., half:]) * turn
        return np.concatenate([z.real, z.imag], axis=-1).astype(numbers.dtype)

    return record(turned(x.data, turn), (x, lambda g: turned(g, turn.conj())))


def _by_matrices(x, cos, sin, is_interleaved=False):
    """A rotation matrix for each token: blocks on the diagonal, in the one order or the other."""
    _check(x, cos, sin)
    half = x.shape[-1] // 2
    wide, i = np.zeros((*cos.shape[:-1], 2 * half, 2 * half), x.dtype), np.arange(half)
    first, second = (2 * i, 2 * i + 1) if is_interleaved else (i, i + half)
    wide[..., first, first] = wide[..., second, second] = cos
    wide[..., second, first], wide[..., first, second] = sin, -sin
    spread = np.broadcast_to(wide, (*x.shape, 2 * half))
    flat = einsum("nij,nj->ni", Tensor(spread.reshape(-1, 2 * half, 2 * half)), x.reshape(-1, 2 * half))
    return flat.reshape(*x.shape)


def _by_partner(x, cos, sin, is_interleaved=False):
    """x * cos + (each number's partner) * sin, both as wide as x: the form of published models."""
    _check(x, cos, sin)
    half = x.shape[-1] // 2
    both = (
        (lambda each: each.repeat(2, axis=-1))
        if is_interleaved
        else (lambda each: np.concatenate([each] * 2, -1))
    )
    wide_cos, wide_sin = (both(each).astype(x.dtype) for each in (cos, sin))
    if is_interleaved:
        partner, sign = np.arange(2 * half) ^ 1, np.where(np.arange(2 * half) % 2, 1, -1)
    else:
        partner, sign = np.roll(np.arange(2 * half), half), np.where(np.arange(2 * half) < half, -1, 1)
    sign = sign.astype(x.dtype)
    return x * wide_cos + x[..., partner] * sign * wide_sin


def _by_ratio(width, base=10_000.0, scaling=None):
    """exp of a log; the scaling pair by pair, from wavelengths."""
    if width < 2 or width % 2 or not (base > 0 and math.isfinite(base)):
        raise ValueError("an even width, and a base above 0")
    found = np.exp(-2 * math.log(base) / width * np.arange(width // 2))
    for i, f in enumerate(found.tolist() if scaling else []):
        wavelength = 2 * math.pi / f
        if scaling.kind == "linear":
            found[i] = f * (1 / scaling.factor)
            continue
        longest, shortest = (
            scaling.original_max_seq_len / each
            for each in (scaling.low_freq_factor, scaling.high_freq_factor)
        )
        if wavelength > longest:
            found[i] = f / scaling.factor
        elif wavelength >= shortest:
            ramp = scaling.high_freq_factor - scaling.low_freq_factor
            smooth = (scaling.original_max_seq_len / wavelength - scaling.low_freq_factor) / ramp
            found[i] = (1 - smooth) * f / scaling.factor + smooth * f
    return found


def _by_sorting(width):
    if width < 2 or width % 2:
        raise ValueError("the width must be even")
    return np.array(sorted(range(width), key=lambda i: (i % 2, i)))


EQUIVALENTS = {
    "slices and joins on the tape": {"rotate": _by_slices},
    "complex numbers in float64": {"rotate": _by_complex},
    "a rotation matrix for each token": {"rotate": _by_matrices},
    "each number's partner, with a sign": {"rotate": _by_partner},
    "frequencies from logarithms and wavelengths": {"frequencies": _by_ratio},
    "rotation by complex exponentials": [
        (_WAVES, "turn = np.exp(1j * angles)\n    return turn.real.copy(), turn.imag.copy()")
    ],
    "to_half_split sorts": {"to_half_split": _by_sorting},
}

_UNPACKED = "taking the shape apart refuses the same, in other words"
_NO_FLOATS = "no argument is an array of floats"
HARMLESS = {
    f"{_SHARE} => share = np.clip(0, (turns - low) / (high - low), 1)": "0, cut from below by the share",
    f"{_AXES} => if False:": _UNPACKED,
    f"{_AXES} => if x.ndim < 1:": _UNPACKED,
    "raise ValueError(f'x must have the shape (..., T, W); got {x.shape}') => pass": _UNPACKED,
    "expected = (n_tokens, width // 2) => expected = (n_tokens, width / 2)": "the width is even here",
    f"{_LEADING} => "
    "if np.broadcast_shapes(tuple(leading), cos.shape[:-2]) != tuple(leading):": "the order does not count",
    f"{_EVEN} => pairs = (np.s_[..., ::2], np.s_[..., 1::2])": "the same slice",
    f"{_WIDTH} => if width < 1 or width % 2:": "a width of 1 is odd",
    "frequencies: float32 becomes float64": _NO_FLOATS,
    "to_half_split: float32 becomes float64": _NO_FLOATS,
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x = rng.normal(size=(2, 3, 6))
    angles = rng.uniform(-3, 3, size=(3, 3))
    cos, sin = np.cos(angles), np.sin(angles)
    own = rng.uniform(-3, 3, size=(2, 3, 3))

    def frequencies(width, base=10_000.0, *scaling):
        return lambda impl: impl.frequencies(width, base, impl.RopeScaling(*scaling) if scaling else None)

    def rotation(positions, *more, scaling=None):
        def probe(impl):
            by = {"scaling": impl.RopeScaling(*scaling)} if scaling else {}
            return np.concatenate([each.ravel() for each in impl.rotation(positions, *more, **by)])

        return probe

    def turned(is_interleaved, x=x, cos=cos, sin=sin):
        return lambda impl: impl.rotate(Tensor(x.copy()), cos, sin, is_interleaved=is_interleaved).data

    def gradient(is_interleaved):
        def probe(impl):
            leaf = Tensor(x.copy(), requires_grad=True)
            impl.rotate(leaf, cos, sin, is_interleaved).backward(np.cos(np.arange(36.0)).reshape(x.shape))
            return "none" if leaf.grad is None else leaf.grad

        return probe

    def other_gradients(lay, passes):
        def probe(impl):
            leaf = Tensor(x[0].copy(), requires_grad=True)
            turned = impl.rotate(leaf, cos, sin)
            for _ in range(passes if turned.requires_grad else 0):
                turned.backward(lay(np.cos(np.arange(18.0)).reshape(3, 6)))
            return "none" if leaf.grad is None else leaf.grad

        return probe

    def changed(impl):
        setattr(impl.RopeScaling("linear", 2.0), "factor", 0.0)

    def refused(call):
        def probe(impl):
            try:
                call(impl)
            except Exception as error:
                return "ValueError" if isinstance(error, ValueError) else type(error).__name__
            return "nothing"

        return probe

    def refuses_turn(x, cos, sin=None):
        sin = cos if sin is None else sin
        return refused(lambda impl: impl.rotate(Tensor(np.ones(x)), np.ones(cos), np.ones(sin)))

    def refuses_scaling(*arguments):
        return refused(lambda impl: impl.RopeScaling(*arguments))

    def left_alone(impl):
        given = Tensor(x.copy())
        impl.rotate(given, cos, sin)
        return given.data

    def order_again(impl):
        with contextlib.suppress(ValueError):
            impl.to_half_split(6)[:] = 0
        return impl.to_half_split(6)

    def dtype(impl):
        return str(impl.rotate(Tensor(x.astype(np.float32)), cos, sin).dtype)

    llama3 = ("llama3", 4.0, 1.5, 6.0, 90)
    return {
        "frequencies": frequencies(8),
        "base 50": frequencies(8, 50.0),
        "linear": frequencies(8, 50.0, "linear", 4.0),
        "linear by a half": frequencies(4, 50.0, "linear", 0.5),
        "llama3": frequencies(16, 100.0, *llama3),
        "llama3 by its defaults": frequencies(16, 10_000.0, "llama3", 8.0),
        "dtype of frequencies": lambda impl: str(impl.frequencies(4).dtype),
        "rotation": rotation([0, 1, 2, 40], 6),
        "rotation, base 50": rotation([3, 1, 2.5], 4, 50.0),
        "rotation, scaled": rotation([[3, 1], [2, 7]], 4, 50.0, scaling=llama3),
        "shape of a rotation": lambda impl: impl.rotation([[3, 1], [2, 7]], 4)[0].shape,
        "far away": rotation([100_001], 4),
        "dtype of a rotation": lambda impl: str(impl.rotation([1], 4)[0].dtype),
        "turned": turned(False),
        "turned, interleaved": turned(True),
        "turned, each text by its own": turned(False, cos=np.cos(own), sin=np.sin(own)),
        "gradient": gradient(False),
        "gradient, interleaved": gradient(True),
        "gradient of two passes": other_gradients(np.array, 2),
        "gradient transposed in memory": other_gradients(np.asfortranarray, 1),
        "positions of bytes": rotation(np.array([1, 200], np.uint8), 4),
        "a scaling that is changed": refused(changed),
        "x after a turn": left_alone,
        "dtype of a turn": dtype,
        "order": lambda impl: impl.to_half_split(8),
        "order again": order_again,
        "a vector": refuses_turn((4,), (1, 2)),
        "a longer table": refuses_turn((2, 4), (3, 2)),
        "one row": refuses_turn((3, 4), (1, 2)),
        "one column": refuses_turn((3, 4), (3, 1)),
        "one text": refuses_turn((3, 4), (2, 3, 2)),
        "a row of sines": refuses_turn((3, 4), (3, 2), (1, 2)),
        "an odd width": refused(lambda impl: impl.frequencies(5)),
        "no width": refused(lambda impl: impl.frequencies(0)),
        "one position": refused(lambda impl: impl.rotation(3, 4)),
        **{f"base {base}": refused(lambda impl, base=base: impl.frequencies(4, base)) for base in (0, -4.0)},
        "an infinite base": refused(lambda impl: impl.frequencies(4, math.inf)),
        "an unknown kind": refuses_scaling("yarn", 2.0),
        "a factor of 0": refuses_scaling("linear", 0.0),
        "a factor below 0": refuses_scaling("linear", -2.0),
        "an infinite factor": refuses_scaling("linear", math.inf),
        "an infinite end": refuses_scaling("linear", 2.0, 1.0, math.inf),
        "an end of 0": refuses_scaling("linear", 2.0, 0.0),
        "a falling ramp": refuses_scaling("llama3", 2.0, 4.0, 3.0),
        "a falling ramp, linear": refuses_scaling("linear", 2.0, 4.0, 3.0),
        "no ramp": refuses_scaling("llama3", 2.0, 4.0, 4.0),
        "no length": refuses_scaling("llama3", 2.0, 1.0, 4.0, 0),
    }
