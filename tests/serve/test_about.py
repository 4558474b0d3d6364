"""What clients ask about the server; llama.cpp's shapes, as llama.vscode reads them."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.testclient import TestClient

from serve.loopback import TIMEOUT_S, FakeEngine, running
from techtree.errors import InputError
from techtree.serve.app import create_app

BASE = "http://127.0.0.1:8012"
BODY = {"input_prefix": "a", "input_suffix": "b"}


def counts(client):
    lines = client.get("/metrics").text.splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_what_llama_vscode_asks(client):
    assert client.get("/v1/models").json()["data"][0]["meta"] == {"n_ctx": 512}
    props = client.get("/props").json()
    assert props["default_generation_settings"]["n_ctx"] == 512
    assert props["total_slots"] == 1
    body = {"content": "aé", "add_special": False, "parse_special": False}
    assert client.post("/tokenize", json=body).json() == {"tokens": list("aé".encode())}
    messages = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "y"}]},
    ]
    templated = client.post("/apply-template", json={"messages": messages})
    assert templated.json() == {"prompt": "<system>x\n<user>y\n"}


def test_text_to_ids_and_back(client):
    tokens = client.post("/tokenize", json={"content": "ab"}).json()["tokens"]
    assert tokens == [97, 98, 256]  # special tokens are read, as llama.cpp's server does
    pieces = client.post("/tokenize", json={"content": "ab", "with_pieces": True, "parse_special": False})
    assert pieces.json() == {"tokens": [{"id": 97, "piece": "a"}, {"id": 98, "piece": "b"}]}
    assert client.post("/detokenize", json={"tokens": [97, 98]}).json() == {"content": "ab"}
    assert client.post("/detokenize", json={"tokens": []}).json() == {"content": ""}


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": ["a"]}, "content"),
        ("/tokenize", {"content": "a", "parse_special": 1}, "parse_special"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [1.5]}, "tokens"),
        ("/detokenize", {"tokens": [True]}, "tokens"),
        ("/apply-template", {}, "messages"),
    ],
)
def test_what_is_malformed_is_named(client, path, body, named):
    refused = client.post(path, json=body)
    assert refused.status_code == 400
    assert f'"{named}"' in refused.json()["error"]["message"]


def test_ids_that_are_none_are_refused(client, engine, monkeypatch):
    def refuse(ids):
        raise InputError("ids must be in the vocabulary")

    monkeypatch.setattr(engine, "detokenize", refuse)
    assert client.post("/detokenize", json={"tokens": [10**9]}).status_code == 400


def test_counts(client, engine):
    client.post("/infill", json=BODY)
    client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}], "stream": True})
    client.post("/infill", json={})
    for path in ("/a", "/b", "/%22%7D%201%0A"):
        client.get(path)
    client.get("/health", headers={"host": "evil.example"})
    told = counts(client)
    assert told['techtree_requests_total{path="/infill",status="200"}'] == "1"
    assert told['techtree_requests_total{path="/infill",status="400"}'] == "1"
    assert told['techtree_requests_total{path="/v1/chat/completions",status="200"}'] == "1"
    assert told['techtree_requests_total{path="/health",status="403"}'] == "1"
    assert told['techtree_requests_total{path="other",status="404"}'] == "3"
    assert told["techtree_prompt_tokens_total"] == "40"
    assert told["techtree_predicted_seconds_total"] == "0.016"
    assert told["techtree_requests_processing"] == "0"
    assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


def test_a_slot_that_is_busy():
    engine = FakeEngine()
    engine.go.clear()
    with running(engine) as address, ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx.post, f"{address.url}/infill", json=BODY, timeout=TIMEOUT_S)
        assert engine.started.wait(TIMEOUT_S)
        assert httpx.get(f"{address.url}/slots").json() == [{"id": 0, "n_ctx": 512, "is_processing": True}]
        engine.go.set()
        assert asked.result().status_code == 200
        assert not httpx.get(f"{address.url}/slots").json()[0]["is_processing"]


@pytest.mark.parametrize("path", ["/props", "/slots", "/metrics"])
def test_what_is_told_to_nobody_without_the_key(path):
    client = TestClient(create_app(FakeEngine(), api_key="key"), BASE)
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer key"}).status_code == 200
    assert client.get("/health").status_code == 200
