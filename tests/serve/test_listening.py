"""A real server on a real socket: what only a network shows."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time

import pytest

from serve.loopback import LLAMA_VIM_HEADERS, TIMEOUT_S, FakeEngine, post_bytes, running, send_raw
from techtree.engines.turns import Turns
from techtree.errors import InputError
from techtree.serve import connection as module
from techtree.serve.connection import MAX_CONNECTIONS
from techtree.serve.listening import open_socket

MAX_WAITING = 63
"""As in the engine of the product."""

BODY = json.dumps({"input_prefix": "a", "input_suffix": "b", "id_slot": 0}).encode()
STREAM = json.dumps({"input_prefix": "a", "input_suffix": "b", "stream": True}).encode()


def read_all(connection) -> bytes:
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


def read_until(connection, end: bytes) -> bytes:
    data = b""
    while end not in data:
        part = connection.recv(65536)
        assert part
        data += part
    return data


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_llama_vims_own_command(engine):
    with running(engine) as address:
        command = ["curl", "--silent", "--no-buffer", "--request", "POST", "--url", f"{address.url}/infill"]
        done = subprocess.run(
            [*command, *LLAMA_VIM_HEADERS, "--data", "@-"],
            input=BODY,
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        assert done.stdout.startswith(b'{"content":"return a + b",')
        assert b"\n" not in done.stdout
        done = subprocess.run(
            [*command, "--header", "Content-Type: application/json", "--data", "@-"],
            input=STREAM,
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        assert done.stdout.count(b"data: {") == 3


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_client_that_leaves_stops_the_engine(body):
    engine = FakeEngine()
    engine.go.clear()
    with running(engine) as address:
        connection = send_raw(address, post_bytes(address, body))
        assert engine.started.wait(TIMEOUT_S)
        assert not engine.cancelled.is_set()
        connection.close()
        assert engine.cancelled.wait(TIMEOUT_S)
        # The next one is served as ever.
        engine.go.set()
        with send_raw(address, post_bytes(address, BODY)) as connection:
            assert b'"content":"return a + b"' in read_until(connection, b"}}")


def test_a_client_that_stays_is_not_cancelled():
    engine = FakeEngine()
    engine.go.clear()
    with running(engine) as address:
        with send_raw(address, post_bytes(address, BODY)) as connection:
            assert engine.started.wait(TIMEOUT_S)
            with send_raw(
                address, f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\n\r\n".encode()
            ) as other:
                assert b'{"status":"ok"}' in read_until(other, b"}")  # while the engine is busy
            engine.go.set()
            assert b'"content":"return a + b"' in read_until(connection, b"}}")
        assert not engine.cancelled.is_set()


def test_a_stream_arrives_while_it_is_made():
    engine = FakeEngine()
    engine.go.clear()
    with running(engine) as address, send_raw(address, post_bytes(address, STREAM)) as connection:
        assert b'"content":"return "' in read_until(connection, b"\n\n\r\n")
        engine.go.set()
        assert b'"stop":true' in read_until(connection, b'"stop":true')


def test_stopping_the_server_ends_the_answers_under_way():
    engine = FakeEngine()
    engine.go.clear()
    with running(engine) as address:
        connection = send_raw(address, post_bytes(address, BODY))
        assert engine.started.wait(TIMEOUT_S)
    assert engine.cancelled.is_set()
    with connection:
        assert b'"content":"","index":0' in read_all(connection)


def test_a_foreign_host_is_refused_on_the_wire(engine):
    with running(engine) as address:
        for host in ("evil.example", f"evil.example:{address.port}", "", "127.0.0.1\r\nHost: evil.example"):
            request = f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            with send_raw(address, request) as connection:
                status = read_all(connection).split(b" ", 2)[1]
            assert status in (b"403", b"400")
        with send_raw(address, b"GET /health HTTP/1.0\r\n\r\n") as connection:
            assert read_all(connection).split(b" ", 2)[1] == b"403"


def test_a_body_that_is_too_long_is_refused_before_it_comes(engine):
    with running(engine) as address:
        head = post_bytes(address, b"").replace(b"Content-Length: 0", b"Content-Length: 99999999")
        with send_raw(address, head) as connection:
            assert b"413" in read_until(connection, b"\r\n")


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6(engine):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback on this machine")
    with running(engine, host="::1") as address:
        request = f"GET /health HTTP/1.1\r\nHost: [::1]:{address.port}\r\n\r\n".encode()
        with send_raw(address, request) as connection:
            assert b"200 OK" in read_until(connection, b"\r\n")


def test_many_at_once(engine):
    with running(engine) as address:
        answers = []

        def ask():
            with send_raw(address, post_bytes(address, BODY)) as connection:
                answers.append(read_until(connection, b"\r\n").split(b" ", 2)[1])

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
        assert answers == [b"200"] * 12


def test_a_port_in_use():
    listener, address = open_socket("127.0.0.1", 0, None)
    with listener, pytest.raises(InputError, match=rf"port {address.port} must be free.*--port"):
        open_socket("127.0.0.1", address.port, None)


def test_any_free_port():
    listener, address = open_socket("127.0.0.1", 0, None)
    with listener:
        assert address.port > 0
        assert address.host == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", ""])
def test_others_are_not_let_in_without_a_key(host):
    with pytest.raises(InputError, match="--api-key"):
        open_socket(host, 0, None)


def test_with_a_key_they_are():
    listener, address = open_socket("0.0.0.0", 0, "a long random word")
    listener.close()
    assert address.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "port", "key", "part"),
    [
        ("127.0.0.1", -1, None, "--port"),
        ("127.0.0.1", 65536, None, "--port"),
        ("127.0.0.1", 0, "", "--api-key"),
        ("127.0.0.1", 0, "  ", "--api-key"),
        ("no such host", 0, "k", "--host"),
        ("a" * 300, 0, "k", "--host"),
        ("\udcff", 0, "k", "no such name can be"),
        ("../..", 0, "k", "no such name can be"),
        ("192.0.2.1", 0, "k", "cannot listen"),  # an address that no machine has
    ],
)
def test_where_it_cannot_listen(host, port, key, part):
    with pytest.raises(InputError, match=part):
        open_socket(host, port, key)


def get(address) -> bytes:
    return f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\nConnection: close\r\n\r\n".encode()


def is_answered_in_a_second(address) -> bool:
    """A health check and an infill, each on a connection of its own."""
    began = time.monotonic()
    for request, answer in (
        (get(address), b'{"status":"ok"}'),
        (post_bytes(address, BODY), b'"content":"return'),
    ):
        with send_raw(address, request) as connection:
            if answer not in read_until(connection, b"}"):
                return False
    return time.monotonic() - began < 1


def silent(address) -> bytes:
    return b""


def half_a_head(address) -> bytes:
    return get(address)[:20]


def half_a_body(address) -> bytes:
    return post_bytes(address, BODY)[:-5]


def an_answered_request(address) -> bytes:
    return get(address).replace(b"Connection: close\r\n", b"")


def half_a_second_request(address) -> bytes:
    return an_answered_request(address) + get(address)[:9]


def an_early_error(address) -> bytes:
    """A body that was refused and still trickles."""
    return post_bytes(address, BODY)[:-5].replace(b"application/json", b"text/plain")


IDLE = [silent, half_a_head, half_a_body, an_answered_request, half_a_second_request, an_early_error]


@pytest.mark.parametrize("beginning", IDLE)
def test_connections_that_say_nothing_shut_nobody_out(engine, beginning):
    with running(engine) as address, contextlib.ExitStack() as held:
        for _ in range(3 * MAX_CONNECTIONS):
            held.enter_context(send_raw(address, beginning(address)))
        assert is_answered_in_a_second(address)


def test_two_hundred_silent_and_fifty_trickling_ones_beside_a_normal_request(engine):
    with running(engine) as address, contextlib.ExitStack() as held:
        for _ in range(200):
            held.enter_context(send_raw(address, b""))
        trickling = [held.enter_context(send_raw(address, b"P")) for _ in range(50)]
        rest = post_bytes(address, BODY)[1:]
        for i in range(20):
            for connection in trickling:
                with contextlib.suppress(OSError):  # It was closed for others.
                    connection.sendall(rest[i : i + 1])
            assert is_answered_in_a_second(address)


def test_a_head_has_a_time_limit(engine, monkeypatch):
    monkeypatch.setattr(module, "HEAD_TIMEOUT_S", 0.3)
    with running(engine) as address, send_raw(address, b"") as quiet, send_raw(address, b"GET /hea") as half:
        for byte in b"lth HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + 200 * b"x":
            time.sleep(0.01)
            try:
                half.sendall(bytes([byte]))
            except OSError:
                break
        else:
            pytest.fail("it trickled on for two seconds")
        assert quiet.recv(9) == b""


def test_a_slow_answer_is_no_idle_connection(monkeypatch):
    """Neither the time limit of the head nor a crowd ends a request that is being answered."""
    monkeypatch.setattr(module, "HEAD_TIMEOUT_S", 0.2)
    engine = FakeEngine()
    engine.go.clear()
    with running(engine) as address, contextlib.ExitStack() as held:
        with send_raw(address, post_bytes(address, BODY)) as connection:
            assert engine.started.wait(TIMEOUT_S)
            for _ in range(2 * MAX_CONNECTIONS):
                held.enter_context(send_raw(address, b""))
            time.sleep(0.5)
            engine.go.set()
            assert b'"content":"return a + b"' in read_until(connection, b"}}")
        assert not engine.cancelled.is_set()


def test_a_client_that_does_not_read_is_given_up(engine, monkeypatch):
    monkeypatch.setattr(module, "WRITE_TIMEOUT_S", 0.3)
    engine.pieces = ("x" * 30_000_000,)
    with running(engine) as address, send_raw(address, post_bytes(address, BODY)) as connection:
        time.sleep(1.5)
        with contextlib.suppress(ConnectionResetError):
            assert len(read_all(connection)) < 30_000_000
        engine.pieces = ("return ",)
        assert is_answered_in_a_second(address)


def test_when_all_are_answered_one_more_is_told(monkeypatch):
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 4)
    engine = FakeEngine()
    engine.go.clear()
    with running(engine) as address, contextlib.ExitStack() as held:
        busy = [held.enter_context(send_raw(address, post_bytes(address, BODY))) for _ in range(4)]
        end = time.monotonic() + TIMEOUT_S
        while len(engine.requests) < 4:
            assert time.monotonic() < end
            time.sleep(0.01)
        with send_raw(address, get(address)) as connection:
            assert b" 503 " in read_until(connection, b"\r\n")
        engine.go.set()
        for connection in busy:
            assert b'"content":"return a + b"' in read_until(connection, b"}}")


def test_thirty_at_once_without_a_slot_are_all_answered_one_after_the_other():
    """Through the line of the real engine."""

    class InLine(FakeEngine):
        turns = Turns(MAX_WAITING)
        most = inside = 0

        def infill(self, request, cancelled=lambda: False, on_text=None, on_token=None):
            with self.turns.take(request.slot, cancelled, time.monotonic() + request.timeout_s) as turn:
                assert turn is not None
                self.inside += 1
                self.most = max(self.most, self.inside)
                time.sleep(0.02)
                self.inside -= 1
                return super().infill(request, cancelled, on_text)

    engine = InLine()
    body = json.dumps({"input_prefix": "a", "input_suffix": "b"}).encode()
    with running(engine) as address, contextlib.ExitStack() as held:
        asked = [held.enter_context(send_raw(address, post_bytes(address, body))) for _ in range(30)]
        for connection in asked:
            assert b" 200 " in read_until(connection, b"}}")
    assert engine.most == 1
