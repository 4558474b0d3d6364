"""A server elsewhere is asked as an engine is: ours, and one that knows OpenAI's routes only."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from techtree.engines.engine import ChatRequest, InfillRequest, Message
from techtree.engines.server_engine import ServerEngine
from techtree.errors import InputError


@pytest.fixture
def fake():
    pytest.importorskip("starlette")
    from serve.loopback import FakeEngine

    return FakeEngine()


def test_our_server_fills_in_goes_on_and_chats(fake):
    from serve.loopback import running

    with running(fake) as address:
        engine = ServerEngine(f"{address.url}/v1/")
        assert engine.name == "fake"
        request = InfillRequest("a\n", "b\n", max_tokens=9, stop=("\n",))
        assert engine.infill(request).text == "return a + b"
        sent = fake.requests[-1]
        assert (sent.prefix, sent.suffix, sent.max_tokens, sent.stop) == ("a\n", "b\n", 9, ("\n",))
        assert (sent.temperature, sent.is_raw) == (0, False)
        result = engine.infill(InfillRequest("a\n", max_tokens=8, temperature=0.5, seed=3, is_raw=True))
        assert (result.text, result.stop) == ("return a + b", "end_of_text")
        sent = fake.requests[-1]
        assert (sent.prefix, sent.max_tokens, sent.temperature, sent.seed) == ("a\n", 8, 0.5, 3)
        assert sent.is_raw
        assert engine.chat(ChatRequest((Message("user", "hi"),), 7)).text == "return a + b"
        sent = fake.requests[-1]
        assert sent.messages == (Message("user", "hi"),)
        assert (sent.max_tokens, sent.temperature) == (7, 0)


@contextlib.contextmanager
def answering(answers):
    """A server that gives what stands under each route; 404 elsewhere. It tells what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.do_POST()

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.path, json.loads(body) if body else None))
            answer = answers.get(self.path)
            data = b"no" if answer is None else json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


MODELS = {"data": [{"id": "m"}]}


def test_one_without_infill_is_asked_by_suffix_and_once_only():
    choice = {"choices": [{"text": "x", "finish_reason": "length"}]}
    with answering({"/v1/models": MODELS, "/v1/completions": choice}) as (address, asked):
        engine = ServerEngine(address)
        for _ in range(2):
            result = engine.infill(InfillRequest("a", "b", max_tokens=3))
            assert (result.text, result.stop) == ("x", "max_tokens")
        routes = [route for route, _ in asked]
        assert routes == ["/v1/models", "/infill", "/v1/completions", "/v1/completions"]
        question = {"model": "m", "prompt": "a", "suffix": "b", "max_tokens": 3}
        assert asked[-1][1] == question | {"temperature": 0.0, "top_p": 1.0, "seed": None}


@pytest.mark.parametrize(
    ("said", "stop"),
    [("eos", "end_of_text"), ("limit", "max_tokens"), ("word", "stop_string"), ("none", "end_of_text")],
)
def test_why_llama_cpp_stopped(said, stop):
    answers = {"/v1/models": MODELS, "/infill": {"content": "x", "stop_type": said}}
    with answering(answers) as (address, _):
        assert ServerEngine(address).infill(InfillRequest("a")).stop == stop


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"/v1/models": [1]},
        {"/v1/models": MODELS, "/infill": {"text": "x"}},
        {"/v1/models": MODELS, "/v1/completions": {"choices": []}},
        {"/v1/models": MODELS, "/v1/completions": {"choices": [{"text": None}]}},
    ],
)
def test_answers_that_are_none(answers):
    with answering(answers) as (address, _), pytest.raises(InputError, match="server"):
        ServerEngine(address).infill(InfillRequest("a"))


def test_there_must_be_a_server():
    with pytest.raises(InputError, match=r"there must be a server at http://127\.0\.0\.1:9;"):
        ServerEngine("http://127.0.0.1:9")
    with pytest.raises(InputError, match="must begin with http"):
        ServerEngine("file:///etc/passwd")
