"""The dialect of llama.cpp's ``POST /infill``, as llama.vim and llama.vscode speak it: pure functions.

Where we differ: text is greedy unless the request names a temperature (a small model's best guess is
better than its second best), and of several completions (``n_cmpl``) the first is returned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from techtree.engines.engine import Chunk, InfillRequest, InfillResult
from techtree.serve.errors import ApiError
from techtree.serve.fields import Fields
from techtree.serve.forms import wanted_form

N_PREDICT = 128
"""When a request does not say how many tokens it wants."""

MAX_N_PREDICT = 512
"""More are never generated, however many a request wants."""

UNLIMITED = (-1, -2)
"""llama.cpp's words for as many tokens as there are, and as many as its context holds."""

UNNAMED_FILE = "tmp"
"""llama.cpp's name for the file of a chunk that comes without."""

MAX_STOP_STRINGS = 64

SAMPLING_DEFAULTS = {"top_k": 40, "top_p": 0.95, "min_p": 0.05}
"""llama.cpp's, for requests with a temperature."""

STOP_TYPES = {"end_of_text": "eos", "stop_string": "word", "cancelled": "none"}
"""llama.cpp's names for why a text ends; any other reason is "limit"."""


@dataclass(frozen=True)
class InfillCall:
    """A request to ``/infill``."""

    request: InfillRequest
    is_stream: bool
    response_fields: tuple[str, ...] | None
    """What to return; all when None."""


def parse_call(body: Mapping[str, object]) -> InfillCall:
    """Return what a body asks for.

    Raises
    ------
    ApiError
        When a field is missing or malformed; the message names it.
    """
    fields = Fields(body)
    prefix = fields.text("input_prefix")
    suffix = fields.text("input_suffix")
    prompt = fields.text("prompt", "")
    extra = tuple(
        Chunk(chunk.text("filename", UNNAMED_FILE), chunk.text("text"))
        for chunk in fields.objects("input_extra")
    )
    stop = fields.texts("stop") or ()
    if len(stop) > MAX_STOP_STRINGS:
        raise ApiError(400, f'"stop" must have {MAX_STOP_STRINGS} strings or fewer; got {len(stop)}')
    slot = fields.integer("id_slot", -1, minimum=-1)
    request = InfillRequest(
        prefix=prefix + prompt,
        suffix=suffix,
        extra=extra,
        max_tokens=_n_predict(fields),
        stop=tuple(string for string in stop if string),
        n_indent=fields.integer("n_indent", 0, minimum=0),
        max_line_ms=fields.number("t_max_predict_ms", 0, minimum=0) or None,
        slot=None if slot < 0 else slot,
        form=wanted_form(body),
        **_sampling(fields),
    )
    return InfillCall(request, fields.boolean("stream", default=False), fields.texts("response_fields"))


def _n_predict(fields: Fields) -> int:
    n_predict = fields.integer("n_predict", N_PREDICT, minimum=min(UNLIMITED))
    return MAX_N_PREDICT if n_predict in UNLIMITED else min(n_predict, MAX_N_PREDICT)


def _sampling(fields: Fields) -> dict:
    """Return how to sample. Of the filters, those count that ``samplers`` names, if it is given."""
    temperature = fields.number("temperature", 0, minimum=0)
    top_k = fields.integer("top_k", SAMPLING_DEFAULTS["top_k"])
    top_p = fields.number("top_p", SAMPLING_DEFAULTS["top_p"], minimum=0)
    min_p = fields.number("min_p", SAMPLING_DEFAULTS["min_p"], minimum=0)
    seed = fields.integer("seed", -1)
    samplers = fields.texts("samplers")
    chosen = set(SAMPLING_DEFAULTS if samplers is None else samplers)
    return {
        "temperature": temperature,
        "top_k": max(top_k, 0) if "top_k" in chosen else 0,
        "top_p": min(top_p, 1.0) if "top_p" in chosen else 1.0,
        "min_p": min(min_p, 1.0) if "min_p" in chosen else 0.0,
        "seed": seed if seed >= 0 else None,
    }


def answer(call: InfillCall, result: InfillResult, model: str) -> dict:
    """Return the response, with all fields or those that were asked for.

    A field like ``timings/prompt_n`` is a path into the response, and a key of the returned object as it
    is. What does not exist is left out; so ``[""]`` asks for nothing.
    """
    response = _full_answer(call.request, result, model)
    if call.response_fields is None:
        return response
    chosen = {}
    for name in call.response_fields:
        value = _at_path(response, name.split("/"))
        if value is not None:
            chosen[name] = value
    return chosen


def piece(call: InfillCall, text: str) -> dict:
    """Return one event of a streamed response."""
    return {"index": 0, "content": text, "tokens": [], "stop": False, "id_slot": _slot(call.request)}


def last_piece(call: InfillCall, result: InfillResult, model: str) -> dict:
    """Return the last event of a streamed response: all but the text, which is out already."""
    return answer(call, result, model) | {"content": ""}


def _full_answer(request: InfillRequest, result: InfillResult, model: str) -> dict:
    # Half of an answer that was cancelled must not stay in an editor's cache as a suggestion.
    text = "" if result.stop == "cancelled" else result.text
    return {
        "content": text,
        "index": 0,
        "tokens": [],
        "id_slot": _slot(request),
        "stop": True,
        "model": model,
        "tokens_predicted": result.n_predicted,
        "tokens_evaluated": result.n_prompt,
        "generation_settings": {
            "n_predict": request.max_tokens,
            "temperature": request.temperature,
            "top_k": request.top_k,
            "top_p": request.top_p,
            "min_p": request.min_p,
            "seed": -1 if request.seed is None else request.seed,
            "stop": list(request.stop),
        },
        "has_new_line": "\n" in text,
        "truncated": result.is_truncated,
        "stop_type": STOP_TYPES.get(result.stop, "limit"),
        "stopping_word": result.stopping_word,
        # The last token has been written, but not read.
        "tokens_cached": result.n_prompt + max(result.n_predicted - 1, 0),
        "timings": _timings(result),
    }


def _timings(result: InfillResult) -> dict:
    n_run = result.n_prompt - result.n_reused
    return {
        "cache_n": result.n_reused,
        **_rates("prompt", n_run, result.prompt_ms),
        **_rates("predicted", result.n_predicted, result.predicted_ms),
    }


def _rates(what: str, n: int, ms: float) -> dict:
    """Return a count and a time, and each per the other; 0 where there is nothing to divide by."""
    return {
        f"{what}_n": n,
        f"{what}_ms": round(ms, 3),
        f"{what}_per_token_ms": round(ms / n, 3) if n else 0.0,
        f"{what}_per_second": round(1000 * n / ms, 3) if ms else 0.0,
    }


def _slot(request: InfillRequest) -> int:
    return 0 if request.slot is None else request.slot


def _at_path(values: object, path: Sequence[str]) -> object:
    for name in path:
        if not isinstance(values, dict):
            return None
        values = values.get(name)
    return values
