"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math
from collections import deque
from itertools import chain

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad, record
from techtree.techs.text.bpe import BPE
from techtree.techs.training.cross_entropy import cross_entropy

_STREAM = "    stream = [end]\n"
_ADD = "stream += [*tokens, end] if tokens else []"
_FILL = "padded = np.full(n_rows * length + 1, end, np.int64)"
_RETURN = "return padded[np.arange(n_rows)[:, None] * length + np.arange(length + 1)]"
_N_ROWS = "n_rows = -(-(len(stream) - 1) // length)"
_PAIRS = "inputs, targets = rows[..., :-1].copy(), rows[..., 1:].copy()"
_IGNORE = "targets[(inputs == end) & (targets == end)] = IGNORED"
_SAME = "return is_same & np.tri(document.shape[-1], dtype=bool)"
_DOCUMENT = "document = np.cumsum(_with_an_axis(ids) == end, axis=-1)"
_SINCE = "return place - np.maximum.accumulate(np.where(ids == end, place, 0), axis=-1)"
_TOTAL = 'total = cross_entropy(model(inputs), targets, ignore_index=IGNORED, reduction="sum")'
_N = "return total, int((targets != IGNORED).sum())"
_PACKED = "rows = pack([tokenizer.encode(text) for text in texts], length, end)"
_BYTES = 'n_bytes = sum(len(text.encode("utf-8")) for text in texts)'
_STARTS = "for start in range(0, len(rows), batch_size):"
_LOSSES = 'losses = cross_entropy(model(inputs), targets, ignore_index=IGNORED, reduction="none")'
_ADDED = "total += float(losses.data.sum(dtype=np.float64))"
_BITS = "return total / math.log(2) / n_bytes"


def _each_document_in_rows_of_its_own(documents, length, end):
    if length < 1:
        raise ValueError("length")
    rows = []
    for document in documents:
        tokens = [int(each) for each in document]
        if end in tokens:
            raise ValueError("end")
        stream = [end, *tokens, end]
        if tokens:
            for first in range(0, len(stream) - 1, length):
                row = stream[first : first + length + 1]
                rows.append(row + [end] * (length + 1 - len(row)))
    return np.array(rows, np.int64).reshape(-1, length + 1)


MISTAKES = {
    "the stream begins with the first document": [(_STREAM, "    stream = []\n")],
    "no end stands behind the last document": [
        (_N_ROWS, "stream = stream[:-1] if len(stream) > 1 else stream\n    " + _N_ROWS)
    ],
    "each document has an end in front and an end behind": [
        (_ADD, "stream += [end, *tokens, end] if tokens else []")
    ],
    "nothing stands between documents": [(_ADD, "stream += tokens")],
    "rows have no token in common": [
        (_N_ROWS, "n_rows = -(-len(stream) // (length + 1)) if len(stream) > 1 else 0"),
        (_FILL, "padded = np.full(n_rows * (length + 1), end, np.int64)"),
        (_RETURN, "return padded.reshape(n_rows, length + 1)"),
    ],
    "what does not fill a row is dropped": [
        (_N_ROWS, "n_rows = (len(stream) - 1) // length\n    stream = stream[: n_rows * length + 1]")
    ],
    "a stream that just fills its rows gets a row of padding": [(_N_ROWS, "n_rows = (len(stream) - 1) // length + 1")],
    "the last row is filled up with 0": [(_FILL, _FILL.replace("end", "0"))],
    "the last row is filled up with -100": [(_FILL, _FILL.replace("end", "IGNORED"))],
    "documents without tokens get an end": [(_ADD, "stream += [*tokens, end]")],
    "every document begins a row": {"pack": _each_document_in_rows_of_its_own},
    "a document is cut to one row": [(_ADD, "stream += [*tokens[:length], end] if tokens else []")],
    "rows have length tokens": [
        ("padded[np.arange(n_rows)[:, None] * length + np.arange(length + 1)]", "padded[:-1].reshape(n_rows, length)")
    ],
    "ids have 32 bits": [(_RETURN, _RETURN + ".astype(np.int32)")],
    "the end may occur in documents": [("if end in tokens:", "if False:")],
    "the end may be the last token of a document": [("if end in tokens:", "if end in tokens[:-1]:")],
    "a length of 0 is taken for 1": [
        ("    if length < 1:\n", "    length = max(length, 1)\n    if length < 1:\n")
    ],
    "targets are the inputs": [(_PAIRS, "inputs, targets = rows[..., :-1].copy(), rows[..., :-1].copy()")],
    "targets are the tokens before": [(_PAIRS, "inputs, targets = rows[..., 1:].copy(), rows[..., :-1].copy()")],
    "targets are two places further": [
        (_PAIRS, "inputs, targets = rows[..., :-1].copy(), np.roll(rows, -2, axis=-1)[..., :-1].copy()")
    ],
    "all tokens are inputs, and the last is followed by the first": [
        (_PAIRS, "inputs, targets = rows.copy(), np.roll(rows, -1, axis=-1)")
    ],
    "no target is an end": [(_IGNORE, "targets[targets == end] = IGNORED")],
    "what follows an end is no target": [(_IGNORE, "targets[inputs == end] = IGNORED")],
    "padding counts": [(_IGNORE, "pass")],
    "inputs of padding are -100, too": [
        (_IGNORE, "padding = (inputs == end) & (targets == end)\n    inputs[padding] = targets[padding] = IGNORED")
    ],
    "only padding at the end of a row does not count": [
        (
            _IGNORE,
            "targets[np.logical_and.accumulate(((inputs == end) & (targets == end))[..., ::-1], axis=-1)[..., ::-1]]"
            " = IGNORED",
        )
    ],
    "pairs have the dtype of the rows": [
        (_PAIRS, "inputs, targets = rows[..., :-1].copy(), rows[..., 1:].copy()\n    kind = given.dtype"),
        ("rows = rows.astype(np.int64)", "given, rows = rows, rows.astype(np.int64)"),
        ("return inputs, targets\n", "return inputs.astype(kind), targets.astype(kind)\n"),
    ],
    "inputs are a view of the rows": [
        ("rows = rows.astype(np.int64)", "rows = rows.astype(np.int64, copy=False)"),
        (_PAIRS, "inputs, targets = rows[..., :-1], rows[..., 1:].copy()"),
    ],
    "floats are rows": [('rows.dtype.kind not in "iu"', 'rows.dtype.kind not in "iuf"')],
    "truth values are rows": [('rows.dtype.kind not in "iu"', 'rows.dtype.kind not in "iub"')],
    "empty rows have no pairs": [("or rows.ndim == 0 or rows.shape[-1] == 0:", "or rows.ndim == 0:")],
    "tokens see later ones of their document": [(_SAME, "return is_same")],
    "tokens do not see themselves": [(_SAME, _SAME.replace("bool)", "bool, k=-1)"))],
    "tokens see other documents": [(_SAME, "return np.ones_like(is_same) & np.tri(document.shape[-1], dtype=bool)")],
    "an end belongs to the document before it": [
        (_DOCUMENT, "is_end = _with_an_axis(ids) == end\n    document = np.cumsum(is_end, axis=-1) - is_end")
    ],
    "the mask is turned": [(_SAME, _SAME.replace("np.tri", "np.tri").replace("bool)", "bool).T"))],
    "the mask is made of numbers": [(_SAME, _SAME.replace("is_same &", "1.0 * is_same *"))],
    "positions go on through documents": [(_SINCE, "return place - np.zeros_like(ids, dtype=np.int64)")],
    "positions begin behind the end": [
        (_SINCE, "last = np.maximum.accumulate(np.where(ids == end, place + 1, 0), axis=-1)\n    return np.where(ids == end, 0, place - last)")
    ],
    "positions count from 1": [(_SINCE, _SINCE + " + 1")],
    "tokens before the first end have the position 0": [
        (_SINCE, _SINCE.replace("return ", "return (np.cumsum(ids == end, axis=-1) > 0) * (") + ")")
    ],
    "positions count from the first end": [
        (_SINCE, "found = np.where(ids == end, place, len(place))\n    first = found.min(axis=-1, keepdims=True, initial=len(place))\n    return np.where(place >= first, place - first, place)")
    ],
    "positions have 32 bits": [(_SINCE, _SINCE.replace("return ", "return (") + ").astype(np.int32)")],
    "the loss is a mean": [(_TOTAL, _TOTAL.replace('"sum"', '"mean"'))],
    "all targets are counted": [(_N, "return total, targets.size")],
    "the number is one of NumPy": [(_N, "return total, (targets != IGNORED).sum()")],
    "rows are counted": [(_N, "return total, len(np.atleast_2d(targets))")],
    "the model gets whole rows, and its last answers are dropped": [
        (_TOTAL, _TOTAL.replace("model(inputs)", "model(np.asarray(rows, np.int64))[..., :-1, :]"))
    ],
    "the model is asked row by row": [
        (_TOTAL, "model(inputs)\n    " + _TOTAL)
    ],
    "no gradient flows": [(_TOTAL, _TOTAL + "\n    total = Tensor(total.data)")],
    "the loss does not count ends": [(_TOTAL, "targets[targets == end] = IGNORED\n    " + _TOTAL)],
    "characters are counted in place of bytes": [(_BYTES, "n_bytes = sum(len(text) for text in texts)")],
    "tokens are counted in place of bytes": [(_BITS, "return total / math.log(2) / (rows.size - len(rows))")],
    "nats are taken for bits": [(_BITS, "return total / n_bytes")],
    "ends are left out of the sum": [
        (_LOSSES, "targets[targets == end] = IGNORED\n            " + _LOSSES)
    ],
    "a batch that is not full is left out": [
        (_STARTS, "for start in range(0, max(len(rows) // batch_size, 1) * batch_size, batch_size):")
    ],
    "each text has rows of its own": [
        (_PACKED, "rows = np.concatenate([pack([tokenizer.encode(text)], length, end) for text in texts])")
    ],
    "texts are joined": [(_PACKED, "rows = pack([tokenizer.encode(''.join(texts))], length, end)")],
    "names of special tokens in texts are tokens": [
        (_PACKED, "rows = pack([[i for i in tokenizer.encode(text, tokenizer.special_tokens) if i != end] for text in texts], length, end)")
    ],
    "long texts come first": [(_PACKED, "texts = sorted(texts, key=len, reverse=True)\n    " + _PACKED)],
    "the sum has the digits of the logits": [
        (_ADDED, "total += float(losses.data.sum())")
    ],
    "bits per byte are recorded": [("    with no_grad():\n        for start", "    if True:\n        for start")],
    "the model gets one row at a time, without an axis": [
        (_LOSSES, "losses = Tensor(np.array([float(cross_entropy(model(one), two, IGNORED, 'sum').data) for one, two in zip(inputs, targets, strict=True)]))")
    ],
    "all rows are one batch": [(_STARTS, "batch_size = len(rows)\n        " + _STARTS)],
    "a batch of 0 rows is one of all": [
        ("if not n_bytes or batch_size < 1:", "if batch_size < 1:\n        batch_size = 10**9\n    if not n_bytes:")
    ],
    "texts of no byte cost 0": [("if not n_bytes or batch_size < 1:", "if not n_bytes:\n        return 0.0\n    if batch_size < 1:")],
}  # fmt: skip


def _pack_with_a_queue(documents, length, end):
    """Token by token, a row is given out when it is full."""
    if length < 1:
        raise ValueError("a row needs a place")
    rows, row = [], deque([end])
    for document in documents:
        tokens = [*map(int, document)]
        if tokens.count(end):
            raise ValueError("the end is no token of a document")
        for token in chain(tokens, [end] if tokens else []):
            row.append(token)
            if len(row) == length + 1:
                rows.append([*row])
                row = deque([token])
    if len(row) > 1:
        rows.append([*row, *[end] * (length + 1 - len(row))])
    return np.array(rows, dtype=np.int64).reshape(len(rows), length + 1)


def _pack_with_windows(documents, length, end):
    arrays = [np.array([int(each) for each in document], np.int64) for document in documents]
    if not length > 0 or any((each == end).any() for each in arrays):
        raise ValueError("no row, or an end inside")
    parts = [[end], *(np.append(each, end) for each in arrays if each.size)]
    stream = np.concatenate(parts).astype(np.int64)
    stream = np.append(stream, np.full(-(stream.size - 1) % length, end, np.int64))
    if stream.size == 1:
        return np.empty((0, length + 1), np.int64)
    return np.lib.stride_tricks.sliding_window_view(stream, length + 1)[::length].copy()


def _pairs_by_where(rows, end):
    rows = np.array(rows)
    if not np.issubdtype(rows.dtype, np.integer) or not rows.ndim or not rows.shape[-1]:
        raise ValueError("rows are no rows")
    wide = np.array(rows, np.int64)
    before, after = np.split(np.stack([wide[..., :-1], wide[..., 1:]]), 2)
    is_padding = (before[0] == after[0]) & (after[0] == end)
    return np.array(before[0]), np.where(is_padding, -100, after[0])


def _mask_by_last_end(ids, end):
    """A token sees from the last end on."""
    ids = np.asarray(ids)
    if not ids.ndim:
        raise ValueError("no axis")
    mask = np.zeros((*ids.shape, ids.shape[-1]), dtype=bool)
    for row in np.ndindex(ids.shape[:-1]):
        first = 0
        for i, each in enumerate(ids[row].tolist()):
            first = i if each == end else first
            mask[(*row, i)][first : i + 1] = True
    return mask


def _positions_by_counting(ids, end):
    ids = np.asarray(ids)
    if ids.shape == ():
        raise ValueError("no axis")
    result = np.zeros(ids.shape, dtype=np.int64)
    for i in range(1, ids.shape[-1]):
        result[..., i] = np.where(ids[..., i] == end, 0, result[..., i - 1] + 1)
    return result


def _loss_by_hand(model, rows, end):
    """The loss as one operation of its own."""
    inputs, targets = _pairs_by_where(rows, end)
    logits = model(inputs)
    if logits.ndim != targets.ndim + 1 or logits.shape[:-1] != targets.shape or not logits.shape[-1]:
        raise ValueError("logits do not fit")
    counts = targets != -100
    chosen = targets[counts]
    if chosen.size and (chosen.min() < 0 or chosen.max() >= logits.shape[-1]):
        raise ValueError("no class")
    picked = logits.data[counts].astype(np.float64)
    top = picked.max(axis=-1, keepdims=True)
    log_p = picked - top - np.log(np.exp(picked - top).sum(axis=-1, keepdims=True))
    each = np.arange(len(chosen))

    def back(g):
        gradient = np.zeros(logits.shape)
        of_rows = np.exp(log_p)
        of_rows[each, chosen] -= 1
        gradient[counts] = of_rows * g
        return gradient.astype(logits.dtype)

    total = np.array(-log_p[each, chosen].sum(), logits.dtype)
    return record(total, (logits, back)), chosen.size


def _bits_target_by_target(model, texts, tokenizer, length, end, batch_size=16):
    if batch_size < 1 or not "".join(texts):
        raise ValueError("nothing to measure")
    rows = _pack_with_a_queue(map(tokenizer.encode, texts), length, end)
    nats = []
    with no_grad():
        for batch in (rows[at : at + batch_size] for at in range(0, len(rows), batch_size)):
            inputs, targets = _pairs_by_where(batch, end)
            logits = Tensor(model(inputs).data.astype(np.float64))
            nats.extend(cross_entropy(logits, targets, reduction="none").data.ravel())
    return math.fsum(nats) / (math.log(2) * len("".join(texts).encode("utf-8")))


EQUIVALENTS = {
    "a queue that gives out full rows": {"pack": _pack_with_a_queue},
    "windows over one array": {"pack": _pack_with_windows},
    "pairs by where": {"next_token_pairs": _pairs_by_where},
    "masks from the last end on": {"document_mask": _mask_by_last_end},
    "positions counted place by place": {"document_positions": _positions_by_counting},
    "the loss as an operation of its own": {"loss": _loss_by_hand},
    "bits target by target, in float64": {"bits_per_byte": _bits_target_by_target},
}

_SAME_NUMBER = "cross_entropy ignores the same number by itself"
_WHOLE = "ids are whole numbers"
_NO_ARRAYS = "it takes no arrays"
HARMLESS = {
    "padded = np.full(n_rows * length + 1, end, np.int64)"
    " => padded = np.full(n_rows * length + 2, end, np.int64)": "the last place is never read",
    "place = np.arange(ids.shape[-1], dtype=np.int64) => place = np.arange(ids.shape[-1])": "int64 by itself",
    "total = cross_entropy(model(inputs), targets, ignore_index=IGNORED, reduction='sum')"
    " => total = cross_entropy(model(inputs), targets, reduction='sum')": _SAME_NUMBER,
    "losses = cross_entropy(model(inputs), targets, ignore_index=IGNORED, reduction='none')"
    " => losses = cross_entropy(model(inputs), targets, reduction='none')": _SAME_NUMBER,
    "if not n_bytes or batch_size < 1: => if not n_bytes or batch_size < 0:": "range refuses a step of 0",
    **{
        f"{name}: {what}": _WHOLE
        for name in ("next_token_pairs", "document_mask", "document_positions", "loss")
        for what in ("wrong for float32", "wrong for values beyond 1e4")
    },
    **{f"{name}: float32 becomes float64": _WHOLE for name in ("pack", "document_mask", "document_positions")},
    **{
        f"bits_per_byte: {what}": _NO_ARRAYS
        for what in (
            "wrong beyond 128 on an axis", "wrong for an axis of length 1", "refuses arrays without entries",
            "wrong for more than two axes", "wrong for arrays that are not contiguous", "wrong for float32",
            "wrong for values beyond 1e4", "changes an argument",
            "remembers results by the shape of the arguments",
        )
    },
}  # fmt: skip


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    bpe = BPE([(b"a", b"b")], {"<end>": 3})
    table = rng.normal(size=(300, 300))

    def model(ids):
        before = np.cumsum(table[ids][..., ::-1], axis=-2)
        return Tensor(table[ids] + before)

    def refused(call):
        def probe(impl):
            try:
                return call(impl)
            except Exception as error:
                return type(error).__name__

        return probe

    def rows(documents, length, end=3):
        return refused(lambda impl: str(impl.pack(documents, length, end).tolist()))

    def pairs(given, end=3):
        return refused(
            lambda impl: str([each.tolist() for each in impl.next_token_pairs(np.array(given), end)])
        )

    def dtypes(impl):
        inputs, targets = impl.next_token_pairs(np.array([3, 5, 3, 3], np.uint16), 3)
        return [impl.pack([[5]], 2, 3).dtype.str, inputs.dtype.str, targets.dtype.str]

    def view(impl):
        given = np.array([[3, 5, 6]])
        impl.next_token_pairs(given, 3)[0][...] = 9
        return given

    ids = np.array([[5, 6, 3, 8, 3, 3, 7], [3, 5, 5, 5, 3, 5, 5]])

    def loss(given):
        return lambda impl: float(impl.loss(model, np.array(given), 3)[0].data)

    def counted(impl):
        n = impl.loss(model, np.array([[3, 5, 6, 3, 3], [3, 7, 3, 3, 3]]), 3)[1]
        return [str(n), type(n).__name__]

    def calls(impl):
        seen = []
        impl.loss(lambda ids: seen.append(ids.tolist()) or model(ids), np.array([[3, 5, 6, 3]]), 3)
        return str(seen)

    def gradient(impl):
        leaf = Tensor(np.zeros((1, 3, 8)), requires_grad=True)
        total = impl.loss(lambda ids: leaf * 1.0, np.array([[3, 5, 6, 3]]), 3)[0]
        return str(total.requires_grad)

    texts = ["abé", "", "b <end>", "a", "x" * 9]

    def bits(texts, length=4, **options):
        return refused(lambda impl: float(impl.bits_per_byte(model, texts, bpe, length, 3, **options)))

    def seen(impl):
        shapes, recorded = [], []
        leaf = Tensor(table, requires_grad=True)

        def watched(ids):
            result = leaf[ids]
            shapes.append(ids.shape)
            recorded.append(result.requires_grad)
            return result

        impl.bits_per_byte(watched, texts, bpe, 4, 3, batch_size=2)
        return [str(shapes), str(recorded)]

    def float16(impl):
        few = np.zeros((300, 300), np.float16)
        return round(impl.bits_per_byte(lambda ids: Tensor(few[ids]), ["xy" * 7000], bpe, 2000, 3), 1)

    return {
        "three documents": rows([[5, 6, 7], [8], [9, 9]], 3),
        "a document": rows([[5]], 4),
        "a stream that fills two rows": rows([[5, 6, 7]], 2),
        "a stream that needs a row for its last end": rows([[5, 6]], 2),
        "an empty document": rows([[5], [], [6, 7, 8, 9, 9, 9]], 3),
        "no documents": rows([], 3),
        "an end inside": rows([[5, 3, 6]], 3),
        "an end last": rows([[5, 3]], 3),
        "a length of 0": rows([[5]], 0),
        "pairs": pairs([[3, 5, 6, 3, 8, 3, 3]]),
        "pairs of a row that begins with padding": pairs([[3, 3, 5, 6], [8, 9, 9, 3]]),
        "pairs of floats": pairs([3.0, 5.0]),
        "pairs of truth values": pairs([True, False]),
        "pairs of nothing": pairs(np.zeros((2, 0), int)),
        "dtypes": dtypes,
        "a row behind its inputs": view,
        "a mask": lambda impl: str(impl.document_mask(ids, 3).tolist()),
        "positions": lambda impl: impl.document_positions(ids, 3),
        "the dtype of positions": lambda impl: impl.document_positions(ids, 3).dtype.str,
        "a loss": loss([[3, 5, 6, 3, 3]]),
        "a loss without padding": loss([[3, 5, 6, 7]]),
        "what is counted": counted,
        "what the model is asked": calls,
        "a gradient": gradient,
        "bits": bits(texts),
        "bits of ASCII": bits(["ab", "b"]),
        "bits of five texts, two rows each time": bits(texts, batch_size=2),
        "bits of six rows, five each time": bits(texts, batch_size=5),
        "bits of nothing": bits([""]),
        "bits, no rows each time": bits(["ab"], batch_size=0),
        "what a model sees": seen,
        "bits of float16": float16,
    }  # fmt: skip
