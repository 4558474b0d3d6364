"""The dialect of Ollama's API, as its client library and editors speak it: pure functions.

Answers are streamed unless a request says otherwise, one JSON object a line. With a `suffix`, what stands
between is filled in as for an editor; a prompt goes through the model's chat template, if it has one and the
request does not say `raw`.
"""

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from techtree.engines.engine import ChatRequest, Engine, InfillRequest, InfillResult, Message
from techtree.serve.chat_dialect import parse_messages
from techtree.serve.fields import Fields
from techtree.serve.forms import ollama_form
from techtree.serve.openai_fields import MOST_TOKENS, finish_reason, refuse_other_values, stop_strings

VERSION = "0.6.4"
"""Of the API that is spoken; VS Code asks for this or more."""

MAX_TOKENS = 512
"""When a request does not say how many tokens it wants, or wants as many as there are."""

_ONLY: dict[str, tuple[object, ...]] = {
    "images": ([],),
    "tools": ([],),
    "context": ([],),
    "think": (False,),
}
"""Fields that may be given, but only with these values."""

_NO_TEMPLATE = "{{ .Prompt }}"
_FILLS_IN = "{{ if .Suffix }}{{ .Prompt }}{{ .Suffix }}{{ else }}{{ .Prompt }}{{ end }}"
"""What Continue looks into for `.Suffix`; the prompt itself is made here."""


@dataclass(frozen=True)
class OllamaCall:
    """A request to ``/api/generate`` or ``/api/chat``."""

    request: InfillRequest | ChatRequest
    is_stream: bool
    is_chat: bool
    """Whether the answer has the form of a message."""
    is_empty: bool = False
    """Whether nothing is asked, but to load the model."""


def parse_generate(body: Mapping[str, object], *, can_chat: bool) -> OllamaCall:
    """Return what a body of ``/api/generate`` asks for.

    Parameters
    ----------
    body
        The request.
    can_chat
        Whether the model has a chat template.

    Raises
    ------
    ApiError
        When a field is missing, malformed or asks for what is not done here; the message names it.
    """
    refuse_other_values(body, _ONLY)
    fields = Fields(body)
    prompt, suffix = fields.text("prompt", ""), fields.text("suffix", "")
    system, is_raw = fields.text("system", ""), fields.boolean("raw", default=False)
    is_stream = fields.boolean("stream", default=True)
    if suffix:
        request = InfillRequest(prompt, suffix, **_options(body, temperature=0.0))
    elif is_raw or not can_chat:
        request = InfillRequest(prompt, is_raw=True, **_options(body))
    else:
        messages = (Message("system", system),) if system else ()
        request = ChatRequest((*messages, Message("user", prompt)), **_options(body))
    return OllamaCall(request, is_stream, is_chat=False, is_empty=not prompt and not suffix)


def parse_chat(body: Mapping[str, object]) -> OllamaCall:
    """Return what a body of ``/api/chat`` asks for; see `parse_generate`."""
    refuse_other_values(body, _ONLY)
    fields = Fields(body)
    is_stream = fields.boolean("stream", default=True)
    if not fields.objects("messages"):
        return OllamaCall(ChatRequest(()), is_stream, is_chat=True, is_empty=True)
    return OllamaCall(ChatRequest(parse_messages(fields), **_options(body)), is_stream, is_chat=True)


def _options(body: Mapping[str, object], temperature: float = 0.8) -> dict:
    """Return how to generate, with Ollama's defaults."""
    given = Fields(body).nested("options")
    fields = Fields(given, "options.")
    n_predict = fields.integer("num_predict", -1, minimum=-2)
    seed = fields.integer("seed", -1)
    return {
        "max_tokens": MAX_TOKENS if n_predict < 0 else min(n_predict, MOST_TOKENS),
        "stop": stop_strings(given),
        "temperature": fields.number("temperature", temperature, minimum=0),
        "top_k": max(fields.integer("top_k", 40), 0),
        "top_p": min(fields.number("top_p", 0.9, minimum=0), 1.0),
        "min_p": min(fields.number("min_p", 0.0, minimum=0), 1.0),
        "seed": seed if seed >= 0 else None,
        "form": ollama_form(body),
    }


def piece(call: OllamaCall, text: str, model: str) -> dict:
    """Return the line of a piece of text."""
    return _line(call, text, model) | {"done": False}


def last_piece(call: OllamaCall, result: InfillResult, model: str, text: str = "") -> dict:
    """Return the line that ends an answer; it is all of it where that is not streamed."""
    prompt_ns, eval_ns = round(result.prompt_ms * 1e6), round(result.predicted_ms * 1e6)
    return _line(call, text, model) | {
        "done": True,
        "done_reason": "load" if call.is_empty else finish_reason(result),
        "total_duration": prompt_ns + eval_ns,
        "load_duration": 0,
        "prompt_eval_count": result.n_prompt,
        "prompt_eval_duration": prompt_ns,
        "eval_count": result.n_predicted,
        "eval_duration": eval_ns,
    }


def _line(call: OllamaCall, text: str, model: str) -> dict:
    said = {"message": {"role": "assistant", "content": text}} if call.is_chat else {"response": text}
    return {"model": model, "created_at": _now(), **said}


def tags(engine: Engine, started: datetime.datetime) -> dict:
    """Return the list of models: the one."""
    model = {
        "name": engine.name,
        "model": engine.name,
        "modified_at": started.isoformat(),
        "size": 0,
        "digest": hashlib.sha256(engine.name.encode()).hexdigest(),
        "details": _details(),
    }
    return {"models": [model]}


def show(engine: Engine) -> dict:
    """Return what the model can do."""
    capabilities = ["completion", "insert"] if engine.can_fill_in else ["completion"]
    return {
        "modelfile": "",
        "parameters": f"num_ctx {engine.context_length}",
        "template": _FILLS_IN if engine.can_fill_in else _NO_TEMPLATE,
        "details": _details(),
        "model_info": {
            "general.architecture": "techtree",
            "general.basename": engine.name,
            "techtree.context_length": engine.context_length,
        },
        "capabilities": capabilities,
    }


def _details() -> dict:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "techtree",
        "families": ["techtree"],
        "parameter_size": "",
        "quantization_level": "",
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
