"""Ollama's API: what clients send and read. The real client, where it is installed, has its test."""

import importlib.util
import json

import pytest
from starlette.testclient import TestClient

from serve.loopback import FakeEngine, running
from techtree.engines.engine import ChatRequest, InfillRequest, InfillResult, Message
from techtree.errors import InputError
from techtree.serve.app import create_app
from techtree.serve.errors import ApiError
from techtree.serve.ollama_dialect import MAX_TOKENS, last_piece, parse_chat, parse_generate

BASE = "http://127.0.0.1:8012"
DEFAULTS = {"max_tokens": MAX_TOKENS, "temperature": 0.8, "top_k": 40, "top_p": 0.9}


@pytest.fixture
def client(engine):
    app = create_app(engine, speaks_ollama=True)
    with TestClient(app, BASE, raise_server_exceptions=False) as client:
        yield client


def lines_of(answer):
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    *lines, rest = answer.text.split("\n")
    assert rest == ""
    return list(map(json.loads, lines))


def test_a_prompt_is_a_message_where_the_model_can_chat():
    call = parse_generate({"model": "m", "prompt": "hello", "system": "be brief"}, can_chat=True)
    said = (Message("system", "be brief"), Message("user", "hello"))
    assert call.request == ChatRequest(said, **DEFAULTS)
    assert call.is_stream
    for body, can_chat in (({}, False), ({"raw": True}, True)):
        call = parse_generate({"prompt": "hello"} | body, can_chat=can_chat)
        assert call.request == InfillRequest("hello", is_raw=True, **DEFAULTS)


def test_a_suffix_is_filled_in_before_and_every_option():
    options = {"num_predict": 9, "stop": ["\n\n"], "temperature": 0.1, "top_k": 3, "top_p": 0.5, "min_p": 0.2}
    body = {"prompt": "a", "suffix": "b", "stream": False, "options": options | {"seed": 7, "num_ctx": 99}}
    call = parse_generate(body, can_chat=True)
    expected = InfillRequest(
        "a", "b", max_tokens=9, stop=("\n\n",), temperature=0.1, top_k=3, top_p=0.5, min_p=0.2, seed=7
    )
    assert call.request == expected
    assert not call.is_stream
    assert parse_generate({"prompt": "a", "suffix": "b"}, can_chat=True).request.temperature == 0


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": "a", "format": "xml"}, "format"),
        ({"prompt": "a", "images": ["x"]}, "images"),
        ({"prompt": "a", "stream": "yes"}, "stream"),
        ({"prompt": "a", "options": []}, "options"),
        ({"prompt": "a", "options": {"num_predict": "x"}}, "options.num_predict"),
        ({"prompt": "a", "options": {"temperature": -1}}, "options.temperature"),
    ],
)
def test_what_is_refused_is_named(client, body, named):
    with pytest.raises(ApiError, match=f'"{named}"'):
        parse_generate(body, can_chat=True)
    refused = client.post("/api/generate", json=body)
    assert refused.status_code == 400
    assert named in refused.json()["error"]  # a text, as Ollama's clients read it


def test_tools_are_refused_and_a_message_is_checked():
    with pytest.raises(ApiError, match='"tools"'):
        parse_chat({"messages": [{"role": "user", "content": "x"}], "tools": [{}]})
    with pytest.raises(ApiError, match=r'"messages\[0\].role"'):
        parse_chat({"messages": [{"role": "root", "content": "x"}]})


def test_generated_text(client, engine):
    *pieces, last = lines_of(client.post("/api/generate", json={"model": "m", "prompt": "x"}))
    assert [piece["response"] for piece in pieces] == ["return ", "a + b"]
    assert not any(piece["done"] for piece in pieces)
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "stop")
    assert (last["prompt_eval_count"], last["eval_count"], last["eval_duration"]) == (20, 4, 8_000_000)
    whole = client.post("/api/generate", json={"prompt": "x", "suffix": "y", "stream": False}).json()
    assert (whole["response"], whole["done"]) == ("return a + b", True)
    assert engine.requests[-1].suffix == "y"


def test_a_chat(client):
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    *pieces, last = lines_of(client.post("/api/chat", json=body))
    said = [piece["message"] for piece in (*pieces, last)]
    assert [message["content"] for message in said] == ["return ", "a + b", ""]
    assert {message["role"] for message in said} == {"assistant"}
    whole = client.post("/api/chat", json=body | {"stream": False}).json()
    assert whole["message"] == {"role": "assistant", "content": "return a + b"}


def test_nothing_asked_loads_the_model(client, engine):
    for path, body in (("/api/generate", {"model": "m"}), ("/api/chat", {"model": "m", "messages": []})):
        answered = client.post(path, json=body).json()
        assert (answered["done"], answered["done_reason"]) == (True, "load")
    assert not engine.requests


def test_what_editors_probe(client, engine):
    assert client.get("/").text == "Ollama is running"
    assert client.head("/").status_code == 200
    assert client.get("/api/version").json() == {"version": "0.6.4"}
    [model] = client.get("/api/tags").json()["models"]
    assert model["name"] == model["model"] == "fake"
    for body in ({"name": "fake"}, {"model": "fake"}):
        shown = client.post("/api/show", json=body).json()
        assert ".Suffix" in shown["template"]
        assert shown["capabilities"] == ["completion", "insert"]
        family = shown["model_info"]["general.architecture"]
        assert shown["model_info"][f"{family}.context_length"] == 512
    engine.can_fill_in = False
    shown = client.post("/api/show", json={"model": "fake"}).json()
    assert ".Suffix" not in shown["template"]
    assert shown["capabilities"] == ["completion"]


def test_a_refusal_of_the_engine_and_why_a_text_ends(client, engine):
    engine.pieces, engine.error = (), InputError("this model has no chat template")
    refused = client.post("/api/chat", json={"messages": [{"role": "user", "content": "x"}]})
    assert (refused.status_code, refused.json()) == (400, {"error": "this model has no chat template"})
    call = parse_generate({"prompt": "x"}, can_chat=False)
    assert last_piece(call, InfillResult("x", "max_tokens"), "m")["done_reason"] == "length"


def test_it_is_there_on_request_only_and_guarded():
    plain = TestClient(create_app(FakeEngine()), BASE)
    for path in ("/", "/api/version", "/api/tags"):
        assert plain.get(path).status_code == 404
    guarded = TestClient(create_app(FakeEngine(), api_key="key", speaks_ollama=True), BASE)
    assert guarded.get("/api/tags").status_code == 401
    assert (
        guarded.post("/api/chat", json={"messages": []}, headers={"host": "evil.example"}).status_code == 403
    )
    body = b'{"prompt":"x"}'
    own = TestClient(create_app(FakeEngine(), speaks_ollama=True), BASE)
    # A web page may send this without asking; Ollama itself would answer.
    assert own.post("/api/generate", content=body, headers={"content-type": "text/plain"}).status_code == 400


@pytest.mark.peer
@pytest.mark.skipif(importlib.util.find_spec("ollama") is None, reason="needs ollama: pip install ollama")
def test_the_real_client():
    import ollama

    with running(FakeEngine(), speaks_ollama=True) as address:
        client = ollama.Client(address.url)
        try:
            assert client.list().models[0].model == "fake"
            assert "insert" in client.show("fake").capabilities
            said = client.generate("fake", "a", suffix="b", options={"num_predict": 9, "stop": ["z"]})
            assert (said.response, said.done_reason, said.eval_count) == ("return a + b", "stop", 4)
            pieces = client.generate("fake", "a", stream=True)
            assert "".join(piece.response for piece in pieces) == "return a + b"
            messages = [{"role": "user", "content": "x"}]
            assert client.chat("fake", messages).message.content == "return a + b"
            pieces = client.chat("fake", messages, stream=True)
            assert "".join(piece.message.content for piece in pieces) == "return a + b"
            with pytest.raises(ollama.ResponseError, match="think"):
                client.generate("fake", "a", think=True)
        finally:
            client._client.close()
