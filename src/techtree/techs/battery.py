"""The battery: sweeps that the tests of all technologies share, each called in a line or two.

A wrong version is often right on the inputs that its author had in mind: small, contiguous, float64, of
size one. `sweep` compares a function with a slow definition over sizes (none, one, odd ones, beyond 128 on
every axis), leading axes, dtypes, layouts of memory and values, and asks at each case what every function
owes: a result of the documented dtype, the inputs unchanged, the same answer again, in any order. The cases
come smallest first, so the first failure shows a small input.

    def test_softmax_everywhere(impl, rng):
        battery.sweep(impl.softmax, slow_softmax, battery.cases(rng, "... n"), ulps=16)

Legend: a *definition* takes float64 copies (integers become int64) and returns the expected result; a
*case* is one call; `ulps` is what a right version may be off, in units of the dtype's rounding.

The tests of a technology use NumPy and pytest only, and so does this module. It imports no technology.
"""

import copy
import dataclasses
import gc
import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from techtree.techs import aim

SIZES = (0, 1, 2, 7, 33, 130)
"""What each axis takes in turn, besides its ordinary small size: none, one, odd ones, beyond 128."""

ORDINARY = (3, 5, 4, 2, 6, 8)
"""Ordinary sizes for the letters of a spec, in order: all different, so that none stands in for another."""

LEADING = ((1,), (2, 3), (0,), (2, 1, 2, 1, 1, 2))
"""What `...` becomes in turn; nothing, otherwise."""

FLOATS = (np.float16, np.float32, np.float64)
INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.bool_)


class MismatchError(AssertionError):
    """A version that is wrong on one input, with what a learner needs to see it.

    Attributes
    ----------
    facts
        Lines that draw the input, what was expected and what came.
    """

    def __init__(self, what: str, facts: Sequence[str] = ()):
        super().__init__("\n  ".join([what, *facts]))
        self.facts = [what, *facts]


@dataclass(frozen=True)
class Case:
    """One call: arrays (or other values) and options, and a label that says what is special."""

    label: str
    arguments: tuple
    options: Mapping[str, object] = field(default_factory=dict)
    slack: float = 1.0
    """By how much the tolerance is wider: rounding in a sum grows with the root of its length."""


def cases(
    rng: np.random.Generator,
    spec: str,
    *,
    sizes: Mapping[str, Iterable[int]] | None = None,
    dtypes: Iterable[type] = FLOATS,
    layouts: Iterable[str] | None = None,
    values: Mapping[str, Callable[[tuple[int, ...]], np.ndarray]] | None = None,
    options: Iterable[Mapping[str, object]] = ({},),
    at_most: int = 40_000,
    largest: float = 0.0,
) -> list[Case]:
    """Make the calls of a sweep, smallest first. One thing is special in each; all dtypes meet all options.

    Besides sizes that everybody meets, there are those that the source under test names (`aim`).

    Parameters
    ----------
    rng
        Draws the values: normal, of size one. Integers are small and not negative for unsigned types.
    spec
        The axes of each argument, by name: ``"... q d, ... k d"``; ``...`` are leading axes, the same in all.
    sizes
        The sizes a letter takes in turn in place of `SIZES`: ``{"d": (1, 2, 130)}`` if it may not be 0.
        ``{"...": [(), (2, 3)]}`` for the leading axes.
    dtypes
        Of all arguments together. The first float64 is what the other cases use.
    layouts
        Of each argument in turn; `LAYOUTS` when left out.
    values
        Label -> function of a shape that gives special values, for each argument in turn.
    options
        Keyword arguments; the first are used everywhere, the others at the ordinary and at one odd size.
    at_most
        How many entries an array may have for a size that the source names.
    largest
        The largest number of the source that becomes a value of floats; 0 where a right version may be off
        by more than its tolerance at such values.

    Returns
    -------
    list[Case]
        A few dozen.
    """
    terms = [term.split() for term in spec.split(",")]
    letters = list(dict.fromkeys(letter for term in terms for letter in term if letter != "..."))
    ordinary: dict[str, int] = dict(zip(letters, itertools.cycle(ORDINARY), strict=False))
    sizes = dict(sizes or {})
    first, *others = options

    def shapes(leading: tuple[int, ...], special: Mapping[str, int]) -> list[tuple[int, ...]]:
        length = ordinary | dict(special)
        return [
            tuple(itertools.chain(*(leading if axis == "..." else (length[axis],) for axis in term)))
            for term in terms
        ]

    def call(label, leading=(), special=(), dtype=np.float64, chosen=first) -> Case:
        drawn = (_draw(rng, shape, dtype) for shape in shapes(leading, dict(special)))
        return Case(label, tuple(drawn), chosen)

    found = [call("ordinary sizes"), call("every size is 1", special=dict.fromkeys(letters, 1))]
    for letter in letters:
        for size in sizes.get(letter, SIZES):
            found.append(call(f"{letter} = {size}", special={letter: size}))
    if any("..." in term for term in terms):
        for leading in sizes.get("...", LEADING):
            found.append(call(f"leading axes {leading}", leading=leading))
    for chosen in [first, *others]:
        told = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
        if chosen is not first:
            found.append(call(f"with {told}", chosen=chosen))
            found.append(call(f"with {told}, {letters[0]} = 9", special={letters[0]: 9}, chosen=chosen))
        for dtype in dtypes:
            label = f"dtype {np.dtype(dtype).name}" + (f", {told}" if told else "")
            found.append(call(label, dtype=dtype, chosen=chosen))
    for letter, size in itertools.product(letters, aim.sizes(at_most=at_most)):
        others = {each: min(ordinary[each], 2) for each in letters}
        if size not in ordinary.values() and _n_entries(shapes((), others | {letter: size})) <= at_most:
            found.append(_large(call(f"{letter} = {size}", special=others | {letter: size}), size))
    if any("..." in term for term in terms) and "..." not in sizes:
        for n_axes in aim.whole(3, 16):
            for leading in ((2, 1) * n_axes)[:n_axes], ((2, 1) * n_axes)[: n_axes - 1]:
                found.append(
                    call(f"leading axes {leading}", leading=leading, special=dict.fromkeys(letters, 2))
                )
    base = call("base").arguments
    for index in range(len(terms)):
        which = f"argument {index + 1} " if len(terms) > 1 else ""
        for layout in LAYOUTS if layouts is None else layouts:
            changed = [*base[:index], LAYOUTS[layout](base[index]), *base[index + 1 :]]
            found.append(Case(f"{which}{layout}", tuple(changed), first))
        for name, make in (values or {}).items():
            special = np.asarray(make(base[index].shape), base[index].dtype)
            found.append(Case(f"{which}{name}", (*base[:index], special, *base[index + 1 :]), first))
        for number, dtype in itertools.product(aim.NUMBERS, dtypes):
            if number <= min(largest, _largest(dtype)):
                given = [each.astype(dtype) for each in base]
                for name, special in _beside(number, given[index]).items():
                    aimed = (*given[:index], special, *given[index + 1 :])
                    found.append(Case(f"{which}{name}, dtype {np.dtype(dtype).name}", aimed, first))
    return sorted(found, key=lambda case: sum(np.size(each) for each in case.arguments))


def _n_entries(shapes: Iterable[tuple[int, ...]]) -> int:
    return max(int(np.prod(shape, dtype=float)) for shape in shapes)


def _large(case: Case, size: int) -> Case:
    """Make the last entries along each axis of that size stand out, so that nobody can leave them out."""
    for each in case.arguments:
        for axis in range(each.ndim) if each.dtype.kind == "f" else ():
            if each.shape[axis] == size:
                np.moveaxis(each, axis, 0)[-1] *= 4
    return dataclasses.replace(case, slack=max(1.0, (size / 130) ** 0.5))


def _largest(dtype: type) -> float:
    return float(np.finfo(dtype).max) / 2 if np.dtype(dtype).kind == "f" else 0.0


def _beside(number: float, like: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of values just below and above a number of the source, alone and beside zeros."""
    found = {}
    for sign, name in ((1, ""), (-1, "-")):
        both = sign * number * np.array([0.99, 1.01, 0.9, 1.1])
        found[f"values near {name}{number:.6g}"] = np.resize(both, like.shape).astype(like.dtype)
        mixed = np.resize([0, both[0], 0, both[1], 0], like.shape)
        found[f"zeros and values near {name}{number:.6g}"] = mixed.astype(like.dtype)
    return found


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    kind = np.dtype(dtype).kind
    if kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0 if kind in "ub" else -5, 2 if kind == "b" else 6, size=shape).astype(dtype)


def _strided(x: np.ndarray) -> np.ndarray:
    """Every second entry of a larger array whose other entries are poison."""
    if not x.ndim:
        return x.copy()
    poison = np.nan if x.dtype.kind == "f" else 1
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), poison, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def _reversed(x: np.ndarray) -> np.ndarray:
    everywhere = (slice(None, None, -1),) * x.ndim
    return x[everywhere].copy()[everywhere]


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "strided": _strided,
    "reversed in memory": _reversed,
    "transposed in memory": lambda x: np.array(x, order="F"),
    "read-only": _read_only,
    "broadcast along its first axis": lambda x: np.broadcast_to(x[:1], x.shape) if x.ndim and len(x) else x,
}
"""Name -> the same values (the last: equal rows) laid out in memory so."""


def sweep(
    function: Callable,
    definition: Callable,
    cases: Iterable[Case],
    *,
    ulps: float = 16,
    magnitude: Callable[..., object] | float = 0.0,
    dtype: object = "input",
    is_new: bool = True,
) -> None:
    """Compare a function with its definition on every case, and see what every function owes.

    Parameters
    ----------
    function
        The version under test. It takes a case's arguments and options, and returns a number, an array, an
        object with an array as ``data``, or a tuple or dict of these.
    definition
        Slow and obvious. It is given C-contiguous copies: floats as float64, integers as int64.
    cases
        From `cases`, or written by hand.
    ulps
        What a right version may be off: this many roundings of the result's dtype, times the size of the
        expected entry plus ``magnitude``. Rounding in a sum of n terms costs up to n of them.
    magnitude
        The size of the intermediate values that cancel, where there are such: a number, or a function of the
        definition's arguments that gives a number or an array that broadcasts against the result.
    dtype
        Of the result: ``"input"`` for that of the arguments (NumPy's promotion; integers and booleans alone
        count as float64), a dtype, or None where it is free.
    is_new
        Whether results may share no memory with the arguments, nor with the result of another call.

    Raises
    ------
    MismatchError
        At the first case where something is not as it must be; its text draws input, expectation and answer.
    """
    seen: list[tuple[Case, list[np.ndarray]]] = []
    for case in cases:
        before = _snapshot(case)
        results = _parts(function(*case.arguments, **case.options))
        _require_unchanged(case, before)
        plain = [_plain(each) for each in case.arguments]
        expected = _parts(definition(*plain, **case.options))
        size = magnitude(*plain, **case.options) if callable(magnitude) else magnitude
        if len(results) != len(expected):
            raise MismatchError(f"{len(expected)} results expected, {len(results)} came", describe(case))
        for got, wanted in zip(results, expected, strict=True):
            _require_equal(case, got, wanted, ulps * case.slack, size, dtype)
            if is_new and got.size and not got.flags.writeable:
                raise MismatchError("the result is read-only; it must be a new array", describe(case))
        again = _parts(function(*case.arguments, **case.options))
        _require_same_bits(case, results, again, "a second call gives another result")
        _require_unchanged(case, before)
        if is_new:
            _require_new(case, results, again)
        seen.append((case, [each.copy() for each in results]))
    if not seen:
        raise ValueError("a sweep needs at least one case")
    _require_present_values(function, [case for case, _ in seen])
    for case, first in reversed(seen):
        again = _parts(function(*case.arguments, **case.options))
        _require_same_bits(case, first, again, "after calls with other arguments the result is another one")


def _require_present_values(function: Callable, cases: list[Case]) -> None:
    """Refuse an answer for the values that an array held in an earlier call, not for those of now."""

    def is_changed(each: object) -> bool:
        if not isinstance(each, np.ndarray) or each.dtype.kind != "f":
            return False
        return each.tobytes() != np.roll(each, 1).tobytes()

    for case in [each for each in cases if any(map(is_changed, each.arguments))][:8]:
        held = [each.copy() if isinstance(each, np.ndarray) else each for each in case.arguments]
        function(*held, **case.options)
        for each in held:
            if isinstance(each, np.ndarray) and each.dtype.kind == "f":
                each[...] = np.roll(each, 1)
        fresh = [each.copy() if isinstance(each, np.ndarray) else each for each in held]
        expected = [each.copy() for each in _parts(function(*fresh, **case.options))]
        got = _parts(function(*held, **case.options))
        what = "the array was changed between two calls; the second answers for the old values"
        _require_same_bits(dataclasses.replace(case, arguments=tuple(held)), expected, got, what)


def texts(at_most: int = 5000) -> dict[str, str]:
    """Return `HOSTILE_TEXTS` and what the source under test suggests: its own strings, and its lengths."""
    found = dict(HOSTILE_TEXTS)
    for each in aim.TEXTS:
        if 0 < len(each) <= 60:
            found[f"{each!r} of your source, inside"] = f"a{each}b {each}{each} {each}"
    for number in aim.sizes(at_most=at_most):
        found[f"{number} letters"] = ("abc" * number)[:number]
        found[f"{number} signs of several kinds"] = ("ab  1.\n\u00e9" * number)[:number]
    return found


def sweep_plain(function: Callable, definition: Callable, cases: Iterable[Case]) -> None:
    """Compare a function of texts, bytes, lists or numbers with its definition on every case, exactly.

    Parameters
    ----------
    function
        The version under test; it returns a string, bytes, an integer, or lists, tuples and dicts of these.
    definition
        Slow and obvious. The result must equal what it returns, and each part be of the same type.
    cases
        The smallest first.

    Raises
    ------
    MismatchError
        At the first case where the answer is another one, at once, again, after its caller has changed it,
        or after all other calls; or where an argument was changed.
    """
    seen: list[tuple[Case, object]] = []
    for case in cases:
        expected = definition(*copy.deepcopy(case.arguments), **case.options)
        kept = copy.deepcopy(case.arguments)
        answer = function(*case.arguments, **case.options)
        _require_plain(case, answer, expected, "")
        if isinstance(answer, list | dict | bytearray | set):
            answer.clear()
        _require_plain(case, function(*case.arguments, **case.options), expected, "at a second call")
        if case.arguments != kept:
            raise MismatchError("an argument was changed; it must stay as it was", describe(case))
        seen.append((case, expected))
    if not seen:
        raise ValueError("a sweep needs at least one case")
    for case, expected in reversed(seen):
        answer = function(*case.arguments, **case.options)
        _require_plain(case, answer, expected, "after calls with other arguments")


def _require_plain(case: Case, got: object, expected: object, when: str) -> None:
    difference = _plain_difference(got, expected)
    if difference:
        what = f"wrong {when}: {difference}" if when else f"wrong: {difference}"
        raise MismatchError(
            what, [*describe(case), f"expected: {drawn(expected)}", f"yours:    {drawn(got)}"]
        )


def _plain_difference(got: object, expected: object) -> str:
    """Say in what a value differs first, or nothing."""
    if not isinstance(got, type(expected)) or isinstance(got, bool) != isinstance(expected, bool):
        return f"{type(expected).__name__} expected, {type(got).__name__} came"
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple):
        for place, (one, other) in enumerate(zip(got, expected, strict=False)):
            if inside := _plain_difference(one, other):
                return f"at place {place}, {inside}"
        return f"{len(expected)} parts expected, {len(got)} came" if len(got) != len(expected) else ""
    if isinstance(expected, dict) and isinstance(got, dict):
        # The order of the keys counts.
        return _plain_difference([*got.items()], [*expected.items()])
    return "" if got == expected else f"expected {drawn(expected)}, got {drawn(got)}"


def sweep_gradients(
    function: Callable,
    definition: Callable,
    cases: Iterable[Case],
    *,
    tensor: Callable,
    rng: np.random.Generator,
    ulps: float = 64,
    magnitude: Callable[..., object] | float = 0.0,
) -> None:
    """Compare the gradients that a function of tensors gives with their definition, on every case.

    Parameters
    ----------
    function
        Takes a tensor for each array of floats in a case, other arguments as they are; returns one tensor.
    definition
        ``definition(g, *arrays, **options)``: the gradients with respect to the arrays of floats, in order,
        for the gradient ``g`` of the result. All arrays are float64.
    cases
        Arrays that are not floats stay constants.
    tensor
        Makes a tensor that wants a gradient from an array: ``lambda x: Tensor(x, requires_grad=True)``.
    rng
        Draws ``g``.
    ulps, magnitude
        As in `sweep`; the default allows for a chain of a few operations.
    """
    for index, case in enumerate(cases):
        is_float = [isinstance(each, np.ndarray) and each.dtype.kind == "f" for each in case.arguments]
        inputs = [tensor(each) if f else each for each, f in zip(case.arguments, is_float, strict=True)]
        before = _snapshot(case)
        result = function(*inputs, **case.options)
        g = rng.normal(size=result.data.shape).astype(result.data.dtype)
        kept = g.copy()
        if any(is_float) and not result.requires_grad:
            raise MismatchError("the result must want a gradient, as an argument does", describe(case))
        if any(is_float):
            result.backward(g)
        plain = [_plain(each) for each in case.arguments]
        expected = list(definition(g.astype(np.float64), *plain, **case.options))
        size = magnitude(*plain, **case.options) if callable(magnitude) else magnitude
        _require_unchanged(case, before)
        if not np.array_equal(g, kept):
            raise MismatchError("backward changed the gradient that it was given", describe(case))
        tensors = [each for each, f in zip(inputs, is_float, strict=True) if f]
        if len(expected) != len(tensors):
            raise ValueError(f"the definition gives {len(expected)} gradients for {len(tensors)} arrays")

        def compare(times: int, when: str, case=case, tensors=tensors, expected=expected, size=size) -> None:
            for number, (each, wanted) in enumerate(zip(tensors, expected, strict=True), 1):
                got = np.zeros_like(each.data) if each.grad is None else each.grad
                told = Case(
                    f"{case.label}: gradient with respect to argument {number}{when}",
                    case.arguments,
                    case.options,
                )
                wanted, off = times * np.asarray(wanted), times * np.asarray(size)
                _require_equal(told, np.asarray(got), wanted, ulps * case.slack, off, each.data.dtype)

        compare(1, "")
        if index % 4 == 0 and tensors:  # A second pass adds the same, however its gradient lies in memory.
            result.backward(np.array(g, order="F"))
            compare(2, ", after a second pass, whose gradient is transposed in memory")


def numerical_gradients(
    function: Callable[..., float], *arrays: np.ndarray, step: float = 1e-5
) -> list[np.ndarray]:
    """Return the derivatives of a number by each entry of float64 arrays, by central differences.

    An oracle that is independent of every technology. The error is about ``step**2`` plus 1e-16 / ``step``,
    times the size of the function.
    """
    found = []
    for index, array in enumerate(arrays):
        gradient = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = array.astype(np.float64)
                moved[place] += sign * step
                ends.append(float(function(*arrays[:index], moved, *arrays[index + 1 :])))
            gradient[place] = (ends[0] - ends[1]) / (2 * step)
        found.append(gradient)
    return found


def refuses(
    function: Callable,
    *arguments: object,
    error: type[Exception] = ValueError,
    says: Iterable[str] = (),
    **options: object,
) -> Exception:
    """Require that a call raises an error whose message holds given words; return the error.

    Raises
    ------
    MismatchError
        When nothing was raised, or another error, or a word is missing; it draws the call.
    """
    try:
        result = function(*arguments, **options)
    except error as raised:
        for word in says:
            if word not in str(raised):
                what = f"the message must hold {word!r}; it is {str(raised)!r}"
                raise MismatchError(what, [_asked(function, arguments, options)]) from raised
        return raised
    except Exception as other:
        what = f"{error.__name__} expected, {type(other).__name__} came: {other}"
        raise MismatchError(what, [_asked(function, arguments, options)]) from other
    facts = [_asked(function, arguments, options), f"yours: {drawn(result)}"]
    raise MismatchError(f"{error.__name__} expected, nothing was raised", facts)


def _asked(function: Callable, arguments: tuple, options: Mapping[str, object]) -> str:
    name = getattr(function, "__qualname__", "") or type(function).__name__
    given = [*map(drawn, arguments), *(f"{key}={drawn(value)}" for key, value in options.items())]
    return f"asked: {name.rpartition('<locals>.')[2]}({', '.join(given)})"


def check_equal(
    got, expected, ulps: float = 16, magnitude: object = 0.0, dtype: object = None, label=""
) -> None:
    """Compare one result with what is expected, as `sweep` does: shape, dtype, and values within ``ulps``."""
    got = np.asarray(getattr(got, "data", got) if not isinstance(got, np.ndarray) else got)
    _require_equal(Case(label, ()), got, np.asarray(expected), ulps, magnitude, dtype)


def growth(function: Callable, make: Callable[[int], object], n: int, n_runs: int = 7) -> float:
    """Return how many times the CPU time grows when the size doubles from ``n`` to ``2 * n``.

    The least time of several runs of each size, taken in turn, so that the verdict does not depend on what
    else the machine does. Linear functions give about 2, quadratic ones 4. Choose ``n`` so that a run takes
    some ten milliseconds.
    """
    small, large = make(n), make(2 * n)
    least = [float("inf"), float("inf")]
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(n_runs):
            for index, argument in enumerate((small, large)):
                # Not process_time: while a timer of CPU time runs, Linux tells it in steps of milliseconds.
                start = time.thread_time()
                function(argument)
                least[index] = min(least[index], time.thread_time() - start)
    finally:
        if was_enabled:
            gc.enable()
    return least[1] / max(least[0], 1e-6)


def peak_bytes(function: Callable[[], object]) -> int:
    """Return the most bytes that a call held at once beyond what was held before, NumPy's included."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        function()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before


def describe(case: Case) -> list[str]:
    """Draw a case in a few lines."""
    lines = [f"input: {case.label}"] if case.label else []
    for number, each in enumerate(case.arguments, 1):
        lines.append(f"argument {number}: {drawn(each)}")
    if case.options:
        lines.append(
            "options: " + ", ".join(f"{name}={drawn(value)}" for name, value in case.options.items())
        )
    return lines


def drawn(value: object) -> str:
    """Draw a value on one line: small arrays whole, of large ones shape, dtype and the first entries."""
    if isinstance(value, np.ndarray):
        text = np.array2string(value, precision=4, separator=", ", threshold=24, edgeitems=2).replace(
            "\n", ""
        )
        text = " ".join(text.split())
        shown = text if len(text) <= 72 else text[:69] + "..."
        return f"{shown} {value.dtype} {value.shape}"
    text = repr(value)
    return text if len(text) <= 90 else f"{text[:60]}... ({len(text)} characters)"


def _snapshot(case: Case) -> list[bytes | None]:
    values = [*case.arguments, *case.options.values()]
    return [each.tobytes() if isinstance(each, np.ndarray) else None for each in values]


def _require_unchanged(case: Case, before: list[bytes | None]) -> None:
    if _snapshot(case) != before:
        raise MismatchError("an argument was changed; it must stay as it was", describe(case))


def _parts(result: object) -> list[np.ndarray]:
    """Return the arrays of a result, in order."""
    if isinstance(result, np.ndarray | np.generic):
        return [np.asarray(result)]
    if isinstance(result, Mapping):
        return [part for name in sorted(result) for part in _parts(result[name])]
    if isinstance(result, tuple):
        return [part for each in result for part in _parts(each)]
    if isinstance(getattr(result, "data", None), np.ndarray):
        return [result.data]  # pyright: ignore[reportAttributeAccessIssue]
    if result is None:
        raise MismatchError("a result was expected; None came")
    return [np.asarray(result)]


def _plain(value: object) -> object:
    if not isinstance(value, np.ndarray):
        return value
    wide = {"f": np.float64, "i": np.int64, "u": np.int64}.get(value.dtype.kind, value.dtype)
    return value.astype(wide, order="C", copy=True)


def _wanted_dtype(case: Case, dtype: object) -> np.dtype | None:
    if dtype is None:
        return None
    if isinstance(dtype, str) and dtype == "input":
        kinds = [
            each.dtype for each in case.arguments if isinstance(each, np.ndarray) and each.dtype.kind == "f"
        ]
        return np.result_type(*kinds) if kinds else np.dtype(np.float64)
    return np.dtype(dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _require_equal(
    case: Case, got: np.ndarray, expected: np.ndarray, ulps: float, magnitude, dtype: object
) -> None:
    if got.shape != expected.shape:
        raise MismatchError(f"the shape must be {expected.shape}; got {got.shape}", describe(case))
    wanted = _wanted_dtype(case, dtype)
    if wanted is not None and got.dtype != wanted:
        raise MismatchError(f"the dtype must be {wanted}; got {got.dtype}", describe(case))
    if expected.dtype.kind not in "fiub" or got.dtype.kind not in "fiub":
        different = got.astype(object) != expected.astype(object)
    elif got.dtype.kind != "f" and expected.dtype.kind != "f":
        different = got != expected
    else:
        different = _is_off(got, expected.astype(np.float64), ulps, magnitude)
    if np.any(different):
        place = tuple(int(index) for index in np.argwhere(different)[0])
        entry = f"[{', '.join(map(str, place))}]" if place else ""
        raise MismatchError(
            f"wrong value{f' at {entry}' if entry else ''}: expected {expected[place]!s}, got {got[place]!s}",
            [*describe(case), f"expected: {drawn(expected)}", f"yours:    {drawn(got)}"],
        )


def _is_off(got: np.ndarray, expected: np.ndarray, ulps: float, magnitude) -> np.ndarray:
    precise = got.dtype if got.dtype.kind == "f" else np.dtype(np.float64)
    limits = np.finfo(precise)
    got = got.astype(np.float64)
    with np.errstate(all="ignore"):
        allowed = ulps * float(limits.eps) * (np.abs(expected) + magnitude) + 4 * float(
            limits.smallest_subnormal
        )
        is_near = np.abs(got - expected) <= allowed
        # What is beyond the dtype's range may come as infinity.
        beyond = np.abs(expected) > float(limits.max) * (1 - ulps * float(limits.eps))
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    overflowed = beyond & np.isinf(got) & (np.sign(got) == np.sign(expected))
    return ~(same | (is_near & np.isfinite(expected)) | overflowed)


def _require_same_bits(case: Case, first: list[np.ndarray], again: list[np.ndarray], what: str) -> None:
    is_same = len(first) == len(again) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(first, again, strict=True)
    )
    if not is_same:
        raise MismatchError(what, describe(case))


def _require_new(case: Case, results: list[np.ndarray], again: list[np.ndarray]) -> None:
    arrays = [each for each in [*case.arguments, *case.options.values()] if isinstance(each, np.ndarray)]
    for result in results:
        if any(np.may_share_memory(result, each) for each in arrays):
            raise MismatchError(
                "the result shares memory with an argument; it must be a new array", describe(case)
            )
        if any(np.may_share_memory(result, each) for each in again):
            raise MismatchError("two calls give results that share memory", describe(case))


HOSTILE_TEXTS: dict[str, str] = {
    "empty": "",
    "one letter": "a",
    "one blank": " ",
    "byte order mark first": "\ufeffimport os",
    "byte order mark inside": "a\ufeffb",
    "NUL": "a\0b\0",
    "control characters": "\x01\x02\x07\x08\x0b\x0c\x1b[31m\x7f\x85",
    "CRLF": "a\r\nb\r\n\r\nc\r",
    "lone carriage returns": "\r\ra\r",
    "line and paragraph separators": "a\u2028b\u2029c",
    "tabs and blanks": "\t  x \t y  \n   \n\tz ",
    "trailing blanks": "x   ",
    "leading blanks": "   x",
    "unusual blanks": "a\u00a0b\u2003c\u3000d\u200be",
    "combining accent": "e\u0301 cafe\u0301",
    "composed accent": "\u00e9 caf\u00e9",
    "ligatures and widths": "\ufb01 \uff21\uff22 \u00bd \u2460 \u2126 \u212b",
    "case that grows": "\u0130 \u00df \u1e9e \u0149 \u01c6 \ufb03",
    "long s": "\u017f \u212a we'\u017f",
    "apostrophes": "it's WE'LL I'd 'tis 's'S \u2019s",
    "emoji": "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467\U0001f44d\U0001f3fd",
    "flags and variation": "\U0001f1e9\U0001f1ea\u2764\ufe0f",
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \u0639\u0631\u0628\u064a",
    "CJK": "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4",
    "beyond the first plane": "\U00010348\U0001d54f\U0010ffff",
    "noncharacters": "\ufffe\uffff\ufdd0",
    "replacement character": "a\ufffdb",
    "digits of many scripts": "1234567 \u0663\u0664 \u0967\u0968 \u00b2\u00b3 \u2167",
    "code": "def f(x):\n    return {'a': [1, 2.5e-3], \"b\": x != 0}  # ok\n",
    "indentation": "if a:\n\tif b:\n\t\tpass\n        # tabs and blanks\n",
    "underscores and marks": "__init__ a_b -> == <= ... ::= ?! @x #y $z",
    "special-looking": "<|endoftext|> <fim_middle> </s> <unk> [MASK]",
    "escapes": "\\n \\u0041 %20 &amp; \\\\",
    "a long run": "a" * 1000,
    "a long run of blanks": " " * 300 + "x",
    "a long run of line ends": "\n" * 200,
    "repetition": "abcabcabcabcabab" * 20,
    "every byte as latin-1": "".join(map(chr, range(256))),
}
"""Texts on which versions that look right lose, change, join or split something; all are valid UTF-8."""

LONE_SURROGATES: dict[str, str] = {
    "half a pair": "a\ud83d",
    "the other half": "\ude00b",
    "halves in the wrong order": "\ude00\ud83d",
    "two halves apart": "\ud83d \ude00",
}
"""Texts that a string can hold and no UTF-8 file: what happens to them is for the docstring to say."""

HOSTILE_BYTES: dict[str, bytes] = {
    "a lone continuation byte": b"a\x80b",
    "a cut sequence": b"\xe2\x82",
    "an overlong form": b"\xc0\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "beyond the last code point": b"\xf4\x90\x80\x80",
    "bytes that never occur": b"\xfe\xff",
    "all bytes": bytes(range(256)),
}
"""Bytes that are not UTF-8."""
