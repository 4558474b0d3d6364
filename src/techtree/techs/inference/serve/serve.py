r"""A server for completions: HTTP on bytes, caches that follow the typing, answers in turns.

Claim: between a model and an editor lie a few hundred bytes of text protocol, and four things that decide
whether it is any good: what did not change since the last keystroke is not read again; what is shown need
never be taken back; nobody waits for another's long answer; an answer that nobody waits for costs nothing.

Idea: nothing here opens a socket. `Server` is fed bytes as they arrive and gives bytes to send, one token's
work at a time, so that every case can be tried without a network. `listening.py` joins it to real sockets.

Legend: *slot*: a cache and the ids that it holds; *piece*: the bytes that are given to be sent at a time.

Left out: several requests on a connection, bodies in chunks, encryption and keys (only this machine is
answered), clients that send or read too slowly, several texts in one pass through the model (`batching`).

Papers: RFC 9112 (HTTP/1.1), https://www.rfc-editor.org/rfc/rfc9112; server-sent events,
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import codecs
import json
import re
import time
import uuid
from collections.abc import Callable, Collection, Generator, Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np

from techtree.techs.inference.kv_cache import KVCache, extend
from techtree.techs.inference.sampling import Sampling, StopStrings, distribution, draw
from techtree.techs.transformer.llama_block import Llama

MAX_HEAD_BYTES, MAX_BODY_BYTES = 16_384, 1_048_576
_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"


class RequestError(Exception):
    """A request that is refused: made by ``RequestError(status, message)``.

    Both are attributes, and the message is its text, too.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Request:
    """What a client sent; the headers by their names in small letters."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


def parse_request(data: bytes) -> Request | None:
    r"""Read a request of HTTP/1.1 from what has arrived so far.

    Parameters
    ----------
    data
        The first bytes of a connection. What follows the request does not matter.

    Returns
    -------
    Request | None
        None while head or body are not complete. The value of a header is without the blanks and tabs around
        it; those of a name that comes several times are joined by ``", "``. The body has as many bytes
        as ``Content-Length`` says, none without it.

    Raises
    ------
    RequestError
        As soon as the head is there, whether the body is or not. The first of these that fits:

        - 413: the head, its empty line included, is longer than 16,384 bytes; as soon as so many are there
          without it.
        - 400: the first line is not a method, a target and ``HTTP/1.1``, with a blank between. A method is
          made of letters, digits and ``!#$%&'*+-.^_`|~``, a target of visible ASCII, the first of it ``/``.
        - 400: a header has no colon, a name that is not made as a method is, or a control character (0 to 31,
          127) other than the tab in its value.
        - 400: there is a ``Transfer-Encoding``, or a ``Content-Length`` that is not decimal digits alone.
        - 413: the length is above 1,048,576.

    Notes
    -----
    Lines end with ``\r\n``, the head with an empty line; it is read as Latin-1.

    Examples
    --------
    >>> request = parse_request(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi, and more")
    >>> request.method, request.target, request.headers["host"], request.body
    ('POST', '/x', 'a', b'hi')
    >>> parse_request(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Le") is None
    True
    """
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
    if end < 0:
        if len(data) >= MAX_HEAD_BYTES:
            raise RequestError(413, f"a head must have at most {MAX_HEAD_BYTES} bytes: send fewer headers")
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    line = re.fullmatch(rf"({_NAME}) (/[!-~]*) HTTP/1\.1", first)
    if line is None:
        raise RequestError(400, f"the first line must be like 'POST /v1/completions HTTP/1.1'; got {first!r}")
    headers: dict[str, str] = {}
    for each in lines:
        found = re.fullmatch(rf"({_NAME}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*", each)
        if found is None:
            raise RequestError(400, f"a header must be like 'Host: localhost'; got {each!r}")
        name = found[1].lower()
        headers[name] = f"{headers[name]}, {found[2]}" if name in headers else found[2]
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not re.fullmatch("[0-9]+", length):
        raise RequestError(400, "a body must come whole, and Content-Length say its bytes in digits")
    n_bytes = int(length.lstrip("0")[:8] or 0)  # Python reads no number of thousands of digits.
    if n_bytes > MAX_BODY_BYTES:
        raise RequestError(413, f"a body must have at most {MAX_BODY_BYTES} bytes: send less text")
    body = data[end + 4 : end + 4 + n_bytes]
    return Request(line[1], line[2], headers, body) if len(body) == n_bytes else None


def check_source(request: Request, port: int) -> None:
    """Refuse what a web page makes a browser send to a port: only programs of this machine may ask.

    Raises
    ------
    RequestError
        403 unless ``Host`` is there and is ``127.0.0.1``, ``localhost`` or ``[::1]``, a colon and the port;
        and unless ``Origin`` is missing, or ``http://`` and one of these. Letters may be capital ones.
    """
    hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if host.lower() not in hosts:
        raise RequestError(403, f"Host must be one of {', '.join(hosts)}; got {host!r}")
    if origin is not None and origin.lower() not in [f"http://{each}" for each in hosts]:
        raise RequestError(403, f"pages of {origin} may not use this server, only programs of this machine")


@dataclass(frozen=True)
class Completion:
    """What a client asks for."""

    prompt: str
    max_tokens: int
    settings: Sampling
    seed: int
    stop: tuple[str, ...]
    is_stream: bool


def parse_completion(body: bytes) -> Completion:
    """Read what is asked for: an object in JSON, in UTF-8.

    ``prompt``, a string, must be there. Others may be missing or null: ``max_tokens`` (16) and ``seed`` (0),
    whole numbers from 0; ``temperature`` (1) and ``top_p`` (1), numbers that `Sampling` takes (its ``min_p``
    is 0 always); ``stop`` (none), a string or an array of strings, none of them empty; ``stream`` (false),
    true or false. Other fields do not matter.

    Raises
    ------
    RequestError
        400 for any other body; also when the prompt or a stop string has half of a surrogate pair.

    Examples
    --------
    >>> asked = parse_completion(b'{"prompt": "def f(", "stop": ")", "temperature": 0}')
    >>> asked.prompt, asked.max_tokens, asked.stop, asked.settings.temperature, asked.settings.top_p
    ('def f(', 16, (')',), 0.0, 1.0)
    """
    try:
        given = json.loads(body.decode("utf-8"), parse_constant=_no_number)  # bytes may be UTF-16 for it
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body must be JSON: {error}") from error

    def get(name: str, default: object, is_right: Callable[[Any], bool]) -> Any:
        value = default if given.get(name) is None else given[name]
        if not is_right(value):
            raise RequestError(400, f"a completion with {name} {value!r} cannot be made")
        return value

    if not isinstance(given, dict):
        raise RequestError(400, "the body must be a JSON object")
    prompt, stop = get("prompt", None, _is_text), get("stop", [], lambda x: isinstance(x, str | list))
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(_is_text(each) and each for each in stop):
        raise RequestError(400, f"stop strings must be whole, and not empty; got {stop!r}")
    counts = [get(name, n, _is_count) for name, n in (("max_tokens", 16), ("seed", 0))]
    numbers = [get(name, 1, lambda x: type(x) in (int, float)) for name in ("temperature", "top_p")]
    is_stream = get("stream", False, lambda x: isinstance(x, bool))
    try:
        settings = Sampling(float(numbers[0]), top_p=float(numbers[1]), min_p=0.0)
    except (ValueError, OverflowError) as error:
        raise RequestError(400, str(error)) from error
    return Completion(prompt, counts[0], settings, counts[1], stop, is_stream)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= each <= "\udfff" for each in value)


class Engine:
    """A model behind ``n_slots`` slots, each of which keeps keys and values of the last text it worked on.

    ``encode`` makes ids of a text, ``vocabulary`` has the bytes of each token, which need not be whole
    characters, and ``end`` the tokens that end a text. A slot holds ``max_len`` tokens.
    """

    def __init__(
        self,
        model: Llama,
        encode: Callable[[str], Sequence[int]],
        vocabulary: Sequence[bytes],
        end: Collection[int],
        max_len: int,
        n_slots: int = 1,
    ):
        self._model, self._encode, self._vocabulary, self._end = model, encode, vocabulary, end
        self._max_len, dtype = max_len, model.token_embedding.weight.dtype.type
        # Those that are free; first the one whose last work ended the longest time ago.
        self._free = [(KVCache(model.config, max_len, dtype), []) for _ in range(n_slots)]

    def complete(self, asked: Completion) -> Generator[tuple[str, str | None]]:
        """Continue a text in a free slot. Work is done only when an item is asked for.

        Yields
        ------
        tuple[str, str | None]
            For each new token what may now be shown of the text, perhaps nothing, and None: bytes that are
            not yet a whole character are held back, and so is what may be the beginning of a stop string
            (`StopStrings`); bytes that are no character become U+FFFD. At last what is still to be shown,
            perhaps nothing, and "stop", if a stop string or a token of ``end`` (which has no item) has ended
            the text, or "length": there are max_tokens, or the tokens so far do not fit in the slot.

        Raises
        ------
        RequestError
            With the first item: 400 when the prompt has no tokens or more than max_len, 503 when no slot is
            free. Then nothing is read, and no slot changes.

        Notes
        -----
        Tokens are those of `sampling.generate` with a fresh ``np.random.default_rng(seed)``. The slot is the
        free one that shares most tokens with the prompt, from its beginning, if they are at least half of the
        prompt; otherwise, and of equal ones, the one whose last work ended the longest time ago. What it
        shares is not read again, but for the prompt's last token, whose logits are needed; the rest is read
        in one `extend`, for the first new token: none is read where max_tokens is 0. Each new token is read
        when the next one is asked for. The slot is free again, and holds what was read, when the generator
        has ended, was closed, or broke off with an error.
        """
        ids = [int(each) for each in self._encode(asked.prompt)]
        n_prompt, reason = len(ids), "length"
        if not 1 <= n_prompt <= self._max_len:
            raise RequestError(400, f"a prompt must have 1 to {self._max_len} tokens; got {n_prompt}")
        if not self._free:
            raise RequestError(503, "all slots are in work: try again in a moment")
        slot = max(self._free, key=lambda each: _n_shared(each[1], ids))
        if 2 * _n_shared(slot[1], ids) < n_prompt:
            slot = self._free[0]
        self._free.remove(slot)
        try:
            cache, held = slot
            del held[_n_shared(held, ids[:-1]) :]
            cache.truncate(len(held))
            rng, shown = np.random.default_rng(asked.seed), StopStrings(asked.stop)
            decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
            while len(ids) < n_prompt + asked.max_tokens and len(ids) <= self._max_len:
                logits = extend(self._model, cache, ids[len(held) :])[-1]
                held += ids[len(held) :]
                token = draw(distribution(logits, ids, asked.settings), rng)
                if token in self._end:
                    reason = "stop"
                    break
                ids.append(token)
                yield shown.feed(decoder.decode(self._vocabulary[token])), None
                if shown.is_stopped:
                    break
            rest = shown.feed(decoder.decode(b"", final=True)) + shown.finish()
            yield rest, "stop" if shown.is_stopped else reason
        finally:
            self._free.append(slot)


def _n_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts share from their beginning."""
    n = min(len(one), len(other))
    return next((i for i in range(n) if one[i] != other[i]), n)


def respond(request: Request, engine: Engine) -> Generator[bytes]:
    r"""Answer a request, piece by piece.

    ``POST /v1/completions`` is answered, by `Engine.complete` of what `parse_completion` makes of the body.
    All else is refused with 404.

    Yields
    ------
    bytes
        Together an HTTP/1.1 response with ``Connection: close``. Exactly as many pieces as items of the
        engine, each given before the next item is asked for. Closing the generator closes the engine's.

    Notes
    -----
    If no stream is asked for, all pieces but the last are empty. That has the head, with ``Content-Type:
    application/json`` and the ``Content-Length``, and an object: ``id``, "cmpl-" and what no other answer
    has; ``object`` "text_completion"; ``created``, whole seconds since 1970; ``model`` "techtree";
    ``choices``, an array of one object with ``index`` 0, the whole ``text``, and ``finish_reason``.

    A stream is ``text/event-stream``, without a length. The first piece begins with the head. Each item whose
    text is not empty, and the last in any case, is an event in its piece: ``data: ``, an object as above in
    one line, with this text and finish_reason, ``\n\n``. Then, in the last piece, ``data: [DONE]\n\n``. All
    objects of an answer have the same id and time.

    A `RequestError`, of what is asked or before the engine's first item, becomes the only piece, a response
    with its status in JSON: ``{"error":{"message":...,"code":...}}``, the code being the status.
    """
    try:
        if (request.method, request.target) != ("POST", "/v1/completions"):
            raise RequestError(404, f"{request.method} {request.target} is not served: POST /v1/completions")
        asked = parse_completion(request.body)
        about = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion"}
        about |= {"created": int(time.time()), "model": "techtree"}
        head, whole = _STREAM, ""
        with closing(engine.complete(asked)) as items:
            for text, reason in items:
                whole += text
                choice = {"text": text if asked.is_stream else whole, "index": 0, "finish_reason": reason}
                value = about | {"choices": [choice]}
                if asked.is_stream:
                    event = b"data: %s\n\n" % _json(value) if text or reason else b""
                    yield head + event + (b"data: [DONE]\n\n" if reason else b"")
                    head = b""
                else:
                    yield _answer(200, value) if reason else b""
    except RequestError as error:
        yield _refusal(error)


class Server:
    """The answers of an engine to several clients at a port, a piece of each in turn."""

    def __init__(self, engine: Engine, port: int):
        self._engine, self._port = engine, port
        self._unread: dict[Hashable, bytes] = {}
        self._answers: dict[Hashable, Generator[bytes]] = {}  # first the one whose turn it is

    def feed(self, client: Hashable, data: bytes) -> None:
        """Take bytes that arrived from a client, cut anywhere. Nothing is answered yet.

        With the end of its request a client comes last in the row of those who are answered, by `respond`,
        or by what `parse_request` or `check_source` raised, in the same form. What it sends then is dropped.
        """
        if client in self._answers:
            return
        self._unread[client] = self._unread.get(client, b"") + data
        try:
            request = parse_request(self._unread[client])
            if request is None:
                return
            check_source(request, self._port)
            answer = respond(request, self._engine)
        except RequestError as error:
            answer = (_refusal(each) for each in [error])
        self._answers[client] = answer
        del self._unread[client]

    def step(self) -> tuple[Hashable, bytes | None] | None:
        """Give the next piece for the first client in the row, who then comes last in it.

        Returns
        -------
        tuple[Hashable, bytes | None] | None
            The client and the piece, perhaps an empty one. None in place of the piece if the answer is over:
            the client is forgotten, and its connection to be closed. None when nobody is in the row.
        """
        if not self._answers:
            return None
        client, answer = next(iter(self._answers.items()))
        del self._answers[client]
        piece = next(answer, None)
        if piece is not None:
            self._answers[client] = answer
        return client, piece

    def leave(self, client: Hashable) -> None:
        """Forget a client, known or not, that has gone: its answer ends and its slot is free, at once."""
        self._unread.pop(client, None)
        if client in self._answers:
            self._answers.pop(client).close()


_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def _answer(status: int, value: object) -> bytes:
    body = _json(value)
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def _refusal(error: RequestError) -> bytes:
    return _answer(error.status, {"error": {"message": error.message, "code": error.status}})


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
