"""Oracles: the definitions in slow loops, and results worked out by hand.

Entries are small whole numbers, so that every order of summation gives exactly the same result.
"""

import itertools
import math

import numpy as np
import pytest

LENGTHS = {"a": 2, "b": 3, "c": 4, "d": 1, "E": 2, "z": 5}


def slow_einsum(spec, *operands):
    """Visit every combination of positions; add the product of the entries where the result has its place."""
    inputs, output = spec.replace(" ", "").split("->")
    terms = inputs.split(",")
    lengths = {
        n: m for term, x in zip(terms, operands, strict=True) for n, m in zip(term, x.shape, strict=True)
    }
    result = np.zeros([lengths[name] for name in output], dtype=np.result_type(*operands))
    for positions in itertools.product(*map(range, lengths.values())):
        at = dict(zip(lengths, positions, strict=True))
        entries = [x[tuple(at[n] for n in term)] for term, x in zip(terms, operands, strict=True)]
        result[tuple(at[n] for n in output)] += math.prod(entries)
    return result


def whole_numbers(rng, shape, dtype=np.float64):
    return rng.integers(-3, 4, size=shape).astype(dtype)


def check(impl, spec, *operands, full_spec=None):
    got, expected = impl.einsum(spec, *operands), slow_einsum(full_spec or spec, *operands)
    assert np.shape(got) == expected.shape, spec
    assert np.array_equal(got, expected), spec


@pytest.mark.parametrize(
    "spec",
    [
        "ab,bc->ac",
        "ab,bc->ca",
        "ab,cb->ac",
        "ab,ab->",
        "ab,ab->ab",
        "ab,ba->a",
        "a,b->ab",
        "a,b->ba",
        "a,a->",
        "a->",
        "ab->a",
        "ab->b",
        "abc->cab",
        "abc->b",
        "ab,b->a",
        "ab,c->b",
        "ab,ac,a->bc",
        "ab,bc,cz->za",
        "abc,acz,ab->bz",
        "azbc,azdc->azbd",
        "adb,b->bda",
        ",ab->ba",
        "ab,->",
        ",->",
        "->",
        "ab,bc,cb,ba->",
        "E,b->bE",
    ],
)
def test_specs_that_models_use(impl, rng, spec):
    operands = [whole_numbers(rng, [LENGTHS[n] for n in term]) for term in spec.split("->")[0].split(",")]
    check(impl, spec, *operands)


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("aa->a", [(3, 3)]),
        ("aa->", [(3, 3)]),
        ("aba->ab", [(3, 2, 3)]),
        ("aba->ba", [(3, 2, 3)]),
        ("aba->b", [(3, 2, 3)]),
        ("aab->b", [(3, 3, 2)]),
        ("aaa->a", [(3, 3, 3)]),
        ("aabb->ab", [(2, 2, 3, 3)]),
        ("abab->", [(2, 3, 2, 3)]),
        ("aab,b->a", [(3, 3, 2), (2,)]),
        ("aa,aa->a", [(3, 3), (3, 3)]),
        ("ab,aa,bb->", [(2, 3), (2, 2), (3, 3)]),
    ],
)
def test_a_letter_repeated_on_one_operand_takes_the_diagonal(impl, rng, spec, shapes):
    check(impl, spec, *(whole_numbers(rng, shape) for shape in shapes))


def test_results_by_hand(impl):
    a, b = np.array([[1, 2], [3, 4]]), np.array([10, 1])
    assert impl.einsum("ij,j->i", a, b).tolist() == [12, 34]
    assert impl.einsum("ij,i->j", a, b).tolist() == [13, 24]
    assert impl.einsum("ii->", a) == 5
    assert impl.einsum("ij,kj->ik", a, a).tolist() == [[5, 11], [11, 25]]
    assert impl.einsum("ij->ji", a).tolist() == [[1, 3], [2, 4]]
    assert impl.einsum("i,j->ij", b, b).tolist() == [[100, 10], [10, 1]]
    assert impl.einsum("a,a,a->", b, b, b) == 1001
    assert impl.einsum(",,->", np.array(2), np.array(3), np.array(7)) == 42


@pytest.mark.parametrize(
    ("spec", "full_spec"),
    [
        ("ab,bc", "ab,bc->ac"),
        ("bc,ab", "bc,ab->ac"),
        ("ba", "ba->ab"),  # a transpose!
        ("ab", "ab->ab"),
        ("a,a", "a,a->"),
        ("c,a,b", "c,a,b->abc"),
        ("ab,ab", "ab,ab->"),
        ("ab,bc,ca", "ab,bc,ca->"),
        ("bE", "bE->Eb"),
        ("zE,b", "zE,b->Ebz"),
        ("ab,b,b", "ab,b,b->a"),
        ("", "->"),
    ],
)
def test_the_result_without_an_arrow(impl, rng, spec, full_spec):
    operands = [whole_numbers(rng, [LENGTHS[n] for n in term]) for term in spec.split(",")]
    check(impl, spec, *operands, full_spec=full_spec)


def test_the_result_without_an_arrow_on_one_operand(impl, rng):
    check(impl, "aa", whole_numbers(rng, (3, 3)), full_spec="aa->")
    check(impl, "aba", whole_numbers(rng, (3, 2, 3)), full_spec="aba->b")
    check(impl, "bab,a", whole_numbers(rng, (3, 2, 3)), whole_numbers(rng, 2), full_spec="bab,a->")
    check(impl, "aa,a", whole_numbers(rng, (2, 2)), whole_numbers(rng, 2), full_spec="aa,a->")


def test_an_arrow_with_nothing_behind_it_sums_everything(impl, rng):
    check(impl, "ab->", whole_numbers(rng, (2, 3)))
    check(impl, "a,b->", whole_numbers(rng, 2), whole_numbers(rng, 3))


def test_spaces_mean_nothing(impl, rng):
    a, b = whole_numbers(rng, (2, 3)), whole_numbers(rng, (3, 4))
    check(impl, " a b, b  c -> c a ", a, b, full_spec="ab,bc->ca")


def test_random_specs(impl, rng):
    """Up to four operands, repeated letters, lengths of 1 to 3, results in any order."""
    for _ in range(150):
        lengths = dict(zip("abcd", rng.integers(1, 4, size=4), strict=True))
        terms = ["".join(rng.choice([*"abcd"], size=rng.integers(4))) for _ in range(rng.integers(1, 5))]
        used = sorted(set("".join(terms)))
        output = "".join(rng.permutation(used)[: rng.integers(len(used) + 1)])
        operands = [whole_numbers(rng, [lengths[n] for n in term]) for term in terms]
        check(impl, f"{','.join(terms)}->{output}", *operands)


@pytest.mark.parametrize(
    "spec", ["ab,ab->ab", "ab,ab->ba", "abc,abd->abcd", "abc,dbc->bda", "abc,abc->cab", "abcd,abd->dbca"]
)
def test_axes_of_equal_length_are_told_apart_by_name(impl, rng, spec):
    check(impl, spec, *(whole_numbers(rng, (3,) * len(term)) for term in spec.split("->")[0].split(",")))


def test_axes_of_length_0(impl):
    """The sum over nothing is 0."""
    empty = np.ones((2, 0, 3))
    assert impl.einsum("abc->ac", empty).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert impl.einsum("abc->bca", empty).shape == (0, 3, 2)
    assert impl.einsum("ab,bc->ac", np.ones((2, 0)), np.ones((0, 3))).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert impl.einsum("ab,bc->ac", np.ones((0, 2)), np.ones((2, 3))).shape == (0, 3)
    assert impl.einsum("ab,ac->abc", np.ones((0, 2)), np.ones((0, 3))).shape == (0, 2, 3)
    assert impl.einsum("aa->a", np.ones((0, 0))).shape == (0,)


def test_any_memory_layout(impl, rng):
    """Views: transposed, reversed, strided, repeated with stride 0, read-only."""
    x = whole_numbers(rng, (4, 6, 5))
    views = [x.transpose(2, 0, 1), x[::-1, :, ::2], x[:, 1::2, -2::-1], np.broadcast_to(x[0], (3, 6, 5))]
    for view in views:
        check(impl, "abc->cb", view)
        check(impl, "abc,cb->a", view, whole_numbers(rng, view.shape[:0:-1]))
        square = view[:3, :3, 0]
        check(impl, "aa->a", square)
        check(impl, "ab,ba->ab", square, square)


def test_the_same_array_twice(impl, rng):
    x = whole_numbers(rng, (3, 3))
    for spec in ("ab,bc->ac", "ab,cb->ac", "ab,ba->", "aa,ab->b", "ab,bc,ca->b"):
        check(impl, spec, *[x] * (spec.count(",") + 1))


def test_dtypes(impl, rng):
    for dtypes in ([np.float32] * 2, [np.float64] * 2, [np.int64] * 2, [np.float32, np.float64]):
        a, b = (
            whole_numbers(rng, shape, dtype) for shape, dtype in zip([(2, 3), (3, 4)], dtypes, strict=True)
        )
        expected = np.result_type(*dtypes)
        assert np.asarray(impl.einsum("ab,bc->ac", a, b)).dtype == expected
        assert np.asarray(impl.einsum("ab,bc->", a, b)).dtype == expected
        assert np.asarray(impl.einsum("ab->b", a)).dtype == dtypes[0]
        assert np.asarray(impl.einsum("ab->", a)).dtype == dtypes[0]
        assert np.asarray(impl.einsum("ab->ba", a)).dtype == dtypes[0]
        check(impl, "ab,bc->ac", a, b)


def test_integers_are_exact(impl):
    """Beyond 2**53 a detour through float64 shows."""
    big = np.array([2**53 + 1, 1], dtype=np.int64)
    assert impl.einsum("a,a->", big, np.array([1, 1])) == 2**53 + 2
    assert impl.einsum("a->", big) == 2**53 + 2
    assert impl.einsum("a,b->ab", big, np.array([1, 2])).tolist() == [[2**53 + 1, 2**54 + 2], [1, 2]]


def test_the_operands_are_not_changed(impl, rng):
    a, b = whole_numbers(rng, (3, 3)), whole_numbers(rng, (3, 3))
    before = a.copy(), b.copy()
    for spec in ("ab,bc->ac", "aa,ab->b", "ab,ab->ab"):
        impl.einsum(spec, a, b)
    impl.einsum("aa->a", a)
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])
    assert a.shape == b.shape == (3, 3)


def test_lists_are_arrays_too(impl):
    assert impl.einsum("ab,b->a", [[1, 2], [3, 4]], [1, 1]).tolist() == [3, 7]


@pytest.mark.parametrize(
    ("spec", "shapes", "letter"),
    [
        ("ab,bc->ac", [(2, 3), (4, 5)], "b"),
        ("ab,bc->ac", [(2, 3), (1, 5)], "b"),  # NumPy would broadcast: here it is a mistake
        ("ab,bc->ac", [(2, 1), (3, 5)], "b"),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (5, 2)], "k"),
        ("aa->a", [(3, 4)], "a"),
        ("xx->x", [(1, 3)], "x"),
        ("ab,cb->abc", [(2, 3), (2, 2)], "b"),
        ("q,q->", [(0,), (1,)], "q"),
        ("ab,cd,dA,Ab->c", [(2, 3), (4, 5), (5, 6), (7, 3)], "A"),
    ],
)
def test_axes_of_one_letter_must_be_equally_long(impl, spec, shapes, letter):
    with pytest.raises(ValueError, match=f"'{letter}'"):
        impl.einsum(spec, *(np.ones(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("ab", [(2, 3), (2, 3)]),  # too few terms
        ("ab,bc->ac", [(2, 3)]),  # too few operands
        ("ab,->ab", [(2, 3)]),
        ("->", []),
        ("ab->ab", [(2, 3, 4)]),  # too few letters
        ("abc->ab", [(2, 3)]),  # too many
        ("ab,b->a", [(2, 3), ()]),
        ("ab->aab", [(2, 3)]),  # a repetition in the result
        ("ab->abb", [(2, 3)]),
        ("ab->abc", [(2, 3)]),  # an unknown letter in the result
        ("ab->A", [(2, 3)]),
        ("->a", [()]),
        ("ab->a->b", [(2, 3)]),  # malformed
        ("ab>a", [(2, 3)]),
        ("ab-a", [(2, 3)]),
        ("a1->a", [(2, 3)]),
        ("a.->a", [(2, 3)]),
        ("a,b->a,b", [(2,), (3,)]),
        ("a_->a", [(2, 3)]),
        ("αb->b", [(2, 3)]),
        ("a;b->ab", [(2,), (3,)]),
    ],
)
def test_malformed_specs(impl, spec, shapes):
    with pytest.raises(ValueError):  # noqa: PT011 - the message is free
        impl.einsum(spec, *(np.ones(shape) for shape in shapes))


def slow_rearrange(x, before, after, lengths):
    """Move each entry on its own. ``before`` and ``after`` are lists of lists of names."""

    def axis(group, at):
        place = 0
        for name in group:
            place = place * lengths[name] + at[name]
        return place

    result = np.empty([math.prod(lengths[n] for n in group) for group in after], x.dtype)
    for positions in itertools.product(*(range(length) for length in lengths.values())):
        at = dict(zip(lengths, positions, strict=True))
        result[tuple(axis(group, at) for group in after)] = x[tuple(axis(group, at) for group in before)]
    return result


def text(groups):
    return " ".join(group[0] if len(group) == 1 else f"({' '.join(group)})" for group in groups)


def test_rearranging_by_hand(impl):
    x = np.arange(6)
    assert impl.rearrange(x, "(row column) -> column row", row=2).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert impl.rearrange(x, "(row column) -> row column", column=2).tolist() == [[0, 1], [2, 3], [4, 5]]
    table = x.reshape(2, 3)
    assert impl.rearrange(table, "i j -> j i").tolist() == [[0, 3], [1, 4], [2, 5]]
    assert impl.rearrange(table, "i j -> (i j)").tolist() == [0, 1, 2, 3, 4, 5]
    assert impl.rearrange(table, "i j -> (j i)").tolist() == [0, 3, 1, 4, 2, 5]
    assert impl.rearrange(table, "i (j k) -> (k i) j", k=1).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_heads_are_split_and_merged_as_attention_needs(impl, rng):
    """The parts of an axis run with the last name fastest; heads must not mix with positions."""
    x = rng.normal(size=(2, 3, 8))
    heads = impl.rearrange(x, "b t (h d) -> b h t d", h=4)
    assert heads.shape == (2, 4, 3, 2)
    for b, h, t, d in np.ndindex(heads.shape):
        assert heads[b, h, t, d] == x[b, t, 2 * h + d]
    assert np.array_equal(impl.rearrange(heads, "b h t d -> b t (h d)"), x)
    assert np.array_equal(impl.rearrange(x, "b t (h d) -> b h t d", d=2), heads)
    assert np.array_equal(impl.rearrange(x, "b t (h d) -> b h t d", h=4, d=2, t=3), heads)


def test_random_patterns(impl, rng):
    """Six names, in random groups on either side; of each group one length is left out."""
    lengths = {"b": 2, "head": 3, "t_0": 4, "D": 1, "same": 3, "x1": 2}

    def random_groups():
        names = [str(name) for name in rng.permutation([*lengths])]
        cuts = sorted({0, 6, *rng.integers(1, 6, size=3).tolist()})
        return [names[i:j] for i, j in itertools.pairwise(cuts)]

    for _ in range(60):
        before, after = random_groups(), random_groups()
        x = rng.normal(size=[math.prod(lengths[n] for n in group) for group in before])
        left_out = {str(rng.choice(group)) for group in before}
        given = {name: length for name, length in lengths.items() if name not in left_out}
        got = impl.rearrange(x, f"{text(before)} -> {text(after)}", **given)
        expected = slow_rearrange(x, before, after, lengths)
        assert got.shape == expected.shape
        assert np.array_equal(got, expected), (before, after)


def test_patterns_may_be_spaced_freely(impl):
    x = np.arange(12).reshape(2, 6)
    expected = impl.rearrange(x, "a (b c) -> (a b) c", b=3)
    for pattern in ("a(b c)->(a b)c", "  a ( b  c ) ->  ( a b )  c "):
        assert np.array_equal(impl.rearrange(x, pattern, b=3), expected)


def test_axes_of_length_1_come_and_go(impl):
    x = np.arange(6).reshape(2, 3)
    assert impl.rearrange(x, "a b -> a () b").shape == (2, 1, 3)
    assert impl.rearrange(x, "a b -> () b a ()").shape == (1, 3, 2, 1)
    assert impl.rearrange(x.reshape(1, 2, 3), "() a b -> b a").tolist() == [[0, 3], [1, 4], [2, 5]]
    assert impl.rearrange(np.array(7), " -> ()").tolist() == [7]
    assert impl.rearrange(np.array([7]), "() -> ") == 7


def test_rearranging_nothing(impl):
    assert impl.rearrange(np.ones((0, 4)), "a (b c) -> (a b) c", b=2).shape == (0, 2)
    assert impl.rearrange(np.ones((3, 0)), "a (b c) -> b (c a)", b=2).shape == (2, 0)


def test_rearranging_keeps_dtype_and_input(impl, rng):
    for dtype in (np.float32, np.int64, bool):
        x = np.asfortranarray(rng.integers(0, 2, size=(4, 6)).astype(dtype))[::-1]
        before = x.copy()
        got = impl.rearrange(x, "a (b c) -> c (b a)", b=2)
        assert got.dtype == dtype
        assert np.array_equal(
            got, slow_rearrange(x, [["a"], ["b", "c"]], [["c"], ["b", "a"]], {"a": 4, "b": 2, "c": 3})
        )
        assert np.array_equal(x, before)
        assert x.shape == (4, 6)


def test_axes_may_be_called_x_and_pattern(impl):
    x = np.arange(6)
    assert impl.rearrange(x, "(x pattern) -> pattern x", x=2).shape == (3, 2)
    assert impl.rearrange(x, "(x pattern) -> pattern x", pattern=2).shape == (2, 3)


def test_calls_do_not_remember_lengths(impl):
    x = np.arange(12)
    assert impl.rearrange(x, "(a b) -> a b", a=3).shape == (3, 4)
    assert impl.rearrange(x, "(a b) -> a b", a=2).shape == (2, 6)
    assert impl.rearrange(x, "(a b) -> a b", b=2).shape == (6, 2)
    given = {"a": 4}
    impl.rearrange(x, "(a b) -> a b", **given)
    assert given == {"a": 4}


class Shaped:
    """Not an array: it has a shape and the two methods, as the tensors of a later technology do."""

    def __init__(self, data):
        self._data = data
        self.shape = data.shape

    def reshape(self, shape):
        return Shaped(self._data.reshape(tuple(shape)))

    def transpose(self, order):
        return Shaped(self._data.transpose(tuple(order)))


def test_rearranging_asks_for_no_more_than_shape_reshape_and_transpose(impl, rng):
    x = rng.normal(size=(2, 3, 8))
    for pattern in ("b t (h d) -> b h t d", "b t (h d) -> (t b) (d h)"):
        got = impl.rearrange(Shaped(x), pattern, h=4)
        assert isinstance(got, Shaped)
        assert np.array_equal(got._data, impl.rearrange(x, pattern, h=4))


@pytest.mark.parametrize(
    ("pattern", "shape", "lengths"),
    [
        ("a b -> a", (2, 3), {}),  # a name is lost
        ("a -> a b", (2,), {}),  # a name appears
        ("a b -> a c", (2, 3), {}),
        ("a a -> a", (2, 2), {}),  # a name repeats
        ("a a -> a a", (2, 2), {}),
        ("a b -> a b b", (2, 2), {}),
        ("a b -> b a", (2, 3, 4), {}),  # too few axes
        ("a b c -> c b a", (2, 3), {}),  # too many
        ("(a b) -> a b", (6,), {}),  # not determined
        ("(a b c) -> a b c", (12,), {"a": 2}),
        ("(a b) -> a b", (6,), {"a": 4}),  # does not divide
        ("(a b) -> a b", (6,), {"a": 2, "b": 2}),  # does not multiply to 6
        ("(a b) -> a b", (6,), {"a": 3, "b": 4}),
        ("a b -> b a", (2, 3), {"a": 3}),
        ("a b -> b a", (4, 3), {"a": 2}),
        ("(a b) -> a b", (6,), {"a": 0}),
        ("(a b) -> a b", (6,), {"a": -2}),
        ("(a b) -> a b", (6,), {"a": -2, "b": -3}),
        ("(a b) -> a b", (0,), {"a": 0}),
        ("a b -> b a", (2, 3), {"c": 2}),  # unknown
        ("(a b) -> a b", (6,), {"a": 2, "h": 3}),
        ("() a -> a", (2, 3), {}),  # not of length 1
        ("a b", (2, 3), {}),  # malformed
        ("a b -> b a -> a b", (2, 3), {}),
        ("a (b -> b a", (2, 3), {}),
        ("a b) -> b a", (2, 3), {}),
        ("((a) b) -> a b", (6,), {"a": 2}),
        ("a,b -> b a", (2, 3), {}),
        ("a 3 -> 3 a", (2, 3), {}),
        ("a ... -> ... a", (2, 3), {}),
    ],
)
def test_malformed_patterns(impl, pattern, shape, lengths):
    with pytest.raises(ValueError):  # noqa: PT011 - the message is free
        impl.rearrange(np.ones(shape), pattern, **lengths)
