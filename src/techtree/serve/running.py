"""An engine's blocking work, run for a client that may go away at any moment, on a server that may stop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.types import Receive

from techtree.engines.engine import ChatRequest, Engine, InfillRequest, InfillResult, WrittenToken
from techtree.serve.connection import MAX_CONNECTIONS
from techtree.serve.metrics import Metrics

Request = InfillRequest | ChatRequest
Event = tuple[str | InfillResult, list[WrittenToken]]
"""A piece of text with the tokens that begin in it, or the result."""


class Runner:
    """Runs an engine on other threads.

    Parameters
    ----------
    engine
        Who answers.
    stopping
        Set when the server stops: answers under way then end with what they have.
    metrics
        Where the answers are counted.
    """

    def __init__(self, engine: Engine, stopping: threading.Event, metrics: Metrics):
        self._engine = engine
        self._metrics = metrics
        self._stopping = stopping
        # Each request a thread: one that waits for another's end still hears that its client has gone.
        self._threads = ThreadPoolExecutor(MAX_CONNECTIONS, "answer")

    async def run(
        self,
        request: Request,
        receive: Receive,
        on_text: Callable[[str], None] | None = None,
        on_token: Callable[[WrittenToken], None] | None = None,
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
        on_token
            Called on the other thread with each token, before its text.
        """
        gone = threading.Event()

        def cancelled() -> bool:
            return gone.is_set() or self._stopping.is_set()

        def answer() -> InfillResult:
            with self._metrics.processing():
                if isinstance(request, ChatRequest):
                    result = self._engine.chat(request, cancelled, on_text, on_token)
                else:
                    result = self._engine.infill(request, cancelled, on_text, on_token)
            self._metrics.answered(result)
            return result

        work = asyncio.get_running_loop().run_in_executor(self._threads, answer)
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
        self, request: Request, receive: Receive, has_tokens: bool = False
    ) -> AsyncGenerator[Event, None]:
        """Yield pieces of text as they come, on request with their tokens, and the result in the end."""
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[str | WrittenToken | None] = asyncio.Queue()

        def hand_over(what: str | WrittenToken) -> None:
            loop.call_soon_threadsafe(told.put_nowait, what)

        on_token = hand_over if has_tokens else None
        work = asyncio.ensure_future(self.run(request, receive, hand_over, on_token))
        work.add_done_callback(lambda _: told.put_nowait(None))
        tokens: list[WrittenToken] = []
        n_chars = 0
        try:
            while (what := await told.get()) is not None:
                if isinstance(what, WrittenToken):
                    tokens.append(what)
                    continue
                n_chars += len(what)
                shown = [token for token in tokens if token.start < n_chars]
                del tokens[: len(shown)]  # they come in order
                yield what, shown
            yield await work, []
        finally:
            work.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
