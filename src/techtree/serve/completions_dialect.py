"""The dialect of OpenAI's ``POST /v1/completions``, as its client libraries speak it: pure functions.

A prompt is continued; with a ``suffix``, what stands between is written. Nothing but the stop strings shapes
the text. What is not done here (several choices, penalties, prompts of ids) is refused by its
name, for an answer without it would look like one with it.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from techtree.engines.engine import InfillRequest, InfillResult, Likelihood, WrittenToken
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

MAX_TOKENS = 16
"""When a request does not say how many tokens it wants: OpenAI's number."""
MAX_LOGPROBS = 5
"""The likeliest tokens that are named beside each: OpenAI's number."""
_ONLY: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
}
"""Fields that may be given, but only with these values."""


@dataclass(frozen=True)
class CompletionCall:
    """A request to ``/v1/completions``."""

    request: InfillRequest
    is_stream: bool
    has_usage: bool
    """Whether a stream ends with the number of tokens."""
    has_logprobs: bool
    echo: str
    """What stands before the answer."""
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))


def parse_call(body: Mapping[str, object]) -> CompletionCall:
    """Return what a body asks for.

    Raises
    ------
    ApiError
        When a field is missing, malformed or asks for what is not done here; the message names it.
    """
    refuse_other_values(body, _ONLY)
    fields = Fields(body)
    prompt = _one_text(body, "prompt")
    echoes = fields.boolean("echo", default=False)
    n_top = fields.integer("logprobs", -1, minimum=0) if body.get("logprobs") is not False else -1
    if n_top > MAX_LOGPROBS:
        raise ApiError(400, f'"logprobs" must be {MAX_LOGPROBS} or less; got {n_top}')
    if n_top >= 0 and echoes:
        raise ApiError(
            400, '"logprobs" are those of what is written here, not of the prompt: leave "echo" out'
        )
    request = InfillRequest(
        prefix=prompt,
        suffix=fields.text("suffix", ""),
        max_tokens=min(fields.integer("max_tokens", MAX_TOKENS, minimum=0), MOST_TOKENS),
        stop=stop_strings(body),
        is_raw=True,
        n_top=max(n_top, 0),
        form=wanted_form(body),
        **sampling(fields),
    )
    return CompletionCall(
        request,
        is_stream=fields.boolean("stream", default=False),
        has_usage=wants_usage(body),
        has_logprobs=n_top >= 0,
        echo=prompt if echoes else "",
    )


def _one_text(body: Mapping[str, object], name: str) -> str:
    """Return a text, which may be the only one of an array."""
    given = body.get(name)
    if isinstance(given, list):
        if len(given) != 1 or not isinstance(given[0], str):
            raise ApiError(400, f'"{name}" must be a string, or an array of one string')
        given = given[0]
    return Fields({name: given}).text(name)


def answer(call: CompletionCall, result: InfillResult, tokens: Sequence[WrittenToken], model: str) -> dict:
    """Return the response."""
    logprobs = _logprobs(call, shown_tokens(tokens, len(result.text)))
    whole = _object(call, model, call.echo + result.text, finish_reason(result), logprobs)
    return whole | {"usage": usage(result)}


def pieces(
    call: CompletionCall, event: str | InfillResult, tokens: Sequence[WrittenToken], model: str
) -> list[dict]:
    """Return the events of a streamed response for a piece of text, or for its end."""
    if isinstance(event, str):
        return [_object(call, model, event, None, _logprobs(call, tokens))]
    last = [_object(call, model, "", finish_reason(event))]
    if call.has_usage:
        last.append(_object(call, model, "", None) | {"choices": [], "usage": usage(event)})
    return last


def _object(
    call: CompletionCall, model: str, text: str, reason: str | None, logprobs: dict | None = None
) -> dict:
    choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": reason}
    return {
        "id": call.id,
        "object": "text_completion",
        "created": call.created,
        "model": model,
        "choices": [choice],
    }


def _logprobs(call: CompletionCall, tokens: Sequence[WrittenToken]) -> dict | None:
    if not call.has_logprobs:
        return None
    return {
        "tokens": [_name(token) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        # Tokens of which each is a part of a character may have the same name; the likeliest counts.
        "top_logprobs": [{_name(other): other.logprob for other in reversed(token.top)} for token in tokens],
        "text_offset": [token.start for token in tokens],
    }


def _name(token: Likelihood) -> str:
    return token.data.decode("utf-8", "replace")
