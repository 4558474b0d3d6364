"""A client's connection, which must come to the point.

A server has room for so many connections. One that says nothing, sends its request a byte at a time, or does
not read its answer takes a place from others: it gets some seconds, and less where somebody else comes.
"""

import asyncio

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from techtree.serve.errors import error_response

MAX_CONNECTIONS = 64
"""At once. For one more, the one that has been idle the longest is closed; if none is idle, it gets 503."""

HEAD_TIMEOUT_S = 10.0
"""For the head of a request to arrive, from when it may: local programs send it at once."""

WRITE_TIMEOUT_S = 10.0
"""For a client to read what it was sent, when it has not read for so long that no more can be sent."""


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer that there is no room; the client may try again."""
    message = f"{MAX_CONNECTIONS} requests are being answered: try again in a moment"
    headers = {"Connection": "close", "Retry-After": "1"}
    await error_response(503, message, headers)(scope, receive, send)


class Connection(H11Protocol):
    """A connection."""

    _idle_since = 0.0
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being answered: no request has arrived whole, or the last one was answered."""
        return self._awaits_head() or self.cycle.more_body or self.transport.is_closing()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, in the place of an idle one where there is no other."""
        others = [other for other in self.connections if isinstance(other, Connection)]
        if len(others) >= MAX_CONNECTIONS:
            idle = [other for other in others if other.is_idle]
            if idle:
                min(idle, key=lambda other: other._idle_since)._end()
            else:
                self.app = _refuse
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._expect_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self._end)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _awaits_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        self._idle_since = self.loop.time()
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._end_if_silent)

    def _end_if_silent(self) -> None:
        if self._awaits_head():
            self._end()

    def _end(self) -> None:
        # Its place is free at once; the loop tells of the loss a moment later.
        self.connections.discard(self)
        self.transport.abort()
