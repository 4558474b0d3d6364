"""`techtree serve` as a process: it says how to use it, answers, and stops."""

import contextlib
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from urllib.parse import urlsplit

import pytest

from techtree.cli.main import main
from techtree.cli.serve import greeting

pytest.importorskip("torch")
pytest.importorskip("uvicorn")

TIMEOUT_S = 60


@pytest.fixture
def server(tiny_model_folder):
    """The command in a process of its own, and its address, once it listens."""
    words = ["serve", "--model", str(tiny_model_folder), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "techtree", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    said = ""
    while "curl" not in said:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        said += line
    yield process, re.search(r"http://[0-9.:]+", said).group(), said
    process.kill()
    process.communicate()


def ask(url, body):
    request = urllib.request.Request(
        f"{url}/infill", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return json.loads(answer.read())


def test_it_answers_and_stops_at_ctrl_c(server):
    process, url, said = server
    assert f"'endpoint_fim': '{url}/infill'" in said
    answer = ask(url, {"input_prefix": "def add(a, b):\n    ", "input_suffix": "\n", "n_predict": 4})
    assert isinstance(answer["content"], str)
    assert 1 <= answer["tokens_predicted"] <= 4
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert "stopped" in out
    assert "Traceback" not in err
    assert "infill: prompt of" in err
    assert "def add" not in err


def test_a_thousand_connections_that_say_nothing_or_half_a_head(server):
    """They are more than the files that a process may usually open."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("needs prlimit, of Linux")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    resource.prlimit(server[0].pid, resource.RLIMIT_NOFILE, (1024, hard))
    place = urlsplit(server[1])
    body = {"input_prefix": "x = ", "input_suffix": "\n", "n_predict": 2}
    try:
        with contextlib.ExitStack() as held:
            for at in range(1000):
                connection = held.enter_context(socket.create_connection((place.hostname, place.port), 10))
                connection.sendall(b"POST /infill HTTP/1.1\r\nHost:" if at % 2 else b"")
                if at % 200 == 199:
                    assert ask(server[1], body)["tokens_predicted"] <= 2
        assert ask(server[1], body)["tokens_predicted"] <= 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_printed_command_works(server):
    command = next(line for line in server[2].splitlines() if line.strip().startswith("curl"))
    done = subprocess.run(shlex.split(command), capture_output=True, timeout=TIMEOUT_S, check=True)
    assert done.stdout.startswith(b'{"content":"')


def test_a_port_in_use_is_one_line_and_exit_code_2(tiny_model_folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--model", str(tiny_model_folder), "--port", port]) == 2
    err = capsys.readouterr().err
    assert f"port {port}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--host", "0.0.0.0"], "--api-key"),
        (["--port", "70000"], "--port"),
        (["--api-key", ""], "--api-key"),
        (["--model", "/nothing"], "/nothing has no config.json"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(words, part, tiny_model_folder, capsys):
    model = [] if "--model" in words else ["--model", str(tiny_model_folder)]
    assert main(["serve", *model, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert part in err
    assert err.count("\n") == 1


def test_a_damaged_model_is_one_line_and_exit_code_2(tiny_model_folder, tmp_path, capsys):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    assert main(["serve", "--model", str(folder), "--port", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_model_the_pages_are_served_alone(monkeypatch, capsys):
    from starlette.testclient import TestClient

    from techtree.engines import model_folder
    from techtree.serve import listening

    statuses = []

    def ask(app, listener, stopping):
        port = listener.getsockname()[1]
        client = TestClient(app, f"http://127.0.0.1:{port}", raise_server_exceptions=False)
        answers = (client.get("/tech/rope.html"), client.post("/infill", json={}), client.get("/health"))
        statuses.extend(answer.status_code for answer in answers)

    find = model_folder.find_model_folder
    monkeypatch.setattr(model_folder, "find_model_folder", lambda given: find(given, places=[]))
    monkeypatch.setattr(listening, "serve", ask)
    assert main(["serve", "--port", "0"]) == 0
    assert statuses == [200, 503, 503]
    said = capsys.readouterr().out
    assert "the tree as pages: http://127.0.0.1:" in said
    assert "no model is served: there must be a model" in said
    assert "llama.vim" not in said


def test_the_greeting_never_shows_the_key():
    said = greeting("http://127.0.0.1:1", "sesame")
    assert "sesame" not in said
    assert "'api_key': 'KEY'" in said
    assert "Authorization: Bearer KEY" in said
