"""An engine's blocking work, run for a client that may go away at any moment."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable

from starlette.types import Receive

from techtree.engines.engine import Engine, InfillRequest, InfillResult


async def run_infill(
    engine: Engine,
    request: InfillRequest,
    receive: Receive,
    on_text: Callable[[str], None] | None = None,
) -> InfillResult:
    """Answer a question on another thread; when the client goes, the engine is told to stop.

    Parameters
    ----------
    engine
        Who answers.
    request
        The question.
    receive
        The connection's, whose body has been read: the next thing it can tell is that it was closed.
    on_text
        Called on the other thread with each piece of text.
    """
    gone = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(engine.infill, request, gone.is_set, on_text))
    watch = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            gone.set()
        return await work
    finally:
        gone.set()  # also when this task was cancelled, as at the server's end
        watch.cancel()


async def stream_infill(
    engine: Engine, request: InfillRequest, receive: Receive
) -> AsyncGenerator[str | InfillResult, None]:
    """Yield pieces of text as they come, and the result in the end."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def hand_over(text: str | None) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, text)

    work = asyncio.ensure_future(run_infill(engine, request, receive, hand_over))
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
