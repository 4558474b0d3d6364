"""The routes, without a network between; the request is llama.vim's own."""

import json
import logging

import pytest
from starlette.testclient import TestClient

from techtree.engines.engine import EngineBusyError
from techtree.errors import InputError
from techtree.serve.app import create_app
from techtree.serve.body import MAX_BODY_BYTES

BASE = "http://127.0.0.1:8012"
BODY = {"input_prefix": "def add(a, b):\n", "input_suffix": "\n", "prompt": "    "}

LLAMA_VIM = {
    "id_slot": 0,
    "input_prefix": "import os\n\n\ndef add(a, b):\n",
    "input_suffix": "\n\nprint(add(1, 2))\n",
    "input_extra": [{"text": "x = 1\n", "time": 1.5, "filename": "tmp.py"}],
    "prompt": "    return ",
    "n_predict": 128,
    "stop": [],
    "n_indent": 4,
    "top_k": 40,
    "top_p": 0.90,
    "samplers": ["top_k", "top_p", "infill"],
    "stream": False,
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 250,
    "response_fields": [
        "content",
        "timings/prompt_n",
        "timings/prompt_ms",
        "timings/prompt_per_token_ms",
        "timings/prompt_per_second",
        "timings/predicted_n",
        "timings/predicted_ms",
        "timings/predicted_per_token_ms",
        "timings/predicted_per_second",
        "truncated",
        "tokens_cached",
    ],
}
WARM_UP = {
    "id_slot": 0,
    "input_prefix": "",
    "input_suffix": "",
    "input_extra": [{"text": "x = 1\n", "time": 1.5, "filename": "tmp.py"}],
    "prompt": "",
    "n_predict": 0,
    "temperature": 0.0,
    "samplers": [],
    "stream": False,
    "cache_prompt": True,
    "t_max_prompt_ms": 1,
    "t_max_predict_ms": 1,
    "response_fields": [""],
}


def test_llama_vims_request(client, engine):
    answer = client.post("/infill", json=LLAMA_VIM)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    # Vim reads line by line, and looks for these bytes before it parses anything.
    assert answer.text.startswith('{"content":"return a + b",')
    assert "\n" not in answer.text
    assert list(answer.json()) == LLAMA_VIM["response_fields"]
    [request] = engine.requests
    assert request.prefix == "import os\n\n\ndef add(a, b):\n    return "
    assert (request.slot, request.max_tokens, request.n_indent) == (0, 128, 4)
    assert request.max_line_ms == 250
    assert request.temperature == 0


def test_the_warm_up_costs_nothing(client, engine):
    answer = client.post("/infill", json=WARM_UP)
    assert (answer.status_code, answer.text) == (200, "{}")
    assert engine.requests == []


def test_no_tokens_and_all_fields(client, engine):
    answer = client.post("/infill", json=BODY | {"n_predict": 0})
    assert answer.json()["content"] == ""
    assert engine.requests == []


def test_all_fields_come_nested(client):
    answer = client.post("/infill", json=BODY).json()
    assert answer["timings"]["prompt_n"] == 15
    assert answer["model"] == "fake"


def test_content_is_a_string_even_when_there_is_none(client, engine):
    engine.pieces = ()
    assert client.post("/infill", json=LLAMA_VIM).text.startswith('{"content":"",')


def test_content_of_any_kind_stays_on_one_line(client, engine):
    engine.pieces = ('é\n"\u2028\\\t日',)
    answer = client.post("/infill", json=LLAMA_VIM)
    assert "\n" not in answer.text
    assert answer.json()["content"] == 'é\n"\u2028\\\t日'


def events_of(answer):
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: {") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def test_a_stream(client):
    events = events_of(client.post("/infill", json=BODY | {"stream": True}))
    assert [event["content"] for event in events] == ["return ", "a + b", ""]
    assert [event["stop"] for event in events] == [False, False, True]
    assert events[-1]["timings"]["predicted_n"] == 4
    assert events[-1]["stop_type"] == "eos"


def test_an_empty_stream(client, engine):
    engine.pieces = ()
    events = events_of(client.post("/infill", json=BODY | {"stream": True}))
    assert [event["content"] for event in events] == [""]


def test_a_stream_that_breaks_off_says_so(client, engine):
    engine.error = RuntimeError("no more memory")
    events = events_of(client.post("/infill", json=BODY | {"stream": True}))
    assert events[0]["content"] == "return "
    assert events[-1]["error"]["code"] == 500
    assert "no more memory" in events[-1]["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (EngineBusyError("2 requests are waiting"), 429, "rate_limit_error"),
        (InputError("top_p must be from 0 to 1"), 400, "invalid_request_error"),
        (RuntimeError("no more memory"), 500, "server_error"),
    ],
)
def test_errors_of_the_engine(client, engine, error, status, kind, stream):
    engine.pieces, engine.error = (), error
    answer = client.post("/infill", json=BODY | {"stream": stream})
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == kind
    assert answer.json()["error"]["code"] == status
    assert str(error) in answer.json()["error"]["message"]
    assert ("retry-after" in answer.headers) == (status == 429)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[1]", "object; got list"),
        (b'"x"', "object; got str"),
        (b"null", "object"),
        (b'{"input_prefix":"a"}', '"input_suffix" is required'),
        (b'{"input_prefix":"a","input_suffix":"b","temperature":NaN}', "NaN"),
        (b'{"input_prefix":"a","input_suffix":"b","n_predict":-3}', '"n_predict"'),
        (b'{"input_prefix":"\xff","input_suffix":"b"}', "utf-8"),
        (b"[" * 100_000, "JSON"),
        (b'{"n_predict":' + b"9" * 5000 + b"}", "JSON"),
        (b"\xef\xbb\xbf{}", "JSON"),
    ],
)
def test_a_malformed_body(client, engine, body, part):
    answer = client.post("/infill", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert part in error["message"]
    assert engine.requests == []


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (b"\\ud83d", "\ufffd"),
        (b"\\ud83d\\ude00", "😀"),
        (b"\xed\xa0\xbd", "\ufffd"),  # as three bytes, which is no UTF-8
        (b"\xed\xa0\xbd\xed\xb8\x80", "😀"),
        (b"x\\udcff\xf0\x9f\x98\x80", "x\ufffd😀"),
    ],
)
def test_half_a_character_in_one_chunk_does_not_cost_the_completion(client, engine, given, got):
    body = b'{"input_prefix":"a","input_suffix":"b","input_extra":[{"text":"%s"}]}' % given
    answer = client.post("/infill", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert answer.json()["content"] == "return a + b"
    assert engine.requests[0].extra[0].text == got


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_content_types_that_are_json(client, kind):
    content = json.dumps(BODY).encode()
    assert client.post("/infill", content=content, headers={"content-type": kind}).status_code == 200


def test_compressed_bodies_are_refused(client):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert client.post("/infill", content=b"{}", headers=headers).status_code == 400


def test_the_body_has_a_limit(client, engine):
    room = MAX_BODY_BYTES - len(json.dumps(BODY | {"input_prefix": ""}))
    fits = BODY | {"input_prefix": "x" * (room - 100)}
    assert client.post("/infill", json=fits).status_code == 200
    answer = client.post("/infill", json=BODY | {"input_prefix": "x" * (room + 100)})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == 413

    def chunks():
        for _ in range(33):
            yield b"x" * 2**16

    headers = {"content-type": "application/json"}
    assert client.post("/infill", content=chunks(), headers=headers).status_code == 413
    assert len(engine.requests) == 1


def test_health_and_models(client):
    assert client.get("/health").text == '{"status":"ok"}'
    assert client.head("/health").status_code == 200
    for path in ("/v1/models", "/models"):
        listed = client.get(path).json()
        assert listed["object"] == "list"
        [model] = listed["data"]
        assert (model["id"], model["object"], model["owned_by"]) == ("fake", "model", "techtree")
        assert isinstance(model["created"], int)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/completion", 404),
        ("POST", "/infill/", 404),
        ("GET", "/infill", 405),
        ("DELETE", "/infill", 405),
        ("POST", "/health", 405),
        ("GET", "/" + "x" * 1000, 404),
    ],
)
def test_what_is_not_there(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == status
    assert method in answer.json()["error"]["message"]
    assert ("allow" in answer.headers) == (status == 405)


def test_the_log_has_numbers_and_errors_but_no_code(engine, caplog):
    caplog.set_level(logging.INFO)
    client = TestClient(create_app(engine), BASE)
    client.post("/infill", json=BODY)
    client.get("/nothing")
    client.get("/health", headers={"host": "evil.example\n:1"})
    text = caplog.text
    assert "prompt of 20 tokens" in text
    assert "404 GET '/nothing'" in text
    assert "403 GET '/health'" in text
    assert "def add" not in text
    assert "return" not in text


def test_importing_the_application_loads_no_model():
    import subprocess
    import sys

    code = "import sys, techtree.serve.app; sys.exit('torch' in sys.modules or 'techtree.lm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
