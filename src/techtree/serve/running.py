"""An engine's blocking work, run for a client that may go away at any moment, on a server that may stop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.types import Receive

from techtree.engines.engine import Engine, InfillRequest, InfillResult
from techtree.serve.connection import MAX_CONNECTIONS


class Runner:
    """Runs an engine on other threads.

    Parameters
    ----------
    engine
        Who answers.
    stopping
        Set when the server stops: answers under way then end with what they have.
    """

    def __init__(self, engine: Engine, stopping: threading.Event):
        self._engine = engine
        self._stopping = stopping
        # Each request a thread: one that waits for another's end still hears that its client has gone.
        self._threads = ThreadPoolExecutor(MAX_CONNECTIONS, "infill")

    async def infill(
        self, request: InfillRequest, receive: Receive, on_text: Callable[[str], None] | None = None
    ) -> InfillResult:
        """Answer a question; when the client goes, the engine is told to stop.

        Parameters
        ----------
        request
            The question.
        receive
            The connection's, whose body has been read: all that it can still tell is that it was closed.
        on_text
            Called on the other thread with each piece of text.
        """
        gone = threading.Event()

        def cancelled() -> bool:
            return gone.is_set() or self._stopping.is_set()

        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, self._engine.infill, request, cancelled, on_text)
        watch = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                gone.set()
            return await work
        finally:
            gone.set()  # also when this task itself was cancelled
            watch.cancel()

    async def stream(
        self, request: InfillRequest, receive: Receive
    ) -> AsyncGenerator[str | InfillResult, None]:
        """Yield pieces of text as they come, and the result in the end."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def hand_over(text: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, text)

        work = asyncio.ensure_future(self.infill(request, receive, hand_over))
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (text := await pieces.get()) is not None:
                yield text
            yield await work
        finally:
            work.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
