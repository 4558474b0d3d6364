"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import json
import re

import numpy as np

from techtree.techs.inference.sampling import Sampling
from techtree.techs.transformer.llama_block import Llama, LlamaConfig

_FIND = r'end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)'
_LONG = "if len(data) >= MAX_HEAD_BYTES:"
_SPLIT = r'first, *lines = data[:end].decode("latin-1").split("\r\n")'
_LINE = r'line = re.fullmatch(rf"({_NAME}) (/[!-~]*) HTTP/1\.1", first)'
_HEADER = r'found = re.fullmatch(rf"({_NAME}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*", each)'
_SMALL = "name = found[1].lower()"
_JOIN = 'headers[name] = f"{headers[name]}, {found[2]}" if name in headers else found[2]'
_LENGTH = 'length = headers.get("content-length", "0")'
_WHOLE = 'if "transfer-encoding" in headers or not re.fullmatch("[0-9]+", length):'
_BYTES = 'n_bytes = int(length.lstrip("0")[:8] or 0)  # Python reads no number of thousands of digits.'
_LARGE = "if n_bytes > MAX_BODY_BYTES:"
_BODY = "body = data[end + 4 : end + 4 + n_bytes]"
_REQUEST = "return Request(line[1], line[2], headers, body) if len(body) == n_bytes else None"
_HOST = "if host.lower() not in hosts:"
_ORIGIN = 'if origin is not None and origin.lower() not in [f"http://{each}" for each in hosts]:'
_JSON = (
    'except (ValueError, RecursionError) as error:\n        raise RequestError(400, f"the body must be JSON'
)
_NULL = "value = default if given.get(name) is None else given[name]"
_OBJECT = "if not isinstance(given, dict):"
_PROMPT = 'get("prompt", None, _is_text)'
_STOP = "stop = (stop,) if isinstance(stop, str) else tuple(stop)"
_STOPS = "if not all(_is_text(each) and each for each in stop):"
_COUNTS = '(("max_tokens", 16), ("seed", 0))'
_NUMBERS = "numbers = [get(name, 1, lambda x: type(x) in (int, float)) for name in"
_STREAM = 'is_stream = get("stream", False, lambda x: isinstance(x, bool))'
_SETTINGS = "settings = Sampling(float(numbers[0]), top_p=float(numbers[1]), min_p=0.0)"
_RANGE = "except (ValueError, OverflowError) as error:"
_COUNT = "return type(value) is int and value >= 0"
_TEXT = r'return isinstance(value, str) and not any("\ud800" <= each <= "\udfff" for each in value)'
_FITS = "if not 1 <= n_prompt <= self._max_len:"
_BUSY = "if not self._free:"
_CHOOSE = "slot = max(self._free, key=lambda each: _n_shared(each[1], ids))"
_HALF = "if 2 * _n_shared(slot[1], ids) < n_prompt:"
_TAKE = "self._free.remove(slot)"
_HELD = "del held[_n_shared(held, ids[:-1]) :]"
_CUT = "cache.truncate(len(held))"
_RNG = "rng, shown = np.random.default_rng(asked.seed), StopStrings(asked.stop)"
_DECODER = 'decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")'
_WHILE = "while len(ids) < n_prompt + asked.max_tokens and len(ids) <= self._max_len:"
_READ = "held += ids[len(held) :]\n                token"
_DRAW = "token = draw(distribution(logits, ids, asked.settings), rng)"
_END = 'if token in self._end:\n                    reason = "stop"'
_ITEM = "yield shown.feed(decoder.decode(self._vocabulary[token])), None"
_STOPPED = "                if shown.is_stopped:\n                    break\n"
_REST = 'rest = shown.feed(decoder.decode(b"", final=True)) + shown.finish()'
_REASON = 'yield rest, "stop" if shown.is_stopped else reason'
_FREE = "        finally:\n            self._free.append(slot)"
_SHARED = "return next((i for i in range(n) if one[i] != other[i]), n)"
_ROUTE = 'if (request.method, request.target) != ("POST", "/v1/completions"):'
_ID = 'about = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion"}'
_TIME = 'about |= {"created": int(time.time()), "model": "techtree"}'
_EMPTY = 'head, whole = _STREAM, ""'
_ITEMS = "for text, reason in items:\n                whole += text"
_CHOICE = '{"text": text if asked.is_stream else whole, "index": 0, "finish_reason": reason}'
_EVENT = r'event = b"data: %s\n\n" % _json(value) if text or reason else b""'
_DONE = r'yield head + event + (b"data: [DONE]\n\n" if reason else b"")'
_HEAD_ONCE = '                    head = b""\n'
_ONCE = 'yield _answer(200, value) if reason else b""'
_REFUSE = "    except RequestError as error:\n        yield _refusal(error)"
_KNOWN = "if client in self._answers:\n            return\n"
_UNREAD = 'self._unread[client] = self._unread.get(client, b"") + data'
_CHECK = "check_source(request, self._port)"
_ANSWER = "answer = respond(request, self._engine)"
_ROW = "self._answers[client] = answer\n        del self._unread[client]"
_NEXT = "client, answer = next(iter(self._answers.items()))"
_PIECE = (
    "piece = next(answer, None)\n        if piece is not None:\n            self._answers[client] = answer"
)
_FORGET = "self._unread.pop(client, None)"
_CLOSE = "if client in self._answers:\n            self._answers.pop(client).close()"
_CODE = '{"message": error.message, "code": error.status}'
_DUMPS = "json.dumps(value)"

MISTAKES = {
    "parse_request: the empty line is not counted as a part of the head": [
        (_FIND, r'end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES + 4)'),
        (_LONG, "if len(data) >= MAX_HEAD_BYTES + 4:"),
    ],
    "parse_request: a head without end is waited for": [(_LONG, "if False:")],
    "parse_request: the head is UTF-8": [(_SPLIT, _SPLIT.replace('"latin-1"', '"utf-8", "replace"'))],
    "parse_request: lines may end with a line feed alone": [
        (_FIND, 'data = data.replace(b"\\r\\n", b"\\n").replace(b"\\n", b"\\r\\n")\n    ' + _FIND)
    ],
    "parse_request: version 1.0 is as good": [(_LINE, _LINE.replace(r"HTTP/1\.1", r"HTTP/1\.[01]"))],
    "parse_request: a target may be anything without blanks": [(_LINE, _LINE.replace("/[!-~]*", r"\S+"))],
    "parse_request: blanks may stand before the colon": [(_HEADER, _HEADER.replace("):[", r")[ \t]*:[", 1))],
    "parse_request: control characters may be in a value": [
        (_HEADER, _HEADER.replace(r"[^\x00-\x08\x0a-\x1f\x7f]", r"[^\r\n]"))
    ],
    "parse_request: a tab may not be in a value": [(_HEADER, _HEADER.replace(r"\x08\x0a", r"\x0a"))],
    "parse_request: all white space around a value is taken away": [
        (_HEADER, _HEADER.replace(r"[ \t]*", r"\s*"))
    ],
    "parse_request: a line that is no header is left out": [
        (_HEADER, f"{_HEADER}\n        if found is None:\n            continue")
    ],
    "parse_request: names stay as they are": [(_SMALL, "name = found[1]")],
    "parse_request: the last of several values counts": [(_JOIN, "headers[name] = found[2]")],
    "parse_request: values are joined without a blank": [(_JOIN, _JOIN.replace("}, {", "},{"))],
    "parse_request: an encoding of the transfer is ignored": [
        (_WHOLE, _WHOLE.replace('"transfer-encoding" in headers or ', ""))
    ],
    "parse_request: the length is what int reads": [(_WHOLE, _WHOLE.replace("[0-9]+", "[ +]*[0-9_]+"))],
    "parse_request: a body may be as long as it wants": [(_LARGE, "if False:")],
    "parse_request: the length is looked at when the body is there": [
        (_LARGE, "if len(data) - end - 4 > MAX_BODY_BYTES:")
    ],
    "parse_request: all that follows the head is the body": [
        (_BODY, "body = data[end + 4 :]"),
        (_REQUEST, _REQUEST.replace("==", ">=")),
    ],
    "parse_request: the body is taken as far as it is there": [
        (_REQUEST, "return Request(line[1], line[2], headers, body)")
    ],
    "check_source: who is asked does not matter": [(_HOST, "if False:")],
    "check_source: a request without Host passes": [(_HOST, "if host and host.lower() not in hosts:")],
    "check_source: Host need only begin so": [(_HOST, "if not host.lower().startswith(tuple(hosts)):")],
    "check_source: the port does not matter": [
        (_HOST, 'if host.lower().rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]"):'),
    ],
    "check_source: capital letters are refused in Host": [(_HOST, "if host not in hosts:")],
    "check_source: who asks does not matter": [(_ORIGIN, "if False:")],
    "check_source: the origin null passes": [
        (_ORIGIN, _ORIGIN.replace("is not None", 'not in (None, "null")'))
    ],
    "check_source: an origin of this machine passes, whatever its port": [
        (
            _ORIGIN,
            _ORIGIN.replace("lower() not", 'lower().rpartition(":")[0] not').replace(
                "{each}", "{each.rpartition(':')[0]}"
            ),
        )
    ],
    "parse_completion: brackets that are nested too deeply are not caught": [
        (_JSON, _JSON.replace(", RecursionError", ""))
    ],
    "parse_completion: null is a value": [(_NULL, "value = given.get(name, default)")],
    "parse_completion: other JSON than an object is not caught": [(_OBJECT, "if False:")],
    "parse_completion: a single stop string is cut into letters": [(_STOP, "stop = tuple(stop)")],
    "parse_completion: empty stop strings are left out": [
        (_STOP, f"{_STOP}\n    stop = tuple(each for each in stop if each != '')")
    ],
    "parse_completion: stop strings may be halves": [
        (_STOPS, "if not all(isinstance(each, str) and each for each in stop):")
    ],
    "parse_completion: max_tokens is 128 if it is missing": [(_COUNTS, _COUNTS.replace("16", "128"))],
    "parse_completion: true is a number": [(_COUNT, "return isinstance(value, int) and value >= 0")],
    "parse_completion: the temperature is 0.8 if it is missing": [
        (_NUMBERS, _NUMBERS.replace("get(name, 1,", 'get(name, 0.8 if name == "temperature" else 1,'))
    ],
    "parse_completion: min_p is what Sampling has": [(_SETTINGS, _SETTINGS.replace(", min_p=0.0", ""))],
    "parse_completion: a temperature that is out of range is no refusal": [
        (_RANGE, "except OverflowError as error:")
    ],
    "parse_completion: a temperature that no float holds is no refusal": [
        (_RANGE, "except ValueError as error:")
    ],
    "parse_completion: whatever is true asks for a stream": [
        (_STREAM, 'is_stream = bool(get("stream", False, lambda x: True))')
    ],
    "parse_completion: a prompt may be a half": [
        (_PROMPT, _PROMPT.replace("_is_text", "lambda x: isinstance(x, str)"))
    ],
    "parse_completion: an empty prompt is refused": [
        (_PROMPT, _PROMPT.replace("_is_text", "lambda x: x and _is_text(x)"))
    ],
    "Engine: a prompt as long as the slot is refused": [(_FITS, "if not 1 <= n_prompt < self._max_len:")],
    "Engine: a prompt that is too long loses its beginning": [
        (_FITS, f"ids = ids[-self._max_len :]\n        n_prompt = len(ids)\n        {_FITS}")
    ],
    "Engine: no free slot is the client's fault": [("raise RequestError(503,", "raise RequestError(400,")],
    "Engine: whatever little is shared decides": [(_HALF, "if False:")],
    "Engine: half of what the slot holds must be shared": [
        (_HALF, "if 2 * _n_shared(slot[1], ids) < len(slot[1]):")
    ],
    "Engine: more than half must be shared": [(_HALF, _HALF.replace("< n_prompt", "<= n_prompt"))],
    "Engine: of equal slots the one that ended last": [
        (_FREE, _FREE.replace("append(slot)", "insert(0, slot)"))
    ],
    "Engine: of equal slots the one that began first": [
        (_FREE, f"{_FREE}\n            self._free.sort(key=lambda each: getattr(each[0], 'began', 0))"),
        (
            _TAKE,
            f"{_TAKE}\n        self._n_begun = getattr(self, '_n_begun', 0) + 1\n        slot[0].began = self._n_begun",
        ),
    ],
    "Engine: nothing is kept": [(_HELD, "held.clear()")],
    "Engine: one token too many is read again": [(_HELD, "del held[_n_shared(held, ids[:-2]) :]")],
    "Engine: keys stay when their tokens go": [(_CUT, "pass")],
    "Engine: what is shared may stand anywhere": [
        (_SHARED, "return sum(one[i] == other[i] for i in range(n))")
    ],
    "Engine: all draws of an engine are one stream": [
        (
            _RNG,
            _RNG.replace(
                "np.random.default_rng(asked.seed)",
                "vars(self).setdefault('_rng', np.random.default_rng(asked.seed))",
            ),
        )
    ],
    "Engine: the seed is 0": [(_RNG, _RNG.replace("asked.seed", "0"))],
    "Engine: the likeliest token is taken": [
        (
            _DRAW,
            "draw(distribution(logits, ids, asked.settings), rng)\n                token = int(logits.argmax())",
        )
    ],
    "Engine: each token is decoded for itself": [
        (
            _ITEM,
            _ITEM.replace(
                "decoder.decode(self._vocabulary[token])",
                'self._vocabulary[token].decode("utf-8", "replace")',
            ),
        )
    ],
    "Engine: bytes that are no character are left out": [(_DECODER, _DECODER.replace("replace", "ignore"))],
    "Engine: stop strings are looked for within a token only": [
        (
            _ITEM,
            "shown = StopStrings(asked.stop)\n                now = shown.feed(decoder.decode(self._vocabulary[token]))\n                yield now + shown.finish(), None",
        )
    ],
    "Engine: the stop string is shown": [
        (
            _ITEM,
            "now = decoder.decode(self._vocabulary[token])\n                shown.feed(now)\n                yield now, None",
        )
    ],
    "Engine: what was held back is lost": [(_REST, 'rest = ""')],
    "Engine: half of a character is lost at the end": [(_REST, "rest = shown.finish()")],
    "Engine: a stop string that half of a character completes is not seen": [
        (_REST, 'rest = shown.finish() + decoder.decode(b"", final=True)')
    ],
    "Engine: the text goes on behind a stop string": [(_STOPPED, "")],
    "Engine: the end is a token like others": [
        (_END, 'if token in self._end and n_prompt < 0:\n                    reason = "stop"')
    ],
    "Engine: the end has an item": [
        (
            _END,
            'if token in self._end:\n                    yield "", None\n                    reason = "stop"',
        )
    ],
    'Engine: an end token is a reason of "length"': [(_END, _END.replace('"stop"', '"length"'))],
    'Engine: a stop string is a reason of "length"': [(_REASON, "yield rest, reason")],
    "Engine: the last token has no room": [(_WHILE, _WHILE.replace("<= self._max_len", "< self._max_len"))],
    "Engine: a dropped text keeps its slot": [
        (
            _FREE,
            "        except GeneratorExit:\n            raise\n        except BaseException:\n            self._free.append(slot)\n            raise\n        else:\n            self._free.append(slot)",
        )
    ],
    "Engine: an error keeps the slot": [
        (
            _FREE,
            "        except GeneratorExit:\n            self._free.append(slot)\n            raise\n        else:\n            self._free.append(slot)",
        )
    ],
    "Engine: a text that was broken off leaves an empty slot": [
        (
            _FREE,
            "        except BaseException:\n            del slot[1][:]\n            raise\n        finally:\n            self._free.append(slot)",
        )
    ],
    "respond: any method will do": [(_ROUTE, 'if request.target != "/v1/completions":')],
    "respond: a query behind the target is fine": [
        (_ROUTE, _ROUTE.replace("request.target", 'request.target.partition("?")[0]'))
    ],
    "respond: all answers have one id": [(_ID, _ID.replace("{uuid.uuid4().hex}", "techtree"))],
    "respond: each event has an id of its own": [
        (_EVENT, f'value["id"] += str(len(whole))\n                    {_EVENT}')
    ],
    "respond: the time has a fraction": [(_TIME, _TIME.replace("int(time.time())", "time.time() // 1"))],
    "respond: each event has the whole text so far": [
        (_CHOICE, _CHOICE.replace("text if asked.is_stream else whole", "whole"))
    ],
    "respond: an answer at once has the last text alone": [
        (_CHOICE, _CHOICE.replace("text if asked.is_stream else whole", "text"))
    ],
    "respond: a stream begins again with each piece": [(_HEAD_ONCE, "")],
    "respond: items without text are events": [(_EVENT, _EVENT.replace(' if text or reason else b""', ""))],
    "respond: the last item is an event only if it has text": [
        (_EVENT, _EVENT.replace("text or reason", "text"))
    ],
    "respond: a stream has no last word": [(_DONE, "yield head + event")],
    "respond: no blank behind data": [(_EVENT, _EVENT.replace("data: ", "data:"))],
    "respond: the head of a stream is a piece of its own": [
        (_EMPTY, f'{_EMPTY}\n        if asked.is_stream:\n            yield head\n            head = b""')
    ],
    "respond: only what is to be sent is a piece": [
        (_ONCE, "if reason:\n                        yield _answer(200, value)")
    ],
    "respond: all is computed first": [
        (_ITEMS, "for text, reason in list(items):\n                whole += text")
    ],
    "respond: a busy engine breaks the connection": [
        (
            _REFUSE,
            "    except RequestError as error:\n        if error.status == 503:\n            raise\n        yield _refusal(error)",
        )
    ],
    "respond: errors have no code": [(_CODE, '{"message": error.message}')],
    "Server: the first client is served to its end": [
        (
            _PIECE,
            _PIECE.replace(
                "self._answers[client] = answer", "self._answers = {client: answer, **self._answers}"
            ),
        )
    ],
    "Server: a new client comes first": [
        (
            _ROW,
            _ROW.replace(
                "self._answers[client] = answer", "self._answers = {client: answer, **self._answers}"
            ),
        )
    ],
    "Server: work begins when the request is there": [
        (_ANSWER, "answer = (each for each in list(respond(request, self._engine)))"),
    ],
    "Server: a second request takes the place of the first": [(_KNOWN, "pass\n")],
    "Server: what arrives takes the place of what was there": [(_UNREAD, "self._unread[client] = data")],
    "Server: anybody may ask": [(_CHECK, "pass")],
    "Server: the port is 8012": [(_CHECK, "check_source(request, 8012)")],
    "Server: an answer goes on when its client has gone": [(_CLOSE, "")],
    "Server: who has gone stays in work until somebody asks": [
        (_CLOSE, "if client in self._answers:\n            self._gone = self._answers.pop(client)")
    ],
    "Server: half a request stays when its client has gone": [(_FORGET, "")],
}


EQUIVALENTS = {
    "headers are cut at their colons": [
        (
            _HEADER,
            'key, colon, value = each.partition(":")\n'
            "        is_clean = not any(sign != chr(9) and (sign < ' ' or sign == chr(127)) for sign in value)\n"
            '        found = [each, key, value.strip(" \\t")] if re.fullmatch(_NAME, key) and colon and is_clean else None',
        ),
    ],
    "hosts are matched by a pattern": [
        (
            _HOST,
            'form = rf"(127\\.0\\.0\\.1|localhost|\\[::1\\]):{port}"\n    if not re.fullmatch(form, host, re.IGNORECASE | re.ASCII):',
        ),
        (
            _ORIGIN,
            'if not (origin is None or re.fullmatch(f"http://{form}", origin, re.IGNORECASE | re.ASCII)):',
        ),
    ],
    "bytes that are no text yet are kept by hand": [
        (_DECODER, 'rest = b""'),
        (
            _ITEM,
            "rest += self._vocabulary[token]\n"
            '                now, n_read = codecs.utf_8_decode(rest, "replace", False)\n'
            "                rest = rest[n_read:]\n"
            "                yield shown.feed(now), None",
        ),
        (_REST, 'rest = shown.feed(rest.decode("utf-8", "replace")) + shown.finish()'),
    ],
    "the slots are looked through from the last one": [
        (
            _CHOOSE,
            "best = max(_n_shared(held, ids) for _, held in self._free)\n"
            "        slot = [each for each in self._free if _n_shared(each[1], ids) == best][0]",
        )
    ],
    "JSON is UTF-8, with blanks, and in another order": [
        (_DUMPS, "json.dumps(value, ensure_ascii=False, sort_keys=True)"),
        (_ID, _ID.replace("uuid.uuid4().hex", "time.time_ns()}-{id(object())}-{next(_count)")),
        (
            "MAX_HEAD_BYTES, MAX_BODY_BYTES =",
            "import itertools\n\n_count = itertools.count()\nMAX_HEAD_BYTES, MAX_BODY_BYTES =",
        ),
    ],
    "the row is a list": [
        (
            "self._answers: dict[Hashable, Generator[bytes]] = {}",
            "self._answers: dict[Hashable, Generator[bytes]] = {}\n        self._row = []",
        ),
        (_ROW, f"{_ROW}\n        self._row.append(client)"),
        (_NEXT, "client = self._row.pop(0)\n        answer = self._answers[client]"),
        (
            _PIECE,
            _PIECE.replace(
                "self._answers[client] = answer",
                "self._row.append(client)\n            self._answers[client] = answer",
            ),
        ),
        (_CLOSE, f"{_CLOSE}\n            self._row.remove(client)"),
    ],
}

_NO_TEXT = "its answer is an object, which such a version does not know how to change"
_ALIKE = "what two texts share does not depend on which is the first"

HARMLESS = {
    "n_bytes = int(length.lstrip('0')[:8] or 0) => n_bytes = int(length.lstrip('0')[:9] or 0)": (
        "eight digits are too many already"
    ),
    "slot = max(self._free, key=lambda each: _n_shared(each[1], ids)) => "
    "slot = max(self._free, key=lambda each: _n_shared(ids, each[1]))": _ALIKE,
    "if 2 * _n_shared(slot[1], ids) < n_prompt: => if 2 * _n_shared(ids, slot[1]) < n_prompt:": _ALIKE,
    "del held[_n_shared(held, ids[:-1]):] => del held[_n_shared(ids[:-1], held):]": _ALIKE,
    "respond: right at the first call only": _NO_TEXT,
    **{
        f"{name}: {what}": _NO_TEXT
        for name in ("parse_request", "parse_completion")
        for what in (
            "wrong for text with a byte order mark",
            "wrong for text with NUL",
            "wrong for text with CRLF",
            "wrong for text beyond 255 characters",
            "wrong for empty text",
            "right at the first call only",
        )
    },
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""

    def told(call):
        def probe(impl):
            try:
                return call(impl)
            except Exception as error:
                return f"{type(error).__name__} {getattr(error, 'status', '')}"

        return probe

    def parsed(data):
        def call(impl):
            found = impl.parse_request(data)
            return found and [found.method, found.target, dict(found.headers), found.body]

        return told(call)

    def allowed(port=8012, **headers):
        return told(lambda impl: impl.check_source(impl.Request("GET", "/", headers, b""), port))

    def asked(body):
        def call(impl):
            found = impl.parse_completion(body if isinstance(body, bytes) else json.dumps(body).encode())
            return [str(each) for each in vars(found).values()]

        return told(call)

    pieces = [b"a", b"b", b"c", b"d", b"\xc3", b"\xa9", b"<end>"]
    read = []

    class Llamas(Llama):
        """Say what is read."""

        def __init__(self, seed, steps=None):
            super().__init__(LlamaConfig(7, 8, 8, 1, 1, 1, is_tied=False), np.random.default_rng(seed))
            for each in self.parameters():
                each.data *= 3
            if steps is not None:
                self.token_embedding.weight.data[:] = np.eye(7, 8)
                self.blocks[0].attention.output.weight.data[:] = 0
                self.blocks[0].feed_forward.down.weight.data[:] = 0
                self.head.weight.data[:] = 0
                for before, after in steps.items():
                    self.head.weight.data[after, before] = 50
            norm = self.norm
            self.norm = lambda x: (read.append(x.shape[0]), norm(x))[1]

    models = {}

    def model(steps):
        if str(steps) not in models:
            models[str(steps)] = Llamas(3, steps)
        return models[str(steps)]

    def engine(impl, n_slots=1, steps=None, max_len=9):
        def encode(text):
            return [9 if each == "!" else "abcdefg".index(each) for each in text]

        return impl.Engine(model(steps), encode, pieces, {6}, max_len, n_slots)

    def wish(impl, prompt, max_tokens=2, temperature=0.0, seed=0, stop=(), **more):
        settings = Sampling(temperature, 0, 1.0, 0.0, **more)
        return impl.Completion(prompt, max_tokens, settings, seed, tuple(stop), False)

    def completed(*wishes, n_slots=1, steps=None, taken=None, max_len=9):
        """Complete one text after the other, the first only so far."""

        def call(impl):
            one, found = engine(impl, n_slots, steps, max_len), []
            kept = []
            for number, each in enumerate(wishes):
                each = each if isinstance(each, tuple) else (each,)
                read.clear()
                items = one.complete(wish(impl, *each[:5], **(each[5] if len(each) > 5 else {})))
                try:
                    if taken is not None and number == 0:
                        found.append([next(items) for _ in range(taken)])
                        items.close()
                    else:
                        found.append(list(items))
                except Exception as error:
                    found.append(f"{type(error).__name__} {getattr(error, 'status', '')}")
                found.append(list(read))
                kept.append(items)
            return found

        return told(call)

    def busy(impl):
        one = engine(impl, 2)
        texts = [one.complete(wish(impl, each, 3)) for each in ("aaa", "bbb", "c")]
        found = [next(texts[0]), next(texts[1])]
        try:
            next(texts[2])
        except impl.RequestError as error:
            found.append(error.status)
        texts[1].close()
        texts[0].close()
        for prompt in ("d", "aaad"):
            read.clear()
            list(one.complete(wish(impl, prompt, 1)))
            found.append(list(read))
        return found

    items = [("he", None), ("", None), ("l\u00e9", None), ("", None), ("o", "length")]

    class Script:
        def __init__(self, items=items, error=None):
            self.items, self.error, self.log = items, error, []

        def complete(self, asked):
            self.log.append(f"begins {asked.prompt}")
            try:
                if self.error:
                    raise self.error
                for each in self.items:
                    self.log.append(asked.prompt)
                    yield each
            finally:
                self.log.append("closed")

    def settled(piece):
        if not piece:
            return piece
        head, end, body = piece.decode("utf-8").partition("\r\n\r\n")
        body = body if end else head
        ids = re.findall(r'cmpl-[^"]*', body)
        shown, times = [], []
        for start, brace, rest in [each.partition("{") for each in body.split("\n\n")]:
            try:
                value = json.loads(brace + rest)
            except ValueError:
                shown.append([start, rest])
                continue
            value.pop("id", None)
            value.get("error", {}).pop("message", None)
            when = value.pop("created", 0)
            times.append([type(when).__name__, len(str(when))])
            shown.append([start, value])
        lines = [line for line in head.split("\r\n") if "Length" not in line] if end else []
        return [
            sorted(lines),
            shown,
            times,
            len(set(ids)),
            "techtree" in "".join(ids),
            "\n" in body.strip("\n"),
        ]

    def answered(
        body=b'{"prompt":"x"}', method="POST", target="/v1/completions", given=items, error=None, taken=None
    ):
        def call(impl):
            one = Script(given, error and impl.RequestError(error, "so"))
            answer, found = impl.respond(impl.Request(method, target, {}, body), one), []
            for piece in answer:
                found.append([settled(piece), len(one.log)])
                if len(found) == taken:
                    break
            answer.close()
            return [found, one.log]

        return told(call)

    def ids(impl):
        found = []
        for _ in range(2):
            answer = impl.respond(
                impl.Request("POST", "/v1/completions", {}, b'{"prompt":"x","stream":true}'), Script()
            )
            found.append({each for piece in answer for each in re.findall(rb'cmpl-[^"]*', piece)})
        return [len(each) for each in (*found, found[0] | found[1])]

    def raw(prompt="x", host="localhost:8012"):
        body = b'{"prompt":"%s"}' % prompt.encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def served(*events, port=8012):
        """A number is that of steps, a pair what arrives from a client, a text who leaves."""

        def call(impl):
            one, found = Script(), []
            server = impl.Server(one, port)
            for event in events:
                if isinstance(event, int):
                    for _ in range(event):
                        step = server.step()
                        found.append(step and [str(type(step[0])), str(step[0]), settled(step[1])])
                elif isinstance(event, tuple):
                    server.feed(*event)
                else:
                    server.leave(event)
                found.append(len(one.log))
            return [found, one.log]

        return told(call)

    first = b"POST / HTTP/1.1\r\n"
    home = {"host": "localhost:8012"}
    steps = {0: 1, 1: 2, 2: 3}
    half = {0: 4, 4: 5, 5: 1}
    headers = {
        "names": b"aB: 1\r\nC: 2\r\nAb: 3",
        "blanks": b"A: \t b\t c \xa0",
        "Latin-1": b"A: \xe9",
        "a blank before the colon": b"A : b",
        "a control character": b"A: b\x01",
        "no colon": b"A",
        "chunks": b"Transfer-Encoding: chunked",
        "a signed length": b"Content-Length: +1",
        "an empty length": b"Content-Length:",
        "the largest body": b"Content-Length: 1048576",
        "too large a body": b"Content-Length: 1048577",
        "a short body": b"Content-Length: 2",
        "half a body": b"Content-Length: 9",
    }
    lines = ["get /", "GET  /", "GET x", "GET /\x01"]
    hosts = ["evil.example:8012", "localhost:8012.evil", "localhost:80", "LOCALHOST:8012"]
    origins = [
        "null",
        "http://LOCALHOST:8012",
        "https://localhost:8012",
        "http://localhost:80",
        "http://evil.example",
    ]
    fields = [
        {},
        {"max_tokens": None, "seed": None},
        {"stop": "ab"},
        {"stop": ["a", ""]},
        {"stop": ["\ud800"]},
        {"prompt": "\ud800"},
        {"prompt": ""},
        {"max_tokens": True},
        {"max_tokens": -1},
        {"max_tokens": 2.0},
        {"temperature": True},
        {"temperature": -1},
        {"stream": 1},
    ]
    stream = b'{"prompt":"x","stream":true}'
    return {
        **{f"head: {name}": parsed(first + each + b"\r\n\r\nabc") for name, each in headers.items()},
        **{f"first line: {each!r}": parsed(each.encode() + b" HTTP/1.1\r\n\r\n") for each in lines},
        "version 1.0": parsed(b"GET / HTTP/1.0\r\n\r\n"),
        "line feeds": parsed(b"GET / HTTP/1.1\nA: b\n\n"),
        **{
            f"{n} bytes without an end": parsed(first + b"A: " + b"x" * (n - 20))
            for n in (16383, 16384, 16390)
        },
        **{
            f"a head of {n} bytes": parsed(first + b"A: " + b"x" * (n - 24) + b"\r\n\r\n")
            for n in (16384, 16388, 16400)
        },
        "a large body": parsed(first + b"Content-Length: 1048577\r\n\r\n" + b"x" * 1048577),
        "no host": allowed(),
        **{f"host {each}": allowed(host=each) for each in hosts},
        **{f"origin {each}": allowed(**home, origin=each) for each in origins},
        **{f"asked: {each!r}": asked({"prompt": "x", **each}) for each in fields},
        "asked: brackets": asked(b"[" * 100_000),
        "asked: an array": asked([]),
        "asked: a large number": asked(b'{"prompt":"x","temperature":1%s}' % (b"0" * 400)),
        "a text": completed(("abc", 5, 1.0, 1)),
        "a text, and another": completed(
            ("abc", 4, 1.0, 1), ("abc", 4, 1.0, 1), ("abd", 4, 1.0, 2), ("dbc", 2, 1.0)
        ),
        "penalties": completed(("abab", 4, 1.0, 5, (), {"presence": 9.0})),
        "typing": completed(("a", 3), "abc", "abcd", "abcd", steps=steps),
        "one too long": completed("a" * 10, "a" * 9, "", ("a" * 8, 5)),
        "the end": completed(("a", 5), steps={0: 1, 1: 6}),
        "a stop string": completed(("a", 5, 0.0, 0, ("cd",)), steps=steps),
        "a stop string in a token": completed(("a", 5, 0.0, 0, ("c",)), steps=steps),
        "nearly a stop string": completed(("a", 2, 0.0, 0, ("cd",)), steps=steps),
        "half a character": completed(("a", 1), steps=half),
        "a character": completed(("a", 3), steps=half),
        "no character": completed(("a", 2), steps={0: 4, 4: 1}),
        "half a character stops": completed(("a", 1, 0.0, 0, ("\ufffd",)), steps=half),
        "dropped": completed(("abcd", 4), "abcde", taken=2),
        "an error": completed("!", "a"),
        "slots": completed("aaa", "bbb", "ccc", "cccd", "d", n_slots=2),
        "slots that rest": completed("a", "b", "c", "a", n_slots=2, max_len=4),
        "slots, shared": completed("abc", "ddd", "abd", n_slots=2),
        "slots, less than half shared": completed("abc", "add", "abcd", n_slots=2),
        "slots, half shared": completed("ddd", "abcccc", "abdd", n_slots=2),
        "slots, a part of a long one": completed("ddd", "abccccc", "ab", n_slots=2),
        "busy": told(busy),
        "an answer": answered(),
        "a stream": answered(stream),
        "a stream without a last text": answered(stream, given=[("", None), ("a", None), ("", "stop")]),
        "a stream that is dropped": answered(stream, taken=2),
        "another method": answered(method="GET"),
        "another target": answered(target="/x"),
        "a query": answered(target="/v1/completions?x"),
        "no JSON": answered(b"{"),
        "a busy engine": answered(error=503),
        "a prompt that is too long": answered(stream, error=400),
        "ids": told(ids),
        "one client": served(("a", raw()[:30]), ("a", raw()[30:]), 7),
        "a second request": served(("a", raw("1")), 1, ("a", raw("2")), 6),
        "two clients": served(("a", raw("1")), ("b", raw("2")), 3, ("c", raw("3")), 5),
        "one client leaves": served(("a", raw("1")), ("b", raw("2")), 3, "a", 4),
        "half a request leaves": served(("a", raw()[:30]), "a", ("a", raw()[30:]), 1),
        "nobody leaves": served("a", ("b", raw()), 6),
        "a page asks": served(("a", raw(host="evil.example")), 2),
        "another port": served(("a", raw(host="localhost:80")), 2, port=80),
        "a number": served((7, raw()), 2),
    }
