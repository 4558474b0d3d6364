"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, record
from techtree.techs.training.sgd import Optimizer

RINT = "np.rint(np.ldexp(wide, -spacing))"
SPACING = "spacing = np.maximum(np.frexp(wide)[1] - 1, 2 - reach) - n_mantissa"
BEYOND = "rounded = np.where(np.abs(rounded) >= 2.0**reach, np.copysign(np.inf, rounded), rounded)"
FLOAT32 = "np.asarray(x).astype(np.float32).astype(np.float64)"
CAST = "round_to(x.data, n_exponent, n_mantissa), (x, lambda g: round_to(g, n_exponent, n_mantissa))"
MASTERS = "self.masters = [Parameter(each.data.astype(np.float32)) for each in self._model]\n"
PUBLISH = "parameter.data[...] = round_to(master.data, *self._format)"
TAKE = "master.grad = None if parameter.grad is None else round_to(parameter.grad, *self._format)\n"
FINITE = "is_finite = all(np.isfinite(each.grad).all() for each in with_gradient)"
DIVIDE = "each.grad = np.asarray(each.grad / np.float64(self.scale), each.grad.dtype)"
COUNT = "self._n_good = self._n_good + 1 if is_finite else 0"
LOAD = 'self.scale, self._n_good = float(state["scale"]), int(state["n_good"])'
GROW = "self.scale, self._n_good = self.scale * 2, 0"
FITS = "if wanted != {name: np.shape(each) for name, each in state.items()}:"
CHECK = "if not (2 <= n_exponent <= 8 and 1 <= n_mantissa <= 23):"


def _bit_trick(x, n_exponent, n_mantissa):
    """Adds half a spacing to the bits, as everybody does for bfloat16, and forgets NaN and the exponent."""
    if not (2 <= n_exponent <= 8 and 1 <= n_mantissa <= 23):
        raise ValueError("no such format")
    with np.errstate(all="ignore"):
        bits = np.array(x, np.float32, ndmin=1).view(np.uint32).astype(np.uint64)
    cut = 23 - n_mantissa
    half = (1 << cut) >> 1
    bits = bits + (half - 1 + ((bits >> cut) & 1) if cut else 0)
    bits = bits & (0xFFFFFFFF >> cut << cut)
    return bits.astype(np.uint32).view(np.float32).reshape(np.shape(x))


MISTAKES = {
    "round_to cuts digits off, towards 0": [(RINT, "np.trunc(np.ldexp(wide, -spacing))")],
    "round_to rounds down": [(RINT, "np.floor(np.ldexp(wide, -spacing))")],
    "round_to rounds halves away from 0": [
        (RINT, "np.copysign(np.floor(np.abs(np.ldexp(wide, -spacing)) + 0.5), wide)")
    ],
    "round_to rounds halves up, so that negative numbers go the other way": [
        (RINT, "np.copysign(np.floor(np.ldexp(wide, -spacing) + 0.5), wide)")
    ],
    "round_to rounds halves to odd": [
        (
            RINT,
            "np.where(np.ldexp(wide, -spacing) % 1 == 0.5, 2 * np.floor(np.ldexp(wide, -spacing) / 2) + 1, "
            "np.rint(np.ldexp(wide, -spacing)))",
        )
    ],
    "round_to takes subnormal numbers for 0": [
        (
            BEYOND,
            BEYOND + "\n    rounded = np.where(np.abs(rounded) < 2.0 ** (2 - reach), 0 * rounded, rounded)",
        )
    ],
    "round_to keeps all digits of small numbers, as if there were no smallest exponent": [
        (SPACING, "spacing = np.frexp(wide)[1] - 1 - n_mantissa")
    ],
    "round_to lets the subnormal numbers begin a factor of 2 too low": [
        (SPACING, SPACING.replace("2 - reach", "1 - reach"))
    ],
    "round_to gives the largest number where it overflows": [
        (BEYOND, BEYOND.replace("np.inf", "2.0**reach - 2.0 ** (reach - n_mantissa - 1)"))
    ],
    "round_to gives infinity for all that is above the largest number, before it rounds": [
        (
            BEYOND,
            BEYOND.replace(
                "np.abs(rounded) >= 2.0**reach", "np.abs(wide) > 2.0**reach - 2.0 ** (reach - n_mantissa - 1)"
            ),
        )
    ],
    "round_to never overflows: the exponent has no upper end": [(BEYOND, "")],
    "round_to overflows one factor of 2 too early, as if the highest exponent were not used": [
        (BEYOND, BEYOND.replace("2.0**reach", "2.0 ** (reach - 1)"))
    ],
    "round_to makes 0 of -0": [(BEYOND, BEYOND + "\n    rounded = np.where(rounded == 0, 0.0, rounded)")],
    "round_to loses the sign of what overflows": [
        (BEYOND, BEYOND.replace("np.copysign(np.inf, rounded)", "np.inf"))
    ],
    "round_to makes 0 of NaN": [
        (BEYOND, BEYOND + "\n    rounded = np.nan_to_num(rounded, posinf=np.inf, neginf=-np.inf)")
    ],
    "round_to makes NaN of infinity": [
        (BEYOND, BEYOND + "\n    rounded = np.where(np.isinf(wide), np.nan, rounded)")
    ],
    "round_to adds to the bits and cuts them, and forgets NaN and the exponent": {"round_to": _bit_trick},
    "round_to rounds a float64 at once, not by way of float32": [
        (FLOAT32, "np.asarray(x).astype(np.float64)")
    ],
    "round_to returns float64": [("return rounded.astype(np.float32)", "return rounded")],
    "round_to returns the dtype that it was given": [
        ("return rounded.astype(np.float32)", "return rounded.astype(np.asarray(x).dtype)")
    ],
    "round_to changes its input": [
        (
            "return rounded.astype(np.float32)",
            "if x.dtype == np.float32:\n        x[...] = rounded\n    return rounded.astype(np.float32)",
        )
    ],
    "round_to counts the leading 1 among the bits of the mantissa": [
        (SPACING, SPACING.replace("- n_mantissa", "- (n_mantissa - 1)"))
    ],
    "round_to finds the exponent with log2 in float32, which rounds up to the next power of 2": [
        (SPACING, SPACING.replace("np.frexp(wide)[1] - 1", "_floor_log2(wide)")),
        (
            "def cast(",
            "def _floor_log2(x):\n    with np.errstate(all='ignore'):\n"
            "        found = np.floor(np.log2(np.abs(x).astype(np.float32)))\n"
            "    return np.where(np.isfinite(found), found, 0).astype(int)\n\n\ndef cast(",
        ),
    ],
    "round_to takes any number of bits": [(CHECK, "if False:")],
    "round_to takes no more than 22 bits of mantissa": [(CHECK, CHECK.replace("<= 23", "<= 22"))],
    "round_to takes a format of a single exponent bit": [(CHECK, CHECK.replace("2 <=", "1 <="))],
    "cast leaves the gradient as it is": [(CAST, CAST.replace("round_to(g, n_exponent, n_mantissa)", "g"))],
    "cast leaves the data as they are, and rounds the gradient": [
        (CAST, CAST.replace("round_to(x.data, n_exponent, n_mantissa)", "x.data.astype(np.float32)"))
    ],
    "cast gives a constant: no gradient comes back": [(CAST, "round_to(x.data, n_exponent, n_mantissa)")],
    "cast takes the derivative of a staircase, which is 0": [
        (CAST, CAST.replace("round_to(g, n_exponent, n_mantissa)", "0 * g"))
    ],
    "cast rounds the gradient of float16 as if it were bfloat16, so that it never vanishes": [
        (CAST, CAST.replace("round_to(g, n_exponent, n_mantissa)", "round_to(g, 8, n_mantissa)"))
    ],
    "cast keeps float64": [
        (
            CAST,
            CAST.replace(
                "round_to(x.data, n_exponent, n_mantissa)",
                "round_to(x.data, n_exponent, n_mantissa).astype(x.dtype)",
            ),
        )
    ],
    "MasterWeights does not round the model before the first update": [
        (MASTERS + "        self.publish()\n", MASTERS)
    ],
    "MasterWeights copies the weights after rounding them": [
        (MASTERS, MASTERS.replace("each.data.astype(np.float32)", "round_to(each.data, *self._format)"))
    ],
    "MasterWeights keeps masters in the model's dtype": [
        (MASTERS, MASTERS.replace(".astype(np.float32)", ""))
    ],
    "MasterWeights works in bfloat16 whatever it is asked for": [
        ("self._format = (n_exponent, n_mantissa)", "self._format = (8, 7)")
    ],
    "publish gives the model new arrays": [
        (PUBLISH, "parameter.data = round_to(master.data, *self._format).astype(parameter.dtype)")
    ],
    "publish does not round": [(PUBLISH, "parameter.data[...] = master.data")],
    "publish rounds the masters, too": [
        (PUBLISH, f"master.data[...] = round_to(master.data, *self._format)\n            {PUBLISH}")
    ],
    "take_gradients adds to the gradients that the masters had": [
        (
            TAKE,
            "if parameter.grad is None:\n                master.grad = None\n            else:\n"
            "                rounded = round_to(parameter.grad, *self._format)\n"
            "                master.grad = rounded if master.grad is None else master.grad + rounded\n",
        )
    ],
    "take_gradients leaves the model's gradients, to which the next ones are added": [
        ("            parameter.grad = None\n", "")
    ],
    "take_gradients does not round": [
        (TAKE, TAKE.replace("round_to(parameter.grad, *self._format)", "parameter.grad.astype(np.float32)"))
    ],
    "take_gradients keeps the dtype of the model's gradients": [
        (
            TAKE,
            TAKE.replace(
                "round_to(parameter.grad, *self._format)",
                "round_to(parameter.grad, *self._format).astype(parameter.dtype)",
            ),
        )
    ],
    "take_gradients leaves a master its old gradient where the model has none": [
        (
            TAKE,
            "if parameter.grad is not None:\n"
            "                master.grad = round_to(parameter.grad, *self._format)\n",
        )
    ],
    "the state of MasterWeights is no copy": [("str(number): each.data.copy()", "str(number): each.data")],
    "the state of MasterWeights holds the rounded weights": [
        (
            "str(number): each.data.copy() for number, each in enumerate(self.masters)",
            "str(number): each.data.astype(np.float32) for number, each in enumerate(self._model)",
        )
    ],
    "loading does not publish: the model keeps its weights": [
        (
            "master.data[...] = state[str(number)]\n        self.publish()",
            "master.data[...] = state[str(number)]",
        )
    ],
    "loading gives the masters new arrays": [
        ("master.data[...] = state[str(number)]", "master.data = np.array(state[str(number)])")
    ],
    "loading writes what fits before it finds that something does not": [
        (
            FITS,
            "is_wrong = wanted != {name: np.shape(each) for name, each in state.items()}\n"
            "        for number, master in enumerate(self.masters):\n"
            "            if np.shape(state.get(str(number))) == master.shape:\n"
            "                master.data[...] = state[str(number)]\n"
            "        if is_wrong:",
        )
    ],
    "loading takes a state with more than it needs": [
        (
            FITS,
            "if wanted != {name: np.shape(state.get(name)) for name in wanted}:",
        )
    ],
    "LossScaler updates the weights with infinities": [
        (FINITE, FINITE + "\n        finite, is_finite = is_finite, True"),
        (COUNT, f"is_finite = finite\n        {COUNT}"),
    ],
    "LossScaler looks for NaN only": [
        (FINITE, FINITE.replace("np.isfinite(each.grad).all()", "not np.isnan(each.grad).any()"))
    ],
    "LossScaler looks for infinity only": [
        (FINITE, FINITE.replace("np.isfinite(each.grad).all()", "not np.isinf(each.grad).any()"))
    ],
    "LossScaler looks at the sum of each gradient, which overflows by itself": [
        (FINITE, FINITE.replace("np.isfinite(each.grad).all()", "np.isfinite(each.grad.sum())"))
    ],
    "LossScaler looks at the last gradient only": [
        (FINITE, FINITE.replace("in with_gradient", "in with_gradient[-1:]"))
    ],
    "LossScaler knows the first group only": [
        ("for group in optimizer.groups for each", "for group in optimizer.groups[:1] for each")
    ],
    "LossScaler does not divide": [(DIVIDE, "pass")],
    "LossScaler multiplies where it should divide": [
        (DIVIDE, "each.grad = np.asarray(each.grad * self.scale)")
    ],
    "LossScaler divides float32 and leaves float64": [
        (DIVIDE, "each.grad = np.asarray(each.grad / self.scale, np.float64)")
    ],
    "LossScaler divides float16 by a number of float16": [
        (
            DIVIDE,
            'with np.errstate(over="ignore"):\n                    each.grad = np.asarray(each.grad / self.scale)',
        )
    ],
    "LossScaler divides by the scale of the next step": [
        (COUNT, ""),
        (
            "        if is_finite:\n            for each",
            f"        {COUNT}\n        if is_finite:\n            if self._n_good == self.n_growth:\n"
            f"                {GROW}\n            for each",
        ),
        (f"        elif self._n_good == self.n_growth:\n            {GROW}\n", ""),
    ],
    "LossScaler keeps the scale when a step overflows": [
        ("            self.scale /= 2\n", "            pass\n")
    ],
    "LossScaler quarters the scale": [("            self.scale /= 2\n", "            self.scale /= 4\n")],
    "LossScaler halves the scale, but never below 1": [
        ("            self.scale /= 2\n", "            self.scale = max(self.scale / 2, 1.0)\n")
    ],
    "LossScaler never grows": [(GROW, "pass")],
    "LossScaler counts good steps that are not in a row": [(COUNT, "self._n_good += is_finite")],
    "LossScaler goes on growing at every step once it has begun": [
        ("elif self._n_good == self.n_growth", "elif self._n_good >= self.n_growth"),
        (GROW, "self.scale *= 2"),
    ],
    "LossScaler grows one step late": [
        ("elif self._n_good == self.n_growth", "elif self._n_good > self.n_growth")
    ],
    "LossScaler counts the overflow as the first of the next row": [
        (COUNT, "self._n_good = self._n_good + 1 if is_finite else 1")
    ],
    "LossScaler says nothing": [("        return is_finite\n", "")],
    "LossScaler says whether it skipped": [("        return is_finite\n", "        return not is_finite\n")],
    "LossScaler makes zeros of gradients that are None": [
        (
            "is_finite = all(",
            "for group in optimizer.groups:\n            for each in group['parameters']:\n"
            "                if each.grad is None:\n"
            "                    each.grad = np.zeros_like(each.data)\n"
            "        is_finite = all(",
        )
    ],
    "the state of LossScaler lacks the count": [
        ('"n_good": np.array(self._n_good)', '"n_good": np.array(0)')
    ],
    "the state of LossScaler lacks the scale": [
        (LOAD, 'self._n_good = int(state["n_good"])'),
    ],
    "all LossScalers share one count": [
        ("        self._n_good = 0\n", "        LossScaler._n_good = 0\n"),
        (COUNT, "LossScaler._n_good = LossScaler._n_good + 1 if is_finite else 0"),
        (GROW, "self.scale, LossScaler._n_good = self.scale * 2, 0"),
        (
            ', int(state["n_good"])',
            ', 0\n        LossScaler._n_good = int(state["n_good"])\n        del self._n_good',
        ),
    ],
    "the default scale is 2**15": [("scale: float = 65536.0", "scale: float = 32768.0")],
    "the default is to grow after 1000 steps": [("n_growth: int = 2000", "n_growth: int = 1000")],
}


def _by_bits(x, n_exponent, n_mantissa):
    """Integers only: shift the mantissa out, and round by what is left."""
    if not (2 <= n_exponent <= 8 and 1 <= n_mantissa <= 23):
        raise ValueError("no such format")
    with np.errstate(all="ignore"):
        x = np.array(x).astype(np.float32)
    bits = x.reshape(-1).view(np.uint32).astype(np.int64)
    sign, size = bits & 0x80000000, bits & 0x7FFFFFFF
    exponent, mantissa = size >> 23, size & 0x7FFFFF
    mantissa = np.where(exponent > 0, mantissa | 0x800000, mantissa)
    exponent = np.maximum(exponent, 1)
    lowest = 129 - 2 ** (n_exponent - 1)
    cut = np.minimum(23 - n_mantissa + np.maximum(lowest - exponent, 0), 40)
    kept, rest = mantissa >> cut, mantissa & ((1 << cut) - 1)
    half = np.where(cut > 0, 1 << np.maximum(cut - 1, 0), 1 << 60)
    kept = kept + ((rest > half) | ((rest == half) & (kept & 1 == 1)))
    value = np.ldexp(kept.astype(np.float64), exponent - 150 + cut)
    value[value >= 2.0**2 ** (n_exponent - 1)] = np.inf
    value = np.where(sign > 0, -value, value)
    value = np.where(
        size > 0x7F800000, np.nan, np.where(size == 0x7F800000, np.copysign(np.inf, value), value)
    )
    return value.astype(np.float32).reshape(x.shape)


def _by_fractions(x, n_exponent, n_mantissa):
    """One exact fraction of whole numbers after the other."""
    if n_exponent not in range(2, 9) or n_mantissa not in range(1, 24):
        raise ValueError("no such format")
    with np.errstate(all="ignore"):
        x = np.asarray(x).astype(np.float32)
    found = []
    for each in x.ravel().tolist():
        if each == 0 or not math.isfinite(each):
            found.append(each)
            continue
        exponent = int(max(math.frexp(each)[1] - 1, 2 - 2 ** (n_exponent - 1)) - n_mantissa)
        above, below = abs(each).as_integer_ratio()
        above, below = above << max(-exponent, 0), below << max(exponent, 0)
        whole, rest = divmod(above, below)
        size = math.ldexp(whole + (2 * rest > below or (2 * rest == below and whole % 2)), exponent)
        found.append(math.copysign(size if size < 2.0**2 ** (n_exponent - 1) else math.inf, each))
    return np.array(found, np.float32).reshape(x.shape)


def _by_a_large_number(x, n_exponent, n_mantissa):
    """Adding 1.5 * 2**52 spacings and taking them away leaves whole spacings: the processor rounds."""
    if min(n_exponent - 2, n_mantissa - 1, 8 - n_exponent, 23 - n_mantissa) < 0:
        raise ValueError("no such format")
    with np.errstate(all="ignore"):
        wide = np.asarray(x).astype(np.float32).astype(np.float64)
        size = np.abs(wide)
        power = 2.0 ** np.floor(np.log2(np.where((size > 0) & np.isfinite(size), size, 1.0)))
        power = np.where(power > size, power / 2, power)  # log2 of a float32 is off by less than that
        spacing = np.maximum(power, 2.0 ** (2 - 2 ** (n_exponent - 1))) * 2.0**-n_mantissa
        large = 1.5 * 2.0**52 * spacing
        size = np.where(np.isfinite(size), (size + large) - large, size)
        size = np.where(size >= 2.0**2 ** (n_exponent - 1), np.inf, size)
        return np.where(np.isnan(wide), wide, np.copysign(size, wide)).astype(np.float32)


def _other_cast(x, n_exponent, n_mantissa):
    """The rounding error as a constant, and a second node for the gradient."""
    inner = record(x.data.astype(np.float32), (x, lambda g: _by_bits(g, n_exponent, n_mantissa)))
    return record(_by_bits(x.data, n_exponent, n_mantissa), (inner, lambda g: np.array(g)))


class _OtherScaler:
    """Counts down, keeps the scale as a power of 2, divides in place."""

    def __init__(self, scale=65536.0, n_growth=2000):
        self.scale, self.n_growth, self.left = float(scale), n_growth, n_growth

    def step(self, optimizer):
        parameters = [each for group in optimizer.groups for each in group["parameters"]]
        gradients = [each.grad for each in parameters if each.grad is not None]
        if any((~np.isfinite(each)).any() for each in gradients):
            self.scale, self.left = self.scale * 0.5, self.n_growth
            return False
        for each in gradients:
            each *= np.float64(1 / self.scale)
        optimizer.step()
        self.left -= 1
        if self.left == 0:
            self.scale, self.left = self.scale * 2.0, self.n_growth
        return True

    def state_dict(self):
        return {"both": np.array([self.scale, self.left])}

    def load_state_dict(self, state):
        self.scale, self.left = float(state["both"][0]), int(state["both"][1])


class _OtherMasters:
    """Pairs of weight and master; rounding by bits; a state that is checked name by name."""

    def __init__(self, parameters, n_exponent, n_mantissa):
        self.pairs = [(each, Parameter(np.float32(each.data))) for each in parameters]
        self.masters = [master for _, master in self.pairs]
        self.round = lambda x: _by_bits(x, n_exponent, n_mantissa)
        self.publish()

    def take_gradients(self):
        for weight, master in self.pairs:
            master.grad = weight.grad
            weight.grad = None
            if master.grad is not None:
                master.grad = self.round(master.grad)

    def publish(self):
        for weight, master in self.pairs:
            np.copyto(weight.data, self.round(master.data))

    def state_dict(self):
        return {f"{n}": np.array(master.data) for n, (_, master) in enumerate(self.pairs)}

    def load_state_dict(self, state):
        values = []
        for n, master in enumerate(self.masters):
            if str(n) not in state or np.shape(state[str(n)]) != master.shape:
                raise ValueError(f"{n} does not fit")
            values.append(np.array(state[str(n)]))
        if len(state) > len(values):
            raise ValueError("too many")
        for master, value in zip(self.masters, values, strict=True):
            np.copyto(master.data, value)
        self.publish()


EQUIVALENTS = {
    "round_to with integers only": {"round_to": _by_bits},
    "round_to with exact fractions, number by number": {"round_to": _by_fractions},
    "round_to by adding and taking away a large number": {"round_to": _by_a_large_number},
    "cast as two operations": {"cast": _other_cast},
    "LossScaler that counts down, and divides in place": {"LossScaler": _OtherScaler},
    "MasterWeights as pairs": {"MasterWeights": _OtherMasters},
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    bfloat16, float16, float32 = (8, 7), (5, 10), (8, 23)
    below = np.nextafter(np.array([2.0**100], np.float32), np.float32(0))

    def rounded(*numbers, form=bfloat16, dtype=np.float32):
        x = np.array(numbers, dtype)
        return lambda impl: impl.round_to(x.copy(), *form)

    def untouched(impl):
        x = np.array([257.0, 1 / 3], np.float32)
        impl.round_to(x, *bfloat16)
        return x

    def error(action):
        def probe(impl):
            try:
                return f"answers {action(impl)}"
            except ValueError:
                return "ValueError"

        return probe

    def through_cast(value, gradient, form, dtype=np.float32):
        def probe(impl):
            x = Tensor(np.array(value, dtype), requires_grad=True)
            y = impl.cast(x, *form)
            if y.requires_grad:
                y.backward(np.array(gradient, np.float32))
            return [str(y.dtype), *y.data.tolist(), *(["None"] if x.grad is None else x.grad.tolist())]

        return probe

    def made(impl, form=bfloat16, dtype=np.float32):
        weight = Parameter(np.array([1 + 2**-9, 0.1], dtype))
        return weight, impl.MasterWeights([weight], *form)

    def listed(*arrays):
        return [each.tolist() for each in arrays]

    def after_making(impl):
        weight, weights = made(impl, float16)
        return listed(weight.data, weights.masters[0].data)

    def after_publishing(impl):
        weight, weights = made(impl)
        array = weight.data
        weights.masters[0].data += np.float32(0.01)
        weights.publish()
        return listed(weight.data, array, weights.masters[0].data)

    def after_taking(dtype, gradient):
        def probe(impl):
            weight, weights = made(impl, dtype=dtype)
            weights.masters[0].grad = np.ones(2, np.float32)
            weight.grad = gradient if gradient is None else np.array(gradient, dtype)
            weights.take_gradients()
            taken = weights.masters[0].grad
            left = "None" if weight.grad is None else "left"
            return [left, "None"] if taken is None else [left, str(taken.dtype), *taken.tolist()]

        return probe

    def of_the_state(impl):
        _, weights = made(impl)
        state = weights.state_dict()
        before = state["0"].copy()
        weights.masters[0].data += 1
        return listed(before, state["0"])

    def after_loading(impl):
        weight, weights = made(impl)
        array = weights.masters[0].data
        weights.load_state_dict({"0": np.array([3 + 2**-10, 4], np.float32)})
        return listed(weight.data, array, weights.masters[0].data)

    def after_a_wrong_state(state):
        def probe(impl):
            pair = [Parameter(np.zeros(1, np.float32)), Parameter(np.zeros(2, np.float32))]
            weights = impl.MasterWeights(pair, *bfloat16)
            told = error(lambda _: weights.load_state_dict(state))(impl)
            return [told, float(weights.masters[0].data[0])]

        return probe

    def stepped(*gradients, scale=4.0, dtype=np.float32):
        """What a scaler says, its scale, and the gradients that the optimizer sees."""

        def probe(impl):
            parameters = [Parameter(np.zeros(2, dtype)) for _ in gradients]
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = None if gradient is None else np.array(gradient, dtype)
            optimizer = _Watching([{"parameters": [each]} for each in parameters])
            scaler = impl.LossScaler(scale, 1)
            return [str(scaler.step(optimizer)), scaler.scale, *optimizer.seen]

        return probe

    def scales(outcomes, **options):
        def probe(impl, scaler=None):
            scaler, found = scaler or impl.LossScaler(**options), []
            for is_good in outcomes:
                parameter = Parameter(np.zeros(1))
                parameter.grad = np.array([1.0 if is_good else np.inf])
                scaler.step(_Watching([parameter]))
                found.append(scaler.scale)
            return found

        return probe

    def resumed(impl):
        first, second = impl.LossScaler(64.0, 3), impl.LossScaler(1.0, 3)
        scales([True, True])(impl, first)
        second.load_state_dict(first.state_dict())
        return scales([True, True])(impl, second)

    def beside_another(impl):
        first, second = impl.LossScaler(8.0, 2), impl.LossScaler(8.0, 2)
        scales([True])(impl, first)
        return scales([True])(impl, second)

    return {
        "bfloat16": rounded(1 / 3, 0.7, -1 / 3, -0.7),
        "halfway": rounded(257, 259, 261, -257, -259),
        "float16, subnormal": rounded(3e-7, 2.0**-24, 1e-5, 6e-5, form=float16),
        "float16, below all": rounded(1e-9, form=float16),
        "float16, at the upper end": rounded(65504, 65519, 65520, form=float16),
        "float16, below the highest exponent": rounded(40000, form=float16),
        "float16, far beyond": rounded(1e6, form=float16),
        "float16, far beyond, negative": rounded(-1e6, form=float16),
        "the sign of 0": lambda impl: np.signbit(impl.round_to(np.array([-0.0], np.float32), *bfloat16)),
        "NaN": rounded(np.nan),
        "NaN of all bits": lambda impl: impl.round_to(
            np.array([0x7FFFFFFF], np.uint32).view(np.float32), 8, 7
        ),
        "infinity": rounded(np.inf, -np.inf),
        "float32 just below a power of 2": lambda impl: bool(impl.round_to(below, *float32)[0] == below[0]),
        "float64": rounded(1 + 2**-8 + 2**-40, dtype=np.float64),
        "dtype of float32": lambda impl: str(impl.round_to(np.ones(1, np.float32), *bfloat16).dtype),
        "dtype of float64": lambda impl: str(impl.round_to(np.ones(1), *bfloat16).dtype),
        "the input afterwards": untouched,
        "no mantissa": error(lambda impl: impl.round_to(np.ones(1), 8, 0)),
        "one bit of exponent": error(lambda impl: impl.round_to(np.ones(1), 1, 7)),
        "float32 itself": error(lambda impl: impl.round_to(np.ones(1), *float32)),
        "cast in bfloat16": through_cast([1 / 3, 257], [1 / 3, 257], bfloat16),
        "cast in float16": through_cast([1.0], [1e-9], float16),
        "cast of float64": through_cast([1.0], [1.0], bfloat16, np.float64),
        "masters at the start": after_making,
        "dtype of masters": lambda impl: str(made(impl, dtype=np.float64)[1].masters[0].dtype),
        "after publish": after_publishing,
        "gradients": after_taking(np.float32, [1 / 3, 1]),
        "gradients in float64": after_taking(np.float64, [1, 1]),
        "no gradient": after_taking(np.float32, None),
        "state of masters": of_the_state,
        "masters loaded": after_loading,
        "a state of one weight only": after_a_wrong_state({"0": np.ones(1, np.float32)}),
        "a state with one weight too many": after_a_wrong_state(
            {"0": np.zeros(1), "1": np.zeros(2), "2": np.zeros(1)}
        ),
        "scaled gradients": stepped([8, 4], [2, 1]),
        "scaled gradients of float16": stepped([1000, 4], scale=65536.0, dtype=np.float16),
        "infinity in the first gradient": stepped([np.inf, 1], [1, 1]),
        "infinity in the last gradient": stepped([1, 1], [np.inf, 1]),
        "NaN in a gradient": stepped([np.nan, 1]),
        "large gradients": stepped([3e38, 3e38]),
        "a gradient that is None": stepped(None, [4, 4]),
        "scales": scales([True, True, True, False, True, True], scale=8.0, n_growth=2),
        "scales, overflows between": scales([True, False, True, False, True], scale=8.0, n_growth=2),
        "small scales": scales([False, False], scale=1.0),
        "the first scale": lambda impl: impl.LossScaler().scale,
        "the scale after 1000 steps": lambda impl: scales([True] * 1000)(impl)[-1],
        "a scaler that was loaded": resumed,
        "two scalers": beside_another,
    }


class _Watching(Optimizer):
    """Notes the gradients that it is given."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=1.0)
        self.seen = []

    def step(self):
        members = [each for group in self.groups for each in group["parameters"]]
        for each in members:
            self.seen += ["None"] if each.grad is None else [str(each.grad.dtype), *each.grad.tolist()]
