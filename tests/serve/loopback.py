"""An engine that says what a test wants, and a real server around it, on the loopback."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence

from techtree.engines.engine import (
    ChatRequest,
    InfillRequest,
    InfillResult,
    Likelihood,
    Message,
    WrittenToken,
)

TIMEOUT_S = 30
"""For what happens at once, unless something is broken."""


class FakeEngine:
    """Answers every question with the same pieces; waits for `go` before each but the first."""

    name = "fake"
    context_length = 512
    can_fill_in = can_chat = True

    def __init__(self, pieces=("return ", "a + b"), error: Exception | None = None):
        self.pieces = pieces
        self.error = error
        self.requests: list[InfillRequest] = []
        self.go = threading.Event()
        self.go.set()
        self.started, self.cancelled = threading.Event(), threading.Event()

    def infill(
        self,
        request: InfillRequest | ChatRequest,
        cancelled: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        on_token: Callable[[WrittenToken], None] | None = None,
    ) -> InfillResult:
        """Answer."""
        self.requests.append(request)
        said = ""
        for piece in self.pieces:
            if on_token:
                data = piece.encode()
                top = (Likelihood(data, -0.25), Likelihood(b"other", -2.0))[: request.n_top]
                on_token(WrittenToken(data, -0.25, len(said), top))
            said += piece
            if on_text:
                on_text(piece)
            self.started.set()
            while not self.go.wait(0.005):
                if cancelled():
                    self.cancelled.set()
                    return InfillResult(said, "cancelled")
        if self.error:
            raise self.error
        return InfillResult(said, "end_of_text", "", False, 20, 5, 30.0, 4, 8.0)

    chat = infill

    def chat_text(self, messages: tuple[Message, ...]) -> str:
        """Return each message in a line."""
        return "".join(f"<{message.role}>{message.content}\n" for message in messages)

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Return the bytes."""
        return list(text.encode()) + [256] * parse_special

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of bytes."""
        return bytes(ids).decode("utf-8", "replace")


@contextlib.contextmanager
def running(engine, api_key=None, host="127.0.0.1", **options):
    """A real server on a free port of the loopback; gives its address."""
    from techtree.serve.app import create_app
    from techtree.serve.listening import Server, open_socket

    listener, address = open_socket(host, 0, api_key)
    stopping = threading.Event()
    server = Server(create_app(engine, address, api_key, stopping, **options), stopping)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + TIMEOUT_S
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.005)
        yield address
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)
        listener.close()
        assert not thread.is_alive()


def send_raw(address, data: bytes) -> socket.socket:
    """Connect and send bytes; returns the open socket."""
    connection = socket.create_connection((address.host, address.port), timeout=TIMEOUT_S)
    connection.sendall(data)
    return connection


def post_bytes(address, body: bytes, path="/infill") -> bytes:
    """Return a POST request as it goes over the wire."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


LLAMA_VIM_HEADERS = ["--header", "Content-Type: application/json", "--header", "Authorization: Bearer "]
"""As llama.vim gives them to curl, when no key is set."""
