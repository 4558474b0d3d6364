"""The dialect of OpenAI's ``POST /v1/completions``, as its client libraries speak it: pure functions.

A prompt is continued; with a ``suffix``, what stands between is written. Nothing but the stop strings shapes
the text. What is not done here (several choices, log-probabilities, penalties, prompts of ids) is refused by
its name, for an answer without it would look like one with it.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from techtree.engines.engine import InfillRequest, InfillResult
from techtree.serve.errors import ApiError
from techtree.serve.fields import Fields

MAX_TOKENS = 16
"""When a request does not say how many tokens it wants: OpenAI's number."""
MOST_TOKENS = 2048
"""More are never generated."""
MAX_STOP_STRINGS = 64
_ONLY: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (0, False),
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
    for name, allowed in _ONLY.items():
        if body.get(name) is not None and body[name] not in allowed:
            raise ApiError(400, f'"{name}" must be {allowed[0]!r} here; got {body[name]!r}: leave it out')
    fields = Fields(body)
    prompt = _one_text(body, "prompt")
    seed = fields.integer("seed", -1)
    request = InfillRequest(
        prefix=prompt,
        suffix=fields.text("suffix", ""),
        max_tokens=min(fields.integer("max_tokens", MAX_TOKENS, minimum=0), MOST_TOKENS),
        stop=_stop(body),
        temperature=fields.number("temperature", 1.0, minimum=0),
        top_p=min(fields.number("top_p", 1.0, minimum=0), 1.0),
        seed=seed if seed >= 0 else None,
        is_raw=True,
    )
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ApiError(400, f'"stream_options" must be an object; got {options!r}')
    return CompletionCall(
        request,
        is_stream=fields.boolean("stream", default=False),
        has_usage=Fields(options, "stream_options.").boolean("include_usage", default=False),
        echo=prompt if fields.boolean("echo", default=False) else "",
    )


def _one_text(body: Mapping[str, object], name: str) -> str:
    """Return a text, which may be the only one of an array."""
    given = body.get(name)
    if isinstance(given, list):
        if len(given) != 1 or not isinstance(given[0], str):
            raise ApiError(400, f'"{name}" must be a string, or an array of one string')
        given = given[0]
    return Fields({name: given}).text(name)


def _stop(body: Mapping[str, object]) -> tuple[str, ...]:
    given = body.get("stop")
    texts = (given,) if isinstance(given, str) else Fields(body).texts("stop") or ()
    if len(texts) > MAX_STOP_STRINGS:
        raise ApiError(400, f'"stop" must have {MAX_STOP_STRINGS} strings or fewer; got {len(texts)}')
    return tuple(text for text in texts if text)


def answer(call: CompletionCall, result: InfillResult, model: str) -> dict:
    """Return the response."""
    return _object(call, model, call.echo + result.text, _reason(result)) | {"usage": _usage(result)}


def pieces(call: CompletionCall, event: str | InfillResult, model: str) -> list[dict]:
    """Return the events of a streamed response for a piece of text, or for its end."""
    if isinstance(event, str):
        return [_object(call, model, event, None)]
    last = [_object(call, model, "", _reason(event))]
    if call.has_usage:
        last.append(_object(call, model, "", None) | {"choices": [], "usage": _usage(event)})
    return last


def _object(call: CompletionCall, model: str, text: str, reason: str | None) -> dict:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}
    return {
        "id": call.id,
        "object": "text_completion",
        "created": call.created,
        "model": model,
        "choices": [choice],
    }


def _reason(result: InfillResult) -> str:
    return "stop" if result.stop in ("end_of_text", "stop_string") else "length"


def _usage(result: InfillResult) -> dict[str, int]:
    return {
        "prompt_tokens": result.n_prompt,
        "completion_tokens": result.n_predicted,
        "total_tokens": result.n_prompt + result.n_predicted,
    }
