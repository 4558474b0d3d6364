"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.inference.sampling import Sampling
from techtree.techs.transformer.llama_block import Llama, LlamaConfig
from techtree.techs.transformer.rope import RopeScaling
from techtree.tree.answers import told

_SIZES = "if type(each) is not int or each < 1:"
_SHAPE = "shape = (config.n_layers, n_blocks, config.n_kv_heads, block_size, config.head_width)"
_ARRAYS = "self.keys, self.values = np.zeros(shape, dtype), np.zeros(shape, dtype)"
_TAKE_CHECK = "if n > self.n_free:"
_TAKE = "return [self._free.pop() for _ in range(n)]"
_UNFIT = "unfit = [each for each in blocks if each in self._free or each not in range(self.n_blocks)]"
_GIVE_CHECK = "if unfit or len(set(blocks)) < len(blocks):"
_GIVE = "self._free += blocks"
_MISSING = "return max(0, -(-n_tokens // self.pool.block_size) - len(self.blocks))"
_RESERVE = "self.blocks += self.pool.take(self.n_missing(n_tokens))"
_CUT = "if not 0 <= length <= self.length:"
_NEEDED = "n_needed = -(-length // self.pool.block_size)"
_GIVEN = "self.pool.give_back(self.blocks[n_needed:])"
_KEPT = "del self.blocks[n_needed:]"
_TEXTS = "if not texts or len(texts) != len(rows) or len({id(each) for each in texts}) < len(texts):"
_ONE_POOL = "if any(each.pool is not pool for each in texts) or pool.config != model.config:"
_ENDS = "ends = [text.length + len(row) for text, row in zip(texts, rows, strict=True)]"
_ALL_MISSING = "n_missing = sum(text.n_missing(end) for text, end in zip(texts, ends, strict=True))"
_ROOM = "if n_missing > pool.n_free:"
_RESERVED = "        text.reserve(end)\n    with no_grad():"
_QUIET = "with no_grad():\n        x = model.token_embedding"
_ROW = "x = model.token_embedding(np.concatenate(rows))  # (all T, W): a row of all new tokens"
_LOGITS = "found.append(logits.data[first : first + end - text.length])"
_MOVED = "        text.length = end\n    return found"
_IDS = 'if row.ndim != 1 or not row.size or row.dtype.kind not in "iu":'
_BOUNDS = "if row.min() < 0 or row.max() >= config.n_tokens:"
_PLACES = "places = [np.arange(text.length, end) for text, end in zip(texts, ends, strict=True)]"
_TURN = "turn = rotation(np.concatenate(places), q.shape[-1], config.base, config.scaling)"
_AT = "at = (layer, blocks[place // pool.block_size], slice(None), place % pool.block_size)"
_WRITE = "pool.keys[at], pool.values[at] = k.data[new].swapaxes(0, 1), v.data[new].swapaxes(0, 1)"
_HELD = "held = [_gathered(each[layer, used], end, x.dtype) for each in (pool.keys, pool.values)]"
_MASK = "mask = causal_mask(len(place), end)"
_WINDOW = "mask &= ~np.tri(len(place), end, text.length - config.window, dtype=bool)"
_ANSWER = "answers.append(grouped_attention(q[new], held[0], held[1], mask).data)"
_JOINED = "joined = blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1, blocks.shape[-1])"
_GATHERED = "return Tensor(joined[:, :n_tokens].astype(dtype))"
_MAX = "if type(max_running) is not int or max_running < 1:"
_N_NEW = "if type(request.n_new) is not int or request.n_new < 1:"
_FITS = "if n_all - 1 > n_places:"
_OWN_IDS = "_State(request, ids.tolist(), n_all, PagedText(self.pool))"
_QUEUE = "self.waiting.append(number)"
_RUNNING = "for number in list(self.running):\n"
_SHORT = "while number in self.running and state.text.n_missing(len(state.tokens)) > self.pool.n_free:"
_YOUNGEST = "self._evict(self.running[-1])"
_RUNS = "if number in self.running:\n                state.text.reserve(len(state.tokens))"
_ADMIT = "while self.waiting and len(self.running) < self.max_running:"
_WAITS = "if state.text.n_missing(len(state.tokens)) > self.pool.n_free:\n                break"
_ADMITTED = "self.running.append(self.waiting.pop(0))"
_IDLE = "if not self.running:\n            return {}"
_UNREAD = "unread = [state.tokens[state.text.length :] for state in states]"
_DRAW = "token = draw(distribution(rows[-1], state.tokens, request.settings), request.rng)"
_GOES_ON = "if token not in request.stop:"
_GIVES = "                found[number] = token\n"
_LEAVES = "if token in request.stop or len(state.tokens) == state.n_all:"
_UNKNOWN = "if number not in self._states:"
_FORGET = "self._states.pop(number).text.truncate(0)"
_EVICT = "        self._states[number].text.truncate(0)\n        self.running.remove(number)"
_FRONT = "self.waiting.insert(0, number)"
_COUNT = "self.n_evicted += 1"

MISTAKES = {
    "BlockPool: room for all heads of queries": [(_SHAPE, _SHAPE.replace("n_kv_heads", "n_heads"))],
    "BlockPool: keys and values are one array": [
        (_ARRAYS, "self.keys = self.values = np.zeros(shape, dtype)")
    ],
    "BlockPool: the dtype is always float64": [(_ARRAYS, _ARRAYS.replace(", dtype", ""))],
    "BlockPool: no blocks are a pool": [
        (_SIZES, "if type(each) is not int or each < (name == 'block_size'):")
    ],
    "BlockPool: a block may be empty": [(_SIZES, "if type(each) is not int or each < (name == 'n_blocks'):")],
    "BlockPool: half a block counts": [
        (_SIZES, "if not isinstance(each, int | float) or each < 1:"),
        (_SHAPE, "n_blocks, block_size = int(n_blocks), int(block_size)\n        " + _SHAPE),
    ],
    "take gives what there is": [(_TAKE_CHECK, "n = min(n, self.n_free)\n        " + _TAKE_CHECK)],
    "take takes before it refuses": [
        (_TAKE_CHECK, "if n > self.n_free:\n            self._free.clear()\n        if n > self.n_free:")
    ],
    "take refuses the last block": [(_TAKE_CHECK, "if n and n >= self.n_free:")],
    "take gives the same blocks again": [(_TAKE, "return self._free[:n]")],
    "give_back takes a block twice": [
        (_UNFIT, "unfit = [each for each in blocks if each not in range(self.n_blocks)]")
    ],
    "give_back takes a block that is there twice": [(_GIVE_CHECK, "if unfit:")],
    "give_back counts blocks from the end": [(_UNFIT, _UNFIT.replace("range(", "range(-self.n_blocks, "))],
    "give_back takes what fits before it refuses": [
        (
            _GIVE_CHECK,
            "if unfit:\n            self._free += [each for each in blocks if each not in unfit]\n        "
            + _GIVE_CHECK,
        )
    ],
    "n_missing counts one block too many": [
        (_MISSING, "return max(0, n_tokens // self.pool.block_size + 1 - len(self.blocks))")
    ],
    "n_missing leaves out a block that is not full": [
        (_MISSING, "return max(0, n_tokens // self.pool.block_size - len(self.blocks))")
    ],
    "n_missing does not count the blocks it has": [(_MISSING, "return -(-n_tokens // self.pool.block_size)")],
    "n_missing may be negative": [(_MISSING, _MISSING.replace("max(0, ", "(0 + "))],
    "reserve takes that many more": [
        (_RESERVE, "self.blocks += self.pool.take(-(-n_tokens // self.pool.block_size))")
    ],
    "reserve takes other blocks": [
        (
            _RESERVE,
            "n = self.n_missing(n_tokens)\n        if n > self.pool.n_free:\n            raise ValueError('too few')\n        n += len(self.blocks)\n        self.pool.give_back(self.blocks)\n        self.blocks = self.pool.take(n)[::-1]",
        )
    ],
    "reserve takes what there is": [
        (_RESERVE, "self.blocks += self.pool.take(min(self.n_missing(n_tokens), self.pool.n_free))")
    ],
    "truncate keeps all blocks": [(_GIVEN, "pass"), (_KEPT, "pass")],
    "truncate gives blocks back and keeps them": [(_KEPT, "pass")],
    "truncate forgets blocks and does not give them back": [(_GIVEN, "pass")],
    "truncate keeps one block more": [(_NEEDED, "n_needed = length // self.pool.block_size + 1")],
    "truncate gives a block back that is half full": [(_NEEDED, "n_needed = length // self.pool.block_size")],
    "truncate keeps reserved blocks": [
        ("        self.length = length\n", "        was, self.length = self.length, length\n"),
        (_NEEDED, "n_needed = len(self.blocks) if length == was else -(-length // self.pool.block_size)"),
    ],
    "truncate makes a text longer": [(_CUT, "if length < 0:")],
    "truncate counts from the end": [(_CUT, "length += self.length if length < 0 else 0\n        " + _CUT)],
    "extend_batch: a text may stand there twice": [(_TEXTS, "if not texts or len(texts) != len(rows):")],
    "extend_batch: ids without a text are left out": [(_TEXTS, "rows = rows[: len(texts)]\n    " + _TEXTS)],
    "extend_batch: no texts are no error": [
        (_TEXTS, "if not texts and not rows:\n        return []\n    " + _TEXTS)
    ],
    "extend_batch: texts of other pools are fine": [(_ONE_POOL, "if pool.config != model.config:")],
    "extend_batch: any model is fine": [(_ONE_POOL, "if any(each.pool is not pool for each in texts):")],
    "extend_batch: room is asked for text by text": [(_ROOM, "if False:")],
    "extend_batch: room is asked for the largest text": [
        (_ALL_MISSING, _ALL_MISSING.replace("sum(", "max("))
    ],
    "extend_batch: it takes a block ahead": [
        (
            _RESERVED,
            _RESERVED.replace("reserve(end)", "reserve(min(end + 1, end + pool.n_free * pool.block_size))"),
        )
    ],
    "extend_batch: gradients are recorded": [
        (_QUIET, _QUIET.replace("no_grad()", "__import__('contextlib').nullcontext()"))
    ],
    "extend_batch: all answers are of the first text": [
        (_LOGITS, "found.append(logits.data[: end - text.length])")
    ],
    "extend_batch: only the last logits": [
        (
            _LOGITS,
            "found.append(logits.data[first + end - text.length - 1 : first + end - text.length])",
        )
    ],
    "extend_batch: the lengths stay": [(_MOVED, "    return found")],
    "extend_batch: the lengths grow first": [
        (
            _RESERVED,
            "        text.reserve(end)\n        text.before, text.length = text.length, end\n    with no_grad():",
        ),
        (_PLACES, _PLACES.replace("text.length", "text.before")),
        (_WINDOW, _WINDOW.replace("text.length", "text.before")),
        (_LOGITS, _LOGITS.replace("text.length", "text.before")),
        ("first += end - text.length", "first += end - text.before"),
        (_MOVED, "    return found"),
    ],
    "extend_batch: positions begin at 0": [
        (
            _TURN,
            _TURN.replace("np.concatenate(places)", "np.concatenate([place - place[0] for place in places])"),
        )
    ],
    "extend_batch: positions run on from text to text": [
        (_TURN, _TURN.replace("np.concatenate(places)", "np.arange(sum(map(len, places)))"))
    ],
    "extend_batch: all texts are as long as the first": [
        (
            _TURN,
            _TURN.replace(
                "np.concatenate(places)",
                "np.concatenate([place - place[0] + places[0][0] for place in places])",
            ),
        )
    ],
    "extend_batch: the scaling of the angles is left out": [(_TURN, _TURN.replace(", config.scaling", ""))],
    "extend_batch: blocks lie one behind the other": [
        (_AT, _AT.replace("blocks[place // pool.block_size]", "blocks[0] + place // pool.block_size")),
        (
            "used = blocks[: -(-end // pool.block_size)]",
            "used = blocks[0] + np.arange(-(-end // pool.block_size))",
        ),
    ],
    "extend_batch: places within a block and blocks are swapped": [
        (_AT, "at = (layer, blocks[place % len(blocks)], slice(None), place // len(blocks))")
    ],
    "extend_batch: only the first new token is written": [
        (
            _WRITE,
            "at = (layer, at[1][:1], slice(None), at[3][:1])\n        "
            + _WRITE.replace("[new].swapaxes(0, 1)", "[new].swapaxes(0, 1)[:1]"),
        )
    ],
    "extend_batch: values are kept as keys": [(_WRITE, _WRITE.replace("v.data", "k.data"))],
    "extend_batch: all layers write to the first": [
        (_AT, _AT.replace("(layer,", "(0,")),
        (_HELD, _HELD.replace("[layer, used]", "[0, used]")),
    ],
    "extend_batch: whole blocks are read": [
        (
            _MASK,
            "mask = np.pad(causal_mask(len(place), end), ((0, 0), (0, len(used) * pool.block_size - end)))",
        ),
        (_WINDOW, "mask &= ~np.tri(len(place), mask.shape[1], text.length - config.window, dtype=bool)"),
        (_GATHERED, "return Tensor(joined.astype(dtype))"),
    ],
    "extend_batch: heads and places are joined in the wrong order": [
        (_JOINED, "joined = blocks.reshape(blocks.shape[1], -1, blocks.shape[-1])")
    ],
    "extend_batch: a text does not see what it held": [
        (_MASK, "mask = causal_mask(len(place), end)\n        mask[:, : text.length] = False")
    ],
    "extend_batch: new tokens see each other, also later ones": [
        (_MASK, "mask = np.ones((len(place), end), dtype=bool)")
    ],
    "extend_batch: the window is left out": [(_WINDOW, "pass")],
    "extend_batch: the window counts from the new tokens": [
        (_WINDOW, _WINDOW.replace("text.length - config.window", "-config.window"))
    ],
    "extend_batch: the new tokens' own keys are not rounded": [
        (
            _HELD,
            _HELD
            + "\n        for each, own in zip(held, (k, v), strict=True):\n            each.data[:, text.length :] = own.data[new]",
        )
    ],
    "extend_batch: logits are of the dtype of the pool": [
        (_LOGITS, _LOGITS[:-1] + ".astype(pool.keys.dtype))")
    ],
    "extend_batch: ids that are no whole numbers are cut": [(_IDS, "row = row.astype(int)\n    " + _IDS)],
    "extend_batch: an id below 0 counts from the end": [(_BOUNDS, "if row.max() >= config.n_tokens:")],
    "extend_batch: rows of ids are one text": [
        (_IDS, "row = row.ravel() if row.ndim > 1 else row\n    " + _IDS)
    ],
    "Scheduler: none may run": [(_MAX, "if type(max_running) is not int or max_running < 0:")],
    "submit: no new token is a request": [
        (_N_NEW, "if type(request.n_new) is not int or request.n_new < 0:")
    ],
    "submit: the last token must fit, too": [(_FITS, "if n_all > n_places:")],
    "submit: it is enough that the prompt fits": [(_FITS, "if len(ids) > n_places:")],
    "submit: the newest comes first": [(_QUEUE, "self.waiting.insert(0, number)")],
    "submit: it works on the caller's list": [
        (
            _OWN_IDS,
            "_State(request, request.ids if isinstance(request.ids, list) else ids.tolist(), n_all, PagedText(self.pool))",
        )
    ],
    "step: the oldest is evicted": [(_YOUNGEST, "self._evict(self.running[0])")],
    "step: whoever needs a block is evicted": [(_YOUNGEST, "self._evict(number)")],
    "step: all younger ones are evicted": [
        (_YOUNGEST, "for each in self.running[:0:-1] or [number]:\n                    self._evict(each)")
    ],
    "step: an evicted text waits behind all others": [(_FRONT, "self.waiting.append(number)")],
    "step: an evicted text keeps its blocks": [(_EVICT, "        self.running.remove(number)")],
    "step: an evicted text loses its new tokens": [
        (
            _FRONT,
            "state = self._states[number]\n        del state.tokens[state.n_all - state.request.n_new :]\n        "
            + _FRONT,
        )
    ],
    "step: evictions are not counted": [(_COUNT, "pass")],
    "step: one more runs": [(_ADMIT, _ADMIT.replace("<", "<="))],
    "step: admitted only when nobody runs": [
        (
            _ADMIT,
            _ADMIT.replace(
                "while self.waiting and",
                "was_idle = not self.running\n        while was_idle and self.waiting and",
            ),
        )
    ],
    "step: one is admitted at a time": [(_ADMITTED, _ADMITTED + "\n            break")],
    "step: a small request overtakes": [
        (
            _WAITS,
            "fits = [n for n in self.waiting if self._states[n].text.n_missing(len(self._states[n].tokens)) <= self.pool.n_free]\n            if not fits:\n                break\n            self.waiting.remove(fits[0])\n            self.waiting.insert(0, fits[0])\n            state = self._states[fits[0]]",
        )
    ],
    "step: room for the whole answer is wanted": [
        (_WAITS, "if state.text.n_missing(state.n_all - 1) > self.pool.n_free:\n                break"),
        (
            "state.text.reserve(len(state.tokens))\n            self.running",
            "state.text.reserve(state.n_all - 1)\n            self.running",
        ),
    ],
    "step: nothing to do is an error": [
        (_IDLE, "if not self.running:\n            raise ValueError('nothing waits')")
    ],
    "step: the whole text is read again": [
        (
            _UNREAD,
            "for state in states:\n            n = state.text.length\n            state.text.truncate(0)\n        unread = [state.tokens for state in states]",
        )
    ],
    "step: drawn from the first new token's logits": [(_DRAW, _DRAW.replace("rows[-1]", "rows[0]"))],
    "step: the likeliest token is taken": [
        (_DRAW, "token = int(rows[-1].argmax())\n            request.rng.random()")
    ],
    "step: penalties are left out": [(_DRAW, _DRAW.replace("state.tokens,", "[],"))],
    "step: one stream of numbers for all": [(_DRAW, _DRAW.replace("request.rng)", "states[0].request.rng)"))],
    "step: the token that stops is given": [
        (_GOES_ON, "if token in request.stop:\n                found[number] = token\n            else:")
    ],
    "step: it does not stop": [(_GOES_ON, "if True:"), (_LEAVES, "if len(state.tokens) == state.n_all:")],
    "step: one token more": [
        (_LEAVES, "if token in request.stop or len(state.tokens) > state.n_all:"),
        (_FITS, "if n_all > n_places + 1:"),
    ],
    "step: a text that is done keeps its blocks": [(_FORGET, "self._states.pop(number)")],
    "cancel: unknown numbers are fine": [
        (_UNKNOWN, "if number not in self._states:\n            return\n        if False:")
    ],
}

EQUIVALENTS = {
    "blocks in order": [(_TAKE, "return [self._free.pop(0) for _ in range(n)]")],
    "given back in front": [(_GIVE, "self._free[:0] = blocks")],
    "the ceiling by math": [
        (
            "from collections.abc import Collection, Sequence",
            "import math\nfrom collections.abc import Collection, Sequence",
        ),
        (_MISSING, "return max(0, math.ceil(n_tokens / self.pool.block_size) - len(self.blocks))"),
    ],
    "token by token": [
        (
            _WRITE,
            "for number, p in enumerate(place):\n            at = (layer, text.blocks[p // pool.block_size], slice(None), p % pool.block_size)\n            pool.keys[at] = k.data[:, first - len(place) + number]\n            pool.values[at] = v.data[:, first - len(place) + number]",
        )
    ],
    "what has left the window is not read": [
        (
            _ANSWER,
            "seen = int(mask.any(axis=0).argmax())\n        held = [each[:, seen:] for each in held]\n        mask = mask[:, seen:]\n        "
            + _ANSWER,
        )
    ],
    "places taken one by one": [
        (
            _GATHERED,
            "return Tensor(np.stack([blocks[p // blocks.shape[2], :, p % blocks.shape[2]] for p in range(n_tokens)], axis=1).astype(dtype))",
        )
    ],
}

_SAME_POOL, _WHOLE = "all texts are of one pool", "ids are whole numbers"
HARMLESS = {
    "pool = texts[0].pool => pool = texts[-1].pool": _SAME_POOL,
    "config, pool = (part.config, texts[0].pool) => config, pool = (part.config, texts[-1].pool)": _SAME_POOL,
    "if part.query_norm is not None and part.key_norm is not None: => "
    "if part.query_norm is not None or part.key_norm is not None:": "there are both norms or none",
    f"{_JOINED} => {_JOINED.replace('-1,', '-2,')}": "NumPy takes any negative length for the one left open",
    "used = blocks[:-(-end // pool.block_size)] => used = blocks[:]": "more is gathered, and cut off again",
    "extend_batch: wrong for more than two axes": "ids have one axis",
    "extend_batch: wrong for float32": _WHOLE,
    "extend_batch: wrong for values beyond 1e4": _WHOLE,
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    plain = {"n_tokens": 5, "width": 6, "hidden": 3, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
    plain |= {"head_width": 4}
    numbers = rng.normal(size=3000)

    class Part(Module):
        def __init__(self):
            self.asked, self.fails = [], False

        def forward(self, x):
            if self.fails:
                raise ArithmeticError("told to fail")
            self.asked.append(
                f"{int(np.prod(x.shape[:-1]))} {(Tensor([1.0], requires_grad=True) * 2).requires_grad}"
            )
            return x * 0.5

    def model_of(part=None, **changes):
        config = LlamaConfig(**(plain | changes))
        model = Llama(config, np.random.default_rng(0), part and (lambda layer: part))
        start = 0
        for _, each in model.named_parameters():
            each.data[...] = numbers[start : start + each.data.size].reshape(each.shape)
            start += each.data.size
        return model

    def tried(call, *arguments):
        try:
            return call(*arguments)
        except Exception as error:
            return "ValueError" if isinstance(error, ValueError) else type(error).__name__

    def pool(n, size, *dtype):
        def call(impl):
            made = impl.BlockPool(LlamaConfig(**plain), n, size, *dtype)
            return [
                list(made.keys.shape),
                str(made.keys.dtype),
                made.n_free,
                np.shares_memory(made.keys, made.values),
            ]

        return told(call)

    def handed(impl):
        made = impl.BlockPool(LlamaConfig(**plain), 4, 2)
        found = [tried(made.take, 5), made.n_free, tried(lambda: len(made.take(1))), made.n_free]
        rest = tried(made.take, 3)
        found += [len(rest), made.n_free]
        if not isinstance(rest, list) or len(set(rest)) < 3:
            return found
        for given in (rest[:1], rest[:1], [rest[1], rest[1]], [-1], [9], [rest[1], 9], rest[1:]):
            found += [tried(made.give_back, given), made.n_free]
        return found

    def taken(impl):
        made = impl.BlockPool(LlamaConfig(**plain), 7, 3)
        text = impl.PagedText(made)
        found = [text.n_missing(n) for n in (0, 1, 3, 4)]
        for n in (1, 3, 4, 7, 2, 30):
            before = list(text.blocks)
            found += [
                tried(text.reserve, n),
                len(text.blocks),
                made.n_free,
                text.blocks[: len(before)] == before,
            ]
            found += [text.n_missing(1), text.n_missing(10)]
        return found

    def cut(*lengths):
        def call(impl):
            model = model_of()
            made = impl.BlockPool(model.config, 7, 3)
            text = impl.PagedText(made)
            impl.extend_batch(model, [text], [[1, 2, 3, 4, 1, 2, 3]])
            text.reserve(11)
            found = []
            for each in lengths:
                found += [tried(text.truncate, each), text.length, len(text.blocks), made.n_free]
            return found

        return told(call)

    def batch(kept=np.float64, behind=7.0, **changes):
        def call(impl):
            model = model_of(**changes)
            made = impl.BlockPool(model.config, 12, 2, kept)
            made.keys[...] = made.values[...] = behind
            texts = [impl.PagedText(made) for _ in range(3)]
            texts[0].reserve(1)
            texts[1].reserve(5)
            texts[2].reserve(3)
            found = []
            for ids in ([[1], [2, 3, 4], [0, 2]], [[4, 1, 2], [1], [3]], [[1], [1], [2]]):
                found += impl.extend_batch(model, texts, ids)
                found += [[each.length for each in texts], [len(each.blocks) for each in texts], made.n_free]
            return found

        return told(call)

    def refused(second, n_texts=2, fails=False, room=5, **changes):
        def call(impl):
            part = Part()
            model = model_of(part)
            made = impl.BlockPool(LlamaConfig(**(plain | changes)), room, 2)
            texts = [impl.PagedText(made) for _ in range(2)]
            if n_texts == 3:
                texts = [texts[0], texts[0]]
            if n_texts == 4:
                texts[1] = impl.PagedText(impl.BlockPool(model.config, room, 2))
            part.fails = fails
            ids = [[1], second][: 0 if not n_texts else 2]
            given = texts if n_texts > 1 else texts[:n_texts]
            answer = tried(impl.extend_batch, model, given, ids)
            answer = answer if isinstance(answer, str) else [list(np.shape(each)) for each in answer]
            found = [answer, [each.length for each in texts]]
            return found if fails else [*found, [len(each.blocks) for each in texts], made.n_free]

        return told(call)

    def parts(impl):
        part = Part()
        model = model_of(part)
        made = impl.BlockPool(model.config, 5, 2)
        texts = [impl.PagedText(made) for _ in range(2)]
        found = impl.extend_batch(model, texts, [[1, 2], [3]])
        return [
            part.asked,
            np.may_share_memory(found[0].base if found[0].base is not None else found[0], found[1]),
        ]

    def trace(requests, n_blocks=6, size=2, n_running=3, cancelled=(), later=(), n_steps=24):
        def call(impl):
            part = Part()
            model = model_of(part)
            made = impl.BlockPool(model.config, n_blocks, size)
            scheduler = tried(impl.Scheduler, model, made, n_running)
            if isinstance(scheduler, str):
                return scheduler
            rngs, kept, found = [], [], []

            def submit(n_ids, n_new, stop=(), temperature=1.5, presence=0.0):
                rngs.append(np.random.default_rng(len(rngs)))
                kept.append([(3 * n + len(rngs)) % 5 for n in range(n_ids)])
                settings = Sampling(temperature, min_p=0.0, top_p=1.0, presence=presence)
                found.append(tried(scheduler.submit, impl.Request(kept[-1], n_new, settings, rngs[-1], stop)))

            for each in requests:
                submit(*each)
            for step in range(n_steps):
                if step == 2:
                    found.extend(tried(scheduler.cancel, each) for each in cancelled)
                    for each in later:
                        submit(*each)
                given = tried(scheduler.step)
                found.append(sorted(given.items()) if isinstance(given, dict) else given)
                found += [list(scheduler.waiting), list(scheduler.running), made.n_free, scheduler.n_evicted]
                if isinstance(given, str) and scheduler.running:
                    break
            return [found, part.asked, kept, [float(each.random()) for each in rngs]]

        return told(call)

    return {
        "a pool": pool(7, 3),
        "a pool of float32": pool(7, 3, np.float32),
        "no blocks": pool(0, 3),
        "empty blocks": pool(3, 0),
        "half a block": pool(2.5, 3),
        "blocks handed out": told(handed),
        "blocks of a text": told(taken),
        "cut": cut(6, 4, 3, 0),
        "reserved blocks cut": cut(7),
        "cut too far": cut(8),
        "cut below 0": cut(-1),
        "texts together": batch(),
        "texts with a window": batch(window=2),
        "texts with scaled angles": batch(scaling=RopeScaling("linear", 3.0)),
        "texts in float16": batch(np.float16),
        "poison where nothing is": batch(behind=math.nan),
        "as many ids as texts": refused([2, 3]),
        "fewer texts": refused([2, 3], 1),
        "no texts": refused([2, 3], 0),
        "a text twice": refused([2, 3], 3),
        "another pool": refused([2, 3], 4),
        "another config": refused([2, 3], base=9.0),
        "too many tokens for all": refused([1] * 9),
        "too many tokens for one": refused([1] * 11),
        "a part that fails": refused([1], fails=True),
        "no ids": refused([]),
        "no whole numbers": refused([1.5]),
        "an id below 0": refused([-1]),
        "rows": refused([[1], [2]]),
        "the parts": told(parts),
        "requests with room": trace([(3, 4), (1, 1), (2, 6, (), 0.0), (2, 3), (1, 5)], n_blocks=30),
        "requests without room": trace([(3, 7), (2, 6), (1, 9), (6, 4), (1, 2)]),
        "little room": trace([(5, 3), (1, 8), (3, 2), (1, 1)], n_blocks=4),
        "requests that stop": trace([(3, 6, {0, 1}), (1, 6, {2}), (2, 5, {3, 4})], n_blocks=30),
        "requests with penalties": trace([(3, 6, (), 1.0, 100.0), (1, 5, (), 1.0, 100.0)], n_blocks=30),
        "requests cancelled": trace(
            [(3, 7), (2, 6), (1, 9)], n_running=2, cancelled=(0, 2, 2, 9), later=[(2, 2)]
        ),
        "one at a time": trace([(3, 3), (2, 2)], n_running=1),
        "none at a time": trace([(3, 3)], n_running=0, n_steps=2),
        "a request for nothing": trace([(2, 0)], n_steps=2),
        "a request that just fits": trace([(7, 6)]),
        "a request too large": trace([(7, 7)], n_steps=2),
        "a prompt that fits": trace([(4, 30)], n_steps=2),
    }
