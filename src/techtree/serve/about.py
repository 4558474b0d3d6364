"""What clients ask about the server and its model: is it up, which model, how many tokens has this text.

The shapes are those of llama.cpp's server; nothing of what anybody has asked for is told.
"""

import time

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from techtree import __version__
from techtree.engines.engine import Engine
from techtree.serve.body import read_object
from techtree.serve.chat_dialect import parse_messages
from techtree.serve.errors import ApiError
from techtree.serve.fields import Fields
from techtree.serve.metrics import MEDIA_TYPE, Metrics


class About:
    """The handlers.

    Parameters
    ----------
    engine
        Who answers.
    metrics
        What it has done.
    """

    def __init__(self, engine: Engine, metrics: Metrics):
        self._engine = engine
        self._metrics = metrics
        self._created = int(time.time())

    async def health(self, request: Request) -> Response:
        """Answer ``GET /health``: whoever gets an answer finds the model loaded."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """Answer ``GET /v1/models``. With `meta` there, llama.vscode asks for ``/props``."""
        model = {"id": self._engine.name, "object": "model", "created": self._created, "owned_by": "techtree"}
        model["meta"] = {"n_ctx": self._engine.context_length}
        return JSONResponse({"object": "list", "data": [model]})

    async def props(self, request: Request) -> Response:
        """Answer ``GET /props``."""
        return JSONResponse(
            {
                "default_generation_settings": {"n_ctx": self._engine.context_length},
                "total_slots": 1,
                "model_alias": self._engine.name,
                "modalities": {"vision": False, "audio": False},
                "build_info": f"techtree-{__version__}",
            }
        )

    async def slots(self, request: Request) -> Response:
        """Answer ``GET /slots``: one request decodes at a time."""
        slot = {
            "id": 0,
            "n_ctx": self._engine.context_length,
            "is_processing": self._metrics.n_processing > 0,
        }
        return JSONResponse([slot])

    async def metrics(self, request: Request) -> Response:
        """Answer ``GET /metrics``."""
        return PlainTextResponse(self._metrics.text(), media_type=MEDIA_TYPE)

    async def tokenize(self, request: Request) -> Response:
        """Answer ``POST /tokenize``. The name of a special token means that token, unless told not to."""
        fields = Fields(await read_object(request))
        text = fields.text("content")
        parses = fields.boolean("parse_special", default=True)
        has_pieces = fields.boolean("with_pieces", default=False)

        def tokens() -> list:
            ids = self._engine.tokenize(text, parse_special=parses)
            return [{"id": i, "piece": self._engine.detokenize([i])} for i in ids] if has_pieces else ids

        return JSONResponse({"tokens": await run_in_threadpool(tokens)})

    async def detokenize(self, request: Request) -> Response:
        """Answer ``POST /detokenize``."""
        given = (await read_object(request)).get("tokens")
        if not isinstance(given, list) or not all(type(i) is int for i in given):
            raise ApiError(400, '"tokens" must be an array of whole numbers')
        return JSONResponse({"content": await run_in_threadpool(self._engine.detokenize, given)})

    async def apply_template(self, request: Request) -> Response:
        """Answer ``POST /apply-template``: a chat as the text that the model sees."""
        messages = parse_messages(Fields(await read_object(request)))
        return JSONResponse({"prompt": await run_in_threadpool(self._engine.chat_text, messages)})
