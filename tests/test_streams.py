"""The door before standard output: any text, any encoding, any state of the stream behind it."""

import errno
import io
import os
import sys

import pytest

from techtree import streams
from techtree.streams import Door, OutputError, drawing, encodable, escaped, is_plain, open_streams

ENCODINGS = ("ascii", "cp1252", "latin-1", "cp437", "koi8-r", "shift_jis", "utf-8", "utf-16")


def door(encoding="utf-8", errors="strict"):
    raw = io.BytesIO()
    return Door(io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline=""), "it"), raw


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "text", ["● ◐ ○ · ✗ ─│╭ …", "naïve 中文 😀", "name\udcff\udc80.py", "half \ud83d", "plain"]
)
def test_any_text_goes_into_any_encoding(encoding, text):
    out, raw = door(encoding)
    print(text, file=out, flush=True)
    written = raw.getvalue().decode(encoding)
    assert written.endswith("\n")
    assert "\ufffd" not in written
    if text.isascii():
        assert written == "plain\n"


def test_what_is_replaced_looks_alike_and_stays_distinct():
    assert encodable("● a ◐ b ○ c · d ✗", "ascii") == "* a @ b o c . d x"
    assert encodable("é ●", "cp1252") == "é *"
    assert encodable("中", "ascii") == "\\u4e2d"
    assert escaped("a\udcfe") == "a\\xfe" != escaped("a\udcff")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb", "a\\x0db"),
        ("\x9b2J", "\\x9b2J"),
        ("back\x08\x7f", "back\\x08\\x7f"),
        ("abc\u202edcba", "abc\\u202edcba"),
        ("null\0", "null\\x00"),
        ("two\nlines\t.", "two\nlines\t."),
    ],
)
def test_nothing_in_a_text_is_a_command_to_a_terminal(text, shown):
    assert escaped(text) == shown
    out, raw = door()
    print(text, file=out, end="", flush=True)
    assert raw.getvalue().decode() == shown


def test_one_line():
    assert escaped("a\nb\tc\x1b", keep_lines=False) == "a\\nb\\tc\\x1b"


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "plain"),
    [
        ({"TERM": "xterm"}, False),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True),
        ({"TERM": "dumb"}, True),
        ({"TERM": "unknown"}, True),
    ],
)
def test_drawing_counts_on_a_terminal_that_can_draw(monkeypatch, environment, plain):
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    raw = io.BytesIO()
    out = Door(Terminal(raw, encoding="utf-8", newline=""), "it")
    assert is_plain(out) == plain
    pen = drawing(out)
    assert pen.isatty() != plain
    pen.write("\r\x1b[1;32mgreen\x1b[0m\x1b[K\x1b[2A \x1b]0;title\x07")
    pen.flush()
    drawn = "green" if plain else "\r\x1b[1;32mgreen\x1b[0m\x1b[K\x1b[2A"
    assert raw.getvalue().decode() == f"{drawn} \\x1b]0;title\\x07"


def test_a_file_gets_no_colour_and_a_stream_without_a_door_is_left_alone():
    out, raw = door()
    drawing(out).write("\x1b[31mred\x1b[0m\r")
    out.flush()
    assert raw.getvalue() == b"red"
    other = io.StringIO()
    assert drawing(other) is other


def test_bytes_arrive_as_they_are_and_in_order():
    out, raw = door("ascii")
    print("first", file=out)
    out.buffer.write("é\x1b".encode())
    out.buffer.flush()
    assert raw.getvalue() == b"first\n" + "é\x1b".encode()


@pytest.mark.parametrize(
    ("number", "is_gone"),
    [(errno.EPIPE, True), (errno.ENOSPC, False), (errno.EIO, False), (errno.EFBIG, False)],
)
def test_a_stream_that_cannot_be_written_is_told_apart_from_a_file(number, is_gone):
    class Broken(io.StringIO):
        def write(self, text):
            raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError, match="it must be writable") as caught:
        print("x", file=Door(Broken(), "it"))
    assert not isinstance(caught.value, OSError)
    assert caught.value.reader_is_gone == is_gone


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_once():
    with open("/dev/full", "w") as full:
        out = Door(full, "it")
        out.write("x")
        with pytest.raises(OutputError, match="No space left"):
            out.flush()
        out.write("y")
        out.flush()  # it leads nowhere now


def test_a_process_without_streams(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with open_streams():
        assert isinstance(sys.stdout, streams.Door)
        print("nobody hears")
        assert not sys.stdout.isatty()
        sys.stdout.flush()
    assert sys.stdout is None


def test_the_doors_are_taken_away_again():
    before = sys.stdout, sys.stderr
    with open_streams():
        assert isinstance(sys.stdout, Door)
    assert (sys.stdout, sys.stderr) == before
    with pytest.raises(KeyboardInterrupt), open_streams():
        raise KeyboardInterrupt
    assert (sys.stdout, sys.stderr) == before
