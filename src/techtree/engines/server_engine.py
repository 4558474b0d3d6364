"""An engine elsewhere: a server that speaks OpenAI's dialect, and llama.cpp's where it does."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from techtree.engines.engine import ChatRequest, InfillRequest, InfillResult, StopReason
from techtree.errors import InputError

MAX_ANSWER_BYTES = 1 << 24


class ServerEngine:
    """Asks a server what an evaluation asks: nothing streams, and nothing is cancelled.

    Parameters
    ----------
    url
        Where it is, such as http://127.0.0.1:8080; with or without /v1.
    """

    can_fill_in = True
    can_chat = True

    def __init__(self, url: str):
        if not url.startswith(("http://", "https://")):
            raise InputError(f"a server's address must begin with http:// or https://; got {url}")
        self._url = url.rstrip("/").removesuffix("/v1")
        self._speaks_infill = True
        models = self._ask("/v1/models").get("data") or [{}]
        self.name = str(models[0].get("id", self._url))

    def infill(self, request: InfillRequest) -> InfillResult:
        """Answer a question; see `Engine.infill`. llama.cpp's way of asking is tried first."""
        if not request.is_raw and self._speaks_infill:
            question = {
                "input_prefix": request.prefix,
                "input_suffix": request.suffix,
                "n_predict": request.max_tokens,
            }
            try:
                said = self._ask("/infill", question | _drawing(request))
            except _NoRouteError:
                self._speaks_infill = False
            else:
                stops: dict[str, StopReason] = {"limit": "max_tokens", "word": "stop_string"}
                return InfillResult(
                    _text(said, "content"), stops.get(said.get("stop_type", ""), "end_of_text")
                )
        question = {"model": self.name, "prompt": request.prefix, "max_tokens": request.max_tokens}
        if request.suffix:
            question["suffix"] = request.suffix
        return _chosen(self._ask("/v1/completions", question | _drawing(request)), lambda choice: choice)

    def chat(self, request: ChatRequest) -> InfillResult:
        """Say what comes next in a chat; see `Engine.chat`."""
        messages = [{"role": each.role, "content": each.content} for each in request.messages]
        question = {"model": self.name, "messages": messages, "max_tokens": request.max_tokens}
        answer = self._ask("/v1/chat/completions", question | _drawing(request))
        return _chosen(answer, lambda choice: {"text": choice["message"]["content"]} | choice)

    def _ask(self, route: str, question: Mapping[str, object] | None = None) -> dict[str, Any]:
        body = None if question is None else json.dumps(question).encode()
        request = urllib.request.Request(self._url + route, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                said = json.loads(answer.read(MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            if error.code in (404, 405, 501) and route == "/infill":
                raise _NoRouteError from error
            told = error.read(2000).decode("utf-8", "replace")
            raise InputError(f"the server at {self._url}{route} answered {error.code}: {told}") from error
        except (OSError, ValueError) as error:
            raise InputError(
                f"there must be a server at {self._url}; asking {route} gave: {error}"
            ) from error
        if not isinstance(said, dict):
            raise InputError(f"the server at {self._url}{route} must answer with an object")
        return said


class _NoRouteError(Exception):
    """The server does not know this way of asking."""


def _drawing(request: InfillRequest | ChatRequest) -> dict[str, object]:
    drawing: dict[str, object] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
    }
    if request.stop:
        drawing["stop"] = list(request.stop)
    return drawing


def _text(said: Mapping[str, Any], key: str) -> str:
    if not isinstance(said.get(key), str):
        raise InputError(f"the server's answer must have a text under {key!r}; it has {sorted(said)}")
    return said[key]


def _chosen(said: Mapping[str, Any], as_text: Callable[[dict[str, Any]], dict[str, Any]]) -> InfillResult:
    try:
        choice = as_text(said["choices"][0])
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"the server's answer must have a choice; it has {sorted(said)}") from error
    stop: StopReason = "max_tokens" if choice.get("finish_reason") == "length" else "end_of_text"
    return InfillResult(_text(choice, "text"), stop)
