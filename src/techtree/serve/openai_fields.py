"""What OpenAI's completions and chats have in common: the fields of a request, and the parts of an answer."""

from collections.abc import Mapping, Sequence

from techtree.engines.engine import InfillResult, WrittenToken
from techtree.serve.errors import ApiError
from techtree.serve.fields import Fields

MOST_TOKENS = 2048
"""More are never generated."""
MAX_STOP_STRINGS = 64


def refuse_other_values(body: Mapping[str, object], only: Mapping[str, Sequence[object]]) -> None:
    """Refuse a field that asks for what is not done here.

    Parameters
    ----------
    body
        The request.
    only
        The values that a field may have, by its name.

    Raises
    ------
    ApiError
        400, with the field's name.
    """
    for name, allowed in only.items():
        if body.get(name) is not None and body[name] not in allowed:
            raise ApiError(400, f'"{name}" must be {allowed[0]!r} here; got {body[name]!r}: leave it out')


def sampling(fields: Fields) -> dict:
    """Return how to choose tokens, with OpenAI's defaults; `top_k` and `min_p` are llama.cpp's."""
    seed = fields.integer("seed", -1)
    return {
        "temperature": fields.number("temperature", 1.0, minimum=0),
        "top_k": max(fields.integer("top_k", 0), 0),
        "top_p": min(fields.number("top_p", 1.0, minimum=0), 1.0),
        "min_p": min(fields.number("min_p", 0.0, minimum=0), 1.0),
        "seed": seed if seed >= 0 else None,
    }


def stop_strings(body: Mapping[str, object]) -> tuple[str, ...]:
    """Return the strings that end a text: one, or an array of some."""
    given = body.get("stop")
    texts = (Fields(body).text("stop"),) if isinstance(given, str) else Fields(body).texts("stop") or ()
    if len(texts) > MAX_STOP_STRINGS:
        raise ApiError(400, f'"stop" must have {MAX_STOP_STRINGS} strings or fewer; got {len(texts)}')
    return tuple(text for text in texts if text)


def wants_usage(body: Mapping[str, object]) -> bool:
    """Return whether a stream is to end with the number of tokens."""
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ApiError(400, f'"stream_options" must be an object; got {options!r}')
    return Fields(options, "stream_options.").boolean("include_usage", default=False)


def finish_reason(result: InfillResult) -> str:
    """Return OpenAI's name for why a text ended."""
    return "stop" if result.stop in ("end_of_text", "stop_string") else "length"


def usage(result: InfillResult) -> dict[str, int]:
    """Return the number of tokens."""
    return {
        "prompt_tokens": result.n_prompt,
        "completion_tokens": result.n_predicted,
        "total_tokens": result.n_prompt + result.n_predicted,
    }


def shown_tokens(tokens: Sequence[WrittenToken], n_chars: int) -> list[WrittenToken]:
    """Return the tokens of a text of so many characters: not those that a stop string took back."""
    return [token for token in tokens if token.start < n_chars]
