"""The web application: ``/infill`` for editors, and what they ask before they use it.

POST /infill                   what stands between a prefix and a suffix (see `infill_dialect`)
POST /v1/completions           what follows a prompt (see `completions_dialect`)
POST /v1/chat/completions      what is said next in a chat (see `chat_dialect`)
GET  /health                   {"status":"ok"}
GET  /v1/models, /models       the one model
GET  /, /tech/rope.html, ...   the tree as pages (see `pages`)
"""

import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from techtree.engines.engine import (
    ChatRequest,
    Engine,
    EngineBusyError,
    InfillRequest,
    InfillResult,
    WrittenToken,
)
from techtree.errors import InputError
from techtree.serve import chat_dialect, completions_dialect
from techtree.serve.body import read_object
from techtree.serve.errors import ApiError, error_object, error_response
from techtree.serve.guard import Address, Guard
from techtree.serve.infill_dialect import InfillCall, answer, last_piece, parse_call, piece
from techtree.serve.pages import Pages
from techtree.serve.running import Event, Runner

_logger = logging.getLogger(__name__)


def create_app(
    engine: Engine,
    address: Address | None = None,
    api_key: str | None = None,
    stopping: threading.Event | None = None,
    pages: Pages | None = None,
) -> ASGIApp:
    """Return the application.

    Parameters
    ----------
    engine
        Who answers.
    address
        Where the server listens; requests that were meant for another are refused.
    api_key
        What requests must give, if anything.
    stopping
        Set by whoever stops the server: answers under way then end with what they have.
    pages
        What a browser is shown; nothing when left out.
    """
    routes = Routes(engine, Runner(engine, stopping or threading.Event()))
    app = Starlette(
        routes=[
            Route("/infill", routes.infill, methods=["POST"]),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/chat/completions", routes.chat, methods=["POST"]),
            Route("/health", routes.health, methods=["GET"]),
            Route("/models", routes.models, methods=["GET"]),
            Route("/v1/models", routes.models, methods=["GET"]),
        ],
        exception_handlers={
            ApiError: _on_error,
            HTTPException: _on_error,
            InputError: _on_error,
            EngineBusyError: _on_error,
            Exception: _on_error,
        },
    )
    app.router.redirect_slashes = False
    if pages is None:
        return Guard(app, address or Address(), api_key)
    app.router.default = pages
    return Guard(app, address or Address(), api_key, pages.has)


class Routes:
    """The handlers, and the engine that they share."""

    def __init__(self, engine: Engine, runner: Runner):
        self._engine = engine
        self._runner = runner
        self._created = int(time.time())

    async def infill(self, request: Request) -> Response:
        """Answer ``POST /infill``."""
        call = parse_call(await read_object(request))
        if call.request.max_tokens == 0:
            # llama.vim sends this about once a second to warm a cache up: it must cost nothing.
            return JSONResponse(answer(call, InfillResult("", "max_tokens"), self._engine.name))
        if call.is_stream:
            return await self._stream(call.request, request, lambda event, _: [self._event(call, event)])
        result = await self._runner.run(call.request, request.receive)
        _log(result)
        return JSONResponse(answer(call, result, self._engine.name))

    async def completions(self, request: Request) -> Response:
        """Answer ``POST /v1/completions``."""
        call = completions_dialect.parse_call(await read_object(request))
        name = self._engine.name
        if call.is_stream:
            return await self._stream(
                call.request,
                request,
                lambda event, tokens: completions_dialect.pieces(call, event, tokens, name),
                begin=completions_dialect.pieces(call, call.echo, (), name) if call.echo else (),
                end=b"data: [DONE]\n\n",
                has_tokens=call.has_logprobs,
            )
        result, tokens = await self._whole(call.request, request, call.has_logprobs)
        return JSONResponse(completions_dialect.answer(call, result, tokens, name))

    async def chat(self, request: Request) -> Response:
        """Answer ``POST /v1/chat/completions``."""
        call = chat_dialect.parse_call(await read_object(request))
        name = self._engine.name
        if call.is_stream:
            return await self._stream(
                call.request,
                request,
                lambda event, tokens: chat_dialect.pieces(call, event, tokens, name),
                begin=[chat_dialect.first_piece(call, name)],
                end=b"data: [DONE]\n\n",
                has_tokens=call.has_logprobs,
            )
        result, tokens = await self._whole(call.request, request, call.has_logprobs)
        return JSONResponse(chat_dialect.answer(call, result, tokens, name))

    async def health(self, request: Request) -> Response:
        """Answer ``GET /health``: whoever gets an answer finds the model loaded."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """Answer ``GET /v1/models``."""
        model = {"id": self._engine.name, "object": "model", "created": self._created, "owned_by": "techtree"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _whole(
        self, asked: InfillRequest | ChatRequest, request: Request, has_tokens: bool
    ) -> tuple[InfillResult, list[WrittenToken]]:
        tokens: list[WrittenToken] = []
        on_token = tokens.append if has_tokens else None
        result = await self._runner.run(asked, request.receive, on_token=on_token)
        _log(result)
        return result, tokens

    async def _stream(
        self,
        asked: InfillRequest | ChatRequest,
        request: Request,
        told: Callable[[str | InfillResult, list[WrittenToken]], list[dict]],
        begin: Iterable[dict] = (),
        end: bytes = b"",
        has_tokens: bool = False,
    ) -> Response:
        """Answer by server-sent events: those of each piece of text and of the result, as `told` has them."""
        events = self._runner.stream(asked, request.receive, has_tokens)
        # A request that is refused must get its status; so the stream begins after its first event.
        first = await anext(events)

        def encoded(event: Event) -> bytes:
            what, tokens = event
            if isinstance(what, InfillResult):
                _log(what)
            return b"".join(map(_sse, told(what, tokens)))

        async def body() -> AsyncIterator[bytes]:
            try:
                yield b"".join(map(_sse, begin)) + encoded(first)
                async for event in events:
                    yield encoded(event)
                yield end
            except Exception as error:
                _logger.exception("a stream broke off")
                yield _sse(error_object(500, f"the engine failed: {error}"))
            finally:
                await events.aclose()

        return StreamingResponse(
            body(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    def _event(self, call: InfillCall, event: str | InfillResult) -> dict:
        if isinstance(event, str):
            return piece(call, event)
        return last_piece(call, event, self._engine.name)


def _sse(value: dict) -> bytes:
    """Return one server-sent event, with the space after the colon on which llama.vim insists."""
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def _log(result: InfillResult) -> None:
    """Note what an answer took, and nothing of anybody's code."""
    _logger.info(
        "infill: prompt of %d tokens%s, %d of them cached, %.0f ms; %d tokens, %.0f ms; %s",
        result.n_prompt,
        " (cut to fit)" if result.is_truncated else "",
        result.n_reused,
        result.prompt_ms,
        result.n_predicted,
        result.predicted_ms,
        result.stop,
    )


async def _on_error(request: Request, error: Exception) -> Response:
    """Return any error as an error object."""
    status, message, headers = 500, f"the engine failed: {error}", None
    if isinstance(error, ApiError):
        status, message = error.status, error.message
    elif isinstance(error, InputError):
        status, message = 400, str(error)
    elif isinstance(error, EngineBusyError):
        status, message, headers = 429, str(error), {"Retry-After": "1"}
    elif isinstance(error, HTTPException):
        status, headers = error.status_code, error.headers
        message = f"there is no {request.method} {request.url.path} here: use POST /infill or GET /health"
    _logger.warning("%d %s %r: %s", status, request.method, request.url.path, message)
    return error_response(status, message, headers)
