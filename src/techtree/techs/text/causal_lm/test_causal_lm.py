"""Oracles: the stream token by token, masks pair by pair, losses target by target, values by hand."""

import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.battery import Case
from techtree.techs.text.bpe import BPE

WHOLE = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)


# The definitions.


def slow_pack(documents, length, end):
    stream = [end]
    for document in documents:
        if len(document):
            stream += [int(token) for token in document] + [end]
    rows, first = [], 0
    while first + 1 < len(stream):
        row = stream[first : first + length + 1]
        rows.append(row + [end] * (length + 1 - len(row)))
        first += length
    return rows


def slow_pairs(rows, end):
    inputs, targets = np.zeros((2, *rows.shape[:-1], rows.shape[-1] - 1), np.int64)
    for place in np.ndindex(inputs.shape):
        one, next_one = rows[place], rows[(*place[:-1], place[-1] + 1)]
        inputs[place] = one
        targets[place] = -100 if one == end and next_one == end else next_one
    return inputs, targets


def slow_mask(ids, end):
    """True from a token back to the last end, that one included."""
    mask = np.zeros((*ids.shape, ids.shape[-1]), bool)
    for place in np.ndindex(ids.shape):
        for j in range(place[-1], -1, -1):
            mask[(*place, j)] = True
            if ids[(*place[:-1], j)] == end:
                break
    return mask


def slow_positions(ids, end):
    positions = np.zeros(ids.shape, np.int64)
    for *row, i in np.ndindex(ids.shape):
        position = 0
        while position < i and ids[(*row, i - position)] != end:
            position += 1
        positions[(*row, i)] = position
    return positions


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


class Bag(Module):
    """Logits from the token, its place, and all tokens before it: so that nothing can change unnoticed."""

    def __init__(self, rng, vocab_size, dtype=np.float64, largest=1.0):
        self.weight = Parameter((largest * rng.normal(size=(vocab_size, vocab_size))).astype(dtype))
        self.calls = []

    def logits(self, ids):
        n_before = np.arange(ids.shape[-1])[:, None] + 1
        weight = self.weight.data.astype(np.float64)
        bag = np.cumsum(weight[ids][..., ::-1], axis=-2) / n_before
        return weight[ids] + bag + np.sin(n_before * np.arange(weight.shape[1]))

    def forward(self, ids):
        self.calls.append(ids)
        extra = self.logits(ids) - self.weight.data.astype(np.float64)[ids]
        result = self.weight[ids] + extra.astype(self.weight.dtype)
        self.is_recorded = result.requires_grad
        return result


def slow_loss(model, rows, end):
    inputs, targets = slow_pairs(rows, end)
    losses = -log_softmax(model.logits(inputs))
    counted = [(*place, targets[place]) for place in np.ndindex(targets.shape) if targets[place] != -100]
    return math.fsum(losses[each] for each in counted), len(counted)


# Rows.


def plain_pack(impl):
    def function(documents, length, end):
        rows = impl.pack(documents, length, end)
        assert type(rows) is np.ndarray
        assert rows.dtype == np.int64
        assert rows.shape[1:] == (length + 1,)
        assert rows.flags.writeable
        return rows.tolist()

    return function


def documents_of(rng, n, most, end, kinds=9):
    """Random documents; every fourth is empty."""
    some = [each for each in range(kinds + 1) if each != end]
    sizes = [rng.integers(1, most + 1) if rng.random() < 0.75 else 0 for _ in range(n)]
    return [rng.choice(some, size=size).tolist() for size in sizes]


def packed(rng):
    for documents in ([], [[]], [[], []], [[5]], [[5], []], [[], [5]], [[5], [6]], [[5, 6, 7], [8]]):
        for length in (1, 2, 3, 4, 5, 9):
            for end in (0, 3):
                yield Case(f"{documents} in {length}", (documents, length, end))
    for n_tokens in range(1, 12):  # the stream has two more
        yield Case(f"{n_tokens} tokens", ([list(range(1, n_tokens + 1))], 4, 0))
        yield Case(f"{n_tokens} documents of a token", ([[each + 1] for each in range(n_tokens)], 3, 0))
    for length in aim.sizes(1, 2, 3, 7, 33, 130, at_most=3000):
        for n, most in ((3, 5), (5, length), (1, 3 * length), (2, 2 * length + 1)):
            yield Case(f"{n} documents in {length}", (documents_of(rng, n, min(most, 4000), 2), length, 2))
        for extra in (-2, -1, 0, 1):  # the stream just fills two rows, or does not
            size = 2 * length - 1 + extra
            yield Case(f"{size} tokens in {length}", ([[7] * max(size, 1)], length, 0))
    for n in aim.sizes(130, at_most=3000):
        yield Case(f"{n} documents", (documents_of(rng, n, 3, 0), 5, 0))
        yield Case(f"{n} empty documents", ([*[[]] * n, [5]], 2, 0))
        yield Case(f"{n} rows", (documents_of(rng, n, 3, 0), 1, 0))
    for end in (0, 1, 255, 256, 50_256, 2**31, 2**40, -1):
        yield Case(f"end {end}", ([[7, 8], [], [9, 2**41]], 3, end))
    for number in aim.whole(2, 2**62):
        yield Case(f"end {number}", ([[number - 1, number + 1]], 3, number))
        yield Case(f"the token {number}", ([[number, 2], [number, 3, number]], 2, 0))


def test_rows_by_hand(impl):
    assert impl.pack([[5, 6, 7], [8]], length=4, end=0).tolist() == [[0, 5, 6, 7, 0], [0, 8, 0, 0, 0]]
    assert impl.pack([[5, 6], [7]], 4, 1).tolist() == [[1, 5, 6, 1, 7], [7, 1, 1, 1, 1]]
    assert impl.pack([[5, 6, 7], [8, 9]], 7, 1).tolist() == [[1, 5, 6, 7, 1, 8, 9, 1]]
    assert impl.pack([], 3, 0).shape == (0, 4)
    assert impl.pack([[], []], 3, 0).shape == (0, 4)
    assert impl.pack([[], []], 3, 0).dtype == np.int64


def test_rows_are_the_stream_everywhere(impl, rng):
    battery.sweep_plain(plain_pack(impl), slow_pack, packed(rng))


def test_documents_of_every_kind(impl):
    expected = slow_pack([[7, 100, 9], [100, 8]], 2, 0)
    kinds = [tuple, bytes, bytearray, *(lambda d, t=t: np.array(d, t) for t in WHOLE)]
    kinds += [lambda d, lay=lay: lay(np.array(d)) for lay in list(battery.LAYOUTS.values())[:4]]
    kinds += [lambda d: [np.int64(each) for each in d], lambda d: np.array(d, ">i4")]
    for kind in kinds:
        documents = [kind([7, 100, 9]), kind([100, 8])]
        assert plain_pack(impl)(documents, 2, 0) == expected
        assert [list(each) for each in documents] == [[7, 100, 9], [100, 8]]
        assert plain_pack(impl)([documents[0], [], (100, 8)], 2, 0) == expected
        zeros = [kind([0]), kind([0, 0]), kind([])]  # 0 is an id like others
        assert plain_pack(impl)(zeros, 2, 5) == slow_pack([[0], [0, 0]], 2, 5)
    assert plain_pack(impl)(([7, 100, 9], [100, 8]), 2, 0) == expected
    assert plain_pack(impl)((each for each in ([7, 100, 9], [100, 8])), 2, 0) == expected
    assert plain_pack(impl)([range(7, 9), np.arange(3, 5)], 2, 0) == slow_pack([[7, 8], [3, 4]], 2, 0)
    assert plain_pack(impl)([[5], [6]], np.int64(2), np.int64(0)) == slow_pack([[5], [6]], 2, 0)
    large = [np.array([2**15 - 1], np.int16), np.array([2**32 - 1], np.uint32), np.array([2**62])]
    assert plain_pack(impl)(large, 1, 2**33) == slow_pack(large, 1, 2**33)
    one = np.array([5, 6])
    rows, again = impl.pack([one], 1, 0), impl.pack([one], 1, 0)
    rows[...] = 9
    assert one.tolist() == [5, 6]
    assert again.tolist() == [[0, 5], [5, 6], [6, 0]]
    again[0, 1] = 8  # the next row has a copy of its own
    assert again.tolist() == [[0, 8], [5, 6], [6, 0]]


def test_what_pack_refuses(impl):
    for length in (0, -1, -5):
        battery.refuses(impl.pack, [[5]], length, 0)
        battery.refuses(impl.pack, [], length, 0)
    for documents in (
        [[0]],
        [[0, 5]],
        [[5, 0]],
        [[5, 0, 6]],
        [[5], [6, 0]],
        [[], [0]],
        [[5], [], [6], [0, 7]],
    ):
        battery.refuses(impl.pack, documents, 3, 0)
        battery.refuses(impl.pack, [np.array(each, np.uint16) for each in documents], 3, 0)
        battery.refuses(impl.pack, [[each + 9 for each in one] for one in documents], 2, 9)
    battery.refuses(impl.pack, [[5] * 5000, [*[6] * 5000, 0]], 7, 0)


# Questions and answers.


def runs(shape):
    """Ends in every constellation: none, one, two, three together."""
    return np.resize([0, 0, 5, 0, 0, 0, 5, 6, 0, 7], shape)


VALUES = {
    "ends together": runs,
    "all ends": np.zeros,
    "no ends": lambda shape: np.resize([5, 6, 5], shape),
    "ends at the beginning": lambda shape: np.broadcast_to(np.arange(shape[-1]) // 2, shape),
    "ends at the end": lambda shape: np.broadcast_to(np.arange(shape[-1], 0, -1) // 3, shape),
    "one end": lambda shape: np.resize([5, 6, 0, 7, 8, 9, 5, 6, 7, 8, 9], shape),
}


def id_cases(rng, n_least, at_most=20_000):
    """Arrays of small ids of every dtype, layout and shape; the end is 0, and others."""
    sizes = [n for n in (0, 1, 2, 3, 7, 33, 130) if n >= n_least]
    cases = battery.cases(
        rng, "... n", sizes={"n": sizes}, dtypes=WHOLE, layouts=(), values=VALUES, at_most=at_most,
        options=[{"end": end} for end in (0, 1, 5, 300, -1)],
    )  # fmt: skip
    for case in cases:
        (drawn,) = case.arguments
        ids = drawn if drawn.dtype.kind in "iu" else np.rint(drawn).astype(np.int64)
        yield Case(case.label, (ids,), case.options)
        if ids.size > 200:
            yield Case(f"{case.label}, runs", (runs(ids.shape),), case.options)
    for layout, lay in battery.LAYOUTS.items():
        for dtype in (np.uint16, np.int64):
            yield Case(f"{layout}, {np.dtype(dtype).name}", (lay(runs((3, 7)).astype(dtype)),), {"end": 0})
    for shape in ((6,), (2, 6)):
        for end in (2, 100, 50_000):
            drawn = rng.integers(0, 3, size=shape)
            for dtype in (np.uint16, np.int32, np.int64, np.uint64):
                ids = np.where(drawn == 2, end, drawn).astype(dtype)
                yield Case(f"end {end} in {np.dtype(dtype).name}", (ids,), {"end": end})
    for dtype, n in ((np.uint8, 256), (np.int8, 256), (np.uint16, 2**16), (np.int32, 2**32)):
        for end in (n, n + 3, 3 - n, -1):  # what they become in the dtype of the ids is no end
            ids = np.array([[3, 0, 3, 5, 0, 3], [0, 5, 3, 0, 0, 3]]).astype(dtype)
            yield Case(f"end {end}, ids of {np.dtype(dtype).name}", (ids,), {"end": end})
    ids = np.array([2**8 - 1, 0, 2**8 - 1, 3])
    yield Case("end -1, ids of uint8", (ids.astype(np.uint8),), {"end": -1})
    mixed = np.resize([5, 6, 7, 5, 8, 6, 7], (5, 7))
    mixed[0, 2] = mixed[2, 0] = mixed[3, 6] = 0
    yield Case("rows with and without an end", (mixed,), {"end": 0})
    yield Case(
        "rows with and without an end, two leading axes", (np.stack([mixed, mixed[::-1]]),), {"end": 0}
    )
    yield Case("ids beyond 32 bits", (np.array([2**40, 2**40 + 1, 2**40, 2**40]),), {"end": 2**40})
    for n in aim.sizes(at_most=300):
        yield Case(f"{n} ids, no end", (np.resize([5, 6, 7], n),), {"end": 0})
    for number in aim.whole(1, 2**40):
        yield Case(f"end {number}", (np.array([number, 3, number, number, number - 1]),), {"end": number})
        yield Case(f"ids near {number}", (np.array([0, number, 0, 0, number + 1]),), {"end": 0})


def test_pairs_by_hand(impl):
    inputs, targets = impl.next_token_pairs(np.array([[0, 5, 6, 0, 8, 0, 0]]), end=0)
    assert inputs.tolist() == [[0, 5, 6, 0, 8, 0]]
    assert targets.tolist() == [[5, 6, 0, 8, 0, -100]]
    inputs, targets = impl.next_token_pairs(np.array([0, 0, 5, 5, 1, 1], np.uint16), 5)
    assert inputs.tolist() == [0, 0, 5, 5, 1]
    assert targets.tolist() == [0, 5, -100, 1, 1]
    inputs, targets = impl.next_token_pairs(np.zeros((3, 1), np.int32), 0)
    assert inputs.shape == targets.shape == (3, 0)
    assert inputs.dtype == targets.dtype == np.int64


def test_pairs_are_their_definition_everywhere(impl, rng):
    cases = [each for each in id_cases(rng, 1) if each.arguments[0].shape[-1]]
    battery.sweep(
        lambda rows, end: tuple(impl.next_token_pairs(rows, end)), slow_pairs, cases, dtype=np.int64
    )


def test_inputs_and_targets_are_arrays_of_their_own(impl):
    rows = np.array([[0, 5, 6, 7]])
    inputs, targets = impl.next_token_pairs(rows, 0)
    assert not np.shares_memory(inputs, targets)
    inputs[...] = 9
    assert targets.tolist() == [[5, 6, 7]]
    targets[...] = 8
    assert rows.tolist() == [[0, 5, 6, 7]]


def test_what_pairs_refuse(impl):
    for rows in (np.array(3), np.zeros(0, int), np.zeros((2, 0), int), np.zeros((0, 0), np.uint16)):
        battery.refuses(impl.next_token_pairs, rows, 0)
    for dtype in (*battery.FLOATS, np.bool_, np.complex128):
        battery.refuses(impl.next_token_pairs, np.ones((2, 3), dtype), 0)
        battery.refuses(impl.next_token_pairs, np.zeros(3, dtype), 1)


# Documents within rows.


def test_masks_and_positions_by_hand(impl):
    ids = np.array([5, 6, 0, 8, 0, 0])
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert impl.document_mask(ids, end=0).tolist() == np.array(expected, bool).tolist()
    assert impl.document_positions(ids, end=0).tolist() == [0, 1, 0, 1, 0, 0]
    assert impl.document_mask(ids, 1).tolist() == np.tri(6, dtype=bool).tolist()
    assert impl.document_positions(ids, 1).tolist() == [0, 1, 2, 3, 4, 5]


def test_masks_are_their_definition_everywhere(impl, rng):
    cases = [each for each in id_cases(rng, 0, 2000) if each.arguments[0].size < 2100]
    battery.sweep(impl.document_mask, slow_mask, cases, dtype=np.bool_)


def test_positions_are_their_definition_everywhere(impl, rng):
    battery.sweep(impl.document_positions, slow_positions, id_cases(rng, 0), dtype=np.int64)


def test_a_single_id_has_no_places(impl):
    for one in (np.array(3), np.array(0), np.int64(0), np.array(7, np.uint16)):
        for function in (impl.document_mask, impl.document_positions):
            battery.refuses(function, one, 0)


# Losses.


def rows_of(rng, shape, vocab_size, end, dtype=np.int64):
    """Many ends, also beside each other."""
    drawn = rng.integers(vocab_size, size=shape)
    return np.where(rng.random(shape) < 0.3, end, drawn).astype(dtype)


def loss_cases(rng):
    for shape in (
        (1, 2),
        (1, 5),
        (2,),
        (6,),
        (1,),
        (2, 1),
        (3, 4),
        (2, 3, 5),
        (0, 4),
        (2, 0, 4),
        (1, 1, 1, 3),
    ):
        for end in (0, 6):
            yield rows_of(rng, shape, 7, end), 7, end, np.float64
    for vocab_size in aim.sizes(1, 2, 130, at_most=600):
        yield rows_of(rng, (2, 5), vocab_size, vocab_size - 1), vocab_size, vocab_size - 1, np.float64
    for length in aim.sizes(33, 130, at_most=3000):
        yield rows_of(rng, (1, length + 1), 5, 2), 5, 2, np.float64
    for n in aim.sizes(33, at_most=3000):
        yield rows_of(rng, (n, 3), 5, 2), 5, 2, np.float64
    for dtype in battery.FLOATS:
        yield rows_of(rng, (3, 5), 7, 1), 7, 1, dtype
    yield np.full((2, 4), 3), 7, 3, np.float64  # padding alone
    yield np.full((2, 4), 3), 7, 9, np.float64  # an end that does not occur
    yield np.array([[3, 100, 3, 3, 100]]), 101, 100, np.float64


def test_losses_by_hand(impl):
    """All logits are 0, so that each target costs log(9)."""
    total, n = impl.loss(lambda ids: Tensor(np.zeros((*ids.shape, 9))), np.array([[0, 8, 0, 0, 0]]), end=0)
    battery.check_equal(total, 2 * math.log(9))
    assert n == 2
    assert isinstance(n, int)
    table = np.log([[1.0, 1, 2], [1, 2, 5], [3, 1, 4]])
    total, n = impl.loss(lambda ids: Tensor(table[ids]), np.array([[0, 1, 2, 2, 1, 0]]), 0)
    battery.check_equal(total, math.log(4) + math.log(8 / 5) + math.log(2) + 3 * math.log(2) + math.log(8))
    assert n == 5


def test_losses_are_their_definition_everywhere(impl, rng):
    for rows, vocab_size, end, dtype in loss_cases(rng):
        model, kept = Bag(rng, vocab_size, dtype), rows.copy()
        total, n = impl.loss(model, rows, end)
        assert np.array_equal(rows, kept)
        (inputs,) = model.calls
        assert type(inputs) is np.ndarray
        assert inputs.dtype == np.int64
        assert np.array_equal(inputs, rows[..., :-1])
        expected, n_expected = slow_loss(model, rows, end)
        assert isinstance(total, Tensor)
        assert (n, type(n)) == (n_expected, int)
        # A sum of n losses, each of a few operations among logits of size 10.
        battery.check_equal(total, expected, 64, 10 * (1 + n), dtype, label=f"loss of {battery.drawn(rows)}")


def test_gradients_are_their_definition(impl, rng):
    for rows, vocab_size, end, dtype in loss_cases(rng):
        model = Bag(rng, vocab_size, dtype)
        total, _ = impl.loss(model, rows, end)
        assert total.requires_grad
        (total * 2.0).backward()
        inputs, targets = slow_pairs(rows, end)
        p = np.exp(log_softmax(model.logits(inputs)))
        expected = np.zeros((vocab_size, vocab_size))
        for place in np.ndindex(targets.shape):
            if targets[place] != -100:
                expected[inputs[place]] += 2 * p[place]
                expected[inputs[place], targets[place]] -= 2
        size = 2.0 * (1 + len(targets.ravel()))
        battery.check_equal(model.weight.grad, expected, 64, size, dtype, label="gradient of the logits")


def test_rows_of_every_dtype_and_layout(impl, rng):
    for dtype in WHOLE:
        rows = rows_of(rng, (3, 6), 7, 0, dtype)
        for lay in battery.LAYOUTS.values():
            model, given = Bag(rng, 7), lay(rows)
            total, n = impl.loss(model, given, 0)
            expected, n_expected = slow_loss(model, given.astype(np.int64), 0)
            assert n == n_expected
            battery.check_equal(total, expected, 64, 100)


def test_what_does_not_count_may_be_anything(impl, rng):
    """The logits of padding are infinite or NaN, and those of the rest are not."""
    rows = np.array([[0, 5, 0, 0, 0], [0, 0, 3, 4, 0]])
    for value in (np.inf, -np.inf, np.nan):
        logits = rng.normal(size=(2, 4, 7))
        model = Parameter(logits)
        model.data[0, 2:] = model.data[1, 0] = value
        total, n = impl.loss(lambda ids, model=model: model * 1.0, rows, 0)
        counted = [(0, 0, 5), (0, 1, 0), (1, 1, 3), (1, 2, 4), (1, 3, 0)]
        losses = -log_softmax(logits)
        battery.check_equal(total, sum(losses[each] for each in counted), 64, 10)
        assert n == 5
        total.backward()
        assert (model.grad[0, 2:] == 0).all()
        assert (model.grad[1, 0] == 0).all()


def test_the_loss_depends_on_what_it_is_given_alone(impl, rng):
    rows = rows_of(rng, (3, 5), 7, 0)
    model = Bag(rng, 7)
    before = impl.loss(model, rows, 0)[0].data.copy()
    model.weight.data[...] = rng.normal(size=(7, 7))
    battery.check_equal(impl.loss(model, rows, 0)[0], slow_loss(model, rows, 0)[0], 64, 100)
    model.weight.data[...] = 0
    rows[0, 2:] = 1
    battery.check_equal(impl.loss(model, rows, 0)[0], slow_loss(model, rows, 0)[0], 64, 100)
    assert before != impl.loss(model, rows, 0)[0].data
    with no_grad():
        assert not impl.loss(model, rows, 0)[0].requires_grad
    assert impl.loss(model, rows, 0)[0].requires_grad


def test_what_losses_refuse(impl, rng):
    rows = np.array([[0, 5, 6, 0]])
    for shape in [(1, 3), (1, 4, 7), (1, 2, 7), (3, 7), (1, 3, 0), (1, 3, 6), (1, 3, 7, 1), ()]:
        battery.refuses(impl.loss, lambda ids, shape=shape: Tensor(np.zeros(shape)), rows, 0)
    for wrong in (np.array(3), np.zeros((2, 0), int), np.ones((2, 3)), np.ones((2, 3), bool)):
        battery.refuses(impl.loss, Bag(rng, 7), wrong, 0)
    for token in (-1, -99, -7):  # the model finds a row for it; it is no class
        battery.refuses(
            impl.loss, lambda ids: Tensor(np.zeros((*ids.shape, 7))), np.array([[0, 5, token, 0]]), 0
        )


# Bits per byte.

TEXTS = ["for x in y:\n", "", "é = '東'", "x", "", "a <end> b", "\n\n\n\n", "<end>"]
TOKENIZER = BPE(
    [(b"o", b"r"), (b"f", b"or"), (b" ", b"x"), (b" ", b"i"), (b" i", b"n")], {"<end>": 0, "<x>": 7}
)
VOCAB_SIZE = max(TOKENIZER.vocab) + 1


class Other:
    """A tokenizer of another kind: numbers of characters, and nothing else of a `BPE`."""

    def encode(self, text):
        return [2 + ord(each) % 50 for each in text]


def slow_bits(model, texts, tokenizer, length, end, batch_size=16):
    rows = np.array(slow_pack([tokenizer.encode(text) for text in texts], length, end))
    nats = slow_loss(model, rows, end)[0]
    return nats / math.log(2) / len("".join(texts).encode())


def test_bits_by_hand(impl):
    def model(ids):
        return Tensor(np.zeros((*ids.shape, 512)))

    bpe = BPE([], {"<end>": 0})
    assert impl.bits_per_byte(model, ["ab", "", "é"], bpe, length=4, end=0) == pytest.approx(13.5)
    assert impl.bits_per_byte(model, ["ab"], bpe, 1, 0) == pytest.approx(13.5)
    assert impl.bits_per_byte(model, ["<end>"], bpe, 8, 0) == pytest.approx(9 * 6 / 5)
    assert isinstance(impl.bits_per_byte(model, ["ab"], bpe, 4, 0), float)


def test_bits_are_their_definition_everywhere(impl, rng):
    model = Bag(rng, VOCAB_SIZE)
    for texts in (["x"], ["é"], ["", "ab"], TEXTS[:1], TEXTS, TEXTS[::-1], (*TEXTS, *TEXTS)):
        for length in (1, 2, 7, 40):
            got = impl.bits_per_byte(model, texts, TOKENIZER, length, 0)
            expected = slow_bits(model, texts, TOKENIZER, length, 0)
            assert got == pytest.approx(expected, rel=1e-12), (texts, length)
    for batch_size in aim.sizes(1, 2, 3, 5, 17, 1000, at_most=3000):
        got = impl.bits_per_byte(model, TEXTS, TOKENIZER, 3, 0, batch_size)
        assert got == pytest.approx(slow_bits(model, TEXTS, TOKENIZER, 3, 0), rel=1e-12), batch_size
    for length in aim.sizes(at_most=300):
        texts = [*TEXTS, "x" * length, "yz"]
        got = impl.bits_per_byte(model, texts, TOKENIZER, length, 0, batch_size=2)
        assert got == pytest.approx(slow_bits(model, texts, TOKENIZER, length, 0), rel=1e-12), length
    for end in (0, 1, 60):
        got = impl.bits_per_byte(model, TEXTS, Other(), 4, end)
        assert got == pytest.approx(slow_bits(model, TEXTS, Other(), 4, end), rel=1e-12)
    small = Bag(rng, 61)
    for n in aim.sizes(130, at_most=1000):
        texts = [*["xyz", ""] * (n // 2), "x" * n]
        got = impl.bits_per_byte(small, texts, Other(), 40, 1)
        assert got == pytest.approx(slow_bits(small, texts, Other(), 40, 1), rel=1e-12), n
    for label, text in battery.texts(300).items():
        if text and text.isprintable():
            got = impl.bits_per_byte(small, ["a", text, "b"], Other(), 5, 1)
            assert got == pytest.approx(slow_bits(small, ["a", text, "b"], Other(), 5, 1), rel=1e-12), label


def test_bits_are_added_up_in_float64(impl, rng):
    """A batch costs more than float16 holds, and no tolerance of float16 is lost in the sum of float32."""
    for dtype, tolerance in ((np.float16, 1e-3), (np.float32, 1e-6)):
        table = (3 * rng.normal(size=(60, 60))).astype(dtype)
        losses = -log_softmax(table.astype(np.float64))
        text = "abcdefghij" * 1500
        stream = np.array([1, *Other().encode(text), 1])
        expected = math.fsum(losses[stream[:-1], stream[1:]])
        for length, batch_size in ((1500, 16), (50, 1000)):
            got = impl.bits_per_byte(
                lambda ids, table=table: Tensor(table[ids]), [text], Other(), length, 1, batch_size
            )
            assert got == pytest.approx(expected / math.log(2) / len(text), rel=tolerance)


def test_what_the_model_sees(impl, rng):
    for length, batch_size in ((3, 1), (3, 4), (5, 16), (1, 7), (200, 3)):
        model = Bag(rng, VOCAB_SIZE)
        impl.bits_per_byte(model, TEXTS, TOKENIZER, length, 0, batch_size=batch_size)
        rows = slow_pack([TOKENIZER.encode(text) for text in TEXTS], length, 0)
        assert all(each.ndim == 2 for each in model.calls)
        assert np.concatenate(model.calls).tolist() == [row[:-1] for row in rows]
        sizes = [len(each) for each in model.calls]
        assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
        assert 1 <= sizes[-1] <= batch_size
        assert not model.is_recorded
    model = Bag(rng, VOCAB_SIZE)
    impl.bits_per_byte(model, ["x" * 36], TOKENIZER, 1, 0)
    assert [len(each) for each in model.calls] == [16, 16, 5]
    for _ in range(2):
        impl.bits_per_byte(model, TEXTS, TOKENIZER, 5, 0)
    assert model.weight.grad is None
    model(np.array([0]))
    assert model.is_recorded  # recording goes on

    def fails(ids):
        raise KeyError("no model")

    with pytest.raises(KeyError):
        impl.bits_per_byte(fails, TEXTS, TOKENIZER, 5, 0)
    model(np.array([0]))
    assert model.is_recorded
    before = impl.bits_per_byte(model, TEXTS, TOKENIZER, 5, 0)
    model.weight.data *= 2
    assert impl.bits_per_byte(model, TEXTS, TOKENIZER, 5, 0) == pytest.approx(
        slow_bits(model, TEXTS, TOKENIZER, 5, 0), rel=1e-12
    )
    assert before != impl.bits_per_byte(model, TEXTS, TOKENIZER, 5, 0)


def test_what_bits_refuse(impl, rng):
    model = Bag(rng, VOCAB_SIZE)
    for texts in ([], [""], ["", ""], ()):
        battery.refuses(impl.bits_per_byte, model, texts, TOKENIZER, 4, 0)
    for batch_size in (0, -1, -16):
        battery.refuses(impl.bits_per_byte, model, ["ab"], TOKENIZER, 4, 0, batch_size)
    for length in (0, -2):
        battery.refuses(impl.bits_per_byte, model, ["ab"], TOKENIZER, length, 0)
    battery.refuses(impl.bits_per_byte, model, ["ab"], TOKENIZER, 4, TOKENIZER.encode("b")[0])
    battery.refuses(impl.bits_per_byte, model, ["xy", "ab"], TOKENIZER, 4, TOKENIZER.encode("b")[0])
