"""An answer is told after one's own, and not before."""

import pytest

from techtree.learn.quizzing import Asked, quiz

QUESTIONS = [Asked("Why so?", "Because of it.", "The idea"), Asked("How?", "Like this.", "The math")]


def ask(lines):
    """Return what was missed, and all that was shown: what was told, and prompts in brackets."""
    shown, waiting = [], list(lines)

    def read(prompt):
        shown.append(f"[{prompt}]")
        if not waiting:
            raise EOFError
        return waiting.pop(0)

    return quiz(QUESTIONS, read, shown.append), shown


def test_what_was_missed_is_returned():
    missed, shown = ask(["a guess", "y", "another", "n"])
    assert missed == [QUESTIONS[1]]
    order = [
        next(i for i, text in enumerate(shown) if word in text) for word in ("Why so", "answer:", "Because")
    ]
    assert order == sorted(order)


def test_no_answer_is_told_before_something_was_written():
    with pytest.raises(EOFError):
        ask(["", "  "])
    shown = []
    with pytest.raises(EOFError):
        quiz(QUESTIONS, lambda prompt: _end(), shown.append)
    assert not any("Because" in text for text in shown)


def _end():
    raise EOFError


def test_only_yes_and_no_are_judgements():
    missed, shown = ask(["a", "perhaps", "Yes", "b", "", "NO"])
    assert missed == [QUESTIONS[1]]
    assert sum("y for yes" in text for text in shown) == 2
