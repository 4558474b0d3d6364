"""How problems are put to an engine, and what is taken of its answer."""

import pytest

from techtree.engines.engine import InfillResult
from techtree.engines.examining import Drawing, fill, from_chat, write
from techtree.lm.eval.infilling import Answer
from techtree.lm.eval.problems import Exercise, Hole

PROMPT = 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """Add up."""\n'
EXERCISE = Exercise("t", PROMPT, "    return sum(xs)\n", "")


class Scripted:
    """Answers with one text, and keeps what it was asked."""

    def __init__(self, text, stop="end_of_text"):
        self.result, self.asked = InfillResult(text, stop), []

    def infill(self, request):
        self.asked.append(request)
        return self.result

    chat = infill


@pytest.mark.parametrize(
    ("stop", "has_ended"), [("end_of_text", True), ("rule", True), ("max_tokens", False)]
)
def test_a_hole(stop, has_ended):
    engine = Scripted("1", stop)
    assert fill(engine, Hole("h", "x = ", "1", "\n")) == Answer("1", has_ended)
    (asked,) = engine.asked
    assert (asked.prefix, asked.suffix, asked.temperature, asked.stop) == ("x = ", "\n", 0, ())


def test_going_on_with_a_function():
    engine = Scripted("    return sum(xs)")
    program = write(engine, EXERCISE, Drawing(0.8, 0.9, 7), chats=False)
    assert program == f"{PROMPT}    return sum(xs)\n"
    (asked,) = engine.asked
    assert (asked.prefix, asked.is_raw, asked.temperature, asked.top_p, asked.seed) == (
        PROMPT,
        True,
        0.8,
        0.9,
        7,
    )
    assert "\ndef " in asked.stop


def test_asking_for_a_function():
    engine = Scripted("Sure:\n```python\ndef total(xs):\n    return sum(xs)\n```\nIt adds.\n```\nx\n```")
    program = write(engine, EXERCISE, Drawing(), chats=True)
    assert program == "from typing import List\n\n\ndef total(xs):\n    return sum(xs)\n"
    (asked,) = engine.asked
    assert PROMPT.rstrip() in asked.messages[0].content


@pytest.mark.parametrize(
    ("said", "program"),
    [
        ("```\n    return 1\n```", f"{PROMPT}    return 1\n"),
        ("    return 1", f"{PROMPT}    return 1\n"),
        (
            "```python\ndef total(xs):\n    return 1",
            "from typing import List\n\n\ndef total(xs):\n    return 1\n",
        ),
        ("def total(xs): return 1", "from typing import List\n\n\ndef total(xs): return 1\n"),
    ],
)
def test_what_chat_models_say(said, program):
    assert from_chat(PROMPT, said) == program


def test_helpers_of_the_prompt_stay():
    prompt = "import math\n\ndef helper(x):\n    return x\n\ndef total(xs):\n"
    program = from_chat(prompt, "```python\ndef total(xs):\n    return helper(1)\n```")
    assert program == "import math\n\ndef helper(x):\n    return x\n\ndef total(xs):\n    return helper(1)\n"
