"""An engine's answer as a response: whole, or piece by piece while it is written."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from techtree.engines.engine import ChatRequest, InfillRequest, InfillResult, WrittenToken
from techtree.serve.errors import error_object
from techtree.serve.running import Event, Runner

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
DONE = b"data: [DONE]\n\n"
"""Ends a stream in OpenAI's dialect."""

_logger = logging.getLogger(__name__)


async def whole(
    runner: Runner, asked: InfillRequest | ChatRequest, request: Request, has_tokens: bool = False
) -> tuple[InfillResult, list[WrittenToken]]:
    """Wait for the answer, and on request for its tokens."""
    tokens: list[WrittenToken] = []
    on_token = tokens.append if has_tokens else None
    result = await runner.run(asked, request.receive, on_token=on_token)
    _log(request, result)
    return result, tokens


async def streamed(
    runner: Runner,
    asked: InfillRequest | ChatRequest,
    request: Request,
    told: Callable[[str | InfillResult, list[WrittenToken]], list[dict]],
    begin: Iterable[dict] = (),
    end: bytes = b"",
    has_tokens: bool = False,
    media_type: str = SSE,
) -> Response:
    """Return a response that tells of the answer as it comes.

    Parameters
    ----------
    runner
        Runs the engine.
    asked
        The question.
    request
        Whose it is.
    told
        Returns what to tell of a piece of text and its tokens, or of the result.
    begin
        What to tell first.
    end
        What stands at the end.
    has_tokens
        Whether the tokens are wanted.
    media_type
        How the objects are put in a row: `SSE` or `NDJSON`.
    """
    encode = _event if media_type == SSE else _line
    events = runner.stream(asked, request.receive, has_tokens)
    # A request that is refused must get its status; so the stream begins after its first event.
    first = await anext(events)

    def encoded(event: Event) -> bytes:
        what, tokens = event
        if isinstance(what, InfillResult):
            _log(request, what)
        return b"".join(map(encode, told(what, tokens)))

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"".join(map(encode, begin)) + encoded(first)
            async for event in events:
                yield encoded(event)
            yield end
        except Exception as error:
            _logger.exception("a stream broke off")
            yield encode(error_object(500, f"the engine failed: {error}"))
        finally:
            await events.aclose()

    return StreamingResponse(body(), media_type=media_type, headers={"Cache-Control": "no-store"})


def _event(value: dict) -> bytes:
    """Return one server-sent event, with the space after the colon on which llama.vim insists."""
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def _line(value: dict) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _log(request: Request, result: InfillResult) -> None:
    """Note what an answer took, and nothing of anybody's code."""
    _logger.info(
        "%s: prompt of %d tokens%s, %d of them cached, %.0f ms; %d tokens, %.0f ms; %s",
        request.url.path,
        result.n_prompt,
        " (cut to fit)" if result.is_truncated else "",
        result.n_reused,
        result.prompt_ms,
        result.n_predicted,
        result.predicted_ms,
        result.stop,
    )
