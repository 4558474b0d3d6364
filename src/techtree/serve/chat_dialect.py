"""The dialect of OpenAI's ``POST /v1/chat/completions``, as its client libraries speak it: pure functions.

What is not done here (several choices, tools, penalties) is refused by its name, for an answer without it
would look like one with it.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from techtree.engines.engine import ChatRequest, InfillResult, Likelihood, Message, WrittenToken
from techtree.serve.errors import ApiError
from techtree.serve.fields import Fields
from techtree.serve.forms import wanted_form
from techtree.serve.openai_fields import (
    MOST_TOKENS,
    finish_reason,
    refuse_other_values,
    sampling,
    shown_tokens,
    stop_strings,
    usage,
    wants_usage,
)

MAX_TOKENS = 1024
"""When a request does not say how many tokens it wants; OpenAI's has no limit."""
MAX_MESSAGES = 1000
MAX_TOP_LOGPROBS = 20

_ROLES: dict[str, Literal["system", "user", "assistant", "tool"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
"""OpenAI's names; templates know no "developer"."""

_ONLY: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "modalities": (["text"],),
}
"""Fields that may be given, but only with these values."""


@dataclass(frozen=True)
class ChatCall:
    """A request to ``/v1/chat/completions``."""

    request: ChatRequest
    is_stream: bool
    has_usage: bool
    """Whether a stream ends with the number of tokens."""
    has_logprobs: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))


def parse_call(body: Mapping[str, object]) -> ChatCall:
    """Return what a body asks for.

    Raises
    ------
    ApiError
        When a field is missing, malformed or asks for what is not done here; the message names it.
    """
    refuse_other_values(body, _ONLY)
    fields = Fields(body)
    limits = ("max_completion_tokens", "max_tokens", "n_predict")
    limit = next((name for name in limits if name in fields), "max_tokens")
    n_wanted = fields.integer(limit, MAX_TOKENS, minimum=-1 if limit == "n_predict" else 0)
    n_top = fields.integer("top_logprobs", 0, minimum=0)
    if n_top > MAX_TOP_LOGPROBS:
        raise ApiError(400, f'"top_logprobs" must be {MAX_TOP_LOGPROBS} or less; got {n_top}')
    request = ChatRequest(
        parse_messages(fields),
        # llama.vim warms up with llama.cpp's n_predict of 0; its -1 is for as many as there are.
        max_tokens=MAX_TOKENS if n_wanted < 0 else min(n_wanted, MOST_TOKENS),
        stop=stop_strings(body),
        n_top=n_top,
        form=wanted_form(body),
        **sampling(fields),
    )
    return ChatCall(
        request,
        is_stream=fields.boolean("stream", default=False),
        has_usage=wants_usage(body),
        has_logprobs=fields.boolean("logprobs", default=False),
    )


def parse_messages(fields: Fields) -> tuple[Message, ...]:
    """Return the messages of a chat."""
    given = fields.objects("messages")
    if not 0 < len(given) <= MAX_MESSAGES:
        raise ApiError(400, f'"messages" must have from 1 to {MAX_MESSAGES} messages; got {len(given)}')
    return tuple(_message(message) for message in given)


def _message(fields: Fields) -> Message:
    role = fields.text("role")
    if role not in _ROLES:
        raise fields.error("role", f"one of {', '.join(_ROLES)}", role)
    if role == "assistant" and "content" not in fields:
        return Message("assistant", "")  # what was said may be a call of a tool, which there is none here
    return Message(_ROLES[role], _content(fields))


def _content(fields: Fields) -> str:
    """Return a text, which may come in parts."""
    if not fields.is_array("content"):
        return fields.text("content")
    parts = fields.objects("content")
    for part in parts:
        kind = part.text("type")
        if kind != "text":
            raise part.error("type", "text, as the model reads nothing else", kind)
    return "".join(part.text("text") for part in parts)


def answer(call: ChatCall, result: InfillResult, tokens: Sequence[WrittenToken], model: str) -> dict:
    """Return the response."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": result.text},
        "logprobs": _logprobs(call, shown_tokens(tokens, len(result.text))),
        "finish_reason": finish_reason(result),
    }
    return _object(call, "chat.completion", model, [choice]) | {"usage": usage(result)}


def first_piece(call: ChatCall, model: str) -> dict:
    """Return the event that begins a streamed response."""
    return _piece(call, model, {"role": "assistant", "content": None})


def pieces(
    call: ChatCall, event: str | InfillResult, tokens: Sequence[WrittenToken], model: str
) -> list[dict]:
    """Return the events of a streamed response for a piece of text, or for its end."""
    if isinstance(event, str):
        return [_piece(call, model, {"content": event}, logprobs=_logprobs(call, tokens))]
    last = [_piece(call, model, {}, finish_reason(event))]
    if call.has_usage:
        last.append(_object(call, "chat.completion.chunk", model, []) | {"usage": usage(event)})
    return last


def _piece(
    call: ChatCall, model: str, delta: dict, reason: str | None = None, logprobs: dict | None = None
) -> dict:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return _object(call, "chat.completion.chunk", model, [choice])


def _object(call: ChatCall, kind: str, model: str, choices: list[dict]) -> dict:
    return {"id": call.id, "object": kind, "created": call.created, "model": model, "choices": choices}


def _logprobs(call: ChatCall, tokens: Sequence[WrittenToken]) -> dict | None:
    if not call.has_logprobs:
        return None
    content = [_likelihood(token) | {"top_logprobs": list(map(_likelihood, token.top))} for token in tokens]
    return {"content": content, "refusal": None}


def _likelihood(token: Likelihood) -> dict:
    text = token.data.decode("utf-8", "replace")
    return {"token": text, "logprob": token.logprob, "bytes": list(token.data)}
