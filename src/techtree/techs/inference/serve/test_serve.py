"""Oracles: requests read line by line, texts by `sampling.generate`, a row of clients as a list."""

import codecs
import functools
import gc
import itertools
import json
import re
import time
import weakref
from unittest import mock

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module
from techtree.techs.elsewhere import elsewhere
from techtree.techs.inference.sampling import Sampling, StopStrings, generate
from techtree.techs.transformer.llama_block import Llama, LlamaConfig

PORT = 8012
PLAIN = Sampling(1.0, 0, 1.0, 0.0)
GREEDY = Sampling(0.0, 0, 1.0, 0.0)
NAME = set("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def refused(impl, function, *arguments):
    """Return the status with which a call is refused, or None."""
    try:
        function(*arguments)
    except impl.RequestError as error:
        return error.status * (0 < len(error.message) == len(str(error)))
    return None


# Requests ------------------------------------------------------------------------------------------------


def raw(method="POST", target="/v1/completions", body=b'{"prompt":"a"}', version="HTTP/1.1", **headers):
    """Write a request; a header of None is left out."""
    given = {"Host": f"127.0.0.1:{PORT}", "Content-Length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in given.items() if value is not None]
    return "\r\n".join([f"{method} {target} {version}", *lines, "", ""]).encode("latin-1") + body


def slow_parse(data):
    """The definition: a status, None, or what a request holds."""
    head, found, rest = data[:16384].partition(b"\r\n\r\n")
    if not found:
        return 413 if len(data) >= 16384 else None
    rest = data[len(head) + 4 :]
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[0] or not set(parts[0]) <= NAME or parts[2] != "HTTP/1.1":
        return 400
    if parts[1][:1] != "/" or any(not 33 <= ord(each) <= 126 for each in parts[1]):
        return 400
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or not set(name) <= NAME:
            return 400
        if any((ord(each) < 32 and each != "\t") or ord(each) == 127 for each in value):
            return 400
        headers.setdefault(name.lower(), []).append(value.strip(" \t"))
    headers = {name: ", ".join(values) for name, values in headers.items()}
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length or set(length) - set("0123456789"):
        return 400
    length = length.lstrip("0") or "0"
    if len(length) > 7 or int(length) > 1048576:
        return 413
    return (parts[0], parts[1], headers, rest[: int(length)]) if len(rest) >= int(length) else None


def check_parse(impl, data):
    expected, got = slow_parse(data), []
    for _ in range(2):
        try:
            found = impl.parse_request(data)
            if found is not None:
                assert isinstance(found, impl.Request)
                assert type(found.body) is bytes
                found = (found.method, found.target, dict(found.headers), found.body)
        except impl.RequestError as error:
            found = error.status
        got.append(found)
    if got != [expected, expected]:
        facts = [f"bytes: {battery.drawn(data)}", f"expected: {battery.drawn(expected)}"]
        raise battery.MismatchError(f"another answer: {battery.drawn(got[0])}", facts)


FIRST = b"POST / HTTP/1.1\r\n"
HEADS = r"""

GET / HT
GET / HTTP/1.1\r\n
GET / HTTP/1.1\r\n\r
\x16\x03\x01\r\n\r\n
\r\n\r\n
\r\nGET / HTTP/1.1\r\n\r\n
GET / HTTP/1.1\nHost: a\n\n
GET / HTTP/1.1\r\nA: b\n\r\n
"""
LINES = r"""
GET /|GET /a?b=c&d=%20#e|GET /!~|GET /\xe9|GET /\x01|GET /\x7f|GET /\t|GET http://a/|GET a/|GET *
BREW /|get /|X!#$%&'*+-.^_`\x7c~9 /|G(T /|G\xc9T /| /|GET|GET  /| GET /|GET\t/|GET / x|GET\xa0/
GET / |GET /\t|
"""
VERSIONS = ("HTTP/1.0", "HTTP/2.0", "HTTP/1.10", "HTTP/1x1", "http/1.1", "HTTP/1.1 ", "XHTTP/1.1")
HEADERS = r"""
Host|: a|Host : a|Ho st: a|A: b\r\n c|A: b\r\n\tc|H\xf6st: a|A(b): a|!#$%&'*+-.^_`\x7c~9zZ: a| A: a
A\x00: a|"A": a
A:b\r\nC: \t d e\t f \t\r\nG:\r\nH:   \r\nI: \xa0b\xa0\r\nJ: \x85|A: \xe9\xff\x80\xa0 \xc3\xa9
a: 1\r\nB: 2\r\nA: 3\r\na: 1\r\nHOST: [::1]:8012\r\nhost: b|Content-Length: x\r\nBad|A:|A: \t|A: b:c: d
Transfer-Encoding: chunked|transfer-encoding: identity\r\nContent-Length: 0
Transfer-Encoding: chunked\r\nContent-Length: 99|Content-Length: 99\r\nTransfer-Encoding:
Content-Length: 99\r\nA b: c|Transfer-Encoding:|cOnTeNt-LeNgTh: 2
Content-Length: 1\r\nContent-Length: 1|Content-Length: 8\r\n\r\n\r\n\r\n\r\n|Content-Length: 1048577\r\nX
"""
LENGTHS = r"""5|6|7|0|06|0000000003|1e1|+1|-1|1_0||1.0|0x1|1 2|1, 1|a|\xb2
1048575|1048576|1048577|2097152|9999999|10000000"""


def cases(table):
    """Return the cases of a table, which are apart by new lines or bars, as bytes."""
    return [each.encode().decode("unicode_escape").encode("latin-1") for each in re.split(r"[|\n]", table)]


SMALL = cases(HEADS)
SMALL += [each + b" HTTP/1.1\r\n\r\n" for each in cases(LINES)]
SMALL += [b"GET / " + each.encode() + b"\r\n\r\n" for each in VERSIONS]
SMALL += [FIRST + each + b"\r\n\r\nabcd" for each in cases(HEADERS)]
SMALL += [FIRST + b"Content-Length: %s\r\n\r\nabcdef" % each for each in [*cases(LENGTHS), b"1" * 40]]
SMALL += [
    b"%s /x HTTP/1.1\r\nContent-Length: %d\r\n\r\nabc" % (m, n) for m in (b"GET", b"Y") for n in (3, 5, 2**21)
]
SMALL += [FIRST + b"A: b%cc\r\n\r\n" % byte for byte in (*range(32), 126, 127, 128, 133, 160, 255)]
SMALL += [
    FIRST + b"".join(b"a: %s\r\n" % value for value in values) + b"\r\n"
    for n in (2, 3)
    for values in itertools.product((b"", b"x", b" \t", b",", b"x, y"), repeat=n)
]  # one name several times
SMALL += [FIRST + b"Content-Length: 256\r\n\r\n" + bytes(range(256)), raw() + raw("GET")]


def test_requests_by_hand(impl):
    request = impl.parse_request(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi and more")
    assert (request.method, request.target, request.body) == ("POST", "/x", b"hi")
    assert dict(request.headers) == {"host": "a", "content-length": "2"}
    assert impl.parse_request(b"GET / HTTP/1.1\r\n\r\n").body == b""
    for data in SMALL:
        check_parse(impl, data)
    for data in [*SMALL[::3], raw(body=b"\r\n\r\n\r\n"), raw(Origin="x")]:
        for n in range(min(len(data), 400)):
            check_parse(impl, data[:n])


def test_requests_of_any_size(impl, rng):
    for n in aim.sizes(1, 200, 5000, at_most=16500):
        body = bytes(rng.integers(256, size=n).tolist())
        check_parse(impl, FIRST + b"Content-Length: %d\r\n\r\n%s" % (n, body))
        check_parse(impl, FIRST + b"Content-Length: %d\r\n\r\n%s" % (n, body[:-1]))
        check_parse(impl, b"%s /%s HTTP/1.1\r\n%s: %s\r\n\r\n" % ((b"x" * (n // 4),) * 4))
        check_parse(impl, FIRST + b"".join(b"A%d: x\r\n" % each for each in range(n // 9)) + b"\r\n")
    for n in (16380, 16383, 16384, 16385, 16388, 17000):
        whole = FIRST + b"A: " + b"x" * (n - len(FIRST) - 7) + b"\r\n\r\n"
        for data in (
            whole,
            whole[:-1],
            whole[:-4],
            whole[:-2] + b"xx",
            whole + b"y" * 99,
            b"\r\n\r\n" + b"x" * n,
        ):
            check_parse(impl, data)
        check_parse(impl, whole.replace(b"A: xxxxxxxxxxxxxxxx", b"Content-Length: 999") + b"y" * 999)
    for data in (b"9" * 5000, b"0" * 5000 + b"2"):
        check_parse(impl, FIRST + b"Content-Length: " + data + b"\r\n\r\nabc")
    for n in (1048575, 1048576):
        check_parse(impl, FIRST + b"Content-Length: %d\r\n\r\n" % n + b"z" * n)


def test_random_edits_of_requests(impl, rng):
    letters = list(b"\r\n\t :/.,;HTP129aZ()\x00\x7f\xff-_")
    for _ in range(150):
        data = bytearray(raw(Origin="http://localhost:8012", A="b"))
        for _ in range(rng.integers(1, 4)):
            at, kind = int(rng.integers(len(data))), rng.integers(3)
            data[at : at + (kind < 2)] = bytes([rng.choice(letters)] if kind else [])
        check_parse(impl, bytes(data))


THEIRS = """evil.example evil.example:PORT 127.0.0.1:NEXT localhost:PORT0 127.0.0.1: :PORT [::1]PORT
    localhost.:PORT localhost.evil.example:PORT evil.localhost:PORT 127.0.0.2:PORT
    0.0.0.0:PORT ::1:PORT [::1]:PORTx x127.0.0.1:PORT
    127.0.0.1:PORT,evil [::]:PORT 127.0.0.1:PORT@evil http://127.0.0.1:PORT 127.0.0.1:PORT/
    localho\u017ft:PORT LOCALHO\u017fT:PORT 127.0.0.\u0661:PORT
    127.0.0.1:0PORT 127.1:PORT 127.0.0.1 localhost [::1] null file:// * https://localhost:PORT
    http:/localhost:PORT //localhost:PORT"""


def test_what_a_refusal_says(impl):
    for status, message in itertools.product(
        (400, 503), ("It is \u00e9, TWICE\n", "a", *battery.texts(300).values())
    ):
        error = impl.RequestError(status, message)
        assert (error.status, error.message, str(error)) == (status, message, message)


def test_who_may_ask(impl):
    def status(port, **headers):
        return refused(impl, impl.check_source, impl.Request("GET", "/x", headers, b""), port)

    for port in (8012, 80, 443, 65535, *aim.whole(3, 65535)):
        ours = [f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]", "LOCALHOST", "LocalHost")]
        theirs = THEIRS.replace("PORT", str(port)).replace("NEXT", str(port + 1)).split()
        theirs += ["", f"127.0.0.1:{port}, evil", f"127.0.0.1:{port} ", f"evil 127.0.0.1:{port}"]
        assert status(port) == 403
        for host in ours:
            assert status(port, host=host) is None
            for origin in ours:
                assert status(port, host=host, origin=f"http://{origin}") is None
                assert status(port, host=host, origin=f"HTTP://{origin}") is None
                assert status(port, host=host, origin=origin) == 403
            for origin in theirs:
                assert status(port, host=host, origin=f"http://{origin}") == 403
                if not origin.startswith("http://"):
                    assert status(port, host=host, origin=origin) == 403
        for host in theirs:
            assert status(port, host=host) == 403
            assert status(port, host=host, origin=f"http://127.0.0.1:{port}") == 403


# What is asked -------------------------------------------------------------------------------------------

DEFAULTS = {"prompt": "x", "max_tokens": 16, "temperature": 1.0, "top_p": 1.0, "seed": 0, "stop": ()}
DEFAULTS |= {"stream": False}
FIELDS = r"""{} {"max_tokens":0} {"max_tokens":5000} {"temperature":0} {"temperature":2.5,"top_p":0.5}
    {"top_p":0} {"seed":1180591620717411303424} {"stop":"ab"} {"stop":["a","\n\n","a"]} {"stop":[]}
    {"stream":true} {"prompt":""}
    {"prompt":"\u00e9\n\u0000\ud83d\ude00\\\"null"}
    {"max_tokens":null,"temperature":null,"top_p":null,"seed":null}
    {"stop":null,"stream":null} {"model":3,"user":[],"min_p":"x","top_k":5,"settings":1,"n":2}"""
WRONG = r"""prompt null 3 ["a"] [] {} true "\ud800" "a\udfffb" 0 false
    stop "" ["a",""] 3 [3] {"a":1} {} true [null] false 0 ["\udc00"] "\ud83d" [["a"]]
    max_tokens -1 1.5 1.0 "1" true false [1] {} "" []
    seed -1 1.5 1.0 "1" true false [1] {} "" []
    temperature "1" true false [1] {} "" NaN -0.1 Infinity 1e999 []
    top_p "1" true false [1] {} "" NaN -0.1 1.1 2 []
    stream 1 0 "true" [] "" {} 0.0 1.0"""
NOT_JSON = b"""| {|prompt|{"prompt":"x"|{'prompt':'x'}|{"prompt":"x"}}|[]|"prompt"|3|null
    |[{"prompt":"x"}]|[["prompt","x"]]|[["prompt","x"],["seed",1]]|["prompt","x"]|{"prompt":"x",}|true|{}|["prompt"]|{"Prompt":"x"}|{"prompt":"\xff"}|\xff
    |{"prompt":"x"} {"prompt":"x"}"""


def check_fields(impl, given, body):
    asked = impl.parse_completion(body)
    assert isinstance(asked, impl.Completion)
    wanted = DEFAULTS | {name: value for name, value in given.items() if value is not None}
    stop = (wanted["stop"],) if isinstance(wanted["stop"], str) else tuple(wanted["stop"])
    settings = Sampling(wanted["temperature"], 0, wanted["top_p"], 0.0)
    assert (asked.prompt, asked.max_tokens, asked.seed) == (
        wanted["prompt"],
        wanted["max_tokens"],
        wanted["seed"],
    )
    assert (asked.settings, asked.stop, asked.is_stream) == (settings, stop, wanted["stream"])


def test_what_may_be_asked(impl):
    fields = [json.loads(each) for each in FIELDS.split()]
    whole = [text for text in battery.texts(300).values() if not re.search("[\ud800-\udfff]", text)]
    fields += [{"prompt": text, "stop": [f"{text}."]} for text in whole]
    fields += [{"stop": ["a", "b", "a", *"cdef"] * n} for n in (1, *aim.sizes(at_most=70))]
    fields += [
        {f"{name}_penalty": 1.5, "min_p": 0.5, "top_k": 3} for name in ("presence", "frequency", "repetition")
    ]
    fields += [{"max_tokens": n, "seed": n, "temperature": n} for n in aim.sizes(9, at_most=2**40)]
    fields += [{f"field{i}": i for i in range(n)} for n in aim.sizes(1, 7, 40, at_most=300)]
    for given in fields:
        for is_ascii in (True, False):
            check_fields(impl, given, json.dumps({"prompt": "x", **given}, ensure_ascii=is_ascii).encode())
    others = ["\ud800", "a\udfff", ["\ud800"], {"\udc00": 1}, {}, [[]], "", 0, -1.5, True, False, None]
    for other, name in itertools.product(
        others, ("user", "model", "\udc00", "", "max_token", "Stop", "is_stream")
    ):
        check_fields(impl, {}, json.dumps({"prompt": "x", name: other}).encode())


def test_what_may_not_be_asked(impl):
    for name, *values in map(str.split, WRONG.splitlines()):
        for value in values:
            body = '{"model":"x",%s"%s":%s}' % ('"prompt":"x",' * (name != "prompt"), name, value)  # noqa: UP031
            assert refused(impl, impl.parse_completion, body.encode()) == 400, body
    large = [b'{"prompt":"x","%s":1%s}' % (name, b"0" * 400) for name in (b"temperature", b"top_p")]
    kinds = (
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32",
        "utf-32-le",
        "utf-32-be",
    )  # which Python's reader takes
    others = [b'{"prompt":"x","y":%s}' % y for y in (b"NaN", b"[Infinity]", b'{"a":-Infinity}', b"[nan]")]
    others += [b'{"prompt":"x"}'.decode().encode(kind) for kind in kinds] + [
        '{"prompt":"\u00e9"}'.encode("latin-1")
    ]
    for body in [*NOT_JSON.split(b"|"), *large, *others, b"[" * 200_000]:
        assert refused(impl, impl.parse_completion, body) == 400, body[:20]


# Answers -------------------------------------------------------------------------------------------------


def wish(impl, prompt, max_tokens=1, settings=GREEDY, seed=0, stop=(), is_stream=False):
    return impl.Completion(prompt, max_tokens, settings, seed, tuple(stop), is_stream)


class Script:
    """An engine that gives for a prompt what it is told to, and remembers it."""

    def __init__(self, *items, error=None):
        self.items, self.error = list(items), error
        self.asked, self.given, self.n_closed = [], [], 0

    def complete(self, asked):
        self.asked.append(asked)
        try:
            if self.error:
                raise self.error
            for each in self.items:
                self.given.append((asked.prompt, each))
                yield each
        finally:
            self.n_closed += 1


def read_answer(pieces):
    """Read a response as a client does: status, content type, and the body."""
    assert all(isinstance(each, bytes) for each in pieces)
    head, end, body = b"".join(pieces).partition(b"\r\n\r\n")
    assert end
    first, *lines = head.decode("ascii").split("\r\n")
    assert re.fullmatch(r"HTTP/1\.1 [1-5]\d\d [ -~]*", first)
    headers = {}
    for line in lines:
        name, value = re.fullmatch(r"([A-Za-z-]+): *(.*?) *", line).groups()
        assert name.lower() not in headers
        headers[name.lower()] = value
    assert headers["connection"].lower() == "close"
    assert "transfer-encoding" not in headers
    kind = headers["content-type"].partition(";")[0]
    if kind == "application/json":
        assert headers["content-length"] == str(len(body))
    else:
        assert "content-length" not in headers
    return int(first[9:12]), kind, body


def asking(impl, value, method="POST", target="/v1/completions"):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return impl.Request(method, target, {"host": "localhost:8012"}, body)


def check_refusal(pieces, status):
    assert len(pieces) == 1
    found, kind, body = read_answer(pieces)
    assert (found, kind) == (status, "application/json")
    error = json.loads(body)["error"]
    assert error["code"] == status
    assert isinstance(error["message"], str)
    assert error["message"]
    return error["message"]


def check_objects(objects, before):
    """Look at what all objects of an answer have, and return what their choices say."""
    assert len({(each["id"], each["created"]) for each in objects}) == 1
    assert all(before <= each["created"] <= time.time() and type(each["created"]) is int for each in objects)
    assert all(re.fullmatch("cmpl-.+", each["id"]) for each in objects)
    assert {(each["object"], each["model"]) for each in objects} == {("text_completion", "techtree")}
    assert all(len(each["choices"]) == 1 and each["choices"][0]["index"] == 0 for each in objects)
    return [(each["choices"][0]["text"], each["choices"][0]["finish_reason"]) for each in objects]


ITEMS = [("he", None), ("", None), ('l"\u00e9\n\n\U0001f600', None), ("", None), ("\r\ndata: x", "length")]


def test_a_completion_at_once(impl):
    for items in (ITEMS, [("", "stop")], [("a", None), ("", "length")], [("a" * 5000, "stop")]):
        engine, before = Script(*items), int(time.time())
        pieces = list(impl.respond(asking(impl, {"prompt": "x", "seed": 3}), engine))
        status, kind, body = read_answer(pieces)
        assert (status, kind) == (200, "application/json")
        assert pieces[:-1] == [b""] * (len(items) - 1)
        assert check_objects([json.loads(body)], before) == [
            ("".join(text for text, _ in items), items[-1][1])
        ]
        assert engine.asked == [wish(impl, "x", 16, PLAIN, 3)]
        assert engine.n_closed == 1


def check_stream(pieces, items, before):
    status, kind, body = read_answer(pieces)
    assert (status, kind) == (200, "text/event-stream")
    assert len(pieces) == len(items)
    bodies = [pieces[0].partition(b"\r\n\r\n")[2], *pieces[1:]]
    *events, done, rest = body.decode("utf-8").split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(each.startswith("data: {") and "\n" not in each and "\r" not in each for each in events)
    told = check_objects([json.loads(each[6:]) for each in events], before)
    assert told == [(text, reason) for text, reason in items if text or reason]
    assert [each.count(b"data: {") for each in bodies] == [bool(text or reason) for text, reason in items]


def test_a_stream(impl):
    ids, long = set(), [(f"{n}, and more of it ", None) for n in range(40)]
    for items in (
        ITEMS,
        [("", "stop")],
        [("", None), ("a", None), ("", "length")],
        [("a" * 5000, "stop")],
        [*long, ("b" * 5000, None), ("c", "stop")],
    ):
        engine, before = Script(*items), int(time.time())
        pieces = list(impl.respond(asking(impl, {"prompt": "x", "stream": True, "stop": "b"}), engine))
        check_stream(pieces, items, before)
        assert engine.asked == [wish(impl, "x", 16, PLAIN, 0, ["b"], True)]
        assert engine.n_closed == 1
        ids.add(re.search(rb'cmpl-[^"]*', b"".join(pieces))[0])
    assert len(ids) == 5


def test_an_answer_has_one_time(impl):
    """However long it takes."""
    days = itertools.count(int(time.time()), 86400)
    with mock.patch.object(time, "time", side_effect=map(float, days)):
        pieces = list(impl.respond(asking(impl, {"prompt": "x", "stream": True}), Script(*ITEMS)))
    assert len(set(re.findall(rb'"created": *(\d+)', b"".join(pieces)))) == 1


def test_a_piece_for_each_item(impl):
    """What the engine gives is passed on at once; nothing is asked of it ahead, or when nobody is there."""
    for is_stream in (True, False):
        for n_taken in range(6):
            engine = Script(*ITEMS)
            answer = impl.respond(asking(impl, {"prompt": "x", "stream": is_stream}), engine)
            for n in range(n_taken):
                assert len(engine.given) == n
                next(answer, None)
            answer.close()
            assert (len(engine.given), engine.n_closed) == (n_taken, min(n_taken, 1))


def test_what_is_refused(impl):
    engine = Script(*ITEMS)
    for target in (
        "/",
        "/v1",
        "/v1/completions/",
        "/v1/completions?x",
        "/x/v1/completions",
        "/V1/completions",
    ):
        check_refusal(list(impl.respond(asking(impl, {"prompt": "x"}, "POST", target), engine)), 404)
    for method in ("GET", "PUT", "post", "OPTIONS", "DELETE"):
        check_refusal(list(impl.respond(asking(impl, {"prompt": "x"}, method), engine)), 404)
    check_refusal(list(impl.respond(asking(impl, b"{", "POST", "/x"), engine)), 404)
    for body in (
        b"",
        b"[]",
        {"prompt": 3},
        {"prompt": "\ud800"},
        {"prompt": "a", "stop": "", "stream": True},
    ):
        check_refusal(list(impl.respond(asking(impl, body), engine)), 400)
    assert engine.asked == []
    for status, is_stream in itertools.product((400, 503), (True, False)):
        broken = Script(error=impl.RequestError(status, 'that is "so" \u00e9'))
        answer = list(impl.respond(asking(impl, {"prompt": "x", "stream": is_stream}), broken))
        assert check_refusal(answer, status) == 'that is "so" \u00e9'


# Clients in a row ----------------------------------------------------------------------------------------


def ask(prompt="x", is_stream=False, **headers):
    return raw(body=json.dumps({"prompt": prompt, "stream": is_stream}).encode(), **headers)


def rest_of(server, client):
    """Let a client who is alone have its answer."""
    steps = list(iter(server.step, None))
    assert {each for each, _ in steps} == {client}
    assert [piece is None for _, piece in steps] == [False] * (len(steps) - 1) + [True]
    return [piece for _, piece in steps[:-1]]


def test_one_client_after_the_other(impl, rng):
    engine, before = Script(*ITEMS), int(time.time())
    server = impl.Server(engine, PORT)
    assert server.step() is None
    other = impl.Server(engine, PORT)
    server.feed(0, ask()[:30])
    other.feed(0, ask()[:30])
    server.feed(0, ask()[30:])
    assert other.step() is None
    assert len(rest_of(server, 0)) == len(ITEMS)
    engine.given.clear()
    for client in (0, "", None, (1, 2), frozenset()):
        for is_stream in (True, False):
            data = ask(is_stream=is_stream)
            for size in (len(data), 1, 7):
                for start in range(0, len(data), size):
                    assert server.step() is None
                    server.feed(client, data[start : start + size])
                    assert not engine.given
                server.feed(client, b"GET / HTTP/1.1\r\n\r\n")  # comes too late
                pieces = rest_of(server, client)
                if is_stream:
                    check_stream(pieces, ITEMS, before)
                else:
                    assert check_objects([json.loads(read_answer(pieces)[2])], before)
                engine.given.clear()


def test_requests_of_any_size_in_pieces(impl):
    for n in aim.sizes(100, 70_000, at_most=1_000_000):
        engine = Script(*ITEMS)
        server, data = impl.Server(engine, PORT), ask("x" * n)
        for size in (n // 3 + 1, n // 2 + 7, len(data)):
            for start in range(0, len(data), size):
                assert server.step() is None
                server.feed("a", data[start : start + size])
            assert read_answer(rest_of(server, "a"))[0] == 200
            assert engine.asked.pop().prompt == "x" * n


def test_any_hashable_is_a_client_of_its_own(impl):
    """The order is that of the ends of requests, and neither that of their beginnings nor of names."""
    names = [
        1,
        "1",
        b"1",
        (1,),
        "",
        None,
        0,
        "0",
        -5,
        10**6,
        5000,
        2**70,
        2.5,
        frozenset([1]),
        "None",
        "a",
        "A",
    ]
    many = [list(range(n)) for n in aim.sizes(40, at_most=300)]
    for order in (names, names[::-1], names[::2] + names[1::2], *many):
        server = impl.Server(Script(*ITEMS), PORT)
        for name in order:
            server.feed(name, ask()[:-1])
        for name in order[::-1]:
            server.feed(name, ask()[-1:])
        for n in range(len(ITEMS) + 1):
            for name in order[::-1]:
                found, piece = server.step()
                assert (type(found), found) == (type(name), name)
                assert (piece is None) == (n == len(ITEMS))
        assert server.step() is None


def test_what_cannot_be_read_is_refused(impl):
    bad = {
        413: [b"x" * 16384, raw(Content_Length=str(2**20 + 1)), FIRST + b"A: b\r\n" * 4000],
        400: [b"rubbish\r\n\r\n", raw(Content_Length="x"), raw(target="no"), raw(body=b"[]")],
        403: [
            raw(Host=None),
            raw(Host="evil.example"),
            raw("GET", Host="127.0.0.1"),
            raw(Origin="http://evil.example"),
        ],
        404: [raw("GET"), raw(target="/x"), raw("GET", Content_Length=None, body=b"")],
    }
    for status, requests in bad.items():
        for request in requests:
            for more in (b"", b"x", b"xy", b"x" * 500):
                engine = Script(*ITEMS)
                server = impl.Server(engine, PORT)
                server.feed(7, request + more)
                client, piece = server.step()
                assert client == 7
                server.feed(7, ask())
                check_refusal([piece, *rest_of(server, 7)], status)
                assert engine.asked == []
    for port in (80, 9999):
        server = impl.Server(Script(*ITEMS), port)
        server.feed(1, ask(Host=f"localhost:{port}", Origin=f"http://[::1]:{port}"))
        assert read_answer(rest_of(server, 1))[0] == 200
        server.feed(1, ask())
        check_refusal(rest_of(server, 1), 403)


def test_clients_take_turns(impl, rng):
    """Any order of events, beside a row that is a list: who is next, what it gets, which texts are closed."""
    events = ["step"] * 4 + ["feed"] * 3 + ["leave"]
    for n_clients in (2, 4, 9):
        engine = Script(*ITEMS)
        server, row, left, unread, seen, n_closed = impl.Server(engine, PORT), [], {}, {}, {}, 0
        for _ in range(250):
            event, client = rng.choice(events), int(rng.integers(n_clients))
            if event == "feed":
                host = "x" if rng.random() < 0.2 else f"localhost:{PORT}"
                text = unread.get(client, ask(str(client), bool(client % 2), Host=host))
                n = int(rng.integers(2 * len(text)))
                server.feed(client, text[:n])
                if client not in row:
                    unread[client] = text[n:]
                    if not text[n:]:
                        row.append(client)
                        left[client] = [None] if b"Host: x" in seen.pop(client, b"") + text else list(ITEMS)
                        del unread[client]
                    else:
                        seen[client] = seen.get(client, b"") + text[:n]
            elif event == "leave":
                server.leave(client)
                unread.pop(client, None)
                seen.pop(client, None)
                if client in row:
                    row.remove(client)
                    n_closed += ITEMS[-1] in left[client] and left.pop(client) != ITEMS
            elif not row:
                assert server.step() is None
            else:
                client, n_given = row.pop(0), len(engine.given)
                found, piece = server.step()
                assert found == client
                expected = left[client].pop(0) if left[client] else "over"
                assert engine.given[n_given:] == (
                    [] if expected in (None, "over") else [(str(client), expected)]
                )
                if expected == "over":
                    assert piece is None
                    del left[client]
                else:
                    assert isinstance(piece, bytes)
                    assert (b" 403 " in piece) == (expected is None)
                    row.append(client)
                    n_closed += expected is ITEMS[-1]
            # The generator of a whole text may be closed with its last item or after it.
            assert n_closed - sum(not each for each in left.values()) <= engine.n_closed <= n_closed


def test_who_has_gone_is_forgotten(impl):
    class Client:
        pass

    server = impl.Server(Script(*ITEMS), PORT)
    clients = [Client() for _ in range(4)]
    for client, data in zip(clients, (ask(), ask(is_stream=True), ask()[:-1], b"?\r\n\r\n"), strict=True):
        server.feed(client, data)
    for _ in range(3):
        server.step()
    for client in clients[:3]:
        server.leave(client)
        server.leave(client)
    assert [piece is None for _, piece in iter(server.step, None)] == [True]
    server.feed(clients[2], ask()[-1:])
    assert server.step() is None
    server.leave(clients[2])
    held = [weakref.ref(each) for each in clients]
    clients.clear()
    del client
    gc.collect()
    assert [each() for each in held] == [None] * 4


# The engine ----------------------------------------------------------------------------------------------


class Counting(Module):
    """The table of a model, which remembers what runs through it; it breaks at a token, if it is told to."""

    def __init__(self, table):
        self.table, self.read, self.fuse = table, [], None

    @property
    def weight(self):
        return self.table.weight

    def forward(self, ids):
        if self.fuse in np.asarray(ids):
            raise KeyError(self.fuse)
        self.read.append(np.asarray(ids).tolist())
        return self.table(ids)

    def unembed(self, x):
        return self.table.unembed(x)

    def taken(self):
        """Return what was read since the last time."""
        read, self.read = self.read, []
        return read


PIECES = [bytes([byte]) for byte in b"abcdefghijklmnop \n"] + [
    b"\xc3",
    b"\xa9",
    b"\xe2\x82",
    b"\xac",
    b"the ",
    "\ufeff".encode(),
    b"<end>",
]
END = len(PIECES) - 1
SIGNS = {piece.decode("latin-1"): i for i, piece in enumerate(PIECES[:18])}


def encode(text):
    """Letter by letter."""
    return [SIGNS[each] for each in text]


def make_model(seed=0, dtype=np.float64):
    config = LlamaConfig(len(PIECES), 8, 8, 1, 2, 1, is_tied=False)
    model = Llama(config, np.random.default_rng(seed), dtype=dtype)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data *= 3  # so that what stands before counts
    model.token_embedding = Counting(model.token_embedding)
    return model


def scripted(steps):
    """Make a model whose likeliest token after each is the one of the script, by far."""
    n = len(PIECES)
    model = Llama(LlamaConfig(n, n + n % 2, 2, 1, 1, 1, is_tied=False), np.random.default_rng(0))
    model.token_embedding.weight.data[:] = np.eye(n, n + n % 2)
    model.blocks[0].attention.output.weight.data[:] = 0
    model.blocks[0].feed_forward.down.weight.data[:] = 0
    model.head.weight.data[:] = 0
    for before, after in steps.items():
        model.head.weight.data[after, before] = 50
    model.token_embedding = Counting(model.token_embedding)
    return model


def make_engine(impl, model, max_len=24, n_slots=1):
    return impl.Engine(model, encode, PIECES, {END}, max_len, *[n_slots] * (n_slots != 1))


@functools.cache
def slow_complete(
    seed, prompt, max_tokens=1, settings=GREEDY, rng_seed=0, stop=(), max_len=24, dtype=np.float64
):
    """The items by `sampling.generate`, which keeps nothing; and how many tokens were drawn."""
    limit = min(max_tokens, max_len - len(encode(prompt)) + 1)
    decoder, shown = codecs.getincrementaldecoder("utf-8")("replace"), StopStrings(stop)
    texts, reason, n_drawn = [], "length", 0
    model, rng = make_model(seed, dtype), np.random.default_rng(rng_seed)
    for token in generate(model, encode(prompt), limit, settings, rng):
        n_drawn += 1
        if token == END:
            reason = "stop"
            break
        texts.append((shown.feed(decoder.decode(PIECES[token])), None))
        if shown.is_stopped:
            break
    rest = shown.feed(decoder.decode(b"", True)) + shown.finish()
    return [*texts, (rest, "stop" if shown.is_stopped else reason)], n_drawn


ASKED = [
    ("abc", 6, GREEDY, 0),
    ("abcd", 6, PLAIN, 1),
    ("abcd", 6, PLAIN, 2),
    ("abcdefgh\n", 9, PLAIN, 3),
    ("abcdefgh\n", 9, PLAIN, 3, ("e", "ab")),
    ("abkd", 5, Sampling(), 4),
    ("k", 12, Sampling(1.5, 3, 0.9, 0.0), 5, (" ", "\ufffd")),
    ("kk", 0, PLAIN, 6),
    ("abc", 12, Sampling(2.0, 0, 1.0, 0.0, 1.1, 0.5, 0.5), 7, ("the ", "\n\n", "h")),
    ("abc", 100, GREEDY, 8),
    ("abca", 9, Sampling(0.0, 0, 1.0, 0.0, 1.5, 1.0, 1.0), 8),
    ("kkab", 9, Sampling(0.0, 0, 1.0, 0.0, 1.0, 0.0, 9.0), 8),
    ("a" * 24, 5, PLAIN, 9),
    ("a" * 23, 5, PLAIN, 10),
    ("abc", 6, GREEDY, 0),
]


def n_shared(one, other):
    differ = [i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    return (differ or [min(len(one), len(other))])[0]


def test_typing_reads_what_was_typed(impl):
    model = scripted({0: 1, 1: 2, 2: 3, 3: 4})
    engine = make_engine(impl, model)

    def read(prompt, max_tokens=1):
        model.token_embedding.taken()
        list(engine.complete(wish(impl, prompt, max_tokens)))
        return model.token_embedding.taken()

    assert read("a", 3) == [[0], [1], [2]]  # bcd
    assert read("abcd") == [[3]]  # The answer that was accepted is there already, but for its last token.
    assert read("abcd") == [[3]]
    assert read("ab") == [[1]]
    assert read("abcd", 0) == []
    assert read("abcd") == [[2, 3]]
    assert read("abdd") == [[3, 3]]
    assert read("b") == [[1]]


def test_text_is_held_back_until_it_is_sure(impl):
    e_acute, euro = {0: 18, 18: 19, 19: 1}, {0: 20, 20: 21, 21: 1}
    cases = [
        (e_acute, 3, [], ["", "\u00e9", "b", ""], "length"),
        (euro, 3, [], ["", "\u20ac", "b", ""], "length"),
        (e_acute, 1, [], ["", "\ufffd"], "length"),
        (euro, 1, [], ["", "\ufffd"], "length"),
        ({0: 18, 18: END}, 9, [], ["", "\ufffd"], "stop"),
        ({0: 18, 18: 1, 1: 2}, 3, [], ["", "\ufffdb", "c", ""], "length"),
        ({0: 19, 19: 1}, 2, [], ["\ufffd", "b", ""], "length"),
        ({0: 18, 18: 1}, 2, ["\ufffd"], ["", "", ""], "stop"),
        ({0: 18}, 1, ["\ufffd"], ["", ""], "stop"),
        (e_acute, 3, ["\u00e9"], ["", "", ""], "stop"),
        (e_acute, 3, ["a\u00e9", "\u00e9b"], ["", "", "", ""], "stop"),
        ({0: 1, 1: 2, 2: 3}, 3, ["cd"], ["b", "", "", ""], "stop"),
        ({0: 1, 1: 2, 2: 3}, 3, ["ce"], ["b", "", "cd", ""], "length"),
        ({0: 1, 1: 2, 2: 3}, 2, ["cd"], ["b", "", "c"], "length"),
        ({0: 1, 1: 2, 2: END}, 9, ["cd"], ["b", "", "c"], "stop"),
        ({0: 1, 1: 2}, 2, ["ab"], ["b", "c", ""], "length"),  # The prompt is no part of it.
        ({0: 22, 22: 1}, 2, ["e b"], ["th", "", ""], "stop"),
        ({0: 1, 1: 2}, 2, ["b ", " b"], ["", "bc", ""], "length"),
        ({0: 23, 23: 1, 1: 23}, 3, [], ["\ufeff", "b", "\ufeff", ""], "length"),
        ({0: 18, 18: END}, 9, ["zz"], ["", "\ufffd"], "stop"),
        ({0: 22, 22: 1}, 2, ["h"], ["t", ""], "stop"),
        ({0: 1, 1: 18}, 2, ["bc", "\ufffdz"], ["", "", "b\ufffd"], "length"),
        ({0: 1, 1: 2}, 2, ["bcd", *"efghijklmnopq" * 3, "c"], ["", "b", ""], "stop"),
        ({0: END}, 5, [], [""], "stop"),
        ({0: END}, 0, [], [""], "length"),
        ({0: 1, 1: 2, 2: 1}, 5, ["bb"], ["", "bc", "", "bc", "", "b"], "length"),
    ]
    for steps, max_tokens, stop, texts, reason in cases:
        expected = [*((each, None) for each in texts[:-1]), (texts[-1], reason)]
        found = list(make_engine(impl, scripted(steps)).complete(wish(impl, "a", max_tokens, stop=stop)))
        assert found == expected, (steps, stop)


def test_an_error_frees_the_slot_and_loses_nothing(impl):
    model = scripted({0: 1, 1: 2, 2: 3, 3: 4})
    engine = make_engine(impl, model)
    for n_given, fuse in ((0, 0), (1, 1), (3, 3)):
        model.token_embedding.fuse = fuse
        text = engine.complete(wish(impl, "fga", 9))
        assert [next(text)[0] for _ in range(n_given)] == ["b", "c", "d"][:n_given]
        with pytest.raises(KeyError):
            next(text)
        model.token_embedding.fuse = None
    model.token_embedding.taken()
    assert [each for each, _ in engine.complete(wish(impl, "fgabcdee", 1))] == ["a", ""]
    assert model.token_embedding.taken() == [[3, 4, 4]]
    bad = impl.Engine(model, lambda text: [len(PIECES)], PIECES, {END}, 5)
    for _ in range(2):
        battery.refuses(next, bad.complete(wish(impl, "a")))  # and never 503


def test_slots(impl, rng):
    """Texts that begin and end in any order, beside a list of what is free: the longest at rest is first."""
    model = make_model()
    for n_slots in (1, 2, 3, 3, *aim.sizes(5, at_most=9)):
        engine, free, busy = make_engine(impl, model, n_slots=n_slots), [[] for _ in range(n_slots)], []
        for _ in range(40):
            if busy and rng.random() < 0.5:
                items, held = busy.pop(int(rng.integers(len(busy))))
                items.close()
                free.append(held)
                continue
            prompt = "".join(rng.choice(list("ab"), size=rng.integers(10)))
            ids, items = encode(prompt), engine.complete(wish(impl, prompt, 3))
            if not ids or not free:
                assert refused(impl, next, items) in [400] * (not ids) + [503] * (not free)
                continue
            shared = [n_shared(held, ids) for held in free]
            is_close = 2 * max(shared) >= len(ids)
            held = free.pop(shared.index(max(shared)) if is_close else 0)
            model.token_embedding.taken()
            next(items)
            assert model.token_embedding.taken() == [ids[min(n_shared(held, ids), len(ids) - 1) :]]
            busy.append((items, ids))


def test_texts_in_turns(impl):
    """Each is what it is alone, also those of two engines."""
    model = make_model()
    engines = [make_engine(impl, model, n_slots=2), make_engine(impl, model, 9)]
    asked = [("abcab", 9, PLAIN, 1, ("ab",)), ("abdd", 9, PLAIN, 2), ("abca", 9, PLAIN, 3)]
    texts = [engines[n // 2].complete(wish(impl, *each)) for n, each in enumerate(asked)]
    found = [[each for each in row if each] for row in zip(*itertools.zip_longest(*texts), strict=True)]
    assert found == [slow_complete(0, *each, max_len=24 if n < 2 else 9)[0] for n, each in enumerate(asked)]


def test_a_dropped_text_frees_its_slot_at_once(impl):
    model = make_model()
    reference, _ = slow_complete(0, "abcdef", 8, PLAIN, 1)
    for n_taken in (0, 1, 2, 5):
        engine = make_engine(impl, model)
        model.token_embedding.taken()
        text = engine.complete(wish(impl, "abcd", 8, PLAIN))
        for _ in range(n_taken):
            next(text)
        assert len(model.token_embedding.taken()) == n_taken  # nothing ahead of what was asked for
        assert refused(impl, next, engine.complete(wish(impl, "a"))) == (503 if n_taken else None)
        text.close()
        model.token_embedding.taken()
        assert list(engine.complete(wish(impl, "abcdef", 8, PLAIN, 1))) == reference
        assert model.token_embedding.taken()[0] == encode("abcdef"[4 if n_taken else 1 :])
    engine = make_engine(impl, model)
    text = engine.complete(wish(impl, "abcd", 8))
    next(text)
    del text  # what nobody holds any more is closed
    gc.collect()
    assert refused(impl, next, engine.complete(wish(impl, "a"))) is None


def test_slots_of_any_length(impl):
    model = make_model()
    engine = make_engine(impl, model, max_len=5)
    list(engine.complete(wish(impl, "abc")))
    for prompt in ("", "a" * 6, "ab" * 50):
        model.token_embedding.taken()
        assert refused(impl, next, engine.complete(wish(impl, prompt, 3))) == 400
        busy = engine.complete(wish(impl, "abcd", 2))
        next(busy)
        assert refused(impl, next, engine.complete(wish(impl, prompt, 3))) in (400, 503)
        busy.close()
        assert len(model.token_embedding.taken()) == 1
    for n in aim.sizes(1, 2, 40, at_most=70):
        asked = (("abcd" * n)[:n], 5, PLAIN, n)
        found = list(make_engine(impl, model, max_len=n + 3).complete(wish(impl, *asked)))
        assert found == slow_complete(0, *asked, max_len=n + 3)[0]
        text = "abcd" * n
        engine = make_engine(impl, model, max_len=len(text) + 3)
        for n_taken in (1, 3):  # Each time the one slot is free again.
            items = engine.complete(wish(impl, text, 5, PLAIN))
            for _ in range(n_taken):
                next(items)
            items.close()
        assert [reason for _, reason in engine.complete(wish(impl, text, 1))] in ([None, "length"], ["stop"])
    found = list(make_engine(impl, scripted({0: 1, 1: 0}), 200).complete(wish(impl, "a", 40, stop=["zz"])))
    assert [text for text, _ in found] == ["b", "a"] * 20 + [""]


def test_nothing_is_lost_by_rounding(impl):
    """The best two tokens are apart by less than float32 can tell, in what is read now or was before."""
    for seed in range(8):
        model = make_model(seed)
        hidden, prompt = [], "abcdefg"[: seed + 2]
        norm = model.norm
        model.norm = lambda x, norm=norm, hidden=hidden: hidden.append(norm(x)) or hidden[-1]
        model(np.array(encode(prompt)))
        h, rows = hidden[0].data[-1], model.head.weight.data
        rows[3:5] += np.outer(60 - rows[3:5] @ h, h) / (h @ h)
        rows[4] += 1e-10 * h / (h @ h)
        engine = make_engine(impl, model)
        for each in (prompt[:-1], prompt):
            found = list(engine.complete(wish(impl, each)))
        assert found[0] == ("e", None)


def test_all_of_an_engine_is_used(impl):
    model, asked = scripted({0: 1, 1: 2, 2: 3, 3: 4}), []
    for end in ([2, 0], (0, 2), {0: 1, 2: 0, 9: 0}, frozenset([2])):
        engine = impl.Engine(model, lambda text: asked.append(text) or np.array(encode(text)), PIECES, end, 9)
        items = engine.complete(wish(impl, "a", 9))
        assert asked == []
        assert list(items) == [("b", None), ("", "stop")]
        assert asked == ["a"]
        asked.clear()


def test_completions_are_those_of_the_whole_model(impl):
    """After whatever came before, and nothing is read twice."""
    for seed, dtype, all_asked in ((0, np.float64, ASKED), (1, np.float32, ASKED[2:5])):
        model = make_model(seed, dtype)
        engine, held = make_engine(impl, model), []
        for asked in all_asked:
            (expected, n_drawn), ids = slow_complete(seed, *asked, dtype=dtype), encode(asked[0])
            found = list(engine.complete(wish(impl, *asked)))
            assert found == expected, asked
            read = model.token_embedding.taken()
            n_cached = min(n_shared(held, ids), len(ids) - 1)
            held = held[:n_cached]
            if asked[1]:
                assert read[0] == ids[n_cached:]
                assert all(len(each) == 1 for each in read[1:])
                assert len(read) == n_drawn
                held = ids + [each for one in read[1:] for each in one]
            else:
                assert read == []


def test_two_clients_and_one_slot(impl):
    """With a real engine: busy, gone, answered from what is cached."""
    model = make_model()
    engine = make_engine(impl, model)
    server = impl.Server(engine, PORT)
    other = impl.Server(engine, PORT)
    body = json.dumps({"prompt": "abcdefgh", "max_tokens": 8, "temperature": 0}).encode()
    server.feed("one", raw(body=body))
    assert server.step() == ("one", b"")
    other.feed("one", raw(body=body))
    check_refusal(rest_of(other, "one"), 503)
    server.leave("one")
    model.token_embedding.taken()
    server.feed("two", raw(body=body.replace(b"gh", b"ghi")))
    value = json.loads(read_answer(rest_of(server, "two"))[2])
    assert model.token_embedding.taken()[0] == encode("i")
    expected, _ = slow_complete(0, "abcdefghi", 8)
    assert value["choices"][0]["text"] == "".join(text for text, _ in expected)
    assert value["choices"][0]["finish_reason"] == expected[-1][1]


def test_another_machine_and_day_change_nothing(impl):
    model = make_model()

    def everything():
        server = impl.Server(make_engine(impl, model, n_slots=2), PORT)
        for client in "ab":
            server.feed(client, raw(body=b'{"prompt":"abc","max_tokens":9,"stream":true}'))
        return [
            (client, re.sub(rb'"(id|created)":[^,]*,', b"", piece or b""))
            for client, piece in iter(server.step, None)
        ]

    before = everything()
    with elsewhere(impl):
        assert everything() == before
