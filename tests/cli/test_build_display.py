"""What a build shows, on terminals that draw and on those that do not."""

import io

import pytest

pytest.importorskip("torch")

from techtree.cli.build_display import PlainDisplay, TerminalDisplay, open_display
from techtree.lm.train.trainer import Step
from techtree.streams import Door


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


def shown(monkeypatch, **environment: str) -> tuple[type, str]:
    """The kind of display, and what it wrote of a stage with a step, to an ASCII terminal."""
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    raw = io.BytesIO()
    out = Door(Terminal(raw, encoding="ascii", newline=""), "it")
    with open_display(out) as display:
        display.begin("train")
        display.step(Step(1, 2, 3.0, 64, 100.0, 1.0, 1.0, 1.0, warning="a\x1b[2Jspike"))
        display.done("train", "loss 3.000 ●", 1.5)
    out.flush()
    return type(display), raw.getvalue().decode("ascii")


def test_a_terminal_gets_colours_and_others_plain_lines(monkeypatch):
    kind, text = shown(monkeypatch)
    assert kind is TerminalDisplay
    assert "\x1b[" in text
    assert "\x1b[2J" not in text
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": "unknown"}, {"TERM": ""}):
        kind, text = shown(monkeypatch, **environment)
        assert kind is PlainDisplay
        assert "\x1b" not in text
        assert "loss 3.000 *" in text


@pytest.mark.parametrize("columns", ["1", "5", "80", "9999"])
def test_any_width(monkeypatch, columns):
    assert "loss" in shown(monkeypatch, COLUMNS=columns)[1]
