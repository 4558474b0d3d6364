"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import itertools
import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.inference.sampling import Sampling
from techtree.techs.transformer.llama_block import Llama, LlamaConfig
from techtree.techs.transformer.rope import RopeScaling, rotate, rotation
from techtree.tree.answers import told

_MAX_LEN = "if type(max_len) is not int or max_len < 1:"
_SHAPE = "shape = (config.n_layers, config.n_kv_heads, max_len, config.head_width)"
_ARRAYS = "self.keys, self.values = np.zeros(shape, dtype), np.zeros(shape, dtype)"
_CUT = "if not 0 <= length <= self.length:"
_LENGTH = "        self.length = length\n"
_IDS = "if new.ndim != 1 or not new.size:"
_CONFIG = "if cache.config != model.config:"
_END = "end = cache.length + len(new)"
_ROOM = "if end > cache.max_len:"
_MASK = "mask = causal_mask(len(new), end)  # (T, S)"
_WINDOW = "mask &= ~np.tri(len(new), end, end - len(new) - model.config.window, dtype=bool)"
_QUIET = "    with no_grad():\n        x = model.token_embedding(new)"
_ATTEND = "x = x + _attend(block.attention, block.attention_norm(x), mask, cache, layer)"
_FEED = "x = x + block.feed_forward(block.feed_forward_norm(x))"
_NORM = "x = model.norm(x)"
_HEAD = "logits = model.token_embedding.unembed(x) if model.head is None else model.head(x)"
_DONE = "    cache.length = end  # only now: an error before this line leaves the text as it was\n"
_LOGITS = "return logits.data"
_NORMS = "q, k = part.query_norm(q), part.key_norm(k)"
_TURN = "turn = rotation(np.arange(n_all - n_new, n_all), q.shape[-1], config.base, config.scaling)"
_PLACE = "place = np.s_[layer, :, n_all - n_new : n_all]"
_WRITE = "cache.keys[place], cache.values[place] = rotate(k, *turn).data, v.data"
_READ = "k, v = (Tensor(np.asarray(each[layer, :, :n_all], x.dtype)) for each in (cache.keys, cache.values))"
_OUTPUT = "return part.output(merge_heads(grouped_attention(rotate(q, *turn), k, v, mask)))"
_EMPTY = "if not len(ids) or n_new < 0:"
_TEXT = "text = [int(each) for each in ids]"
_CACHE = "cache = KVCache(model.config, len(text) + n_new, model.token_embedding.weight.dtype.type)"
_UNREAD = "unread = text\n"
_TIMES = "for _ in range(n_new):"
_ASK = "logits = extend(model, cache, unread)[-1]"
_DRAW = "token = draw(distribution(logits, text, settings), rng)"
_STOP = "if token in stop:\n            return"
_ONE = "unread = [token]"
_YIELD = "        yield token"


def _token_by_token(model, cache, ids):
    """Read one token at a time, head by head, with products of single vectors."""
    config, given = model.config, np.asarray(ids)
    if given.ndim != 1 or len(given) == 0 or given.dtype.kind not in "iu":
        raise ValueError("ids must be whole numbers, at least one")
    if given.min() < 0 or given.max() >= config.n_tokens:
        raise ValueError("each id must be in the vocabulary")
    if cache.config != config or cache.length + len(given) > cache.max_len:
        raise ValueError("another cache is needed")
    before, found = cache.length, []
    try:
        with no_grad():
            for each in given:
                found.append(_one(model, cache, int(each)))
                cache.length += 1
    except BaseException:
        cache.length = before
        raise
    return np.stack(found)


def _one(model, cache, token):
    config, n = model.config, cache.length + 1
    first = 0 if config.window is None else max(0, n - config.window)
    turn = rotation([n - 1], config.head_width, config.base, config.scaling)
    x = model.token_embedding(np.array([token]))
    for layer, block in enumerate(model.blocks):
        part, y = block.attention, block.attention_norm(x)
        made = {}
        for name, n_heads in (
            ("query", config.n_heads),
            ("key", config.n_kv_heads),
            ("value", config.n_kv_heads),
        ):
            heads = getattr(part, name)(y).reshape(n_heads, 1, config.head_width)
            norm = getattr(part, f"{name}_norm", None)
            heads = heads if norm is None else norm(heads)
            made[name] = heads.data if name == "value" else rotate(heads, *turn).data
        cache.keys[layer, :, n - 1], cache.values[layer, :, n - 1] = made["key"][:, 0], made["value"][:, 0]
        answers = []
        for head in range(config.n_heads):
            own = head // (config.n_heads // config.n_kv_heads)
            k, v = (each[layer, own, first:n].astype(x.dtype) for each in (cache.keys, cache.values))
            scores = k @ made["query"][head, 0] / x.dtype.type(math.sqrt(config.head_width))
            weights = np.exp(scores - scores.max())
            answers.append(weights / weights.sum() @ v)
        x = x + part.output(Tensor(np.concatenate(answers)[None]))
        x = x + block.feed_forward(block.feed_forward_norm(x))
    x = model.norm(x)
    return (model.token_embedding.unembed(x) if model.head is None else model.head(x)).data[0]


MISTAKES = {
    "KVCache: room for all heads of queries": [(_SHAPE, _SHAPE.replace("n_kv_heads", "n_heads"))],
    "KVCache: the places come before the heads": [
        (_SHAPE, "shape = (config.n_layers, max_len, config.n_kv_heads, config.head_width)"),
        (_PLACE, "place = np.s_[layer, n_all - n_new : n_all]"),
        (
            _WRITE,
            "cache.keys[place], cache.values[place] = "
            "rotate(k, *turn).data.swapaxes(0, 1), v.data.swapaxes(0, 1)",
        ),
        (_READ, _READ.replace("each[layer, :, :n_all]", "each[layer, :n_all].swapaxes(0, 1)")),
    ],
    "KVCache: keys and values are one array": [(_ARRAYS, "self.keys = self.values = np.zeros(shape, dtype)")],
    "KVCache: all caches share their arrays": [
        ("class KVCache:\n", "_ARRAYS = {}\n\n\nclass KVCache:\n"),
        (
            _ARRAYS,
            "keys, values = _ARRAYS.setdefault((shape, np.dtype(dtype)), (np.zeros(shape, dtype), np.zeros(shape, dtype)))"
            "\n        self.keys, self.values = keys, values",
        ),
    ],
    "KVCache: the dtype is always float64": [(_ARRAYS, _ARRAYS.replace(", dtype", ""))],
    "KVCache: float32 when nothing is said": [
        (
            "max_len: int, dtype: type = np.float64):\n        if",
            "max_len: int, dtype: type = np.float32):\n        if",
        )
    ],
    "KVCache: room for none is room": [(_MAX_LEN, "if type(max_len) is not int or max_len < 0:")],
    "KVCache: half a place is room": [(_MAX_LEN, "max_len = int(max_len)\n        if max_len < 1:")],
    "truncate forgets so many": [(_LENGTH, "        self.length -= length\n")],
    "truncate forgets nothing": [(_LENGTH, "        pass\n")],
    "truncate always forgets all": [(_LENGTH, "        self.length = 0\n")],
    "truncate forgets one more": [(_LENGTH, "        self.length = max(length - 1, 0)\n")],
    "truncate makes the text longer": [(_CUT, "if not 0 <= length <= self.max_len:")],
    "truncate counts from the end": [(_CUT, "length += self.length if length < 0 else 0\n        " + _CUT)],
    "truncate lets less than 0 be 0": [(_CUT, "length = max(length, 0)\n        " + _CUT)],
    "truncate refuses to forget all": [(_CUT, _CUT.replace("0 <= length", "0 < length"))],
    "truncate refuses to forget nothing": [(_CUT, _CUT.replace("<= self.length", "< self.length"))],
    "truncate makes new arrays": [
        (
            _LENGTH,
            "        self.length = length\n"
            "        self.keys, self.values = self.keys.copy(), self.values.copy()\n",
        )
    ],
    "extend: positions begin at 0 in each call": [
        (_TURN, _TURN.replace("np.arange(n_all - n_new, n_all)", "np.arange(n_new)"))
    ],
    "extend: positions are one too far": [
        (
            _TURN,
            _TURN.replace(
                "np.arange(n_all - n_new, n_all)", "np.arange(n_all - n_new, n_all) + (n_new < n_all)"
            ),
        )
    ],
    "extend: all new tokens have the position of the first": [
        (_TURN, _TURN.replace("np.arange(n_all - n_new, n_all)", "np.full(n_new, n_all - n_new)"))
    ],
    "extend: keys are kept before they are rotated, and rotated by the positions of the new tokens": [
        (_WRITE, "cache.keys[place], cache.values[place] = k.data, v.data"),
        (
            _OUTPUT,
            "k = rotate(k, *(np.resize(each, (n_all, each.shape[1])) for each in turn))\n    " + _OUTPUT,
        ),
    ],
    "extend: keys are kept before they are rotated": [
        (_WRITE, "cache.keys[place], cache.values[place] = k.data, v.data"),
        (
            _OUTPUT,
            "whole = rotation(np.arange(n_all), q.shape[-1], config.base, config.scaling)\n"
            "    k = rotate(k, *whole)\n    " + _OUTPUT,
        ),
    ],
    "extend: queries are not rotated": [(_OUTPUT, _OUTPUT.replace("rotate(q, *turn)", "q"))],
    "extend: values are rotated": [(_WRITE, _WRITE.replace("v.data", "rotate(v, *turn).data"))],
    "extend: the scaling of the angles is left out": [(_TURN, _TURN.replace(", config.scaling", ""))],
    "extend: the base of the angles is left out": [
        (_TURN, _TURN.replace("config.base, config.scaling", "scaling=config.scaling"))
    ],
    "extend: norms of heads are left out": [(_NORMS, "pass")],
    "extend: norms of heads come after the rotation": [
        (_NORMS, "pass"),
        (
            _WRITE,
            _WRITE.replace(
                "rotate(k, *turn).data", "(part.key_norm or (lambda x: x))(rotate(k, *turn)).data"
            ),
        ),
        (
            _OUTPUT,
            _OUTPUT.replace("rotate(q, *turn)", "(part.query_norm or (lambda x: x))(rotate(q, *turn))"),
        ),
    ],
    "extend: the norm of keys serves the queries, too": [(_NORMS, _NORMS.replace("query_norm", "key_norm"))],
    "extend: keys are kept without their norm": [
        (_NORMS, "plain, q, k = k, part.query_norm(q), part.key_norm(k)"),
        (
            _WRITE,
            "plain = k if part.key_norm is None else plain\n    "
            + _WRITE.replace("rotate(k", "rotate(plain"),
        ),
        (
            _READ,
            _READ + "\n    if part.key_norm is not None:\n        k = part.key_norm(k)",
        ),
    ],
    "extend: new tokens do not see the old ones": [
        (_MASK, _MASK.replace("  # (T, S)", "\n    mask[:, : end - len(new)] = False"))
    ],
    "extend: new tokens see each other, also later ones": [(_MASK, "mask = np.ones((len(new), end), bool)")],
    "extend: queries are the first tokens": [(_MASK, "mask = np.tri(len(new), end, dtype=bool)")],
    "extend: the window is left out": [(_WINDOW, "pass")],
    "extend: the window is one wider": [
        (_WINDOW, _WINDOW.replace("model.config.window", "model.config.window - 1"))
    ],
    "extend: the window is one narrower, but never 0": [
        (_WINDOW, _WINDOW.replace("- model.config.window", "- max(model.config.window - 1, 1)"))
    ],
    "extend: the window counts from the first new token": [
        (_WINDOW, "mask[:, : max(0, end - len(new) + 1 - model.config.window)] = False")
    ],
    "extend: the window counts within the new tokens": [
        (_WINDOW, "mask[:, end - len(new) :] &= ~np.tri(len(new), k=-model.config.window, dtype=bool)")
    ],
    "extend: all layers use the keys of the first": [(_READ, _READ.replace("each[layer,", "each[0,"))],
    "extend: all layers write to the first": [
        (_PLACE, _PLACE.replace("[layer,", "[0,")),
        (_READ, _READ.replace("each[layer,", "each[0,")),
    ],
    "extend: new tokens are written to the beginning": [(_PLACE, "place = np.s_[layer, :, :n_new]")],
    "extend: new tokens are written to the end of the room": [
        (_PLACE, "place = np.s_[layer, :, cache.max_len - n_new :]")
    ],
    "extend: all of the room is read": [
        (_READ, _READ.replace("[layer, :, :n_all]", "[layer]")),
        (_OUTPUT, "mask = np.pad(mask, ((0, 0), (0, cache.max_len - n_all)))\n    " + _OUTPUT),
    ],
    "extend: keys and values are swapped": [
        (_READ, _READ.replace("(cache.keys, cache.values)", "(cache.values, cache.keys)"))
    ],
    "extend: only the last new token is kept": [
        (_PLACE, _PLACE + "\n    place, k, v, was = place, k, v, (k, v)"),
        (
            _WRITE,
            _WRITE + "\n    cache.keys[layer, :, n_all - n_new : n_all - 1] *= 1 if n_new == n_all else 0.5",
        ),
    ],
    "extend: heads of queries use the key heads in turn": [
        (
            _OUTPUT,
            "order = np.arange(config.n_heads).reshape(-1, config.n_kv_heads).T.ravel()\n    "
            "answer = grouped_attention(rotate(q, *turn)[order], k, v, mask)[np.argsort(order)]\n    "
            "return part.output(merge_heads(answer))",
        )
    ],
    "extend: the new tokens' own keys are not rounded": [
        (
            _READ,
            "own = rotate(k, *turn).data, v.data\n    "
            + _READ
            + "\n    k.data[:, n_all - n_new :], v.data[:, n_all - n_new :] = own",
        )
    ],
    "extend: the logits are of the dtype of the cache": [
        (_LOGITS, "return logits.data.astype(cache.keys.dtype)")
    ],
    "extend: attention computes in the dtype of the cache": [
        (_READ, _READ.replace("np.asarray(each[layer, :, :n_all], x.dtype)", "each[layer, :, :n_all]")),
        (
            _OUTPUT,
            _OUTPUT.replace(
                "return part.output(merge_heads(grouped_attention(rotate(q, *turn), k, v, mask)))",
                "answer = grouped_attention(Tensor(rotate(q, *turn).data.astype(k.dtype)), k, v, mask)\n    "
                "return part.output(merge_heads(Tensor(answer.data.astype(x.dtype))))",
            ),
        ),
    ],
    "extend: the logits of the last token alone": [(_LOGITS, "return logits.data[-1:]")],
    "extend: the logits are a tensor": [(_LOGITS, "return logits")],
    "extend: the last norm is left out": [(_NORM, "pass")],
    "extend: the table is the head, also of untied models": [
        (_HEAD, "logits = model.token_embedding.unembed(x)")
    ],
    "extend: attention is not added to what came in": [(_ATTEND, _ATTEND.replace("x + ", ""))],
    "extend: the feed-forward part is left out": [(_FEED, "pass")],
    "extend: attention and feed-forward part run beside each other": [
        (_ATTEND, "y = _attend(block.attention, block.attention_norm(x), mask, cache, layer)"),
        (_FEED, "x = x + y + block.feed_forward(block.feed_forward_norm(x))"),
    ],
    "extend: tokens without their norm": [(_ATTEND, _ATTEND.replace("block.attention_norm(x)", "x"))],
    "extend: one norm serves attention and feed-forward part": [
        (_FEED, _FEED.replace("feed_forward_norm", "attention_norm"))
    ],
    "extend: the length stays": [(_DONE, "")],
    "extend: the length grows by one": [(_DONE, "    cache.length += 1\n")],
    "extend: the length grows at once": [(_DONE, ""), (_MASK, "cache.length = end\n    " + _MASK)],
    "extend: the length grows before ids and room are looked at": [
        (_ROOM, "cache.length = end\n    " + _ROOM),
        (_DONE, ""),
    ],
    "extend: the new tokens go through the parts one by one": {"extend": _token_by_token},
    "extend: the whole text is read anew": [
        (
            _END,
            "new = np.concatenate([vars(cache).get('ids', [])[: cache.length], new]).astype(new.dtype)\n    "
            "n, cache.length, cache.ids = len(new) - cache.length, 0, new\n    " + _END,
        ),
        (_LOGITS, "return logits.data[-n:]"),
    ],
    "extend: the tokens that came into each layer are kept, and keys and values made anew": [
        (
            _ATTEND,
            "y = block.attention_norm(x)\n            "
            "kept = vars(cache).setdefault('kept', {}).get(layer, y.data[:0])[: cache.length]\n            "
            "cache.kept[layer] = np.concatenate([kept, y.data])\n            "
            "x = x + _attend(block.attention, Tensor(cache.kept[layer]), mask, cache, layer)[len(kept) :]",
        ),
        (
            _TURN,
            "n_new = len(x.data)\n    mask = np.pad(mask, ((n_new - len(mask), 0), (0, 0)))\n    " + _TURN,
        ),
    ],
    "extend: gradients are recorded": [
        (_QUIET, _QUIET.replace("no_grad()", "__import__('contextlib').nullcontext()"))
    ],
    "extend: no ids have no logits, and are no error": [
        (
            _IDS,
            "if new.ndim == 1 and not new.size:\n        return np.zeros((0, model.config.n_tokens))\n    if new.ndim != 1:",
        )
    ],
    "extend: a single number is a text": [(_IDS, "new = np.atleast_1d(new)\n    " + _IDS)],
    "extend: rows of ids are one text": [(_IDS, "new = new.ravel() if new.ndim > 1 else new\n    " + _IDS)],
    "extend: ids that are no whole numbers are cut": [(_IDS, "new = new.astype(int)\n    " + _IDS)],
    "extend: an id below 0 counts from the end": [
        (
            _IDS,
            _IDS.replace(
                "if",
                "new = np.where(new < 0, new % model.config.n_tokens, new) if new.dtype.kind == 'i' else new\n    if",
                1,
            ),
        )
    ],
    "extend: what does not fit falls out of the beginning": [
        (
            _ROOM,
            "if end > cache.max_len:\n"
            "        cache.length, end = max(cache.max_len - len(new), 0), min(end, cache.max_len)\n"
            "        new = new[-end:]\n    if False:",
        )
    ],
    "extend: the room grows": [
        (
            _ROOM,
            "if end > cache.max_len:\n"
            "        more = ((0, 0), (0, 0), (0, end - cache.max_len), (0, 0))\n"
            "        cache.keys, cache.values = np.pad(cache.keys, more), np.pad(cache.values, more)\n"
            "        cache.max_len = end\n    if False:",
        )
    ],
    "extend: the last place is never used": [(_ROOM, "if end >= cache.max_len:")],
    "extend: any cache of the right size will do": [
        (_CONFIG, "if cache.keys.shape[:2] != (model.config.n_layers, model.config.n_kv_heads):")
    ],
    "extend: the cache must be made for the same object": [(_CONFIG, "if cache.config is not model.config:")],
    "extend: it makes new arrays": [
        (_DONE, _DONE + "    cache.keys, cache.values = cache.keys.copy(), cache.values.copy()\n")
    ],
    "generate_cached: the prompt is read token by token": [
        (
            _TIMES,
            "for each in text[:-1]:\n        extend(model, cache, [each])\n    unread = text[-1:]\n    "
            + _TIMES,
        )
    ],
    "generate_cached: the last token of the prompt is not read": [(_UNREAD, "unread = text[:-1] or text\n")],
    "generate_cached: the prompt is read again with each token": [
        (_ONE, "cache.truncate(0)\n        unread = text")
    ],
    "generate_cached: the new token is read before it is given": [
        (_ASK, "logits = extend(model, cache, unread)[-1] if not cache.length else logits"),
        (_YIELD, "        logits = extend(model, cache, unread)[-1]\n" + _YIELD),
    ],
    "generate_cached: the first new token is drawn from the first token's logits": [
        (_ASK, _ASK.replace("[-1]", "[0]"))
    ],
    "generate_cached: the prompt is not penalized": [(_DRAW, _DRAW.replace("text,", "text[len(ids) :],"))],
    "generate_cached: penalties are left out": [(_DRAW, _DRAW.replace("text,", "[],"))],
    "generate_cached: the likeliest token is taken": [
        (_DRAW, "token = int(logits.argmax())\n        rng.random()")
    ],
    "generate_cached: with temperature 0 no number is used": [
        (
            _DRAW,
            "p = distribution(logits, text, settings)\n"
            "        token = draw(p, rng) if settings.temperature else int(p.argmax())",
        )
    ],
    "generate_cached: the token that stops is given": [
        (_STOP, "if token in stop:\n            yield token\n            return")
    ],
    "generate_cached: it does not stop": [(_STOP, "pass")],
    "generate_cached: one token more": [
        (_TIMES, "for _ in range(n_new + 1):"),
        (_CACHE, _CACHE.replace("n_new,", "n_new + 1,")),
    ],
    "generate_cached: the prompt comes first": [(_TIMES, "yield from text\n    " + _TIMES)],
    "generate_cached: the cache is of float16": [
        (_CACHE, _CACHE.replace("model.token_embedding.weight.dtype.type", "np.float16"))
    ],
    "generate_cached: texts share a cache": [
        ("def generate_cached(\n", "_CACHES = {}\n\n\ndef generate_cached(\n"),
        (
            _CACHE,
            "cache = _CACHES.setdefault(model.config, KVCache(model.config, 300))\n    cache.truncate(0)",
        ),
    ],
    "generate_cached: all tokens are made when it is called": [
        (
            "def generate_cached(\n",
            "@lambda f: lambda *a, **k: iter(list(f(*a, **k)))\ndef generate_cached(\n",
        )
    ],
    "generate_cached: gradients stay off while the caller has a token": [
        (_TIMES, "with no_grad():\n      " + _TIMES)
    ],
    "generate_cached: an empty text has no tokens, and is no error": [
        (_EMPTY, "if not len(ids):\n        return\n    if n_new < 0:")
    ],
    "generate_cached: a negative number of tokens is none": [
        (_EMPTY, "if not len(ids):"),
        (_CACHE, _CACHE.replace("n_new,", "max(n_new, 0),")),
    ],
    "generate_cached: it writes into the caller's list": [
        (_TEXT, "text = ids if isinstance(ids, list) else [int(each) for each in ids]")
    ],
}


class _Cache:
    """Reads nothing but what it was asked for, and is filled with poison."""

    def __init__(self, config, max_len, dtype=np.float64):
        if not isinstance(max_len, int) or isinstance(max_len, bool) or max_len <= 0:
            raise ValueError("max_len must be a whole number above 0")
        self.config, self.max_len, self.length = config, max_len, 0
        both = np.full((2, config.n_layers, config.n_kv_heads, max_len, config.head_width), np.nan, dtype)
        self.keys, self.values = both

    def truncate(self, length):
        if length < 0 or length > self.length:
            raise ValueError("it holds fewer tokens")
        self.length = length


EQUIVALENTS = {
    "a cache of poison, in one piece of memory": {"KVCache": _Cache},
    "the scores of all heads by broadcasting": [
        (
            _OUTPUT,
            "n_shared = config.n_heads // config.n_kv_heads\n"
            "    k, v = (Tensor(each.data.repeat(n_shared, axis=0)) for each in (k, v))\n    " + _OUTPUT,
        )
    ],
    "what has left the window is not read": [
        (
            _OUTPUT,
            "first = int(mask.any(axis=0).argmax())\n"
            "    k, v, mask = k[:, first:], v[:, first:], mask[:, first:]\n    " + _OUTPUT,
        )
    ],
    "a mask from distances": [
        (
            _MASK,
            "apart = np.arange(end - len(new), end)[:, None] - np.arange(end)\n    mask = apart >= 0",
        ),
        (_WINDOW, "mask &= apart < model.config.window"),
    ],
    "errors come when the text is asked for, not its first token": [
        ("def generate_cached(\n", "def _tokens(\n"),
        (
            "def extend(",
            "def generate_cached(model, ids, n_new, settings, rng, stop=()):\n"
            "    if len(ids) == 0 or n_new < 0:\n        raise ValueError('nothing to continue')\n"
            "    return _tokens(model, [*ids], n_new, settings, rng, stop)\n\n\ndef extend(",
        ),
    ],
}

_ROOM_RAISES = (
    "raise ValueError(f'a cache of max_len={cache.max_len} that holds {cache.length} tokens has no room for "
    "{len(new)} more: make a longer one, or truncate it')"
)
HARMLESS = {
    f"{_ROOM} => if False:": "NumPy refuses, too, when more is written than there are places: less clearly",
    f"{_ROOM_RAISES} => pass": "NumPy refuses, too, when more is written than there are places: less clearly",
    "if part.query_norm is not None and part.key_norm is not None: => "
    "if part.query_norm is not None or part.key_norm is not None:": "there are both norms or none",
    "extend: wrong for more than two axes": "ids have one axis",
    "extend: wrong for float32": "ids are whole numbers",
    "extend: wrong for values beyond 1e4": "of floats, and ids are whole numbers",
    "generate_cached: right at the first call only": "an iterator is handed on as it is",
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    plain = {
        "n_tokens": 5,
        "width": 6,
        "hidden": 3,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_width": 4,
    }
    numbers = rng.normal(size=3000)
    ids = np.array([3, 1, 4, 1, 2, 0])

    class Part(Module):
        def __init__(self):
            self.asked, self.fails = [], False

        def forward(self, x):
            if self.fails:
                raise ArithmeticError("told to fail")
            self.asked.append(f"{int(np.prod(x.shape[:-1]))} {is_recorded()}")
            return x * 0.5

    def is_recorded():
        return (Tensor([1.0], requires_grad=True) * 2).requires_grad

    def model_of(part=None, dtype=np.float64, **changes):
        model = Llama(
            LlamaConfig(**(plain | changes)), np.random.default_rng(0), part and (lambda layer: part), dtype
        )
        start = 0
        for _, each in model.named_parameters():
            each.data[...] = numbers[start : start + each.data.size].reshape(each.shape)
            start += each.data.size
        return model

    def text(
        cuts=(0, 3, 4, 6), kept=np.float64, dtype=np.float64, is_held=False, room=8, behind=7.0, **changes
    ):
        def call(impl):
            model = model_of(dtype=dtype, **changes)
            cache = impl.KVCache(model.config, room, kept)
            logits = []
            for start, end in itertools.pairwise(cuts):
                cache.keys[:, :, cache.length :] = cache.values[:, :, cache.length :] = behind
                logits.append(impl.extend(model, cache, ids[start:end]))
            n = cache.length
            held = [cache.keys[:, :, :n].copy(), cache.values[:, :, :n].copy()] if is_held else []
            return [logits, n, *held]

        return told(call)

    def cache(*arguments):
        def call(impl):
            one, other = (impl.KVCache(LlamaConfig(**plain), *arguments) for _ in range(2))
            shared = np.shares_memory(one.keys, one.values), np.shares_memory(one.keys, other.keys)
            return [list(one.keys.shape), str(one.keys.dtype), one.length, one.max_len, *shared]

        return told(call)

    def truncated(*lengths):
        def call(impl):
            model = model_of()
            cache = impl.KVCache(model.config, 8)
            held = cache.keys
            impl.extend(model, cache, ids)
            found = []
            for each in lengths:
                try:
                    cache.truncate(each)
                    found.append(cache.length)
                except ValueError:
                    found.append("ValueError")
            return [found, cache.keys is held]

        return told(call)

    def refused(given, room=8, fails=False, shape=(), before=2):
        def call(impl):
            part = Part()
            model = model_of(part)
            cache = impl.KVCache(LlamaConfig(**(plain | dict(shape))), room)
            if not shape:
                impl.extend(model, cache, ids[:before])
            part.fails = fails
            try:
                answer = np.asarray(impl.extend(model, cache, given)).shape
            except Exception as error:
                answer = "ValueError" if isinstance(error, ValueError) else type(error).__name__
            return [answer, cache.length, cache.max_len, cache.keys.shape[2]]

        return told(call)

    def parts(impl):
        part = Part()
        model = model_of(part)
        cache = impl.KVCache(model.config, 8)
        held = cache.keys
        answer = impl.extend(model, cache, ids[:3])
        impl.extend(model, cache, ids[3:4])
        return [part.asked, cache.keys is held, type(answer).__name__]

    def equal_config(impl):
        model = model_of()
        return impl.extend(model, impl.KVCache(LlamaConfig(**plain), 4), ids[:2])

    def drawn(given, n_new, stop=(), dtype=np.float64, **options):
        def call(impl):
            part, by_hand, found, steps = Part(), np.random.default_rng(5), [], []
            model, own = model_of(part, dtype), list(given)
            for token in impl.generate_cached(model, own, n_new, Sampling(**options), by_hand, stop):
                found.append(token)
                steps += [len(part.asked), is_recorded()]
                if len(found) > 20:
                    break
            return [found, steps, part.asked, own, float(by_hand.random())]

        return told(call)

    def eager(impl):
        part = Part()
        impl.generate_cached(model_of(part), [1], 3, Sampling(), np.random.default_rng(5))
        return part.asked

    def beside(impl):
        model, rng = model_of(), np.random.default_rng(5)
        both = [impl.generate_cached(model, ids, 4, Sampling(1.5, min_p=0.0), rng) for ids in ([1, 2], [0])]
        return [next(each) for _ in range(4) for each in both]

    def copied(impl):
        model = model_of()
        one, other = impl.KVCache(model.config, 8), impl.KVCache(model.config, 6)
        impl.extend(model, one, ids[:4])
        impl.extend(model, other, ids[2:])
        other.keys[:, :, :4], other.values[:, :, :4] = one.keys[:, :, :4], one.values[:, :, :4]
        other.length = 4
        return impl.extend(model, other, ids[4:])

    def rounded(impl):
        made = []

        class Spy(impl.KVCache):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                made.append(self)

        was, vars(impl)["KVCache"] = impl.KVCache, Spy
        try:
            list(impl.generate_cached(model_of(), [1, 2], 2, Sampling(), np.random.default_rng(5)))
        finally:
            vars(impl)["KVCache"] = was
        return [str(each.keys.dtype) for each in made]

    two = {"n_heads": 2, "n_kv_heads": 2}
    return {
        "a cache": cache(7),
        "a cache of float32": cache(7, np.float32),
        "no room": cache(0),
        "half a place": cache(2.5),
        "what is kept": text(is_held=True),
        "in one piece": text((0, 6)),
        "one by one": text(range(7)),
        "rather late": text((0, 1, 5, 6)),
        "a window": text(window=2),
        "a wide window": text(window=4),
        "a window of one": text(window=1),
        "a window, in one piece": text((0, 6), window=3),
        "norms": text(has_head_norms=True, is_held=True),
        "biases": text(has_qkv_bias=True),
        "two heads": text(**two),
        "an untied head": text(is_tied=False),
        "another base": text(base=3.0),
        "scaled angles": text(scaling=RopeScaling("linear", 3.0)),
        "a cache of float16": text(kept=np.float16),
        "a float32 model in float64": text(dtype=np.float32),
        "a float32 model in float16": text(dtype=np.float32, kept=np.float16),
        "a full cache": text(room=6),
        "poison behind the text": text(behind=math.nan),
        "a copy": told(copied),
        "forgotten": truncated(5, 5, 2, 0),
        "not forgotten": truncated(7),
        "too much forgotten": truncated(-1),
        "half forgotten": truncated(4),
        "no ids": refused([]),
        "one number": refused(np.array(3)),
        "rows": refused(np.array([[1], [2]])),
        "no whole numbers": refused(np.array([1.5])),
        "an id below 0": refused([-1]),
        "an id too large": refused([5]),
        "too many ids": refused([1, 2], room=3),
        "a part that fails": refused([1, 2], fails=True),
        "another shape": refused([1, 2], shape={"n_heads": 2}.items()),
        "another window": refused([1, 2], shape={"window": 3}.items()),
        "the parts": parts,
        "an equal config": told(equal_config),
        "a text": drawn([3, 1], 5, temperature=1.5, top_p=1.0, min_p=0.0),
        "a text with penalties": drawn([3, 1, 3], 5, temperature=1.0, min_p=0.0, presence=100.0),
        "a cold text": drawn([3], 4, temperature=0.0),
        "a text that stops": drawn([3, 1], 6, {0, 2, 4}, temperature=1.5),
        "no text": drawn([], 0),
        "a negative text": drawn([1], -1),
        "before the first": eager,
        "texts beside each other": told(beside),
        "the cache of a text": rounded,
    }
