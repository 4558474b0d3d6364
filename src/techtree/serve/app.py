"""The web application: ``/infill`` for editors, and what they ask before they use it.

POST /infill                   what stands between a prefix and a suffix (see `infill_dialect`)
GET  /health                   {"status":"ok"}
GET  /v1/models, /models       the one model
"""

import json
import logging
import threading
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from techtree.engines.engine import Engine, EngineBusyError, InfillResult
from techtree.errors import InputError
from techtree.serve.body import read_object
from techtree.serve.errors import ApiError, error_object, error_response
from techtree.serve.guard import Address, Guard
from techtree.serve.infill_dialect import InfillCall, answer, last_piece, parse_call, piece
from techtree.serve.running import Runner

_logger = logging.getLogger(__name__)


def create_app(
    engine: Engine,
    address: Address | None = None,
    api_key: str | None = None,
    stopping: threading.Event | None = None,
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
    """
    routes = Routes(engine, Runner(engine, stopping or threading.Event()))
    app = Starlette(
        routes=[
            Route("/infill", routes.infill, methods=["POST"]),
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
    return Guard(app, address or Address(), api_key)


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
            return await self._stream(call, request)
        result = await self._runner.infill(call.request, request.receive)
        _log(result)
        return JSONResponse(answer(call, result, self._engine.name))

    async def health(self, request: Request) -> Response:
        """Answer ``GET /health``: whoever gets an answer finds the model loaded."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """Answer ``GET /v1/models``."""
        model = {"id": self._engine.name, "object": "model", "created": self._created, "owned_by": "techtree"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _stream(self, call: InfillCall, request: Request) -> Response:
        events = self._runner.stream(call.request, request.receive)
        # A request that is refused must get its status; so the stream begins after its first event.
        first = await anext(events)

        async def body() -> AsyncIterator[bytes]:
            try:
                yield self._event(call, first)
                async for event in events:
                    yield self._event(call, event)
            except Exception as error:
                _logger.exception("a stream broke off")
                yield _sse(error_object(500, f"the engine failed: {error}"))
            finally:
                await events.aclose()

        return StreamingResponse(
            body(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    def _event(self, call: InfillCall, event: str | InfillResult) -> bytes:
        if isinstance(event, str):
            return _sse(piece(call, event))
        _log(event)
        return _sse(last_piece(call, event, self._engine.name))


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
