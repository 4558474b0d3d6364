"""Answers to a technology's probes as plain data: they travel between processes, and are compared by kind.

An array becomes a dictionary with its dtype, shape and entries. Two answers are the same when they are equal
up to rounding, so that the same mistake in other words gives the same answers.
"""

import math
from collections.abc import Callable, Mapping

TOLERANCES = {"float64": 1e-9, "float32": 2e-5, "float16": 4e-3}
"""Relative to the largest entry: far above what another order of the same operations changes."""


def ask(probes: Mapping[str, Callable], module: object) -> dict[str, object]:
    """Return what a version says to each probe, as plain data; an exception is an answer too."""
    found = {}
    for label, probe in probes.items():
        try:
            found[label] = plain(probe(module))
        except Exception as error:
            found[label] = {"raises": type(error).__name__}
    return found


def told(call: Callable) -> Callable:
    """Return a probe that answers with the name of what is raised, every kind of `ValueError` being one.

    >>> told(lambda impl: 1 / impl)(0), told(lambda impl: b"".fromhex(impl))("g")
    ('ZeroDivisionError', 'ValueError')
    """

    def probe(impl: object) -> object:
        try:
            return call(impl)
        except Exception as error:
            return "ValueError" if isinstance(error, ValueError) else type(error).__name__

    return probe


def plain(value: object) -> object:
    """Return a value as data that JSON can hold.

    >>> plain((1, [2.5, "x"]))
    [1, [2.5, 'x']]
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Mapping):
        return {"mapping": sorted(([plain(k), plain(v)] for k, v in value.items()), key=repr)}
    if isinstance(value, set | frozenset):
        return {"set": sorted((plain(each) for each in value), key=repr)}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        shape = [int(n) for n in value.shape]  # pyright: ignore[reportAttributeAccessIssue]
        kind = str(value.dtype)  # pyright: ignore[reportAttributeAccessIssue]
        flat = value.reshape(-1).tolist() if shape else [value.tolist()]  # pyright: ignore[reportAttributeAccessIssue]
        return {"dtype": kind, "shape": shape, "entries": flat}
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    inner = getattr(value, "data", None)
    if hasattr(inner, "dtype"):  # a tensor
        return plain(inner)
    return {"repr": type(value).__name__}


def same(a: object, b: object, tolerance: float = TOLERANCES["float64"]) -> bool:
    """Tell whether two answers, as `plain` gives them, are equal up to rounding.

    >>> same([1.0, 2.0], [1.0, 2.0 + 1e-12]), same([1.0], [1.0, 1.0]), same(1, True)
    (True, False, False)
    """
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return False
        if "entries" in a:
            return _same_arrays(a, b)
        return all(same(a[name], b[name], tolerance) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return False
        if a and all(type(each) is float for each in [*a, *b]):
            return _same_numbers(a, b, tolerance)
        return all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool) or type(a) is not type(b):
        return type(a) is type(b) and a == b
    if isinstance(a, float) and isinstance(b, float):
        return _same_numbers([a], [b], tolerance)
    return a == b


def _same_arrays(a: dict, b: dict) -> bool:
    if a["dtype"] != b["dtype"] or a["shape"] != b["shape"]:
        return False
    if a["dtype"] in TOLERANCES:
        return _same_numbers(a["entries"], b["entries"], TOLERANCES[a["dtype"]])
    return a["entries"] == b["entries"]


def _same_numbers(a: list[float], b: list[float], tolerance: float) -> bool:
    finite = [abs(x) for x in [*a, *b] if math.isfinite(x)]
    largest = max(finite, default=0.0)

    def is_same(x: float, y: float) -> bool:
        if not (math.isfinite(x) and math.isfinite(y)):
            return x == y or (math.isnan(x) and math.isnan(y))
        return abs(x - y) <= tolerance * max(abs(x), abs(y), 1e-3 * largest)

    return all(is_same(x, y) for x, y in zip(a, b, strict=True))
