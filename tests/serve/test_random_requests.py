"""Whatever comes over the wire, the server answers it or hangs up, and goes on."""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request

import pytest

from serve.loopback import FakeEngine, post_bytes, running, send_raw
from serve.random_requests import random_request

STATUSES = {200, 400, 401, 403, 404, 405, 408, 413, 429}
"""What a client can cause; any other is a fault of ours."""

GOOD = json.dumps({"input_prefix": "a", "input_suffix": "b", "n_predict": 2}).encode()


def ask(address, sent: bytes, rng: random.Random, seconds: float) -> bytes | None:
    """Send bytes in random parts; return what comes, or None when the client did not wait for it."""
    answer = b""
    cuts = sorted(rng.randrange(len(sent) + 1) for _ in range(rng.choice([0, 0, 1, 3])))
    leaves = rng.random() < 0.1
    with contextlib.suppress(ConnectionError, TimeoutError), send_raw(address, b"") as connection:
        connection.settimeout(seconds)
        for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            connection.sendall(sent[start:end])
        while not leaves and not is_whole(answer) and (part := connection.recv(65536)):
            answer += part
    return None if leaves else answer


def is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(end) and (len(body) >= int(length[1]) if length else answer.endswith(b"0\r\n\r\n"))


def attack(address, seed: int, n_requests: int, seconds: float) -> int:
    """Send random requests; return how many were answered with 200."""
    rng, n_good = random.Random(seed), 0
    for number in range(n_requests):
        sent, must_be_answered = random_request(rng, address.port)
        answer = ask(address, sent, rng, seconds if must_be_answered else 0.02)
        if answer is None:
            continue
        answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")  # told while the model still writes
        where = f"seed {seed}, request {number}: {sent[:300]!r} -> {answer[:300]!r}"
        status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None
        assert status in STATUSES or (answer == b"" and not must_be_answered), where
        n_good += status == 200
    with send_raw(address, post_bytes(address, GOOD)) as connection:
        assert b" 200 OK" in connection.recv(65536)
    return n_good


def test_random_requests_over_the_wire(engine):
    with running(engine) as address:
        assert attack(address, 0, 400, 10) > 40


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_random_requests_over_the_wire(seed):
    with running(FakeEngine()) as address:
        assert attack(address, seed, 4000, 10) > 400


def test_random_requests_to_a_real_model(tiny_model_folder):
    torch_engine = pytest.importorskip("techtree.engines.torch_engine")
    with running(torch_engine.TorchEngine.load(tiny_model_folder)) as address:
        assert attack(address, 7, 30, 60) > 3


@pytest.mark.slow
def test_many_random_requests_to_a_real_model(tiny_model_folder):
    torch_engine = pytest.importorskip("techtree.engines.torch_engine")
    with running(torch_engine.TorchEngine.load(tiny_model_folder)) as address:
        assert attack(address, 8, 2000, 60) > 200


def resident_bytes(process: int) -> int:
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads a process's memory from /proc")
def test_the_memory_stays_over_twenty_thousand_requests_with_ever_new_words(tiny_model_folder):
    """Words of up to 6,000 letters, each of them new."""
    words = ["serve", "--model", str(tiny_model_folder), "--port", "0"]
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "techtree", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        said = ""
        while "curl" not in said:
            said += server.stdout.readline()
        url = re.search(r"http://[0-9.:]+", said).group() + "/infill"
        rng, sizes = random.Random(0), {}
        for number in range(1, 20_001):
            new = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.choice([30, 600, 6000])))
            body = {"input_prefix": f"{new}\nx = ", "input_suffix": f"\n{new[::-1]}", "n_predict": 1}
            body["input_extra"] = [{"text": new[1:], "filename": new[:9]}]
            request = urllib.request.Request(
                url, json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200
            if number in (2_000, 20_000):
                sizes[number] = resident_bytes(server.pid)
        assert sizes[20_000] - sizes[2_000] < 50e6
    finally:
        server.kill()
        server.communicate()


def test_a_request_that_comes_byte_by_byte_is_answered(engine):
    with running(engine) as address, send_raw(address, b"") as connection:
        for byte in post_bytes(address, GOOD):
            connection.sendall(bytes([byte]))
            time.sleep(0.001)
        assert b" 200 OK" in connection.recv(65536)
