import ast

from techtree.tree.stub import make_stub

SOURCE = '''"""What this lesson claims."""

import math

import numpy as np

SECRET = 42
ANSWER = 43


@staticmethod
def area(
    radius: float,
) -> float:
    """Return the area.

    >>> area(0.0)
    0.0
    """
    # The secret of circles.
    return math.pi * radius**2


def undocumented(x):
    # Another secret.
    y = x
    return y


# A comment on the helper.
def _helper(x):
    return x


class Circle:
    """A circle."""

    radius: float = 1.0
    """From the middle to the rim."""
    colour: str = "red"

    def __init__(self, radius):
        self.radius = radius

    def area(self):
        """Return the area."""
        return area(self.radius)


class _Hidden:
    pass
'''

EXPECTED = '''"""What this lesson claims."""

import math
import numpy as np

ANSWER = None  # write it


@staticmethod
def area(
    radius: float,
) -> float:
    """Return the area.

    >>> area(0.0)
    0.0
    """
    raise NotImplementedError("write area")


def undocumented(x):
    raise NotImplementedError("write undocumented")


class Circle:
    """A circle."""

    radius: float = 1.0
    """From the middle to the rim."""
    colour: str = "red"

    def __init__(self, radius):
        raise NotImplementedError("write __init__")

    def area(self):
        """Return the area."""
        raise NotImplementedError("write area")
'''


def test_signatures_and_docstrings_stay_and_answers_go():
    assert make_stub(SOURCE, ["area", "undocumented", "Circle", "ANSWER"]) == EXPECTED


def test_nothing_of_the_answer_is_left():
    stub = make_stub(SOURCE, ["area"])
    ast.parse(stub)
    for answer in ("secret", "SECRET", "_helper", "_Hidden", "math.pi", "comment"):
        assert answer not in stub
