"""The web application: ``/infill`` for editors, and what they ask before they use it.

POST /infill                   what stands between a prefix and a suffix (see `infill_dialect`)
POST /v1/completions           what follows a prompt (see `completions_dialect`)
POST /v1/chat/completions      what is said next in a chat (see `chat_dialect`)
GET  /health, /v1/models, ...  what clients ask before they use it (see `about`)
GET  /api/tags, ...            the same for Ollama's clients, on request (see `ollama`)
GET  /metrics                  what it has done (see `metrics`)
GET  /, /tech/rope.html, ...   the tree as pages (see `pages`)
"""

import logging
import threading
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from techtree.engines.engine import Engine, EngineBusyError, InfillResult
from techtree.errors import InputError
from techtree.serve import chat_dialect, completions_dialect
from techtree.serve.about import About
from techtree.serve.answering import DONE, streamed, whole
from techtree.serve.body import read_object
from techtree.serve.errors import ApiError, error_response
from techtree.serve.guard import OPEN_PATHS, Address, Guard
from techtree.serve.infill_dialect import InfillCall, answer, last_piece, parse_call, piece
from techtree.serve.metrics import Counted, Metrics
from techtree.serve.ollama import Ollama
from techtree.serve.pages import Pages
from techtree.serve.running import Runner

_logger = logging.getLogger(__name__)


def create_app(
    engine: Engine,
    address: Address | None = None,
    api_key: str | None = None,
    stopping: threading.Event | None = None,
    pages: Pages | None = None,
    speaks_ollama: bool = False,
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
    speaks_ollama
        Whether Ollama's routes are answered, too.
    """
    metrics = Metrics()
    runner = Runner(engine, stopping or threading.Event(), metrics)
    routes = Routes(engine, runner)
    about = About(engine, metrics)
    app = Starlette(
        routes=[
            Route("/infill", routes.infill, methods=["POST"]),
            Route("/v1/completions", routes.completions, methods=["POST"]),
            Route("/v1/chat/completions", routes.chat, methods=["POST"]),
            Route("/chat/completions", routes.chat, methods=["POST"]),
            Route("/health", about.health, methods=["GET"]),
            Route("/models", about.models, methods=["GET"]),
            Route("/v1/models", about.models, methods=["GET"]),
            Route("/props", about.props, methods=["GET"]),
            Route("/slots", about.slots, methods=["GET"]),
            Route("/metrics", about.metrics, methods=["GET"]),
            Route("/tokenize", about.tokenize, methods=["POST"]),
            Route("/detokenize", about.detokenize, methods=["POST"]),
            Route("/apply-template", about.apply_template, methods=["POST"]),
            *(Ollama(engine, runner).routes() if speaks_ollama else ()),
        ],
        exception_handlers=_handlers(),
    )
    app.router.redirect_slashes = False
    has_page: Callable[[str], bool] = OPEN_PATHS.__contains__
    if pages is not None:
        app.router.default, has_page = pages, pages.has
    paths = frozenset(route.path for route in app.router.routes if isinstance(route, Route))
    return Counted(Guard(app, address or Address(), api_key, has_page), metrics, paths)


def create_pages_app(pages: Pages, address: Address | None = None, api_key: str | None = None) -> ASGIApp:
    """Return the application where there is no model: the pages, and 503 for all that would need one.

    Parameters
    ----------
    pages
        What a browser is shown.
    address, api_key
        As for `create_app`.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if not pages.has(scope["path"]):
            raise ApiError(
                503,
                "there must be a model to answer this, and the server was started without one, for its pages "
                "alone: make one with ./techtree build, then start the server again",
            )
        await pages(scope, receive, send)

    app = Starlette(exception_handlers=_handlers())
    app.router.redirect_slashes = False
    app.router.default = answer
    return Guard(app, address or Address(), api_key, pages.has)


class Routes:
    """The handlers, and the engine that they share."""

    def __init__(self, engine: Engine, runner: Runner):
        self._engine = engine
        self._runner = runner

    async def infill(self, request: Request) -> Response:
        """Answer ``POST /infill``."""
        call = parse_call(await read_object(request))
        if call.request.max_tokens == 0:
            # llama.vim sends this about once a second to warm a cache up: it must cost nothing.
            return JSONResponse(answer(call, InfillResult("", "max_tokens"), self._engine.name))
        if call.is_stream:
            return await streamed(
                self._runner, call.request, request, lambda event, _: [self._event(call, event)]
            )
        result, _ = await whole(self._runner, call.request, request)
        return JSONResponse(answer(call, result, self._engine.name))

    async def completions(self, request: Request) -> Response:
        """Answer ``POST /v1/completions``."""
        call = completions_dialect.parse_call(await read_object(request))
        name = self._engine.name
        if call.is_stream:
            return await streamed(
                self._runner,
                call.request,
                request,
                lambda event, tokens: completions_dialect.pieces(call, event, tokens, name),
                begin=completions_dialect.pieces(call, call.echo, (), name) if call.echo else (),
                end=DONE,
                has_tokens=call.has_logprobs,
            )
        result, tokens = await whole(self._runner, call.request, request, call.has_logprobs)
        return JSONResponse(completions_dialect.answer(call, result, tokens, name))

    async def chat(self, request: Request) -> Response:
        """Answer ``POST /v1/chat/completions``."""
        call = chat_dialect.parse_call(await read_object(request))
        name = self._engine.name
        if call.is_stream:
            return await streamed(
                self._runner,
                call.request,
                request,
                lambda event, tokens: chat_dialect.pieces(call, event, tokens, name),
                begin=[chat_dialect.first_piece(call, name)],
                end=DONE,
                has_tokens=call.has_logprobs,
            )
        result, tokens = await whole(self._runner, call.request, request, call.has_logprobs)
        return JSONResponse(chat_dialect.answer(call, result, tokens, name))

    def _event(self, call: InfillCall, event: str | InfillResult) -> dict:
        if isinstance(event, str):
            return piece(call, event)
        return last_piece(call, event, self._engine.name)


def _handlers() -> dict:
    kinds = (ApiError, HTTPException, InputError, EngineBusyError, Exception)
    return dict.fromkeys(kinds, _on_error)


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
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": message}, status, headers)  # as Ollama's clients read it
    return error_response(status, message, headers)
