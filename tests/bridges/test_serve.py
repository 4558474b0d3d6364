"""The lesson's server answers OpenAI's client; h11 and the product read requests alike."""

import contextlib
import importlib.util
import itertools
import json
import socket
import threading
import urllib.request

import h11
import numpy as np
import pytest

from techtree.serve.completions_dialect import parse_call
from techtree.serve.errors import ApiError
from techtree.serve.guard import Address
from techtree.techs.inference.serve import (
    Engine,
    Request,
    RequestError,
    check_source,
    parse_completion,
    parse_request,
)
from techtree.techs.inference.serve.listening import listen
from techtree.techs.transformer.llama_block import Llama, LlamaConfig

VOCABULARY = [bytes([byte]) for byte in range(256)]


@contextlib.contextmanager
def running():
    """Run the lesson's server with a small model, and give its port."""
    model = Llama(LlamaConfig(256, 8, 8, 1, 2, 1), np.random.default_rng(0))
    engine = Engine(model, lambda text: list(text.encode()), VOCABULARY, [], 64, n_slots=2)
    server_socket = socket.create_server(("127.0.0.1", 0))
    port = server_socket.getsockname()[1]
    thread = threading.Thread(target=listen, args=(engine, server_socket))
    thread.start()
    try:
        yield port
    finally:
        server_socket.close()
        thread.join()


def posted(port: int, **fields) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        json.dumps(fields).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return answer.read()


def test_a_client_over_a_socket():
    with running() as port:
        whole = json.loads(posted(port, prompt="def f(", max_tokens=9, seed=3))["choices"][0]
        events = posted(port, prompt="def f(", max_tokens=9, seed=3, stream=True).decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        told = [json.loads(each.removeprefix("data: "))["choices"][0] for each in events[:-2]]
        assert "".join(each["text"] for each in told) == whole["text"]
        assert told[-1]["finish_reason"] == whole["finish_reason"] == "length"
        with socket.create_connection(("127.0.0.1", port)) as gone:  # leaves in the middle of a request
            gone.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            posted(port, prompt=3)


@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="needs openai: pip install openai")
def test_the_real_client():
    import openai

    with (
        running() as port,
        openai.OpenAI(base_url=f"http://localhost:{port}/v1", api_key="none", max_retries=0) as client,
    ):
        asked = {"model": "techtree", "prompt": "import ", "max_tokens": 5, "seed": 1}
        said = client.completions.create(**asked)
        assert said.choices[0].finish_reason == "length"
        with client.completions.create(**asked, stream=True) as events:
            assert "".join(event.choices[0].text for event in events) == said.choices[0].text
        with pytest.raises(openai.BadRequestError, match="tokens"):
            client.completions.create(**asked | {"prompt": "x" * 65})


def read_by_h11(data: bytes) -> tuple | None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request, body = connection.next_event(), b""
    if request is h11.NEED_DATA:
        return None
    assert isinstance(request, h11.Request)
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    if event is h11.NEED_DATA:
        return None
    headers = {}
    for name, value in request.headers:
        headers.setdefault(name.decode(), []).append(value.decode("latin-1"))
    joined = {name: ", ".join(values) for name, values in headers.items()}
    return request.method.decode(), request.target.decode(), joined, body


def test_h11_reads_the_same():
    head = b"POST /a?b HTTP/1.1\r\nHost: localhost\r\nX-A:  b\t\r\nX-A: c\r\nContent-Length: 5\r\n\r\n"
    for n in range(1, len(head) + 9):
        data = (head + b"hello and")[:n]
        ours = parse_request(data)
        found = None if ours is None else (ours.method, ours.target, dict(ours.headers), ours.body)
        assert found == read_by_h11(data), data
    for bad in (
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
    ):
        with pytest.raises(RequestError):
            parse_request(bad)
        with pytest.raises(h11.RemoteProtocolError):
            read_by_h11(bad)


def test_the_product_believes_the_same_hosts():
    address = Address("127.0.0.1", 8012)
    names = ("127.0.0.1", "localhost", "LOCALHOST", "[::1]", "evil.example", "127.0.0.1.evil.example", "")
    for name, port in itertools.product(names, (":8012", ":80", "")):
        try:
            check_source(Request("GET", "/", {"host": name + port}, b""), 8012)
            is_right = True
        except RequestError:
            is_right = False
        assert is_right == address.is_meant_by(name + port), name + port


def test_the_product_reads_the_same_wishes():
    for more in (
        {},
        {"max_tokens": 3, "seed": 5},
        {"stop": "a"},
        {"stop": ["a", "b"], "temperature": 0, "top_p": 0.5},
    ):
        body = {"prompt": "x", "stream": True} | more
        ours, call = parse_completion(json.dumps(body).encode()), parse_call(body)
        theirs = call.request
        assert (ours.prompt, ours.max_tokens, ours.stop) == (
            theirs.prefix,
            theirs.max_tokens,
            tuple(theirs.stop),
        )
        assert (ours.settings.temperature, ours.settings.top_p) == (theirs.temperature, theirs.top_p)
        assert ours.is_stream is call.is_stream is True
    for wrong in ({"prompt": 3}, {"max_tokens": -1}, {"temperature": "1"}, {"stop": 3}, {"stream": 1}):
        with pytest.raises(RequestError):
            parse_completion(json.dumps({"prompt": "x"} | wrong).encode())
        with pytest.raises(ApiError):
            parse_call({"prompt": "x"} | wrong)
