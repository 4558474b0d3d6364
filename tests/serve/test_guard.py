"""Who gets in: the attacks that other local servers fell to."""

import pytest
from starlette.testclient import TestClient

from techtree.serve.app import create_app
from techtree.serve.guard import Address, is_loopback, parse_authority

PATHS = [
    ("GET", "/health"),
    ("GET", "/v1/models"),
    ("GET", "/models"),
    ("POST", "/infill"),
    ("GET", "/nothing"),
]
BODY = {"input_prefix": "a", "input_suffix": "b"}


def ask(client, method, path, **headers):
    json = BODY if method == "POST" else None
    return client.request(method, path, json=json, headers=headers)


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8012",  # DNS rebinding
        "evil.example",
        "127.0.0.1",  # that is port 80
        "127.0.0.1:8013",
        "127.0.0.1:8012.evil.example",
        "127.0.0.1.evil.example:8012",
        "localhost.evil.example:8012",
        "evil.example@127.0.0.1:8012",
        "127.0.0.1:8012@evil.example",
        "::1:8012",
        "[::1:8012",
        "[::2]:8012",
        "[evil]:8012",
        "0.0.0.0:8012",
        "192.168.0.7:8012",
        "127.0.0.1:",
        "127.0.0.1:8012 ",
        ":8012",
        "",
        "[]:8012",
        "127.0.0.1:99999999",
    ],
)
def test_a_foreign_host_is_refused_everywhere(client, engine, method, path, host):
    answer = ask(client, method, path, host=host)
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"
    assert engine.requests == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8012", "localhost:8012", "LOCALHOST:8012", "[::1]:8012", "[0:0:0:0:0:0:0:1]:8012"]
)
def test_our_own_names_are_right(client, host):
    assert ask(client, "GET", "/health", host=host).status_code == 200
    assert ask(client, "POST", "/infill", host=host).status_code == 200


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://evil.example:8012",
        "null",
        "",
        "http://localhost:3000",
        "https://127.0.0.1:8012",
        "http://127.0.0.1:8012.evil.example",
        "file://",
    ],
)
def test_a_web_page_is_refused_everywhere(client, engine, method, path, origin):
    answer = ask(client, method, path, origin=origin)
    assert answer.status_code == 403
    assert engine.requests == []
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_our_own_page_is_not_foreign(client):
    assert ask(client, "POST", "/infill", origin="http://127.0.0.1:8012").status_code == 200
    assert ask(client, "POST", "/infill", origin="http://[::1]:8012").status_code == 200


def test_a_preflight_gets_no_permission(client):
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    for origin in ("https://evil.example", "http://127.0.0.1:8012"):
        answer = client.options("/infill", headers=asked | {"origin": origin})
        assert answer.status_code in (403, 405)
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_what_a_page_can_send_without_asking_is_refused(client, engine, kind):
    answer = client.post(
        "/infill", content=b'{"input_prefix":"a","input_suffix":"b"}', headers={"content-type": kind}
    )
    assert answer.status_code == 400
    assert "Content-Type" in answer.json()["error"]["message"]
    assert engine.requests == []


class TestKey:
    @pytest.fixture
    def client(self, engine):
        app = create_app(engine, Address(), "sésame 1")
        return TestClient(app, "http://127.0.0.1:8012")

    def test_the_right_key(self, client):
        for scheme in ("Bearer", "bearer"):
            key = f"{scheme} sésame 1".encode()
            answer = client.post("/infill", json=BODY, headers={b"authorization": key})
            assert answer.status_code == 200

    @pytest.mark.parametrize(
        "given", [None, "", "Bearer", "Bearer ", "Bearer wrong", "sésame 1", "Basic sésame 1"]
    )
    def test_any_other(self, client, engine, given):
        headers = {} if given is None else {b"authorization": given.encode()}
        answer = client.post("/infill", json=BODY, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"
        assert engine.requests == []

    def test_what_needs_none(self, client):
        for path in ("/health", "/v1/models", "/models"):
            assert client.get(path).status_code == 200
        assert client.get("/nothing").status_code == 401

    def test_a_key_does_not_replace_the_other_checks(self, client):
        headers = {b"authorization": "Bearer sésame 1".encode(), b"host": b"evil.example:8012"}
        assert client.post("/infill", json=BODY, headers=headers).status_code == 403


def test_without_a_key_any_is_ignored(client):
    # llama.vim sends an empty one.
    assert ask(client, "POST", "/infill", authorization="Bearer ").status_code == 200


@pytest.mark.parametrize(
    ("host", "is_right"),
    [
        ("192.168.0.7:8012", True),
        ("[fe80::1]:8012", True),
        ("box.local:8012", False),  # a name can be made to mean us; an address cannot
        ("evil.example:8012", False),
        ("localhost:8012", True),
        ("192.168.0.7:80", False),
    ],
)
def test_a_server_for_other_machines(engine, host, is_right):
    client = TestClient(create_app(engine, Address("0.0.0.0", 8012), "k"), "http://127.0.0.1:8012")
    assert (client.get("/health", headers={"host": host}).status_code == 200) == is_right


def test_a_server_with_a_name(engine):
    client = TestClient(create_app(engine, Address("box.local", 8012), "k"), "http://box.local:8012")
    assert client.get("/health").status_code == 200


def test_the_default_port_need_not_be_named(engine):
    client = TestClient(create_app(engine, Address("127.0.0.1", 80)), "http://127.0.0.1")
    assert client.get("/health").status_code == 200


def test_there_are_no_websockets(client):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/infill"):
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.example:1", ("a.example", 1)),
        ("A.Example", ("a.example", 80)),
        ("[2001:DB8::1]:2", ("2001:db8::1", 2)),
        ("1.2.3.4:5", ("1.2.3.4", 5)),
        ("::1", None),
        ("[1.2.3.4]:5", None),
        ("a b:1", None),
        ("a/b:1", None),
        ("a:١", None),  # a digit, but not of a port
        ("", None),
    ],
)
def test_authorities(text, expected):
    assert parse_authority(text) == expected


def test_loopback():
    assert is_loopback("127.8.8.8")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("localhost.example")


def test_urls():
    assert Address().url == "http://127.0.0.1:8012"
    assert Address("::1", 1).url == "http://[::1]:1"
