"""Versions of any function that break what every function owes, and nothing else.

Each behaves as the function does but in one kind of situation, where it is wrong. The tests of a technology
must refuse all of them (``techtree mutants``), which they do when they call the battery's sweeps.
"""

import itertools
from collections.abc import Callable, Iterable

import numpy as np


def _arrays_of(values: Iterable[object]) -> list[np.ndarray]:
    """Return the arrays among some values, those inside tensors and lists too."""
    found = []
    for each in values:
        if isinstance(each, list | tuple):
            found += _arrays_of(each)
        else:
            inner = each if isinstance(each, np.ndarray) else getattr(each, "data", None)
            found += [inner] if isinstance(inner, np.ndarray) else []
    return found


def _perturbed(result):
    """Return a result that is clearly another one."""
    if isinstance(result, tuple):
        return tuple(_perturbed(each) for each in result)
    if isinstance(result, bool | np.bool_):
        return not result
    if isinstance(result, int | float | np.number):
        return result + 1
    if isinstance(result, np.ndarray):
        return ~result if result.dtype.kind == "b" else result + np.ones((), result.dtype)
    if isinstance(result, np.random.Generator):
        result.random()  # All that is drawn from now on is something else.
        return result
    if isinstance(result, np.dtype):
        return np.dtype(np.int8)
    if isinstance(result, str):
        return result + "x"
    if isinstance(result, bytes):
        return result + b"x"
    if isinstance(result, list):
        if _arrays_of(result):
            return [_perturbed(each) for each in result]
        return [*result[:-1], *result[:1], *result[:1]]
    if _arrays_of([result]):
        return result + 1
    return result


def _wrong_when(condition: Callable[[tuple], bool]) -> Callable[[Callable], Callable]:
    def make(function: Callable) -> Callable:
        def wrong(*arguments, **options):
            result = function(*arguments, **options)
            return _perturbed(result) if condition((*arguments, *options.values())) else result

        return wrong

    return make


def _refuses_when(condition: Callable[[tuple], bool]) -> Callable[[Callable], Callable]:
    def make(function: Callable) -> Callable:
        def wrong(*arguments, **options):
            if condition((*arguments, *options.values())):
                raise ArithmeticError("refused")
            return function(*arguments, **options)

        return wrong

    return make


def _any_array(test: Callable[[np.ndarray], bool]) -> Callable[[tuple], bool]:
    return lambda arguments: any(test(each) for each in _arrays_of(arguments))


def _any_text(test: Callable[[str], bool]) -> Callable[[tuple], bool]:
    def found(arguments: tuple) -> bool:
        texts = (each.decode("latin-1") if isinstance(each, bytes) else each for each in arguments)
        return any(isinstance(each, str) and test(each) for each in texts)

    return found


def _changes_an_argument(function: Callable) -> Callable:
    def wrong(*arguments, **options):
        result = function(*arguments, **options)
        answer = _arrays_of([result])
        for each in _arrays_of(arguments):
            if each.flags.writeable and each.size and not any(np.may_share_memory(each, r) for r in answer):
                each.flat[-1] = 0
        return result

    return wrong


def _remembers_by_shape(function: Callable) -> Callable:
    known: dict = {}

    def wrong(*arguments, **options):
        arrays = _arrays_of((*arguments, *options.values()))
        if not arrays:
            return function(*arguments, **options)
        key = (*((each.shape, each.dtype.str) for each in arrays), *map(str, sorted(options)))
        if key not in known:
            known[key] = function(*arguments, **options)
        return known[key]

    return wrong


def _errs_later(function: Callable) -> Callable:
    count = itertools.count()

    def wrong(*arguments, **options):
        result = function(*arguments, **options)
        return _perturbed(result) if next(count) else result

    return wrong


def _makes_float64(function: Callable) -> Callable:
    def wide(result):
        if isinstance(result, np.ndarray | np.generic):
            return np.asarray(result, np.float64) if result.dtype.kind == "f" else result
        if isinstance(result, list):
            return [wide(each) for each in result]
        for each in _arrays_of([result]):
            vars(result)["data"] = each.astype(np.float64)  # of a tensor
        return result

    return lambda *arguments, **options: wide(function(*arguments, **options))


ARRAYS: dict[str, Callable[[Callable], Callable]] = {
    "wrong beyond 128 on an axis": _wrong_when(_any_array(lambda x: any(n > 128 for n in x.shape))),
    "wrong for an axis of length 1": _wrong_when(_any_array(lambda x: 1 in x.shape)),
    "refuses arrays without entries": _refuses_when(_any_array(lambda x: x.size == 0)),
    "wrong for more than two axes": _wrong_when(_any_array(lambda x: x.ndim > 2)),
    "wrong for arrays that are not contiguous": _wrong_when(_any_array(lambda x: not x.flags.c_contiguous)),
    "wrong for float32": _wrong_when(_any_array(lambda x: x.dtype == np.float32)),
    "wrong for values beyond 1e4": _wrong_when(
        _any_array(
            lambda x: x.dtype.kind == "f" and bool(np.any(np.abs(np.nan_to_num(x, posinf=0, neginf=0)) > 1e4))
        )
    ),
    "changes an argument": _changes_an_argument,
    "remembers results by the shape of the arguments": _remembers_by_shape,
}

TEXT: dict[str, Callable[[Callable], Callable]] = {
    "wrong for text with a byte order mark": _wrong_when(_any_text(lambda s: "\ufeff" in s)),
    "wrong for text with NUL": _wrong_when(_any_text(lambda s: "\0" in s)),
    "wrong for text with CRLF": _wrong_when(_any_text(lambda s: "\r\n" in s)),
    "wrong for text beyond 255 characters": _wrong_when(_any_text(lambda s: len(s) > 255)),
    "wrong for empty text": _wrong_when(_any_text(lambda s: not s)),
}

SPOILS = {
    "takes arrays": ARRAYS,
    "gives arrays": {"float32 becomes float64": _makes_float64},
    "takes text": TEXT,
    "gives something": {"right at the first call only": _errs_later},
}
"""What a function takes or gives -> what is wrong -> what makes such a version of the function."""
