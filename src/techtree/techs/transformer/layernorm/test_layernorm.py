"""Oracles: values by hand, and the formula with `math.fsum`, row by row and entry by entry."""

import math

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad

FLOATS = (np.float64, np.float32, np.float16)


def made(impl, weight, bias=None, **options):
    """Return a norm with given parameters."""
    weight = np.asarray(weight)
    norm = impl.LayerNorm(len(weight), has_bias=bias is not None, dtype=weight.dtype.type, **options)
    state = {"weight": weight} | ({} if bias is None else {"bias": np.asarray(bias)})
    norm.load_state_dict(state)
    return norm


def test_by_hand(impl):
    """The mean is 4, the variance 9, and the root of 9 + 7 is 4: the row becomes [-3/4, 3/4].

    Backwards h = [4, 0], of mean 2 and of mean -3/2 with the row; a quarter of h - 2 + 3/2 [-3/4, 3/4].
    """
    norm = made(impl, [4.0, 8.0], [0.0, 1.0], eps=7.0)
    x = Tensor([1.0, 7.0], requires_grad=True)
    y = norm(x)
    assert y.data.tolist() == [-3.0, 7.0]
    y.backward(np.array([1.0, 0.0]))
    assert x.grad.tolist() == [0.21875, -0.21875]
    assert norm.weight.grad.tolist() == [-0.75, 0.0]
    assert norm.bias.grad.tolist() == [1.0, 0.0]


def test_rows_by_hand(impl):
    """Two rows: each has its own mean and variance; weight and bias get the sum over both."""
    norm = made(impl, [1.0, 1.0], [10.0, 20.0], eps=7.0)
    y = norm(Tensor([[1.0, 7.0], [-100.0, -106.0]]))
    assert y.data.tolist() == [[9.25, 20.75], [10.75, 19.25]]
    y.backward(np.array([[1.0, 2.0], [3.0, 5.0]]))
    assert norm.weight.grad.tolist() == [-0.75 + 2.25, 1.5 - 3.75]
    assert norm.bias.grad.tolist() == [4.0, 7.0]


def test_without_bias(impl):
    norm = made(impl, [4.0, 8.0], eps=7.0)
    assert norm.bias is None
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    assert norm(Tensor([1.0, 7.0])).data.tolist() == [-3.0, 6.0]


def test_what_a_norm_holds(impl):
    norm = impl.LayerNorm(3)
    assert isinstance(norm, Module)
    assert [(name, each.shape) for name, each in norm.named_parameters()] == [
        ("weight", (3,)),
        ("bias", (3,)),
    ]
    for each, start in ((norm.weight, 1), (norm.bias, 0)):
        assert isinstance(each, Parameter)
        assert each.requires_grad
        assert each.dtype == np.float64
        assert (each.data == start).all()
        assert each.data.flags.writeable
    for dtype in (np.float16, np.float32):
        norm = impl.LayerNorm(3, dtype=dtype)
        assert (norm.weight.dtype, norm.bias.dtype) == (dtype, dtype)
    with no_grad():
        assert impl.LayerNorm(3).weight.requires_grad
        assert impl.LayerNorm(3).bias.requires_grad


@pytest.mark.parametrize("of_weight", FLOATS)
@pytest.mark.parametrize("of_x", FLOATS)
def test_the_result_has_the_dtype_of_x(impl, of_x, of_weight):
    norm = impl.LayerNorm(4, dtype=of_weight)
    x = Tensor(np.arange(8, dtype=of_x).reshape(2, 4), requires_grad=True)
    y = norm(x)
    assert y.dtype == of_x
    y.backward(np.ones((2, 4)))
    assert x.grad.dtype == of_x
    assert norm.weight.grad.dtype == of_weight
    assert norm.bias.grad.tolist() == [2.0] * 4


def test_eps(impl):
    """The default is 1e-5, under the root: distances of 3 and an eps of 7 give 3/4, not 3 / (3 + 7)."""
    for size in (3.0, 1e-1, 1e-2, 3e-3, 1e-3, 1e-4, 1e-7):
        x = Tensor([-size, size])
        for eps in (1e-5, 1e-6, 1e-12, 1e-16, 1e-30, 1e-100, 1e-3, 0.5, 1.0, 3.0, 1e6):
            expected = size / math.sqrt(size * size + eps)
            options = {} if eps == 1e-5 else {"eps": eps}
            got = impl.LayerNorm(2, **options)(x).data
            told = f"the row [-{size}, {size}] with eps {eps}"
            battery.check_equal(got, [-expected, expected], ulps=16, label=told)


def test_what_is_refused(impl):
    for width in (0, -1, -7):
        battery.refuses(impl.LayerNorm, width)
    for eps in (0, 0.0, -0.0, -1e-300, -1e-5, -1.0, -7, -math.inf, math.nan):
        battery.refuses(impl.LayerNorm, 3, eps=eps)
        battery.refuses(impl.LayerNorm, 3, eps, False)
        battery.refuses(impl.LayerNorm, 1, eps=eps, dtype=np.float32)
    for width in (1, 3, 4):
        for has_bias in (True, False):
            norm = impl.LayerNorm(width, has_bias=has_bias)
            for shape in [
                (),
                (0,),
                (1,),
                (2,),
                (3,),
                (4,),
                (4, 2),
                (3, 1),
                (1, 2),
                (4, 5),
                (5, 0),
                (0, 2),
                (3, 4, 6),
            ]:
                if shape[-1:] != (width,):
                    battery.refuses(norm, Tensor(np.ones(shape)))


def test_norms_share_nothing(impl):
    first, second = impl.LayerNorm(3), impl.LayerNorm(3)
    first.weight.data += 1
    first.bias.data += 1
    assert (second.weight.data == 1).all()
    assert (second.bias.data == 0).all()
    assert (impl.LayerNorm(3).weight.data == 1).all()
    assert (impl.LayerNorm(3).bias.data == 0).all()


def test_parameters_may_be_changed_and_exchanged(impl):
    norm, other = made(impl, [4.0, 8.0], [0.0, 1.0], eps=7.0), made(impl, [1.0, 1.0], [5.0, 5.0])
    x = Tensor([1.0, 7.0])
    norm(x)
    norm.weight.data *= 2
    norm.bias.data += 1
    assert norm(x).data.tolist() == [-5.0, 14.0]
    norm.weight.data = np.array([4.0, 4.0])
    assert norm(x).data.tolist() == [-2.0, 5.0]
    norm.weight, norm.bias = other.weight, other.bias
    y = norm(x)
    assert y.data.tolist() == [4.25, 5.75]
    y.backward(np.array([1.0, 1.0]))
    assert other.weight.grad.tolist() == [-0.75, 0.75]
    assert other.bias.grad.tolist() == [1.0, 1.0]


def test_gradients_flow_where_they_are_wanted(impl):
    norm = made(impl, [4.0, 8.0], [0.0, 1.0], eps=7.0)
    x = Tensor([1.0, 7.0], requires_grad=True)
    assert norm(Tensor([1.0, 7.0])).requires_grad
    with no_grad():
        assert not norm(x).requires_grad
    first, second = norm(x), norm(x)
    (first + second).backward(np.array([1.0, 0.0]))
    assert x.grad.tolist() == [0.4375, -0.4375]
    assert norm.weight.grad.tolist() == [-1.5, 0.0]
    assert norm.bias.grad.tolist() == [2.0, 0.0]
    first.backward(np.array([1.0, 0.0]))
    assert x.grad.tolist() == [0.65625, -0.65625]
    norm.weight.requires_grad = norm.bias.requires_grad = False
    assert not norm(Tensor([1.0, 7.0])).requires_grad
    assert norm(x).requires_grad


def test_the_backward_pass_belongs_to_its_own_call(impl):
    """Two calls with different rows; the earlier one is asked last."""
    norm = made(impl, [1.0, 1.0], [0.0, 0.0], eps=7.0)
    one, two = Tensor([1.0, 7.0], requires_grad=True), Tensor([[0.0, 0.0]], requires_grad=True)
    first, second = norm(one), norm(two)
    second.backward(np.array([[1.0, 0.0]]))
    first.backward(np.array([4.0, 0.0]))
    assert one.grad.tolist() == [0.21875, -0.21875]
    battery.check_equal(two.grad, [[0.5 / math.sqrt(7), -0.5 / math.sqrt(7)]], ulps=8)


def _row(values, eps):
    """Return the normalized row and 1 / sqrt(variance + eps)."""
    n = len(values)
    mean = math.fsum(values) / n
    away = [value - mean for value in values]
    inverse = 1 / math.sqrt(math.fsum([each * each for each in away]) / n + eps)
    return [each * inverse for each in away], inverse


def normalized(x, eps):
    rows = [_row(row, eps) for row in x.reshape(-1, x.shape[-1]).tolist()]
    y = np.array([row for row, _ in rows]).reshape(x.shape)
    return y, np.array([inverse for _, inverse in rows]).reshape(*x.shape[:-1], 1)


def slow(x, weight, bias=None, eps=1e-5):
    y = normalized(x, eps)[0] * weight
    return y if bias is None else y + bias


def slow_gradients(g, x, weight, bias=None, eps=1e-5):
    """Row by row; each entry of a row moves all others: the full matrix of derivatives for short rows."""
    y, inverse = normalized(x, eps)
    n = x.shape[-1]
    flat_y, flat_g = y.reshape(-1, n), g.reshape(-1, n)
    of_x = np.zeros((len(flat_y), n))
    for r, (row, arriving) in enumerate(zip(flat_y, flat_g * weight, strict=True)):
        if n <= 40:
            derivatives = (np.eye(n) - 1 / n - np.outer(row, row) / n) * inverse.reshape(-1)[r]
            of_x[r] = derivatives @ arriving
        else:
            mean, along = math.fsum(arriving) / n, math.fsum(arriving * row) / n
            of_x[r] = (arriving - mean - row * along) * inverse.reshape(-1)[r]
    of_weight = np.array([math.fsum(column) for column in (flat_g * flat_y).T])
    of_bias = np.array([math.fsum(column) for column in flat_g.T])
    return [of_x.reshape(x.shape), of_weight] + ([] if bias is None else [of_bias])


def test_the_matrix_of_derivatives_is_right():
    """The oracle's own derivatives, against differences."""
    rng = np.random.default_rng(5)
    x, weight, bias, g = (
        rng.normal(size=(2, 5)),
        rng.normal(size=5),
        rng.normal(size=5),
        rng.normal(size=(2, 5)),
    )
    expected = battery.numerical_gradients(lambda *a: float((g * slow(*a)).sum()), x, weight, bias)
    for got, wanted in zip(slow_gradients(g, x, weight, bias), expected, strict=True):
        assert np.abs(got - wanted).max() < 1e-8


SIZES = {"n": (1, 2, 7, 33, 130, 1000)}
LEADING = [(1,), (0,), (2, 3), (3, 2), (2, 1, 3, 1), (2, 1, 2, 1, 1, 2), (140,)]
OPTIONS = ({}, {"eps": 1e-12}, {"eps": 0.3})


def sizes():
    """Besides the usual ones, more axes and more rows than the source has numbers."""
    more = [((2, 1) * n)[:n] for n in aim.whole(3, 16)] + [(n,) for n in aim.sizes(at_most=5000)]
    return {**SIZES, "...": [*LEADING, *more]}


def standing_out():
    """Rows of zeros with one 1, which becomes the root of the width, or nearly."""
    for n in (600, 3000, *(min(c * c + 2 * c, 20_000) for c in aim.whole(3, 150))):
        x = np.zeros((2, n))
        x[0, 0] = x[1, -1] = 1
        yield x


def special_values(rng):
    def offset(size):
        return lambda shape: size + rng.normal(size=shape)

    return {
        "around 1e4": offset(1e4),
        "around -300": offset(-300.0),
        "large": lambda shape: rng.normal(size=shape) * 1e4,
        "tiny": lambda shape: rng.normal(size=shape) * 1e-4,
        "equal": np.ones,
        "zeros of both signs": lambda shape: np.where(np.arange(math.prod(shape)) % 2, 0.0, -0.0).reshape(
            shape
        ),
        "one far out": lambda shape: np.concatenate([np.full(math.prod(shape) - 1, 0.5), [1e3]]).reshape(
            shape
        ),
    }


def found_cases(rng, spec):
    values = special_values(rng)
    found = battery.cases(
        rng,
        spec,
        sizes=sizes(),
        values=values,
        options=OPTIONS,
        dtypes=FLOATS[:2],
        at_most=5000,
        largest=1e12,
    )
    for x in standing_out():
        drawn = (rng.normal(size=x.shape[-1]) for _ in range(spec.count(",")))
        found.append(
            battery.Case(
                f"one entry of {x.shape[-1]} stands out",
                (x, *drawn),
                slack=max(1.0, (x.shape[-1] / 130) ** 0.5),
            )
        )
    for n in (1, 2, 40):
        found.append(battery.Case("zeros", (np.zeros((2, n)), *(rng.normal(size=(spec.count(","), n))))))
    for label, make in values.items():  # once more in float32
        shapes = [(3, 4)] + [(4,)] * (spec.count(",") or 0)
        drawn = [make(shapes[0]), *(rng.normal(size=shape) for shape in shapes[1:])]
        found.append(battery.Case(f"{label}, float32", tuple(each.astype(np.float32) for each in drawn)))
    return found


def offset_of(x, eps):
    """How many roundings of x one of y is, row by row."""
    inverse = normalized(x, eps)[1]
    return np.abs(x).max(axis=-1, keepdims=True, initial=0) * inverse


@pytest.mark.parametrize("spec", ["... n, n, n", "... n, n"])
def test_rows_everywhere(impl, rng, spec):
    def size(x, weight, bias=None, eps=1e-5):
        found = (2 + offset_of(x, eps)) * np.abs(weight)
        return found if bias is None else found + np.abs(bias)

    battery.sweep(
        lambda x, weight, bias=None, **options: made(impl, weight, bias, **options)(Tensor(x)),
        slow,
        found_cases(rng, spec),
        ulps=24,
        magnitude=size,
    )


@pytest.mark.parametrize("spec", ["... n, n, n", "... n, n"])
def test_gradients_everywhere(impl, rng, spec):
    def function(x, weight, bias=None, **options):
        norm = impl.LayerNorm(weight.shape[0], has_bias=bias is not None, dtype=weight.dtype.type, **options)
        norm.weight, norm.bias = weight, bias
        return norm(x)

    def size(x, weight, bias=None, eps=1e-5):
        y, inverse = normalized(x, eps)
        largest = np.abs(y).max(initial=0)
        steep = inverse.max(initial=0) * (1 + np.abs(weight).max(initial=0)) * (1 + largest) ** 2
        in_sums = (1 + largest) * math.sqrt(1 + x.size / x.shape[-1])
        return 4 * (steep + in_sums) * (1 + offset_of(x, eps).max(initial=0))

    found = found_cases(rng, spec)
    battery.sweep_gradients(
        function, slow_gradients, found, tensor=Parameter, rng=rng, ulps=24, magnitude=size
    )


HALF = {
    "ordinary": lambda rng, shape: rng.normal(size=shape),
    "around 1000": lambda rng, shape: 1000 + 4 * rng.normal(size=shape),
    "around -2000, all but equal": lambda rng, shape: -2000 + rng.integers(0, 2, size=shape) * 2,
    "squares overflow": lambda rng, shape: 3000 * rng.normal(size=shape),
    "sums overflow": lambda rng, shape: 40_000 + 5000 * rng.normal(size=shape),
    "squares vanish": lambda rng, shape: 1e-4 * rng.normal(size=shape),
    "the ends": lambda rng, shape: rng.choice([-65504.0, 65504.0], size=shape),
}


@pytest.mark.parametrize("name", HALF)
def test_float16_computes_in_float32(impl, rng, name):
    """Rounded once or twice at the end, and never in between, so that nothing of the row's size is lost."""
    for shape in [(1,), (7,), (2, 33), (3, 600), (2, 5000)]:
        x = HALF[name](rng, shape).astype(np.float16)
        weight, bias = (rng.normal(size=shape[-1]).astype(np.float16) for _ in range(2))
        norm, leaf = made(impl, weight, bias), Tensor(x, requires_grad=True)
        y = norm(leaf)
        wide = x.astype(float), weight.astype(float), bias.astype(float)
        clean = normalized(wide[0], 1e-5)[0]
        blur = offset_of(wide[0], 1e-5) / 8192  # float32's rounding of what the row has in common
        size = (np.abs(clean) + blur) * np.abs(wide[1]) + np.abs(wide[2])
        told = f"{name}, {shape}"
        battery.check_equal(y.data, slow(*wide), ulps=3, magnitude=size, dtype=np.float16, label=told)
        g = rng.normal(size=shape).astype(np.float16)
        y.backward(g)
        of_x, of_weight, of_bias = slow_gradients(g.astype(float), *wide)
        steep = normalized(wide[0], 1e-5)[1] * np.abs(g.astype(float) * wide[1]).max()
        size = steep * (1 + np.abs(clean)) * (0.01 + blur)  # float16 holds what float32 computed
        battery.check_equal(leaf.grad, of_x, ulps=4, magnitude=size, dtype=np.float16, label=told)
        size = (np.abs(g.astype(float)) * (np.abs(clean) + blur)).reshape(-1, shape[-1]).sum(axis=0)
        battery.check_equal(norm.weight.grad, of_weight, ulps=2, magnitude=size, dtype=np.float16, label=told)
        size = np.abs(g.astype(float)).reshape(-1, shape[-1]).sum(axis=0)
        battery.check_equal(norm.bias.grad, of_bias, ulps=2, magnitude=size, dtype=np.float16, label=told)


def test_many_rows_in_float16(impl):
    """Sums over rows go on beyond 2048, where adding 1 in float16 changes nothing."""
    norm = made(impl, np.ones(2, np.float16), np.zeros(2, np.float16), eps=7.0)
    x = np.tile(np.array([1.0, 7.0], np.float16), (6000, 1))
    norm(Tensor(x)).backward(np.ones((6000, 2), np.float16))
    battery.check_equal(norm.bias.grad, [6000.0, 6000.0], ulps=2, dtype=np.float16)
    battery.check_equal(norm.weight.grad, [-4500.0, 4500.0], ulps=2, dtype=np.float16)


@pytest.mark.parametrize(
    ("dtype", "sizes"), [(np.float64, (1e20, 1e150, 1e-150)), (np.float32, (1e8, 1e15, 1e-20))]
)
def test_entries_of_any_size(impl, rng, dtype, sizes):
    """Nothing overflows; where the variance is far below eps, a row is multiplied by 1 / sqrt(eps)."""
    for size in sizes:
        x = (rng.normal(size=(3, 8)) * size).astype(dtype)
        weight = rng.normal(size=8).astype(dtype)
        norm, leaf = made(impl, weight), Tensor(x, requires_grad=True)
        y = norm(leaf)
        g = rng.normal(size=(3, 8)).astype(dtype)
        y.backward(g)
        plain, wide = x.astype(float), weight.astype(float)
        battery.check_equal(y.data, slow(plain, wide), ulps=64, magnitude=min(size * 1e3, 4), dtype=dtype)
        of_x, of_weight = slow_gradients(g.astype(float), plain, wide)
        inverse = normalized(plain, 1e-5)[1]
        battery.check_equal(leaf.grad, of_x, ulps=64, magnitude=20 * inverse, dtype=dtype)
        battery.check_equal(norm.weight.grad, of_weight, ulps=64, magnitude=min(size * 1e3, 8), dtype=dtype)
        assert np.isfinite(leaf.grad).all()


def test_one_row_does_not_touch_another(impl, rng):
    """A row that is infinite or NaN spoils itself alone."""
    x = rng.normal(size=(4, 3, 6))
    expected = impl.LayerNorm(6)(Tensor(x)).data
    spoilt = x.copy()
    spoilt[1, 2] = np.nan
    spoilt[3, 0, 2] = np.inf
    with np.errstate(all="ignore"):
        got = impl.LayerNorm(6)(Tensor(spoilt)).data
    others = np.ones((4, 3), bool)
    others[1, 2] = others[3, 0] = False
    battery.check_equal(got[others], expected[others], ulps=8, magnitude=1)


def test_training_and_use_are_alike(impl, rng):
    norm, x = made(impl, rng.normal(size=5), rng.normal(size=5)), Tensor(rng.normal(size=(3, 5)))
    assert np.array_equal(norm.train()(x).data, norm.eval()(x).data)
    kept = norm.state_dict()
    for _ in range(20):
        norm(Tensor(rng.normal(size=(3, 5)) + 100))
    assert all(np.array_equal(kept[name], value) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.1])
@pytest.mark.parametrize("of_weight", FLOATS)
@pytest.mark.parametrize("of_x", FLOATS)
def test_dtypes_mix(impl, rng, of_x, of_weight, eps):
    """What is narrow is exact in what is wide: only the results are rounded."""
    x = rng.normal(size=(5, 33)).astype(of_x)
    x[1] /= 128
    weight, bias = (2 * rng.normal(size=33).astype(of_weight) for _ in range(2))
    norm, leaf = made(impl, weight, bias, eps=eps), Tensor(x, requires_grad=True)
    y = norm(leaf)
    wide = [each.astype(float) for each in (x, weight, bias)]
    clean, inverse = normalized(wide[0], eps)
    told = f"x {np.dtype(of_x).name}, parameters {np.dtype(of_weight).name}, eps {eps}"
    size = np.abs(clean * wide[1]) + np.abs(wide[2])
    expected = slow(*wide, eps=eps)
    battery.check_equal(y.data, expected, ulps=8, magnitude=size, dtype=of_x, label=told)
    # One rounding to the dtype of x, of the result alone, and a few of those in which it is computed.
    limits, inner = np.finfo(of_x), np.finfo(np.result_type(of_x, np.float32))
    allowed = limits.eps / 2 * np.abs(expected) + 32 * inner.eps * size + limits.smallest_subnormal
    assert (np.abs(y.data - expected) <= allowed).all(), told
    g = rng.normal(size=x.shape).astype(of_x)
    y.backward(g)
    of_leaf, *expected = slow_gradients(g.astype(float), *wide, eps=eps)
    size = 8 * inverse * (1 + np.abs(clean)) / (16 if of_x is np.float16 else 1)
    battery.check_equal(leaf.grad, of_leaf, ulps=8, magnitude=size, dtype=of_x, label=told)
    # Narrow parameters do not make their gradients less exact than one rounding; a narrow x does.
    coarse = max(np.finfo(of_weight).eps, np.finfo(np.result_type(of_x, np.float32)).eps)
    size = 8 * np.abs(g.astype(float) * np.maximum(np.abs(clean), 1)).sum(axis=0)
    for name, wanted in zip(("weight", "bias"), expected, strict=True):
        got = getattr(norm, name).grad
        assert got.dtype == of_weight
        assert (np.abs(got - wanted) <= coarse * (2 * np.abs(wanted) + size)).all(), f"{told}: {name}"


def test_large_gradients_and_weights_in_float16(impl, rng):
    """Their product is beyond float16, the gradient of x is not."""
    x, g = (
        (3000 * rng.normal(size=(3, 8))).astype(np.float16),
        (500 * rng.normal(size=(3, 8))).astype(np.float16),
    )
    weight = (500 + 100 * rng.normal(size=8)).astype(np.float16)
    norm, leaf = made(impl, weight), Tensor(x, requires_grad=True)
    norm(leaf).backward(g)
    of_x, of_weight = slow_gradients(g.astype(float), x.astype(float), weight.astype(float))
    battery.check_equal(leaf.grad, of_x, ulps=2, magnitude=1, dtype=np.float16)
    battery.check_equal(norm.weight.grad, of_weight, ulps=2, magnitude=1, dtype=np.float16)


def test_one_gradient_for_two_rows(impl, rng):
    """The same array arrives at both calls, and each has its own gradient."""
    x, g = rng.normal(size=(2, 3, 5)), rng.normal(size=(3, 5))
    weight = rng.normal(size=5)
    norm, leaves = made(impl, weight), [Tensor(each, requires_grad=True) for each in x]
    (norm(leaves[0]) + norm(leaves[1])).backward(g)
    found = [slow_gradients(g, each, weight) for each in x]
    for leaf, (of_x, _) in zip(leaves, found, strict=True):
        battery.check_equal(leaf.grad, of_x, ulps=64, magnitude=4)
    battery.check_equal(norm.weight.grad, found[0][1] + found[1][1], ulps=64, magnitude=4)


def test_what_a_wide_row_has_in_common(impl, rng):
    """The mean of 50,000 numbers around 1e4 is off by a few roundings of float32, not by one for each."""
    x = (1e4 + rng.normal(size=(2, 50_000))).astype(np.float32)
    got = impl.LayerNorm(50_000, dtype=np.float32)(Tensor(x)).data
    expected = slow(x.astype(float), np.ones(50_000))
    battery.check_equal(got, expected, ulps=8, magnitude=1e4, dtype=np.float32)


def test_one_norm_gives_new_arrays_and_reads_any_layout(impl, rng):
    """An earlier result stays as it was; x may be what turning axes made, a view of another array."""
    norm, x = impl.LayerNorm(4), rng.normal(size=(4, 4))
    first, turned = norm(Tensor(x)), norm(Tensor(x.T.copy()).swapaxes(0, 1))
    assert not np.may_share_memory(first.data, turned.data)
    kept = first.data.copy()
    norm(Tensor(x + 1))
    assert np.array_equal(first.data, kept), "a later call changed the result of an earlier one"
    battery.check_equal(turned.data, kept, ulps=4, label="x turned by swapaxes")
