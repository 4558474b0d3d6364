"""The routes of Ollama's API that editors use: on request only, as a real Ollama may run on this machine.

GET  /                 "Ollama is running"; a browser still gets the pages at /index.html
GET  /api/version      of the API
GET  /api/tags         the one model
POST /api/show         what it can do
POST /api/generate     what follows a prompt, or stands between it and a suffix
POST /api/chat         what is said next
"""

import datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from techtree.engines.engine import Engine, InfillResult
from techtree.serve import ollama_dialect as dialect
from techtree.serve.answering import NDJSON, streamed, whole
from techtree.serve.body import read_object
from techtree.serve.running import Runner


class Ollama:
    """The handlers.

    Parameters
    ----------
    engine
        Who answers.
    runner
        Runs it.
    """

    def __init__(self, engine: Engine, runner: Runner):
        self._engine = engine
        self._runner = runner
        self._started = datetime.datetime.now(datetime.UTC)

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/", self.root, methods=["GET"]),
            Route("/api/version", self.version, methods=["GET"]),
            Route("/api/tags", self.tags, methods=["GET"]),
            Route("/api/show", self.show, methods=["POST"]),
            Route("/api/generate", self.generate, methods=["POST"]),
            Route("/api/chat", self.chat, methods=["POST"]),
        ]

    async def root(self, request: Request) -> Response:
        """Answer ``GET /``."""
        return PlainTextResponse("Ollama is running")

    async def version(self, request: Request) -> Response:
        """Answer ``GET /api/version``."""
        return JSONResponse({"version": dialect.VERSION})

    async def tags(self, request: Request) -> Response:
        """Answer ``GET /api/tags``."""
        return JSONResponse(dialect.tags(self._engine, self._started))

    async def show(self, request: Request) -> Response:
        """Answer ``POST /api/show``, whichever model is named: there is one."""
        await read_object(request)
        return JSONResponse(dialect.show(self._engine))

    async def generate(self, request: Request) -> Response:
        """Answer ``POST /api/generate``."""
        body = await read_object(request)
        return await self._answer(dialect.parse_generate(body, can_chat=self._engine.can_chat), request)

    async def chat(self, request: Request) -> Response:
        """Answer ``POST /api/chat``."""
        return await self._answer(dialect.parse_chat(await read_object(request)), request)

    async def _answer(self, call: dialect.OllamaCall, request: Request) -> Response:
        name = self._engine.name
        if call.is_empty:
            return JSONResponse(dialect.last_piece(call, InfillResult("", "end_of_text"), name))
        if not call.is_stream:
            result, _ = await whole(self._runner, call.request, request)
            return JSONResponse(dialect.last_piece(call, result, name, result.text))

        def told(event: str | InfillResult, _: object) -> list[dict]:
            if isinstance(event, str):
                return [dialect.piece(call, event, name)]
            return [dialect.last_piece(call, event, name)]

        return await streamed(self._runner, call.request, request, told, media_type=NDJSON)
