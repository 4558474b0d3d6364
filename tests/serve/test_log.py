"""The server's log: whatever a client sends stays one line, and is no command to a terminal."""

import io
import logging

import pytest

from serve.loopback import running, send_raw
from techtree.serve.log import OneLineFormatter, log_to

ATTACKS = [
    b"GET /%1b%5b2J HTTP/1.1\r\nHost: HOST\r\n",
    b"GET /a%0a200%20GET%20/admin HTTP/1.1\r\nHost: HOST\r\n",
    b"GET /%c2%9b31m%7f%08%0d HTTP/1.1\r\nHost: HOST\r\n",
    b"GET /%e2%80%aex HTTP/1.1\r\nHost: HOST\r\n",
    b"GET / HTTP/1.1\r\nHost: \xc2\x9b31m.example\r\n",
    b"GET / HTTP/1.1\r\nHost: HOST\r\nOrigin: http://\x9b31m\x85\r\n",
    b"POST /infill HTTP/1.1\r\nHost: HOST\r\nContent-Type: \x9b2J\r\nContent-Length: 0\r\n",
    b"BREW\x1b / HTTP/1.1\r\nHost: HOST\r\n",
]


@pytest.fixture
def log():
    """What is logged meanwhile, by the handler of `techtree serve`."""
    root, told = logging.getLogger(), io.StringIO()
    before = root.handlers[:], logging.raiseExceptions, logging.getLogger("techtree").level
    root.handlers[:] = []
    log_to(told)
    yield told
    root.handlers[:], logging.raiseExceptions = before[:2]
    logging.getLogger("techtree").setLevel(before[2])


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_client_sends_is_shown_and_not_obeyed(engine, log, attack):
    with running(engine) as address:
        host = f"127.0.0.1:{address.port}".encode()
        with send_raw(address, attack.replace(b"HOST", host) + b"Connection: close\r\n\r\n") as connection:
            while connection.recv(65536):
                pass
    lines = log.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()


def test_a_traceback_keeps_its_lines():
    try:
        raise ValueError("x")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", 40, "", 0, "a\nb", (), __import__("sys").exc_info())
    told = OneLineFormatter("%(message)s").format(record)
    assert told.startswith("a\\nb\nTraceback")


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_stops_nothing(log):
    logging.getLogger().handlers[0].setStream(Full())
    logging.getLogger("techtree").warning("nobody reads this")
