"""Oracles: the definitions in slow loops, results worked out by hand, and NumPy's own einsum.

Where it matters entries are small whole numbers, so that every order of summation gives exactly the same.
"""

import itertools
import math
import re
import string

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.battery import Case, MismatchError

LENGTHS = {"a": 2, "b": 3, "c": 4, "d": 1, "E": 2, "z": 5}
LETTERS = string.ascii_uppercase + string.ascii_lowercase
INTEGERS = [dtype for dtype in battery.INTEGERS if dtype is not np.bool_]


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


def may_be_a_view(spec):
    """Whether nothing is multiplied and nothing summed."""
    inputs, output = spec.replace(" ", "").split("->")
    return "," not in inputs and {*output} == {*inputs}


def sweep(impl, spec, cases, full_spec=None, definition=slow_einsum, **tolerance):
    """Compare ``einsum(spec, ...)`` on all cases; exactly, where nothing else is asked for."""
    full_spec = full_spec or spec
    battery.sweep(
        lambda *operands: impl.einsum(spec, *operands),
        lambda *operands: definition(full_spec, *operands),
        [Case(f"einsum({spec!r}, ...) {case.label}", case.arguments, {}, case.slack) for case in cases],
        is_new=not may_be_a_view(full_spec),
        **({"ulps": 0} | tolerance),
    )


def whole_numbers(rng, shape, dtype=np.float64):
    low = 0 if np.dtype(dtype).kind == "u" else -3
    return rng.integers(low, 4, size=shape).astype(dtype)


def operands_for(rng, spec, lengths=LENGTHS, dtype=np.float64):
    inputs = spec.replace(" ", "").split("->")[0]
    return [whole_numbers(rng, [lengths[n] for n in term], dtype) for term in inputs.split(",")]


def check(impl, spec, *operands, full_spec=None, dtype: object = "input"):
    sweep(impl, spec, [Case("", operands)], full_spec, dtype=dtype)


# einsum: what is computed ----------------------------------------------------------------------------------


def test_matrices_by_hand(impl):
    a, b = np.array([[1, 2], [3, 4]]), np.array([10, 1])
    assert impl.einsum("ij,j->i", a, b).tolist() == [12, 34]
    assert impl.einsum("ij,i->j", a, b).tolist() == [13, 24]
    assert impl.einsum("ii->", a) == 5
    assert impl.einsum("ij,kj->ik", a, a).tolist() == [[5, 11], [11, 25]]
    assert impl.einsum("ij->ji", a).tolist() == [[1, 3], [2, 4]]
    assert impl.einsum("i,j->ij", b, b).tolist() == [[100, 10], [10, 1]]
    assert impl.einsum("a,a,a->", b, b, b) == 1001
    assert impl.einsum(",,->", np.array(2), np.array(3), np.array(7)) == 42


SPECS_OF_MODELS = [
    *["ab,bc->ac", "ab,bc->ca", "ab,cb->ac", "ab,ab->", "ab,ab->ab", "ab,ba->a", "a,b->ab", "a,b->ba"],
    *["a,a->", "a->", "ab->a", "ab->b", "abc->cab", "abc->b", "ab,b->a", "ab,c->b", "ab,ac,a->bc", "ab->"],
    *["ab,bc,cz->za", "abc,acz,ab->bz", "azbc,azdc->azbd", "adb,b->bda", ",ab->ba", "ab,->", ",->", "->"],
    *["ab,bc,cb,ba->", "E,b->bE", "a,b->", "ab,zE->", "ab,zE->zb"],
]


@pytest.mark.parametrize("spec", SPECS_OF_MODELS)
def test_specs_that_models_use(impl, rng, spec):
    lengths = LENGTHS if spec != "ab,ba->a" else LENGTHS | {"b": 2}
    check(impl, spec, *operands_for(rng, spec, lengths))


@pytest.mark.parametrize(
    "spec",
    [
        "ab,bc->ac",
        "bhqd,bhkd->bhqk",
        "ab,ab->b",
        "a,b->ba",
        "aab,b->a",
        "abc,abd,dc->ac",
        "ab->a",
        "abc->cab",
    ],
)
def test_every_size_dtype_and_layout(impl, rng, spec):
    """Rounding in a sum of n terms is relative to the sum of the terms' sizes."""

    def size_of_terms(*operands):
        return np.einsum(spec, *map(np.abs, operands))

    def one(value):
        return lambda shape: np.where(np.arange(math.prod(shape)).reshape(shape) == 1, value, 0.5)

    values = {"zeros": np.zeros, "1e300": lambda shape: np.full(shape, 1e300), "one NaN": one(np.nan)}
    values |= {"-1e-300": lambda shape: np.full(shape, -1e-300), "-1e5": lambda shape: np.full(shape, -1e5)}
    if spec.count(",") < 2:  # with three operands, it depends on the order what an infinity meets
        values |= {"one infinity": one(np.inf)}
    terms = ", ".join(" ".join(term) for term in spec.split("->")[0].split(","))
    found = battery.cases(rng, terms, values=values, at_most=20_000)
    found += battery.cases(rng, terms, dtypes=(np.float32, np.float64), layouts=[], largest=1e4)
    with np.errstate(all="ignore"):
        sweep(impl, spec, found, definition=np.einsum, ulps=16, magnitude=size_of_terms)


def test_the_scale_of_the_numbers_never_matters(impl, rng):
    """A power of two changes no digit."""
    for spec in ("ab,bc->ac", "ab,ab->a", "ab,b,a->b"):
        for dtype, powers in ((np.float64, (-900, -300, 300, 900)), (np.float32, (-100, 100))):
            first, *others = operands_for(rng, spec, dtype=dtype)
            plain = impl.einsum(spec, first, *others)
            for power in powers:
                got = impl.einsum(spec, first * dtype(2.0**power), *others)
                label = f"einsum({spec!r}) of {np.dtype(dtype)}, the first operand times 2**{power}"
                battery.check_equal(got, plain * dtype(2.0**power), ulps=0, dtype=dtype, label=label)


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
        ("zEz", "zEz->E"),
        ("zz", "zz->"),
        ("bab,b", "bab,b->a"),
        ("bzb,z", "bzb,z->"),
        ("bbb", "bbb->"),
    ],
)
def test_the_result_without_an_arrow(impl, rng, spec, full_spec):
    check(impl, spec, *operands_for(rng, spec), full_spec=full_spec)


def test_every_letter(impl, rng):
    """All 52, also in one term: in any order, and sorted where there is no arrow, capitals first."""
    for n in aim.sizes(3, 8, 17, 26, 27, 33, 52, at_most=52):
        term, wanted, columns = ("".join(rng.permutation([*LETTERS])[:n]) for _ in range(3))
        term = "".join(rng.permutation([*LETTERS[:n]]))
        wanted = "".join(rng.permutation([*term]))
        lengths = {letter: 2 if i < 3 else 1 for i, letter in enumerate(term)}
        x = whole_numbers(rng, [lengths[letter] for letter in term])
        orders = {f"{term}->{wanted}": wanted, term: "".join(sorted(term))}
        for spec, order in orders.items():
            expected = x.transpose([term.index(letter) for letter in order])
            battery.check_equal(impl.einsum(spec, x), expected, ulps=0, label=f"einsum({spec!r}, ...)")
        columns = wanted[: n // 2]
        spec, summed = f"{term},{wanted}->{columns}", [i for i, m in enumerate(term) if m not in columns]
        y = whole_numbers(rng, [lengths[letter] for letter in wanted])
        product = (x * y.transpose([wanted.index(letter) for letter in term])).sum(axis=tuple(summed))
        left = [letter for letter in term if letter in columns]
        expected = product.transpose([left.index(letter) for letter in columns])
        battery.check_equal(impl.einsum(spec, x, y), expected, ulps=0, label=f"einsum({spec!r}, ...)")
    for letter, other in zip(LETTERS, LETTERS[1:] + "A", strict=True):
        check(impl, f"{letter}{other},{other}->{letter}", whole_numbers(rng, (2, 3)), whole_numbers(rng, 3))


def test_spaces_mean_nothing(impl, rng):
    a, b = whole_numbers(rng, (2, 3)), whole_numbers(rng, (3, 4))
    for spec in (" a b, b  c -> c a ", "ab ,bc->ca", "ab,bc ->ca", f"{' ' * 300}ab,bc->{' ' * 5000}ca"):
        check(impl, spec, a, b, full_spec="ab,bc->ca")
    check(impl, " a b , b c ", a, b, full_spec="ab,bc->ac")
    check(impl, "b a -> ", a, full_spec="ba->")
    check(impl, " ", np.array(3.0), full_spec="->")


def test_random_specs(impl, rng):
    """Up to five operands, repeated letters, lengths of 0 to 3, results in any order."""
    for _ in range(150):
        lengths = dict(zip("abcd", rng.choice([0, 1, 1, 2, 2, 3, 3, 3], size=4), strict=True))
        terms = ["".join(rng.choice([*"abcd"], size=rng.integers(4))) for _ in range(rng.integers(1, 6))]
        used = sorted(set("".join(terms)))
        output = "".join(rng.permutation(used)[: rng.integers(len(used) + 1)])
        spec = f"{','.join(terms)}->{output}"
        check(impl, spec, *operands_for(rng, spec, lengths))


@pytest.mark.parametrize(
    "spec", ["aaa->a", "aaaa->a", "abab->ba", "abab->", "aabb->b", "abcabc->cba", "baab->ab"]
)
def test_diagonals(impl, rng, spec):
    lengths = {"a": 3, "b": 2, "c": 4}
    check(impl, spec, *operands_for(rng, spec, lengths))
    inputs, output = spec.split("->")
    spec = f"{inputs},{''.join(sorted({*inputs}))},a->{output}"
    check(impl, spec, *operands_for(rng, spec, lengths))


@pytest.mark.parametrize(
    "spec", ["ab,ab->ab", "ab,ab->ba", "abc,abd->abcd", "abc,dbc->bda", "abc,abc->cab", "abcd,abd->dbca"]
)
def test_axes_of_equal_length_are_told_apart_by_name(impl, rng, spec):
    check(impl, spec, *operands_for(rng, spec, dict.fromkeys("abcd", 3)))


def test_specs_that_stand_in_the_source(impl, rng):
    for spec in sorted({each for each in aim.TEXTS if re.fullmatch("[a-zA-Z,]{1,12}", each)}):
        operands = operands_for(rng, spec, dict.fromkeys(LETTERS, 2))
        letters = sorted({*spec} - {","})
        for output in ("".join(letters), "".join(letters[::2])):
            check(impl, f"{spec}->{output}", *operands)


def test_what_is_multiplied_by_0_or_1_is_multiplied(impl, rng):
    """0 times NaN or infinity is NaN, and times 1 is a new array."""
    for value in (np.nan, np.inf, -np.inf):
        for spec, shapes in {
            "ab,bc->ac": [(2, 3), (3, 4)],
            "ab,ab->": [(2, 3), (2, 3)],
            "a,b->ab": [(3,), (2,)],
            "ab,->a": [(2, 3), ()],
            "abc,acd->abd": [(2, 1, 3), (2, 3, 2)],
        }.items():
            for zeros, values in ((0, 1), (1, 0)):
                operands = [np.zeros(shapes[0]), np.zeros(shapes[1])]
                operands[values][...] = value
                with np.errstate(all="ignore"):
                    got = impl.einsum(spec, *operands)
                assert np.isnan(got).all(), f"einsum({spec!r}, ...) of zeros, operand {zeros}, and {value}"
    x = rng.normal(size=(2, 3))
    for first, second, one in itertools.product("ai", "bj", (np.array(1.0), np.ones(3))):
        spec = f"{first}{second},{second * one.ndim}->{first}{second}"
        got = impl.einsum(spec, x, one)
        battery.check_equal(got, x, ulps=0, label=f"einsum({spec!r}, x, 1)")
        assert not np.may_share_memory(got, x), f"einsum({spec!r}, x, 1) shares memory with x"


def test_axes_of_length_0(impl):
    """The sum over nothing is 0."""
    empty = np.ones((2, 0, 3))
    assert impl.einsum("abc->ac", empty).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert impl.einsum("abc->bca", empty).shape == (0, 3, 2)
    assert impl.einsum("ab,bc->ac", np.ones((2, 0)), np.ones((0, 3))).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert impl.einsum("ab,bc->ac", np.ones((0, 2)), np.ones((2, 3))).shape == (0, 3)
    assert impl.einsum("ab,ac->abc", np.ones((0, 2)), np.ones((0, 3))).shape == (0, 2, 3)
    assert impl.einsum("aa->a", np.ones((0, 0))).shape == (0,)


def test_the_same_array_twice(impl, rng):
    x = whole_numbers(rng, (3, 3))
    for spec in ("ab,bc->ac", "ab,cb->ac", "ab,ba->", "aa,ab->b", "ab,bc,ca->b"):
        check(impl, spec, *[x] * (spec.count(",") + 1))


def test_many_operands(impl, rng):
    """Each of them counts. Entries are 1 and -1, so that products stay what they are."""
    for n in aim.sizes(5, 6, 9, 13, 33, at_most=40):
        for pattern, output in (("ab bc ca b", "ca"), ("a ab b", ""), ("abc ca", "b")):
            terms = list(itertools.islice(itertools.cycle(pattern.split()), n))
            spec = f"{','.join(terms)}->{output}"
            operands = [rng.choice([-1.0, 1.0], size=[LENGTHS[m] for m in term]) for term in terms]
            label = f"einsum({spec!r}, ...) of {n} operands"
            battery.check_equal(impl.einsum(spec, *operands), slow_einsum(spec, *operands), 0, label=label)


def test_dtypes(impl, rng):
    """The result has the dtype of the product; sums do not widen it."""
    for spec in ("ab,bc->ac", "ab,ac->", "aab,b->a"):
        for dtypes in itertools.product([np.float32, np.float64, np.int64, np.int32, np.float16], repeat=2):
            operands = [x.astype(each) for x, each in zip(operands_for(rng, spec), dtypes, strict=True)]
            check(impl, spec, *operands, dtype=np.result_type(*dtypes))
    for dtype in INTEGERS:
        for spec in ("ab,bc->ca", "ab,c->", "a,a->a", "ab->b", "ab->", "zz->z", "abc->bca", "a,ab,b->"):
            operands = operands_for(rng, spec, dtype=dtype)
            sweep(impl, spec, [Case(f"of {np.dtype(dtype)}", tuple(operands))], dtype=dtype)
    x = whole_numbers(rng, (2, 3)) + 1j * whole_numbers(rng, (2, 3))
    battery.check_equal(impl.einsum("ab,cb->ac", x, x), x @ x.T, ulps=0, label="complex numbers")


def test_integers_are_exact(impl):
    """Beyond 2**53 a detour through float64 shows."""
    big = np.array([2**53 + 1, 1], dtype=np.int64)
    assert impl.einsum("a,a->", big, np.array([1, 1])) == 2**53 + 2
    assert impl.einsum("a->", big) == 2**53 + 2
    assert impl.einsum("a,b->ab", big, np.array([1, 2])).tolist() == [[2**53 + 1, 2**54 + 2], [1, 2]]
    unsigned = np.array([2**63 + 1, 2**64 - 1], dtype=np.uint64)
    assert impl.einsum("a,ab->b", unsigned, np.eye(2, dtype=np.uint64)).tolist() == [2**63 + 1, 2**64 - 1]
    assert impl.einsum("ab->a", unsigned.reshape(2, 1)).tolist() == [2**63 + 1, 2**64 - 1]
    assert impl.einsum(
        "ab,b->a", [[2**62, 2], [-(2**62), 3]] @ np.eye(2, dtype=int), np.ones(2, int)
    ).tolist() == [
        2**62 + 2,
        3 - 2**62,
    ]


# einsum: what it needs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "lengths"),
    [
        ("bhqd,bhkd->bhqk", {"b": 1, "h": 2, "q": 64, "k": 64, "d": 64}),
        ("ab,bc->ac", {"a": 64, "b": 256, "c": 32}),
        ("ab,cd->ac", {"a": 8, "b": 200, "c": 8, "d": 200}),  # b and d are summed before they meet
        ("ab,ab->", {"a": 128, "b": 128}),
        ("aabc,db->ad", {"a": 24, "b": 24, "c": 3, "d": 64}),
    ],
)
def test_the_product_over_all_letters_is_never_in_memory(impl, rng, spec, lengths):
    """Beside operands and result there may be copies of them, as float64 too; the product is far larger."""
    operands = operands_for(rng, spec, lengths, np.float32)
    result = math.prod(lengths[letter] for letter in spec.split("->")[1])
    allowed = 4 * 8 * (sum(x.size for x in operands) + result) + 20_000
    require_memory(impl, spec, operands, min(allowed, 900_000))


def contracted(lengths, exponents):
    """Follow a chain of matrices in the documented order: which powers of ten occur; None where two tie."""
    chain = [({i, i + 1}, each) for i, each in enumerate(exponents)]
    occurring = []
    while len(chain) > 1:
        pairs = [*itertools.combinations(range(len(chain)), 2)]
        costs = [math.prod(lengths[n] for n in chain[i][0] | chain[j][0]) for i, j in pairs]
        if costs.count(min(costs)) > 1:
            return None
        i, j = pairs[costs.index(min(costs))]
        (one, p), (other, q) = chain[i], chain[j]
        rest = [each for n, each in enumerate(chain) if n not in (i, j)]
        needed = {0, len(exponents)}.union(*(letters for letters, _ in rest))
        chain = [*rest, ((one | other) & needed, p + q)]
        occurring.append(p + q)
    return occurring


def test_the_pair_with_the_fewest_multiplications_comes_next(impl, rng):
    """Chains of matrices that are 1e200, 1 or 1e-200: what meets in another order overflows, or vanishes."""
    n_tried = 0
    while n_tried < 80:
        n = int(rng.integers(3, 6))
        lengths = rng.choice([1, 2, 3, 4, 5, 7, 9], size=n + 1).tolist()
        exponents = rng.choice([-200, 0, 200], size=n).tolist()
        occurring = contracted(lengths, exponents)
        if occurring is None or max(map(abs, occurring)) > 200 or not any(exponents):
            continue
        n_tried += 1
        order = rng.permutation(n)
        terms = [LETTERS[i : i + 2] for i in order]
        spec = f"{','.join(terms)}->{LETTERS[0]}{LETTERS[n]}"
        operands = [np.full((lengths[i], lengths[i + 1]), 10.0 ** exponents[i]) for i in order]
        with np.errstate(all="ignore"):
            got = impl.einsum(spec, *operands)
        expected = float(math.prod(lengths[1:-1])) * 10.0 ** occurring[-1]
        if not np.allclose(got / expected, 1, rtol=1e-9):
            shapes = ", ".join(str(x.shape) for x in operands)
            what = f"{expected:g} expected everywhere, {got.flat[0]:g} came: other pairs came first"
            values = ", ".join(f"{x.flat[0]:g}" for x in operands)
            raise MismatchError(what, [f"asked: einsum({spec!r}, ...) of shapes {shapes}, all of {values}"])


def require_memory(impl, spec, operands, allowed):
    impl.einsum(spec, *operands)
    peak = battery.peak_bytes(lambda: impl.einsum(spec, *operands))
    if peak > allowed:
        shapes = ", ".join(str(x.shape) for x in operands)
        what = f"at most {allowed} bytes may be in memory beside the operands; got {peak}"
        raise MismatchError(what, [f"asked: einsum({spec!r}, ...) of arrays of shapes {shapes}"])


def test_the_cheapest_pair_comes_next(impl, rng):
    """In every order of the operands: a pair that comes too early makes an array of 320,000 bytes."""
    lengths = {"a": 200, "b": 2, "c": 200}
    for terms, output in ((["ab", "bc", "c", "a"], ""), (["a", "c", "a", "c"], ""), (["ab", "bc", "c"], "a")):
        for order in itertools.permutations(terms):
            spec = f"{','.join(order)}->{output}"
            require_memory(impl, spec, operands_for(rng, spec, lengths), 60_000)


# einsum: what is refused -----------------------------------------------------------------------------------


def refuses_lengths(impl, spec, shapes, letter):
    operands = [np.ones(shape) for shape in shapes]
    error = battery.refuses(impl.einsum, spec, *operands)
    if not re.search(rf"['\"`‘“«]{letter}['\"`’”»]", str(error)):
        what = f"the message must name the letter in quotes, '{letter}'; it is {str(error)!r}"
        raise MismatchError(what, [f"asked: einsum({spec!r}, ...) of arrays of shapes {shapes}"])


@pytest.mark.parametrize(
    ("spec", "shapes", "letter"),
    [
        ("ab,bc->ac", [(2, 3), (4, 5)], "b"),
        ("ab,bc->ac", [(2, 3), (1, 5)], "b"),  # NumPy would broadcast: here it is a mistake
        ("ab,bc->ac", [(2, 1), (3, 5)], "b"),
        ("ab,bc", [(2, 1), (3, 5)], "b"),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (5, 2)], "k"),
        ("aa->a", [(3, 4)], "a"),
        ("xx->x", [(1, 3)], "x"),
        ("xx->", [(3, 1)], "x"),
        ("xyx->y", [(3, 2, 4)], "x"),
        ("xxx->x", [(3, 3, 4)], "x"),
        ("xxy,x->y", [(3, 3, 2), (1,)], "x"),
        ("ab,cb->abc", [(2, 3), (2, 2)], "b"),
        ("q,q->", [(0,), (1,)], "q"),
        ("q,q->q", [(0,), (5,)], "q"),
        ("q,q->", [(1,), (0,)], "q"),
        ("ab,cd,dA,Ab->c", [(2, 3), (4, 5), (5, 6), (7, 3)], "A"),
        ("ab,ab->ab", [(17, 2), (34, 2)], "a"),
        ("ab,ab->", [(2, 6), (2, 3)], "b"),
    ],
)
def test_axes_of_one_letter_must_be_equally_long(impl, spec, shapes, letter):
    refuses_lengths(impl, spec, shapes, letter)


def test_any_two_lengths_are_compared(impl):
    """However long, however far apart the operands stand, whatever the letter."""
    for n in aim.sizes(1, 2, 3, 7, 34, 130, 1000, at_most=20_000):
        for m in (1, n + 1, 2 * n, 0, n + 128, n + 256):
            if m != n:
                refuses_lengths(impl, "a,a->a", [(n,), (m,)], "a")
                refuses_lengths(impl, "ab,bc->ac", [(2, m), (n, 2)], "b")
    for n in aim.sizes(3, 4, 9, 33, at_most=40):
        refuses_lengths(impl, f"{','.join(['a'] * n)}->", [*[(3,)] * (n - 1), (4,)], "a")
        refuses_lengths(impl, f"{','.join(['a'] * n)}->a", [(1,), *[(3,)] * (n - 1)], "a")
    for letter in LETTERS:
        refuses_lengths(impl, f"{letter},{letter}->{letter}", [(2,), (3,)], letter)


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("ab", [(2, 3), (2, 3)]),  # too few terms
        ("ab->ab", [(2, 3), ()]),
        ("a,b->ab", [(2,), (3,), (3,)]),
        ("ab,bc->ac", [(2, 3)]),  # too few operands
        ("ab,->ab", [(2, 3)]),
        ("a,b,c->abc", [(2,), (3,)]),
        ("->", []),
        ("", []),
        ("ab->ab", [(2, 3, 4)]),  # too few letters
        ("->", [(1,)]),
        ("", [(2,)]),
        ("a,b->ab", [(2,), (3, 1)]),
        ("abc->ab", [(2, 3)]),  # too many
        ("ab,b->a", [(2, 3), ()]),
        ("a,b,cd->a", [(2,), (3,), (4,)]),
        ("ab->aab", [(2, 3)]),  # a repetition in the result
        ("ab->abb", [(2, 3)]),
        ("aa->aa", [(2, 2)]),
        ("a,b->aa", [(1,), (1,)]),
        ("ab->abc", [(2, 3)]),  # an unknown letter in the result
        ("ab->A", [(2, 3)]),
        ("->a", [()]),
        ("a,b->c", [(2,), (2,)]),
        ("a->b", [(1,)]),
        ("ab->a->b", [(2, 3)]),  # malformed
        ("ab->->a", [(2, 3)]),
        ("ab>a", [(2, 3)]),
        ("ab-a", [(2, 3)]),
        ("ab->a-", [(2, 3)]),
        ("ab=a", [(2, 3)]),
        ("a1->a", [(2, 3)]),
        ("12->1", [(2, 3)]),
        ("a²->a", [(2, 3)]),
        ("a.->a", [(2, 3)]),
        ("a...->a", [(2, 3)]),
        ("...->...", [(2, 3)]),
        ("a,b->a,b", [(2,), (3,)]),
        ("a_->a", [(2, 3)]),
        ("αb->b", [(2, 3)]),
        ("ßb->ß", [(2, 3)]),
        ("ａb->b", [(2, 3)]),  # a wide letter
        ("ab->b\0", [(2, 3)]),
        ("\ufeffab->b", [(2, 3)]),
        ("a;b->ab", [(2,), (3,)]),
        ("(ab)->a", [(2, 3)]),
        ("[a]->a", [(2,)]),
        ("a*b->ab", [(2,), (3,)]),
        ("...ab->ab", [(2, 3)]),  # an ellipsis, with as many letters as there are axes
        ("...ab,...bc->...ac", [(2, 3), (3, 4)]),
        ("ab...->...ab", [(2, 3)]),
        ("a\tb->b", [(2, 3)]),  # other white space than spaces
        ("ab,\tbc->ac", [(2, 3), (3, 4)]),
        ("ab->b\n", [(2, 3)]),
        ("\nab->b", [(2, 3)]),
        ("ab\n", [(2, 3)]),
        ("ab->\xa0b", [(2, 3)]),
    ],
)
def test_malformed_specs(impl, spec, shapes):
    battery.refuses(impl.einsum, spec, *(np.ones(shape) for shape in shapes))


# rearrange -------------------------------------------------------------------------------------------------


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


def split_moved_and_merged(x, before, after, lengths):
    """The same for large arrays."""
    names = [name for group in before for name in group]
    parts = x.reshape([lengths[name] for name in names])
    moved = parts.transpose([names.index(name) for group in after for name in group])
    return moved.reshape([math.prod(lengths[name] for name in group) for group in after])


def text(groups):
    return " ".join(group[0] if len(group) == 1 else f"({' '.join(group)})" for group in groups)


def groups_of(side):
    """``[["t"], ["h", "d"]]`` for ``"t h,d"``."""
    return [[*filter(None, group.split(","))] for group in side.split()]


def sweep_patterns(impl, cases, dtype: object = "input"):
    """Of tuples (array, sides, lengths, names whose length is not given)."""

    def ours(x, before, after, lengths, left_out):
        given = {name: length for name, length in lengths.items() if name not in left_out}
        return impl.rearrange(x, f"{text(before)} -> {text(after)}", **given)

    def definition(x, before, after, lengths, left_out):
        slow = slow_rearrange if x.size < 300 else split_moved_and_merged
        return slow(x, before, after, lengths)

    found = [
        Case(f"{text(before)} -> {text(after)}, {lengths}", (x, before, after, lengths, left_out))
        for x, before, after, lengths, left_out in cases
    ]
    battery.sweep(ours, definition, found, ulps=0, dtype=dtype, is_new=False)


def array_for(before, lengths, dtype=np.float64):
    """Entries that are all different, as far as the dtype can tell them apart, and beyond 1e4."""
    shape = [math.prod(lengths[name] for name in group) for group in before]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers.astype(dtype) if np.dtype(dtype).kind in "biufc" else numbers.astype(str).astype(dtype)


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


def test_every_size_of_every_name(impl):
    cases = []
    for sides, lengths in [
        ("b t h,d -> b h t d", {"b": 2, "t": 3, "h": 4, "d": 2}),
        ("b h t d -> b t h,d", {"b": 2, "t": 3, "h": 4, "d": 2}),
        ("a,b c -> c,a b", {"a": 3, "b": 2, "c": 4}),
        ("a b -> b a", {"a": 3, "b": 2}),
        ("a,b,c -> b c,a", {"a": 3, "b": 2, "c": 4}),
    ]:
        before, after = map(groups_of, sides.split("->"))
        names = [name for group in before for name in group]
        for name, size in itertools.product(names, aim.sizes(0, 1, 2, 7, 33, 130, 300, at_most=20_000)):
            others = lengths if size < 100 else {other: min(n, 2) for other, n in lengths.items()}
            used = others | {name: size}
            left_out = {name, *(group[-1] for group in before if name not in group)}
            cases.append((array_for(before, used), before, after, used, left_out))
            if size:  # All lengths of one group are given, or its first is not.
                left_out = {group[0] for group in before if name not in group}
                cases.append((array_for(before, used) * 1e5, before, after, used, left_out))
    sweep_patterns(impl, sorted(cases, key=lambda case: case[0].size))


def test_every_dtype_and_layout(impl):
    before, after, lengths = [["a"], ["b", "c"]], [["c"], ["b", "a"]], {"a": 4, "b": 2, "c": 3}
    x = array_for(before, lengths)
    sweep_patterns(impl, [(lay(x), before, after, lengths, {"b"}) for lay in battery.LAYOUTS.values()])
    for dtype in (*battery.FLOATS, *battery.INTEGERS, np.complex64, ">f4", "U3", "S2", object):
        x = array_for(before, lengths, dtype)
        sweep_patterns(impl, [(x, before, after, lengths, {"c"})], dtype=np.dtype(dtype))


def test_random_patterns(impl, rng):
    """Six names, in random groups on either side; of each group one length is left out."""
    lengths = {"b": 2, "head": 3, "t_0": 4, "D": 1, "same": 3, "x1": 2}

    def random_groups():
        names = [str(name) for name in rng.permutation([*lengths])]
        cuts = sorted({0, 6, *rng.integers(1, 6, size=3).tolist()})
        return [names[i:j] for i, j in itertools.pairwise(cuts)]

    cases = []
    for _ in range(40):
        before, after = random_groups(), random_groups()
        left_out = {str(rng.choice(group)) for group in before}
        cases.append((array_for(before, lengths), before, after, lengths, left_out))
    sweep_patterns(impl, cases)


@pytest.mark.parametrize(
    "names",
    [
        ["a", "ab", "abc", "b"],
        ["h", "H", "h1", "h_"],
        ["_", "__", "x", "pattern"],
        ["lengths", "self", "shape", "operands"],
        ["in", "None", "größe", "λ"],
        ["n" * 300, "n" * 299, "n", "m" * 5000],
    ],
)
def test_any_names(impl, names):
    p, q, r, s = names
    lengths = {p: 3, q: 2, r: 4, s: 5}
    before, after = [[p], [q, r], [s]], [[s, p], [r], [q]]
    x = array_for(before, lengths)
    sweep_patterns(impl, [(x, before, after, lengths, {p, s, one}) for one in (q, r)])
    sweep_patterns(impl, [(x, before, [[r, p, q, s]], lengths, {q})])


def test_many_names(impl, rng):
    """In one axis, or in an axis for each; NumPy has at most 64."""
    cases = []
    for n in aim.sizes(7, 9, 17, 27, 33, 60, at_most=60):
        names = [f"n{i}" for i in range(n)]
        lengths = {name: 2 if i % (n // 4) == 0 else 1 for i, name in enumerate(names)}
        mixed = [str(name) for name in rng.permutation(names)]
        each, one, halves = [[name] for name in mixed], [names], [mixed[: n // 2], mixed[n // 2 :]]
        for before, after in [(one, each), (each, one), (halves, one), (one, halves), (each[::-1], halves)]:
            x, left_out = array_for(before, lengths), {group[-1] for group in before}
            cases.append((x, before, after, lengths, left_out))
    sweep_patterns(impl, cases)


def test_patterns_may_be_spaced_freely(impl):
    x = np.arange(12).reshape(2, 6)
    expected = impl.rearrange(x, "a (b c) -> (a b) c", b=3)
    for pattern in ("a(b c)->(a b)c", "  a ( b  c ) ->  ( a b )  c ", f"a (b c) ->{' ' * 300}(a b) c"):
        assert np.array_equal(impl.rearrange(x, pattern, b=3), expected), pattern
    assert impl.rearrange(x, "(a) (b) -> (b) a").tolist() == x.T.tolist()
    assert impl.rearrange(x.reshape(3, 4), "(a b)(c d)->(a c)(b d)", b=1, d=1).shape == (12, 1)


def test_axes_of_length_1_come_and_go(impl):
    x = np.arange(6).reshape(2, 3)
    assert impl.rearrange(x, "a b -> a () b").shape == (2, 1, 3)
    assert impl.rearrange(x, "a b -> () b a ()").shape == (1, 3, 2, 1)
    assert impl.rearrange(x, "a b -> ( ) ()() (a b)").shape == (1, 1, 1, 6)
    assert impl.rearrange(x.reshape(1, 2, 3), "() a b -> b a").tolist() == [[0, 3], [1, 4], [2, 5]]
    assert impl.rearrange(x.reshape(1, 2, 1, 3), "() a () b -> b () a").shape == (3, 1, 2)
    assert impl.rearrange(np.array(7), " -> ()").tolist() == [7]
    assert impl.rearrange(np.array([7]), "() -> ") == 7
    assert impl.rearrange(np.array(7), "->").shape == ()


def test_rearranging_nothing(impl):
    assert impl.rearrange(np.ones((0, 4)), "a (b c) -> (a b) c", b=2).shape == (0, 2)
    assert impl.rearrange(np.ones((3, 0)), "a (b c) -> b (c a)", b=2).shape == (2, 0)


def test_calls_do_not_remember_lengths(impl):
    x = np.arange(12)
    assert impl.rearrange(x, "(a b) -> a b", a=3).shape == (3, 4)
    assert impl.rearrange(x, "(a b) -> a b", a=2).shape == (2, 6)
    assert impl.rearrange(x, "(a b) -> a b", b=2).shape == (6, 2)
    assert impl.rearrange(x[:6], "(a b) -> a b", b=2).shape == (3, 2)
    battery.refuses(impl.rearrange, x, "(a b) -> a b")
    given = {"a": 4}
    impl.rearrange(x, "(a b) -> a b", **given)
    assert given == {"a": 4}


class Shaped:
    """Not an array: it has a shape and the two methods, as the tensors of a later technology do."""

    def __init__(self, shape, data=None):
        self.shape, self._data = shape, data

    def reshape(self, shape):
        assert isinstance(shape, tuple), f"reshape takes one tuple; got {shape!r}"
        assert math.prod(shape) == math.prod(self.shape), f"{self.shape} does not reshape to {shape}"
        return Shaped(shape, None if self._data is None else self._data.reshape(shape))

    def transpose(self, order):
        assert isinstance(order, tuple), f"transpose takes one tuple; got {order!r}"
        assert sorted(order) == [*range(len(self.shape))], f"{order} is no order of {len(self.shape)} axes"
        data = None if self._data is None else self._data.transpose(order)
        return Shaped(tuple(self.shape[axis] for axis in order), data)


def test_rearranging_asks_for_no_more_than_shape_reshape_and_transpose(impl, rng):
    x = rng.normal(size=(2, 3, 8))
    for pattern in ("b t (h d) -> b h t d", "b t (h d) -> (t b) (d h)"):
        got = impl.rearrange(Shaped(x.shape, x), pattern, h=4)
        assert isinstance(got, Shaped), pattern
        assert np.array_equal(got._data, impl.rearrange(x, pattern, h=4)), pattern
    # Beyond what float64 counts: 3**36 is 150,094,635,296,999,121.
    got = impl.rearrange(Shaped((3**36, 5)), "(a b c) d -> (d b) (c a)", a=27, c=3**20)
    assert got.shape == (5 * 3**13, 3**23)


@pytest.mark.parametrize(
    ("pattern", "shape", "lengths"),
    [
        ("a b -> a", (2, 3), {}),  # a name is lost
        ("a b -> a", (2, 1), {}),
        ("a b c -> a c", (2, 1, 3), {}),
        ("a b -> ", (1, 1), {}),
        ("a -> a b", (2,), {}),  # a name appears
        ("a -> a b", (2,), {"b": 1}),
        ("-> a", (), {"a": 1}),
        ("a b -> a c", (2, 3), {}),
        ("a b -> a c", (2, 3), {"c": 3}),
        ("a a -> a", (2, 2), {}),  # a name repeats
        ("a a -> a a", (2, 2), {}),
        ("(a a) -> a", (4,), {"a": 2}),
        ("(a a) -> a a", (4,), {"a": 2}),
        ("a b -> a b b", (2, 2), {}),
        ("a b -> a b a", (1, 2), {}),
        ("a b -> (a b) b", (1, 1), {}),
        ("a b -> b a", (2, 3, 4), {}),  # too few axes
        ("a b -> b a", (2, 3, 1), {}),
        ("-> ()", (1,), {}),
        ("a b c -> c b a", (2, 3), {}),  # too many
        ("a () -> a", (2,), {}),
        ("a b -> b a", (), {}),
        ("(a b) -> a b", (6,), {}),  # not determined
        ("(a b) -> a b", (1,), {}),
        ("(a b) -> a b", (0,), {}),
        ("(a b c) -> a b c", (12,), {"a": 2}),
        ("(a b c) -> a b c", (12,), {"a": 12}),
        ("c (a b) -> a b c", (2, 6), {"c": 2}),
        ("(a b) -> a b", (6,), {"a": 4}),  # does not divide
        ("(a b) -> a b", (6,), {"a": 12}),
        ("(a b) -> a b", (1,), {"a": 2}),
        ("c (a b) -> a b c", (6, 7), {"a": 2}),
        ("(a b) -> a b", (6,), {"a": 2, "b": 2}),  # does not multiply to 6
        ("(a b) -> a b", (6,), {"a": 3, "b": 4}),
        ("(a b) -> a b", (6,), {"a": 6, "b": 6}),
        ("(a b) -> a b", (0,), {"a": 3, "b": 4}),
        ("(a b) (c d) -> a b c d", (6, 4), {"a": 2, "b": 2, "c": 3}),
        ("(a b) (c d) -> a b c d", (6, 4), {"a": 4, "c": 6, "b": 1, "d": 1}),  # the product of all would fit
        ("a b -> b a", (2, 3), {"a": 3}),
        ("a b -> b a", (2, 3), {"a": 3, "b": 2}),
        ("a b -> b a", (4, 3), {"a": 2}),
        ("a b -> b a", (4, 3), {"b": 1}),
        ("a b -> b a", (1, 3), {"a": 2}),
        ("(a b) -> a b", (6,), {"a": 0}),  # below 1
        ("(a b) -> a b", (6,), {"a": -2}),
        ("(a b) -> a b", (6,), {"a": -2, "b": -3}),
        ("(a b) -> a b", (0,), {"a": 0}),
        ("(a b) -> a b", (0,), {"a": 0, "b": 3}),
        ("a b -> b a", (0, 3), {"a": 0}),
        ("(a b) -> a b", (0,), {"a": -1}),
        ("a b -> b a", (2, 3), {"c": 2}),  # unknown
        ("a b -> b a", (2, 3), {"c": 1}),
        ("(a b) -> a b", (6,), {"a": 2, "h": 3}),
        ("-> ()", (), {"a": 1}),
        ("() a -> a", (2, 3), {}),  # not of length 1
        ("a () -> a", (2, 0), {}),
        ("a b", (2, 3), {}),  # malformed
        ("", (), {}),
        ("a b -> b a -> a b", (2, 3), {}),
        ("a b -> -> b a", (2, 3), {}),
        ("a b > b a", (2, 3), {}),
        ("a b = b a", (2, 3), {}),
        ("a (b -> b a", (2, 3), {}),
        ("a b) -> b a", (2, 3), {}),
        ("a b -> (b a", (2, 3), {}),
        ("a b -> b a)", (2, 3), {}),
        ("a )b( -> b a", (2, 3), {}),
        ("((a) b) -> a b", (6,), {"a": 2}),
        ("((a b)) -> a b", (6,), {"a": 2}),
        ("a b -> (a (b))", (2, 3), {}),
        ("a,b -> b a", (2, 3), {}),
        ("a 3 -> 3 a", (2, 3), {}),
        ("a 1 -> a", (2, 1), {}),
        ("a b -> a 1 b", (2, 3), {}),
        ("a ... -> ... a", (2, 3), {}),
        ("a [b] -> b a", (2, 3), {}),
        ("a b-c -> b-c a", (2, 3), {}),
        ("a 2b -> 2b a", (2, 3), {}),
        ("a b* -> b* a", (2, 3), {}),
        ("a b\0 -> b\0 a", (2, 3), {}),
    ],
)
def test_malformed_patterns(impl, pattern, shape, lengths):
    battery.refuses(impl.rearrange, np.ones(shape), pattern, **lengths)


def test_lengths_of_any_size_are_compared(impl):
    for n in aim.sizes(2, 3, 7, 34, 130, 1000, at_most=20_000):
        battery.refuses(impl.rearrange, np.ones((n, 2)), "a b -> b a", a=n + 1)
        battery.refuses(impl.rearrange, np.ones(2 * n), "(a b) -> b a", a=n, b=3)
        battery.refuses(impl.rearrange, np.ones(2 * n + 1), "(a b) -> b a", b=2)
        battery.refuses(impl.rearrange, np.ones((3, n)), "b (a) -> b a", a=2 * n)
        battery.refuses(impl.rearrange, np.ones(n), "(a b c) -> b a c", a=1)
