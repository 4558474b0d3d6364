r"""Standard output and standard error as one door, through which anything can be printed.

What a program prints meets terminals, pipes, files, full disks and readers that have gone away, in whatever
encoding the system chose. `open_streams` puts a `Door` before each stream, for as long as a command runs:

- A character that the encoding lacks is replaced by one that looks alike, or by its code.
- Control characters are shown and not obeyed: a file's name must not move the cursor or change a colour. What
  the program itself draws (colours, a bar) goes through `drawing` and passes, to a terminal that can show it.
- A stream that cannot be written raises `OutputError`, which is no OSError: the command's own files are well.

>>> escaped("a\x1b[2Jb\udcff")
'a\\x1b[2Jb\\xff'
>>> encodable("● numerics – naïve", "ascii")
'* numerics - na\\xefve'
"""

import codecs
import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import IO, Any, TextIO

_ALIKES = {
    "-": "─━╸╺╴╶–—",
    "|": "│┃",
    "+": "╭╮╰╯┌┐└┘├┤┬┴┼✓✔",
    "x": "✗✘×",
    "*": "●",
    "o": "○◌",
    "@": "◐",
    "#": "█▒░",
    ">": "→",
    "<": "←",
    ".": "·",
    "'": "‘’",
    '"': "“”",
    " ": "\u00a0",
    "...": "…",
    "<->": "↔",
    ">=": "≥",
    "<=": "≤",
    "~": "≈",
}
_ALIKE = {character: alike for alike, characters in _ALIKES.items() for character in characters}
"""What stands for a character of ours where an encoding lacks it."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal may obey, what reverses the text after it, and halves of characters."""

_DRAWN = re.compile(r"\x1b\[(?:[0-9;]*[ABCDGKm]|\?25[hl])|\r")
"""Colours, and what changes a line: moves of the cursor, erasing, hiding the cursor."""

_DUMB_TERMINALS = ("dumb", "unknown")

_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN)
_ERROR_HANDLER = "techtree.alike"


class OutputError(Exception):
    """A stream cannot be written.

    Parameters
    ----------
    name
        Of the stream.
    error
        What the system said.
    """

    def __init__(self, name: str, error: OSError):
        super().__init__(
            f"{name} must be writable ({error.strerror or error}): make room, or let it lead elsewhere"
        )
        self.reader_is_gone = error.errno in _GONE or (os.name == "nt" and error.errno == errno.EINVAL)


def escaped(text: str, *, keep_lines: bool = True) -> str:
    r"""Return a text in which nothing is a command to a terminal.

    Parameters
    ----------
    text
        Any text.
    keep_lines
        Whether line feeds and tabs stay; otherwise the text comes to one line.
    """
    text = _CONTROL.sub(lambda match: _code(match[0]), text)
    return text if keep_lines else text.replace("\n", "\\n").replace("\t", "\\t")


def _code(character: str) -> str:
    r"""Return a character's code as Python writes it; of a byte that was not UTF-8, the byte."""
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        number -= 0xDC00
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    return _ALIKE.get(character) or _code(character), error.start + 1


codecs.register_error(_ERROR_HANDLER, _replace)


def encodable(text: str, encoding: str) -> str:
    """Return a text that an encoding can write, as much like the given one as may be."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, _ERROR_HANDLER).decode(encoding)
    return text


def is_plain(stream: IO[str] | io.TextIOBase | None) -> bool:
    """Return whether a stream wants text alone: no terminal, one that cannot draw, or a user who said so.

    NO_COLOR is the user's word (no-color.org), TERM=dumb the terminal's.
    """
    if stream is None or not stream.isatty() or os.environ.get("NO_COLOR"):
        return True
    terminal = os.environ.get("TERM", "")
    return terminal in _DUMB_TERMINALS or (os.name == "posix" and not terminal)


class Door(io.TextIOBase):
    """Writes anything to a stream.

    Parameters
    ----------
    stream
        Where to; None where the process was started without.
    name
        What to call it in an error.
    """

    def __init__(self, stream: TextIO | None, name: str):
        self._stream = _Nowhere() if stream is None else stream
        self._name = name
        self._is_plain = is_plain(stream)

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def buffer(self) -> "_Bytes":
        """For bytes that must arrive as they are."""
        return _Bytes(self)

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether a person reads it in a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the stream's file descriptor."""
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        """Write a text; nothing in it is obeyed by a terminal.

        Raises
        ------
        OutputError
            When the stream cannot be written.
        """
        with self._told():
            self._stream.write(encodable(escaped(text), self.encoding))
        return len(text)

    def draw(self, text: str) -> None:
        """Write a text in which colours and moves of the cursor count, or are left out where none can be."""
        shown, start = [], 0
        for match in _DRAWN.finditer(text):
            shown += [escaped(text[start : match.start()]), "" if self._is_plain else match[0]]
            start = match.end()
        with self._told():
            self._stream.write(encodable("".join((*shown, escaped(text[start:]))), self.encoding))

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are."""
        with self._told():
            self._stream.flush()
            if not isinstance(self._stream, _Nowhere):
                self._stream.buffer.write(data)

    def flush(self) -> None:
        """Write what is still held back."""
        with self._told():
            self._stream.flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._give_up()
            raise OutputError(self._name, error) from error

    def _give_up(self) -> None:
        """Lead the stream nowhere: what it still holds must not fail again when Python ends."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class _Nowhere(io.TextIOBase):
    """What a process has that was started without a stream."""

    def write(self, text: str, /) -> int:
        return len(text)


class _Bytes:
    """The bytes' side of a door."""

    def __init__(self, door: Door):
        self._door = door

    def write(self, data: bytes) -> int:
        self._door.write_bytes(data)
        return len(data)

    def flush(self) -> None:
        self._door.flush()


class _Drawing(io.TextIOBase):
    """The side of a door on which the program draws, as a stream for libraries that draw."""

    def __init__(self, door: Door):
        self._door = door

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._door.encoding

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return not is_plain(self._door)

    def fileno(self) -> int:
        return self._door.fileno()

    def write(self, text: str, /) -> int:
        self._door.draw(text)
        return len(text)

    def flush(self) -> None:
        self._door.flush()


def drawing(stream: TextIO) -> TextIO:
    """Return a stream on which colours and moves of the cursor count.

    It says that it is a terminal where one can be drawn on. A stream that is no door is returned as it is.
    """
    return _as_text_io(_Drawing(stream)) if isinstance(stream, Door) else stream


@contextlib.contextmanager
def open_streams() -> Iterator[None]:
    """Put doors before standard output and standard error while the block runs."""
    before = sys.stdout, sys.stderr
    out, err = Door(sys.stdout, "standard output"), Door(sys.stderr, "standard error")
    sys.stdout, sys.stderr = _as_text_io(out), _as_text_io(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _as_text_io(stream: Any) -> TextIO:
    return stream
