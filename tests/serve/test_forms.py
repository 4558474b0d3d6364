"""Forms that answers must have: how three dialects ask for them, and a real server with a real model."""

import dataclasses
import importlib.util
import json
import threading
import time
import urllib.error
import urllib.request

import pytest

from serve.loopback import TIMEOUT_S, running
from techtree.engines.engine import Form
from techtree.serve import chat_dialect, completions_dialect, infill_dialect, ollama_dialect
from techtree.serve.errors import ApiError

SCHEMA = {
    "type": "object",
    "properties": {"b": {"const": 1}, "a": {"enum": ["x", "é"]}},
    "required": ["b", "a"],
}
SCHEMA["additionalProperties"] = False
SCHEMA_FORM = Form("json_schema", json.dumps(SCHEMA))
ANY_OBJECT = Form("json_schema", '{"type": "object"}')
GRAMMAR = 'root ::= "yes" | "no"'
MESSAGES = [{"role": "user", "content": "hello"}]


def chat_form(**fields):
    return chat_dialect.parse_call({"messages": MESSAGES} | fields).request.form


def completion_form(**fields):
    return completions_dialect.parse_call({"prompt": "x"} | fields).request.form


def infill_form(**fields):
    return infill_dialect.parse_call({"input_prefix": "x", "input_suffix": ""} | fields).request.form


def generate_form(**fields):
    return ollama_dialect.parse_generate({"prompt": "x"} | fields, can_chat=True).request.form


def ollama_chat_form(**fields):
    return ollama_dialect.parse_chat({"messages": MESSAGES} | fields).request.form


@pytest.mark.parametrize("form", [chat_form, completion_form, infill_form])
def test_openais_and_llama_cpps_words(form):
    of_openai = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}
    assert form() is None
    assert form(response_format=None, grammar=None, json_schema=None) is None
    assert form(response_format={"type": "text"}, grammar="") is None
    assert form(response_format={"type": "json_object"}) == ANY_OBJECT
    assert form(response_format={"type": "json_object", "schema": SCHEMA}) == SCHEMA_FORM
    assert form(response_format=of_openai) == SCHEMA_FORM
    assert form(json_schema=SCHEMA) == SCHEMA_FORM  # in the order of its properties
    assert form(json_schema=True) == Form("json_schema", "true")
    assert form(json_schema={}) == Form("json_schema", "{}")
    assert form(grammar=GRAMMAR) == Form("gbnf", GRAMMAR)
    assert form(grammar=GRAMMAR, response_format={"type": "text"}) == Form("gbnf", GRAMMAR)


@pytest.mark.parametrize("form", [generate_form, ollama_chat_form])
def test_ollamas_words(form):
    assert form() is None
    assert form(format=None) is form(format="") is None
    assert form(format="json") == ANY_OBJECT
    assert form(format=SCHEMA) == SCHEMA_FORM


@pytest.mark.parametrize("form", [chat_form, completion_form, infill_form])
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"response_format": "json"}, '"response_format" must be an object'),
        ({"response_format": {"schema": {}}}, '"response_format.type" is required'),
        ({"response_format": {"type": "xml"}}, '"response_format.type" must be one of text, json_object'),
        ({"response_format": {"type": "json_schema"}}, '"response_format.json_schema.schema" must be a JSON'),
        (
            {"response_format": {"type": "json_schema", "json_schema": []}},
            '"response_format.json_schema" must',
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
            "\"response_format.json_schema.schema\" must be a JSON schema: an object, or true; got 'x'",
        ),
        ({"response_format": {"type": "json_object", "schema": 3}}, '"response_format.schema" must be'),
        ({"json_schema": "{}"}, '"json_schema" must be a JSON schema'),
        ({"grammar": 7}, '"grammar" must be a string'),
        ({"grammar": GRAMMAR, "json_schema": {}}, 'got "json_schema" and "grammar": give one'),
        ({"grammar": GRAMMAR, "response_format": {"type": "json_object"}}, "give one"),
    ],
)
def test_what_is_malformed_is_refused_by_name(form, fields, says):
    with pytest.raises(ApiError) as refused:
        form(**fields)
    assert refused.value.status == 400
    assert says in refused.value.message


@pytest.mark.parametrize("given", ["xml", "JSON", 3, True, [], ["json"]])
def test_a_format_that_ollama_does_not_know(given):
    with pytest.raises(ApiError, match='"format" must be "json" or a JSON schema'):
        generate_form(format=given)


def test_a_schema_that_is_nested_too_deeply():
    schema = {}
    for _ in range(20_000):
        schema = {"not": schema}
    with pytest.raises(ApiError, match='"json_schema" must not be nested so deeply'):
        chat_form(json_schema=schema)


@pytest.fixture(scope="module")
def address(tiny_model, tiny_tokenizer, tmp_path_factory):
    """A real server with the tiny model, which has a template for chats."""
    torch_engine = pytest.importorskip("techtree.engines.torch_engine")
    from techtree.lm.formats.huggingface import save_pretrained

    folder = tmp_path_factory.mktemp("chats") / "tiny"
    save_pretrained(folder, tiny_model, tiny_tokenizer)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}:")
    with running(torch_engine.TorchEngine.load(folder), speaks_ollama=True) as address:
        yield address


def post(address, path, **body):
    """Return status and body of the answer."""
    request = urllib.request.Request(
        address.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def is_good(text):
    return json.loads(text) in ({"b": 1, "a": "x"}, {"b": 1, "a": "é"})


TIGHT = r'root ::= "{\"b\":1,\"a\":\"" ("x" | "é") "\"}"'
"""As the schema, without the blanks of which a random model writes many."""


def test_every_route(address):
    wanted = {"grammar": TIGHT, "temperature": 0}
    _, chat = post(address, "/v1/chat/completions", messages=MESSAGES, **wanted)
    choice = json.loads(chat)["choices"][0]
    assert is_good(choice["message"]["content"])
    assert choice["finish_reason"] == "stop"
    _, completion = post(address, "/v1/completions", prompt="x", max_tokens=60, **wanted)
    choice = json.loads(completion)["choices"][0]
    assert is_good(choice["text"])
    assert choice["finish_reason"] == "stop"
    _, filled = post(address, "/infill", input_prefix="x = ", input_suffix="\ny = 2\n", **wanted)
    assert is_good(json.loads(filled)["content"])
    assert json.loads(filled)["stop_type"] == "eos"
    const = {"const": ["é", 1]}
    for path, body in (
        ("/api/generate", {"prompt": "x", "raw": True}),
        ("/api/chat", {"messages": MESSAGES}),
    ):
        _, said = post(address, path, stream=False, format=const, **body)
        said = json.loads(said)
        assert json.loads(said["response"] if "response" in said else said["message"]["content"]) == ["é", 1]
        assert said["done_reason"] == "stop"


def test_many_draws_over_the_wire(address):
    texts = set()
    for seed in range(20):
        body = {"prompt": "x", "max_tokens": 60, "grammar": TIGHT, "temperature": 3, "seed": seed}
        _, said = post(address, "/v1/completions", **body)
        assert is_good(json.loads(said)["choices"][0]["text"])
        texts.add(json.loads(said)["choices"][0]["text"])
    assert len(texts) == 2


def test_a_limit_in_the_middle_is_told(address):
    for path, body in (
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/chat/completions", {"messages": MESSAGES}),
    ):
        _, said = post(address, path, max_tokens=3, grammar=TIGHT, **body)
        choice = json.loads(said)["choices"][0]
        assert choice["finish_reason"] == "length"
        text = choice.get("text") or choice["message"]["content"]
        assert '{"b":1,"a":"'.startswith(text)


def test_a_stream_with_log_probabilities(address):
    body = {"messages": MESSAGES, "grammar": TIGHT, "stream": True, "logprobs": True, "top_logprobs": 3}
    _, said = post(address, "/v1/chat/completions", **body)
    *events, done, _ = said.split("\n\n")
    assert done == "data: [DONE]"
    choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
    assert is_good("".join(choice["delta"].get("content") or "" for choice in choices))
    tokens = [token for choice in choices for token in (choice["logprobs"] or {"content": []})["content"]]
    assert is_good(bytes(byte for token in tokens for byte in token["bytes"]))
    assert all(token["logprob"] <= 0 and len(token["top_logprobs"]) == 3 for token in tokens)
    assert choices[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"grammar": 'x ::= "a"'}, "a rule root"),
        ({"grammar": "root ::= thing"}, "no 'thing'"),
        ({"grammar": "root ::= " + "\ud800"}, "GBNF"),
        ({"grammar": 'root ::= "a"' + " " * 64_000}, "64000 bytes"),
        ({"json_schema": False}, "something satisfies"),
        ({"json_schema": {"type": "string", "pattern": "[a"}}, "unclosed character class"),
        ({"json_schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"json_schema": {"enum": [f"v{i}" for i in range(9000)]}}, "64000 bytes"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_what_cannot_be_kept_to_is_refused(address, fields, says, is_stream):
    status, said = post(address, "/v1/completions", prompt="x", stream=is_stream, **fields)
    assert status == 400
    assert says in json.loads(said)["error"]["message"]


def test_what_would_end_the_process_does_not(address):
    links = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(1500)} | {"d1500": {}}
    nested = {}
    for _ in range(300):
        nested = {"items": nested}
    patterns = {"allOf": [{"type": "string", "pattern": f".*a{i}.*"} for i in range(20)]}
    rules = "root ::= r0\n" + "".join(f'r{i} ::= "(" r{i + 1} ")"\n' for i in range(600)) + 'r600 ::= "a"'
    for fields in (
        {"json_schema": {"$ref": "#/$defs/d0", "$defs": links}},
        {"json_schema": nested},
        {"json_schema": patterns},
        {"grammar": rules},
        {"grammar": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000},
    ):
        status, said = post(address, "/v1/completions", prompt="x", **fields)
        assert status == 400, said
    assert post(address, "/v1/completions", prompt="x", max_tokens=2)[0] == 200


def test_others_are_answered_while_a_schema_compiles(address):
    slow = {"type": "integer", "multipleOf": 1000003}
    refused = []
    thread = threading.Thread(
        target=lambda: refused.append(post(address, "/v1/completions", prompt="x", json_schema=slow))
    )
    thread.start()
    time.sleep(0.2)
    n_answered = 0
    while thread.is_alive():
        assert post(address, "/v1/completions", prompt="x", max_tokens=2)[0] == 200
        n_answered += 1
    thread.join()
    assert refused[0][0] == 400
    assert n_answered > 2


@pytest.mark.peer
@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="needs openai: pip install openai")
def test_openais_real_client(address):
    import openai

    with openai.OpenAI(base_url=f"{address.url}/v1", api_key="none", max_retries=0) as client:
        schema = {"name": "n", "strict": True, "schema": {"const": {"b": [1, "é"]}}}
        wanted = {"type": "json_schema", "json_schema": schema}
        asked = {"model": "tiny", "messages": MESSAGES, "temperature": 0}
        said = client.chat.completions.create(**asked, response_format=wanted).choices[0]
        assert json.loads(said.message.content) == {"b": [1, "é"]}
        assert said.finish_reason == "stop"
        with client.chat.completions.create(**asked, response_format=wanted, stream=True) as events:
            text = "".join(event.choices[0].delta.content or "" for event in events)
        assert text == said.message.content
        any_object = {"type": "json_object"}
        said = client.chat.completions.create(**asked, response_format=any_object, max_tokens=20).choices[0]
        assert said.message.content.lstrip()[0] == "{"
        schema = {"name": "n", "schema": {"type": "array", "uniqueItems": True}}
        with pytest.raises(openai.BadRequestError, match="uniqueItems"):
            client.chat.completions.create(**asked, response_format=wanted | {"json_schema": schema})
        more = {"grammar": GRAMMAR}
        said = client.completions.create(model="tiny", prompt="x", temperature=0, extra_body=more)
        assert said.choices[0].text in ("yes", "no")


@pytest.mark.peer
@pytest.mark.skipif(importlib.util.find_spec("ollama") is None, reason="needs ollama: pip install ollama")
def test_ollamas_real_client(address):
    import ollama

    client = ollama.Client(address.url)
    try:
        schema = {"const": {"b": [1, "é"]}}
        options = {"temperature": 0, "num_predict": 60}
        said = client.chat("tiny", MESSAGES, format=schema, options=options)
        assert json.loads(said.message.content) == {"b": [1, "é"]}
        said = client.generate("tiny", "x", format=schema, options=options)
        assert (json.loads(said.response), said.done_reason) == ({"b": [1, "é"]}, "stop")
        pieces = client.generate("tiny", "x", format=schema, options=options, stream=True)
        assert "".join(piece.response for piece in pieces) == said.response
        assert client.generate("tiny", "x", format="json", options=options).response.lstrip()[0] == "{"
        with pytest.raises(ollama.ResponseError, match="uniqueItems"):
            client.generate("tiny", "x", format={"type": "array", "uniqueItems": True})
    finally:
        client._client.close()


def test_the_request_carries_nothing_else():
    plain = chat_dialect.parse_call({"messages": MESSAGES}).request
    formed = chat_dialect.parse_call({"messages": MESSAGES, "grammar": GRAMMAR}).request
    assert dataclasses.replace(formed, form=None) == plain
