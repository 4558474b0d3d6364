"""Typed access to the fields of a JSON object; what is malformed is refused by its name."""

import math
import re
from collections.abc import Mapping

from techtree.serve.errors import ApiError

MAX_INTEGER = 2**63 - 1

_HALF = re.compile("[\ud800-\udfff]")


class Fields:
    """The fields of an object. Unknown ones are ignored; null means left out.

    A string may hold half of a character beyond U+FFFF, as an editor leaves it that cuts text by UTF-16's
    units: it becomes U+FFFD, and two halves one after the other become the character.

    Parameters
    ----------
    values
        The object.
    where
        What to put before a field's name in an error, for an object within another.
    """

    def __init__(self, values: Mapping[str, object], where: str = ""):
        self._values = values
        self._where = where

    def __contains__(self, name: str) -> bool:
        """Return whether a field is given."""
        return self._values.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string; it must be given when there is no default."""
        value = self._values.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise ApiError(400, f'"{self._where}{name}" is required: give a string')
        return self._as_text(name, value)

    def integer(self, name: str, default: int, minimum: int | None = None) -> int:
        """Return a whole number, not below a minimum."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # some languages write 64 as 64.0
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_INTEGER:
            raise self.error(name, "a whole number", value)
        if minimum is not None and value < minimum:
            raise self.error(name, f"{minimum} or more", value)
        return value

    def number(self, name: str, default: float, minimum: float | None = None) -> float:
        """Return a finite number, not below a minimum."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise self.error(name, "a number", value)
        if minimum is not None and value < minimum:
            raise self.error(name, f"{minimum:g} or more", value)
        return float(value)

    def boolean(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(name, "true or false", value)
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return an array of strings, or None when it is left out."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.error(name, "an array of strings", value)
        return tuple(self._as_text(f"{name}[{i}]", item) for i, item in enumerate(value))

    def objects(self, name: str) -> list["Fields"]:
        """Return an array of objects, which may be left out."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(name, "an array of objects", value)
        for i, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.error(f"{name}[{i}]", "an object", item)
        return [Fields(item, f"{self._where}{name}[{i}].") for i, item in enumerate(value)]

    def nested(self, name: str) -> Mapping[str, object]:
        """Return an object, which may be left out."""
        value = self._values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(name, "an object", value)
        return value

    def is_array(self, name: str) -> bool:
        """Return whether a field is an array."""
        return isinstance(self._values.get(name), list)

    def _as_text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(name, "a string", value)
        if _HALF.search(value):
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value

    def error(self, name: str, expected: str, value: object) -> ApiError:
        """Return the refusal of a field's value."""
        given = repr(value)
        given = given if len(given) <= 40 else f"{given[:40]}..."
        return ApiError(400, f'"{self._where}{name}" must be {expected}; got {given}')


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
