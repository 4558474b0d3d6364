"""Random requests as they go over the wire: good ones, damaged ones, and halves of both."""

import json
import random

HOSTILE_TEXTS = [
    "",
    "\0",
    "\x1b[2J",
    "é😀",
    "\ud83d",
    "\ufeff",
    "a" * 3000,
    "<fim_middle>",
    "\r\n\r\n",
    "\u2028",
    "🇦🇧" * 50,
]
HOSTILE_NUMBERS = [0, -1, 1, 0.0, -0.0, 1e-46, 5e-324, 1e308, -1e308, 2**31, 2**63, 10**30, 0.5, 3, 40]
OTHERS = [None, True, False, [], {}, [[]], {"a": 1}, ["x"], [None], "1", "NaN"]

TEXTS = ("input_prefix", "input_suffix", "prompt")
NUMBERS = (
    "n_predict",
    "n_indent",
    "id_slot",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "t_max_predict_ms",
)
OTHER_FIELDS = ("input_extra", "stop", "samplers", "stream", "response_fields", "cache_prompt", "unknown")
OTHER_FIELDS += ("grammar", "json_schema", "response_format")

METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "BREW", "get", "P\x00ST", "", "X" * 300]
PATHS = [
    "/infill",
    "/health",
    "/v1/models",
    "/models",
    "/",
    "/infill/",
    "//infill",
    "/../infill",
    "/%1b%5b2J",
    "/%ff%00",
    "*",
    "infill",
    "/é",
    *("/" + "a" * 3000, "http://evil.example/infill", "/infill?x=\x7f"),
]
HEADERS = [
    *("Origin: http://evil.example", "Origin: null", "Host: evil.example", "X: \x9b31m", "X: " + "y" * 5000),
    *("Content-Type: text/plain", "Content-Encoding: gzip", "Expect: 100-continue", "Connection: close"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Connection: upgrade", "Upgrade: websocket"),
    *("Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999999999999", "X : 1", ": 1"),
    *("X\x00: 1", " folded", "Authorization: Bearer \x80"),
]


def random_body(rng: random.Random) -> dict:
    """An object of fields, most of them as they should be."""
    body: dict[str, object] = {"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n"}
    for name in rng.sample(TEXTS, rng.randrange(3)):
        body[name] = rng.choice(HOSTILE_TEXTS)
    for name in rng.sample(NUMBERS, rng.randrange(4)):
        body[name] = rng.choice(HOSTILE_NUMBERS)
    if rng.random() < 0.4:
        chunks = [
            {"text": rng.choice(HOSTILE_TEXTS), "filename": rng.choice(HOSTILE_TEXTS)}
            for _ in range(rng.randrange(4))
        ]
        body["input_extra"] = chunks
    if rng.random() < 0.3:
        body[rng.choice(TEXTS + NUMBERS + OTHER_FIELDS)] = rng.choice(
            OTHERS + HOSTILE_TEXTS + HOSTILE_NUMBERS
        )
    if rng.random() < 0.2:
        body["stream"] = rng.random() < 0.8
    if rng.random() < 0.2:
        body["response_fields"] = rng.sample(
            ["content", "timings/prompt_n", "x/y", "", "timings", "/", "\ud800"], rng.randrange(4)
        )
    return body


def random_request(rng: random.Random, port: int) -> tuple[bytes, bool]:
    """Bytes to send, and whether they are a request that is well-formed, so that it must be answered."""
    data = json.dumps(random_body(rng)).encode()
    if rng.random() < 0.1:
        data = rng.choice(
            [b"", b"{", b"[" * 50_000, b"null", b"\xff", b'{"a":NaN}', data[: len(data) // 2], data + data]
        )
    head = [
        "POST /infill HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
    ]
    is_good = True
    if rng.random() < 0.4:
        is_good = False
        for _ in range(rng.randrange(1, 4)):
            kind = rng.randrange(5)
            if kind == 0:
                version = rng.choice(["1.1", "1.0", "2.0", "9", ""])
                head[0] = f"{rng.choice(METHODS)} {rng.choice(PATHS)} HTTP/{version}"
            elif kind == 1:
                head.insert(rng.randrange(1, len(head) + 1), rng.choice(HEADERS))
            elif kind == 2:
                head.pop(rng.randrange(len(head)))
            elif kind == 3:
                head = [line.lower() for line in head]
            else:
                head = head * 2
            head = head or [""]
    sent = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1", "replace") + data
    if not is_good and rng.random() < 0.4:
        changed = bytearray(sent)
        for _ in range(rng.randrange(1, 6)):
            changed[rng.randrange(min(len(changed), 300))] = rng.randrange(256)
        sent = bytes(changed)
    if not is_good and rng.random() < 0.2:
        sent = sent[: rng.randrange(len(sent))]
    return sent, is_good
