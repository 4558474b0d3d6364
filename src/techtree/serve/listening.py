"""The server's socket and its loop."""

import contextlib
import errno
import os
import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from techtree.errors import InputError
from techtree.serve.connection import Connection
from techtree.serve.guard import Address, is_loopback

STOP_TIMEOUT_S = 1
"""For requests under way when the server is stopped."""

BACKLOG = 512
"""How many connections may wait to be accepted; fewer than the files that a process may open."""


def open_socket(host: str, port: int, api_key: str | None) -> tuple[socket.socket, Address]:
    """Listen at an address.

    Clients that connect from now on wait until `serve` is called.

    Parameters
    ----------
    host
        A name or an address of this machine.
    port
        0 means any free one.
    api_key
        What clients must know; required if other machines can reach the server.

    Returns
    -------
    socket, Address
        The socket, and where it really listens.

    Raises
    ------
    InputError
        When that cannot be, or would open the server to others without a key.
    """
    if api_key is not None and not api_key.strip():
        raise InputError("--api-key must not be empty: choose a long random word, or leave it out")
    if not is_loopback(host) and api_key is None:
        raise InputError(
            f"--host {host} opens the server to other machines, which needs a key: "
            "give --api-key KEY, or leave --host out"
        )
    if not 0 <= port <= 65535:
        raise InputError(f"--port must be from 1 to 65535; got {port}")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        why = "no such name can be" if isinstance(error, UnicodeError) else error
        raise InputError(
            f"--host must be a name or an address of this machine; got {host!r} ({why})"
        ) from error
    try:
        _bind(listener, where)
    except OSError as error:
        listener.close()
        raise InputError(_why_not(error, host, port)) from error
    return listener, Address(host, listener.getsockname()[1])


def _bind(listener: socket.socket, where: tuple) -> None:
    if os.name == "posix":
        # A port that a stopped server used a moment ago is free. (Windows would let two servers share it.)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(where)
    listener.listen(BACKLOG)


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} must be free; something listens there already: stop it, or choose another --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} is reserved by the system: choose a --port of 1024 or more"
    return f"cannot listen at {host}, port {port}: {error.strerror or error}"


class Server(uvicorn.Server):
    """A server that tells its application when it is stopped.

    Parameters
    ----------
    app
        What answers.
    stopping
        Set at Ctrl-C, before the requests under way are waited for.
    """

    def __init__(self, app: ASGIApp, stopping: threading.Event):
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                backlog=BACKLOG,
                http=Connection,
                lifespan="off",
                log_config=None,
                proxy_headers=False,  # nobody stands between us and an editor
                server_header=False,
                timeout_graceful_shutdown=STOP_TIMEOUT_S,
                ws="none",
            )
        )
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        self._stopping.set()
        await super().shutdown(sockets)


def serve(app: ASGIApp, listener: socket.socket, stopping: threading.Event) -> None:
    """Answer requests until Ctrl-C.

    Parameters
    ----------
    app
        What answers.
    listener
        Where requests come from.
    stopping
        Set when the server stops.
    """
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again, after it has stopped
        Server(app, stopping).run(sockets=[listener])
