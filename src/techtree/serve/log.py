"""What the server notes, in lines that are safe to look at."""

import logging
from typing import TextIO

from techtree.streams import escaped


class OneLineFormatter(logging.Formatter):
    r"""Formats each message as one line in which nothing is a command to a terminal.

    A message repeats what a client sent: a path, a host.

    >>> record = logging.LogRecord("x", logging.INFO, "", 0, "404 %s", ("/\x1b[2J\n200 /",), None)
    >>> OneLineFormatter("%(message)s").format(record)
    '404 /\\x1b[2J\\n200 /'
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return escaped(super().formatMessage(record), keep_lines=False)


def log_to(stream: TextIO) -> None:
    """Note what the server does on a stream, and go on when nobody can read it."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("techtree").setLevel(logging.INFO)
    logging.raiseExceptions = False
