"""The forms that an answer must have, as three dialects name them: pure functions.

OpenAI     response_format: {"type": "text" | "json_object" | "json_schema", "json_schema": {"schema": ...}}
llama.cpp  json_schema: a schema, or grammar: a text; also {"type": "json_object", "schema": ...} in the above
Ollama     format: "json", or a schema
"""

import json
from collections.abc import Mapping

from techtree.engines.engine import Form
from techtree.serve.errors import ApiError
from techtree.serve.fields import Fields

_FORMATS = ("text", "json_object", "json_schema")
_ANY_OBJECT: Mapping[str, object] = {"type": "object"}


def wanted_form(body: Mapping[str, object]) -> Form | None:
    """Return the form that a request in OpenAI's or llama.cpp's dialect asks for, if any.

    Raises
    ------
    ApiError
        When it is malformed, or more than one is asked for; the message names the field.
    """
    fields = Fields(body)
    forms = {
        "response_format": _response_format(fields),
        "json_schema": _schema(body, "json_schema") if body.get("json_schema") is not None else None,
        "grammar": Form("gbnf", grammar) if (grammar := fields.text("grammar", "")) else None,
    }
    given = [name for name, form in forms.items() if form is not None]
    if len(given) > 1:
        raise ApiError(400, f'an answer must have one form; got "{given[0]}" and "{given[1]}": give one')
    return forms[given[0]] if given else None


def ollama_form(body: Mapping[str, object]) -> Form | None:
    """Return the form that a request in Ollama's dialect asks for, if any; see `wanted_form`."""
    given = body.get("format")
    if given is None or given == "":
        return None
    if given == "json":
        return _schema({"format": _ANY_OBJECT}, "format")
    if not isinstance(given, dict):
        raise Fields(body).error("format", '"json" or a JSON schema', given)
    return _schema(body, "format")


def _response_format(fields: Fields) -> Form | None:
    given = fields.nested("response_format")
    if not given:
        return None
    parts = Fields(given, "response_format.")
    kind = parts.text("type")
    if kind not in _FORMATS:
        raise parts.error("type", f"one of {', '.join(_FORMATS)}", kind)
    if kind == "text":
        return None
    if kind == "json_object":
        return _schema({"schema": _ANY_OBJECT} | dict(given), "schema", "response_format.")
    return _schema(parts.nested("json_schema"), "schema", "response_format.json_schema.")


def _schema(values: Mapping[str, object], name: str, where: str = "") -> Form:
    """Return the form of a schema, which must be given."""
    schema = values.get(name)
    if not isinstance(schema, dict | bool):
        raise Fields(values, where).error(name, "a JSON schema: an object, or true", schema)
    try:
        return Form("json_schema", json.dumps(schema))
    except RecursionError:
        raise ApiError(400, f'"{where}{name}" must not be nested so deeply') from None
