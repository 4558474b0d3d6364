"""Oracles: real models, their products counted while they run, all shapes in turn, a search of curves."""

import dataclasses
import itertools
import math
from unittest import mock

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.elsewhere import elsewhere
from techtree.techs.transformer.gpt import GPT, GPTConfig


def shapes(config):
    """Return the shapes of all parameters: outside of the blocks and the last norm, and inside."""
    w, hidden = config.width, 4 * config.width if config.hidden is None else config.hidden
    layers = [(w, w)] * 4 + [(hidden, w), (w, hidden)]
    norm = [(w,)] * (1 + config.has_bias)
    block = [*layers, *norm, *norm, *([(rows,) for rows, _ in layers] if config.has_bias else [])]
    outside = [(config.n_tokens, w), (config.n_positions, w)]
    outside += [] if config.is_tied else [(config.n_tokens, w)]
    return outside, block * config.n_layers + norm


def n_entries(found):
    return sum(math.prod(shape) for shape in found)


def slow_count(config, has_embeddings=True):
    outside, inside = shapes(config)
    return n_entries(inside) + (n_entries(outside) if has_embeddings else 0)


def slow_flops(config, n_tokens=None, is_training=True, is_causal=False):
    """All products of one text, pair by pair, divided by its length."""
    n = config.n_positions if n_tokens is None else n_tokens
    _, inside = shapes(config)
    matrices = n_entries([shape for shape in inside if len(shape) == 2]) + config.n_tokens * config.width
    pairs = sum(range(1, n + 1)) if is_causal else n * n
    total = 2 * n * matrices + config.n_layers * pairs * (2 + 2) * config.width
    assert total % n == 0
    return total // n * (3 if is_training else 1)


def slow_memory(config, batch_size, n_tokens=None, n_states=2, bytes_per_number=4):
    n = config.n_positions if n_tokens is None else n_tokens
    held = slow_count(config) * bytes_per_number
    hidden = 4 * config.width if config.hidden is None else config.hidden
    results = 0
    for _ in range(config.n_layers):
        results += sum(
            n * width for width in [config.width] * 6 + [hidden]
        )  # q, k, v, mixed, output, down, up
        results += config.n_heads * n * n
    results += n * config.n_tokens
    return {
        "parameters": held,
        "gradients": held,
        "optimizer": held * n_states,
        "activations": results * batch_size * bytes_per_number,
    }


OPTIONS = [
    {},
    {"has_bias": False},
    {"is_tied": False},
    {"hidden": 3},
    {"hidden": 50, "has_bias": False, "is_tied": False},
    {"hidden": 7, "is_tied": False},
    {"has_bias": False, "is_tied": False},
    {"hidden": 1, "has_bias": False},
    {"eps": 1e-3},
]
SIZES = [
    *[
        (1, 1, 1, 1, 1),
        (2, 3, 4, 1, 2),
        (11, 9, 8, 3, 4),
        (5, 7, 6, 2, 6),
        (3, 20, 5, 4, 1),
        (97, 4, 12, 1, 3),
    ],
]
LARGE = [
    *[(50257, 1024, 768, 12, 12), (256, 4096, 4096, 1, 32), (1000, 128, 96, 130, 3), (7, 1, 1, 200, 1)],
    *[
        (100_000, 2048, 12288, 96, 96),
        (1, 65, 130, 65, 65),
        (3, 2, 2**20, 1000, 1),
        (5, 3, 3_000_001, 501, 1),
    ],
]


def configs():
    for sizes, options in [*itertools.product(SIZES, OPTIONS), *itertools.product(LARGE, OPTIONS[:5:2])]:
        yield GPTConfig(*sizes, **options)
    for n in aim.sizes(at_most=300_000):
        for sizes in ((n, 3, 4, 1, 2), (3, n, 4, 2, 1), (3, 5, n, 1, 1), (3, 5, 2, n, 2), (4, 4, n, 2, n)):
            yield GPTConfig(*sizes, hidden=None if n < 3000 else 3)
            yield GPTConfig(*sizes, hidden=n, has_bias=False, is_tied=False)


def lengths(config):
    found = {1, 3, config.n_positions, config.n_positions // 2}
    return [None, *(n for n in sorted(found) if 1 <= n <= config.n_positions and n <= 5000)]


def check_whole(got, expected, told):
    assert isinstance(got, int), f"an int is due; got {type(got).__name__}: {told}"
    assert got == expected, f"expected {expected:,}, got {got:,}: {told}"


def real(sizes, options):
    return GPT(GPTConfig(*sizes, **options), np.random.default_rng(0), np.float32)


def test_parameters_of_published_models(impl):
    """GPT-2 as `transformers` counts them: sum(p.numel() for p in GPT2LMHeadModel.parameters())."""
    for sizes, expected in [
        ((768, 12, 12), 124_439_808),
        ((1024, 24, 16), 354_823_168),
        ((1280, 36, 20), 774_030_080),
        ((1600, 48, 25), 1_557_611_200),
    ]:
        check_whole(impl.count_parameters(GPTConfig(50257, 1024, *sizes)), expected, sizes)


def test_parameters_of_real_models(impl):
    for sizes, options in itertools.product(SIZES, OPTIONS):
        model = real(sizes, options)
        named = {name: p.data.size for name, p in model.named_parameters()}
        check_whole(impl.count_parameters(model.config), sum(named.values()), model.config)
        inside = sum(size for name, size in named.items() if name.startswith(("blocks.", "norm.")))
        check_whole(impl.count_parameters(model.config, has_embeddings=False), inside, model.config)


def test_operations_by_hand(impl):
    """4 matrices of 4 x 4, two of 4 x 16, a head of 4 x 10; 5 keys, scores and averages of width 4."""
    config = GPTConfig(n_tokens=10, n_positions=5, width=4, n_layers=1, n_heads=1)
    forward = 2 * (64 + 128 + 40) + 2 * 5 * (4 + 4)
    check_whole(impl.flops_per_token(config, is_training=False), forward, config)
    check_whole(impl.flops_per_token(config), 3 * forward, config)
    check_whole(impl.flops_per_token(config, is_training=False, is_causal=True), forward - 2 * 2 * 8, config)
    check_whole(impl.flops_per_token(config, 1, False), 2 * 232 + 16, config)


def test_operations_and_memory_of_a_few_shapes(impl):
    for sizes, options in itertools.product(SIZES[1:4], OPTIONS):
        config = GPTConfig(*sizes, **options)
        for training, causal in itertools.product([True, False], [True, False]):
            expected = slow_flops(config, None, training, causal)
            check_whole(impl.flops_per_token(config, None, training, causal), expected, config)
        for arguments in ((1,), (3, 2), (2, 3, 0, 2), (1, None, 1, 8)):
            assert impl.memory(config, *arguments) == slow_memory(config, *arguments), (config, arguments)


def test_lengths_and_numbers_that_cannot_be(impl):
    for config in (GPTConfig(5, 7, 4, 1, 2), GPTConfig(5, 1, 4, 1, 2), GPTConfig(9, 1024, 4, 1, 2)):
        for n in (0, -1, config.n_positions + 1, 10 * config.n_positions, -config.n_positions):
            for options in ({}, {"is_training": False}, {"is_causal": True}):
                battery.refuses(impl.flops_per_token, config, n, **options)
            battery.refuses(impl.memory, config, 2, n)
        for wrong in (0, -1, -64):
            battery.refuses(impl.memory, config, wrong)
            battery.refuses(impl.memory, config, 2, bytes_per_number=wrong)
            battery.refuses(impl.memory, config, 2, n_states=wrong - 1)


def test_power_laws(impl):
    law = impl.PowerLaw(4.0, 0.5, 1.0)
    assert (law.coefficient, law.exponent, law.floor) == (4.0, 0.5, 1.0)
    assert law == impl.PowerLaw(coefficient=4.0, exponent=0.5, floor=1.0)
    assert law != impl.PowerLaw(4.0, 0.5, 2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        law.floor = 0.0
    assert float(law(16)) == 2.0
    assert float(law(0.25)) == 9.0
    for dtype in (np.int64, np.int8, np.uint8, np.float16, np.float32, np.float64):
        for shape in [(0,), (1,), (3,), (2, 3), ()]:
            x = np.resize(np.array([1, 4, 16], dtype), shape).astype(dtype)
            battery.check_equal(law(x), 1 + 4 / np.sqrt(x.astype(float)), 4, dtype=np.float64)
    x = np.array([1e-30, 1e-3, 1.0, 7.0, 1e5, 1e30])
    for a, b, c in [(0.0, 1.0, 2.5), (3.0, 0.07, 0.0), (1e20, 4.0, 1e-5), (2.0, 0.01, 0.1), (5.0, 2.0, 0.0)]:
        battery.check_equal(impl.PowerLaw(a, b, c)(x), c + a * np.exp(-b * np.log(x)), 600)
        assert math.isclose(float(impl.PowerLaw(a, b, c)(7.0)), c + a * 7**-b, rel_tol=1e-12)


def error_of(law, x, y):
    x, y = np.asarray(x, float), np.asarray(y, float)
    return float((((law.floor + law.coefficient * x**-law.exponent) / y - 1) ** 2).sum())


LAWS = [
    *[
        (4.0, 0.5, 1.0),
        (30.0, 0.33, 1.5),
        (2.0, 0.1, 0.5),
        (7.0, 0.05, 0.0),
        (1.0, 1.0, 3.0),
        (0.2, 2.0, 0.7),
    ],
    *[(5.0, 3.5, 0.01), (3.0, 0.7, 0.0), (10.0, 0.02, 0.0)],
]
RANGES = [np.geomspace(1, 1000, 7), np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 10.0, 300.0])]
RANGES += [np.array([0.01, 0.3, 0.1, 2.0, 30.0, 5.0, 0.3])]


def test_points_on_a_curve_give_the_curve(impl):
    for (a, b, c), x in itertools.product(LAWS, RANGES):
        y = c + a * x**-b
        law = impl.fit_power_law(x, y)
        told = f"x = {x}, law {(a, b, c)}, got {law}"
        assert isinstance(law, impl.PowerLaw)
        assert np.allclose(law(x), y, rtol=1e-6, atol=0), told
        far = np.array([x.min() / 3, x.max() * 3])
        assert np.allclose(law(far), c + a * far**-b, rtol=1e-3), told
        if x.max() / x.min() > 100 and 0.05 <= b <= 2:
            assert math.isclose(law.exponent, b, rel_tol=1e-3, abs_tol=1e-4), told
            assert math.isclose(law.coefficient, a, rel_tol=1e-2), told
            assert abs(law.floor - c) < 1e-3 * y.max(), told


def test_curves_of_any_units(impl):
    """Losses by operations: other units of x and y give the same curve in those units."""
    x = np.geomspace(1, 300, 5)
    for up, across in itertools.product((1e-30, 1e-9, 1.0, 1e6, 1e29), (1e-29, 1.0, 1e9, 1e15, 1e27)):
        y = up * (2 + 3 * x**-0.4)
        law = impl.fit_power_law(across * x, y)
        assert np.allclose(law(across * x), y, rtol=1e-6, atol=0), (up, across, law)
        assert math.isclose(law.exponent, 0.4, rel_tol=1e-3), (up, across, law)
        assert math.isclose(law.floor, 2 * up, rel_tol=1e-3), (up, across, law)
    whole = [10**18, 10**20, 10**25, 10**30]  # beyond all integers of NumPy
    law = impl.fit_power_law(whole, [2 + 1e6 * float(each) ** -0.3 for each in whole])
    assert math.isclose(law.exponent, 0.3, rel_tol=1e-3), law
    law = impl.fit_power_law([1.0, 2.0, 4.0], [10**30 + 10**30 // each for each in (1, 2, 4)])
    assert math.isclose(law.exponent, 1.0, rel_tol=1e-3), law
    assert math.isclose(law.floor, 1e30, rel_tol=1e-3), law


def test_many_points(impl, rng):
    for n in aim.sizes(200, at_most=3000):
        if n >= 3:
            x = np.geomspace(1, 1e5, n)
            y = (2 + 3 * x**-0.4) * np.exp(0.01 * rng.normal(size=n))
            law = impl.fit_power_law(x, y)
            assert error_of(law, x, y) <= better(x, y) * (1 + 1e-6), (n, law)


def better(x, y):
    """The smallest error on a dense grid of exponents; for each, the best of both, or of one alone."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    u = (x / np.exp(np.log(x).mean())) ** -np.geomspace(0.01, 4, 3000)[:, None] / y
    one = 1 / y
    least = float(((u * (u.sum(-1) / (u * u).sum(-1))[:, None] - 1) ** 2).sum(-1).min())
    least = min(least, float(((one * one.sum() / (one @ one) - 1) ** 2).sum()))
    uu, oo, uo = (u * u).sum(-1), one @ one, u @ one
    det = uu * oo - uo * uo
    a, c = (u.sum(-1) * oo - one.sum() * uo) / det, (one.sum() * uu - u.sum(-1) * uo) / det
    errors = ((a[:, None] * u + c[:, None] * one - 1) ** 2).sum(-1)
    return min(least, float(errors[(a >= 0) & (c >= 0)].min(initial=math.inf)))


def scattered(rng):
    """Points that lie on no curve of the family."""
    x = np.geomspace(1, 500, 8)
    for noise in (1e-4, 0.02, 0.3):
        yield x, (1.5 + 4 * x**-0.4) * np.exp(noise * rng.normal(size=8))
        yield x[:4], (5 * x[:4] ** -0.2) * np.exp(noise * rng.normal(size=4))
    yield x, 2 * x**-0.3 - 0.15  # a floor below 0
    yield x, np.full(8, 3.0)
    yield x, 1 + x**0.3  # it rises
    yield x, 1e-6 + x**-6.0  # steeper than allowed
    yield x, 3 - 0.01 * np.log(x)
    yield x, 1 + 1 / np.log(x + 2)
    yield np.array([1.0, 1, 1, 2, 2, 5]), np.array([4.0, 5, 6, 3, 2, 1])
    yield np.array([5.0, 2, 9]), np.array([1.0, 3, 0.5])
    yield np.array([1.0, 2, 3, 50]), np.array([0.001, 30.0, 0.002, 5.0])
    yield np.array([1.0, 2, 4, 8, 16]), np.array([100.0, 10, 1.5, 1.1, 1.05])
    # Two exponents are better than all beside them: 0.3 and 1.5, 0.09 and 4, 0.08 and 4. The best is the
    # second, the first, the second.
    yield np.geomspace(1, 91, 5), np.array([5.76, 1.54, 5.56, 2.35, 0.683])
    yield np.geomspace(1, 61, 6), np.array([2.75, 2.10, 4.68, 5.54, 3.42, 1.52])
    yield np.geomspace(1, 414, 5), np.array([6.33, 0.704, 3.07, 4.30, 0.557])
    for n in rng.integers(4, 8, size=12):
        yield np.geomspace(1, 10 ** rng.uniform(1, 4), n), np.exp(rng.normal(size=n))


def test_no_curve_is_closer(impl, rng):
    for number, (x, y) in enumerate(scattered(rng)):
        law = impl.fit_power_law(x, y)
        told = f"points {number}: {x}, {y}: {law}"
        assert 0.01 * (1 - 1e-9) <= law.exponent <= 4 * (1 + 1e-9), told
        assert law.coefficient >= 0, told
        assert law.floor >= 0, told
        assert error_of(law, x, y) <= better(x, y) * (1 + 1e-6) + 1e-13, told


def test_points_in_any_form(impl, rng):
    """Any order, dtype and layout, and lists; nothing is changed."""
    x, y = np.array([1.0, 4, 16, 64, 100, 2]), np.array([9.0, 5, 3, 2, 1.75, 7])
    expected = impl.fit_power_law(x, y)
    order = rng.permutation(6)
    forms = [
        (x[order], y[order]),
        (list(x), list(y)),
        (x.astype(int), y),
        (x.astype(np.float32), y.astype(np.float16)),
    ]
    forms += [(lay(x), lay(y)) for name, lay in battery.LAYOUTS.items() if "broadcast" not in name]
    forms += [(x.astype(np.uint8), list(y)), ([int(each) for each in x], list(y))]
    for a, b in forms:
        kept = np.array(a, copy=True), np.array(b, copy=True)
        law = impl.fit_power_law(a, b)
        assert np.array_equal(a, kept[0]), "x was changed"
        assert np.array_equal(b, kept[1]), "y was changed"
        near = np.array([law.coefficient, law.exponent, law.floor])
        wanted = [expected.coefficient, expected.exponent, expected.floor]
        assert np.allclose(near, wanted, rtol=1e-5), (a, b, law)
    assert impl.fit_power_law(x=x, y=y) == expected
    impl.fit_power_law(2**25 + np.arange(4), y[:4])  # different in float64, and hardly so in float32
    y[:] = y[::-1].copy()
    assert impl.fit_power_law(x, y) != expected


def test_points_of_any_dtype(impl):
    """What the dtype holds counts, and nothing of it is lost."""
    for dtype in (np.float16, np.float32, np.longdouble, np.int16, np.int32, np.int64, np.uint16, np.uint64):
        up = 700 if np.dtype(dtype).kind in "iu" else 1
        most = {"float16": 6e4, "int16": 3e4, "uint16": 6e4}.get(np.dtype(dtype).name, 1e9)
        x = np.geomspace(1.3, most, 7).astype(dtype)
        y = (up * (2 + 3 * x.astype(float) ** -0.4 + 0.01 * np.cos(np.arange(7)))).astype(dtype)
        wanted = impl.fit_power_law(x.astype(float), y.astype(float))
        for a, b in ((x, y), (x, y.astype(float)), (x.astype(float), y), (list(x), list(y))):
            law = impl.fit_power_law(a, b)
            for name in ("coefficient", "exponent", "floor"):
                assert math.isclose(getattr(law, name), getattr(wanted, name), rel_tol=1e-5), (dtype, law)


def test_points_that_cannot_be_fitted(impl):
    x, y = np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])
    for bad in (0.0, -1.0, np.nan, np.inf, -np.inf):
        for place in range(4):
            wrong = x.copy()
            wrong[place] = bad
            battery.refuses(impl.fit_power_law, wrong, y)
            battery.refuses(impl.fit_power_law, y, wrong)
    for a, b in [
        (x[:3], y),
        (x, y[:3]),
        (x[:, None], y[:, None]),
        (x[None], y[None]),
        (x, y[:1]),
        (x[:1], y),
    ]:
        battery.refuses(impl.fit_power_law, a, b)
    battery.refuses(impl.fit_power_law, x, y[0])
    battery.refuses(impl.fit_power_law, 2.0, 3.0)
    for same in ([1.0, 1, 1, 1], [1.0, 2, 2, 1], [3.0, 3, 3, 7]):
        battery.refuses(impl.fit_power_law, np.array(same), y)
    for n in (0, 1, 2):
        battery.refuses(impl.fit_power_law, x[:n], y[:n])


def slow_shape(budget, n_tokens, n_positions, tokens_per_parameter=20.0, head_width=64, aspect=64):
    """All numbers of heads, up to the first that is too many."""
    found = None
    for n_heads in itertools.count(1):
        width = n_heads * head_width
        config = GPTConfig(n_tokens, n_positions, width, max(2, width // aspect), n_heads)
        n_trained = int(budget // slow_flops(config))
        if n_trained < tokens_per_parameter * slow_count(config):
            return found
        found = config, n_trained


SHAPES = [
    ((10, 5), {"head_width": 4, "aspect": 4, "tokens_per_parameter": 1}),
    ((96, 64), {"head_width": 8, "aspect": 16, "tokens_per_parameter": 10.0}),
    ((96, 64), {"head_width": 8, "aspect": 100, "tokens_per_parameter": 0.5}),
    ((300, 3), {"head_width": 3, "aspect": 2, "tokens_per_parameter": 20}),
    ((1, 1), {"head_width": 1, "aspect": 1, "tokens_per_parameter": 3.7}),
    ((5, 2), {"head_width": 1, "aspect": 1000, "tokens_per_parameter": 0.5}),
    ((50, 7), {"head_width": 16, "aspect": 24}),
    ((50, 7), {}),
    ((4096, 256), {}),
    ((300, 20), {"aspect": 32}),
    ((300, 20), {"head_width": 32}),
    ((300, 20), {"tokens_per_parameter": 200}),
]


def test_shapes_for_budgets(impl):
    for (n_tokens, n_positions), options in SHAPES:
        for budget in (1e5, 3e6, 1e8, 1e9, 2.5e10, 1e11, 1e12, 1e14, 10**13):
            expected = slow_shape(budget, n_tokens, n_positions, **options)
            told = f"a budget of {budget}, {n_tokens} tokens, {n_positions} positions, {options}"
            if expected is None:
                battery.refuses(impl.best_shape, budget, n_tokens, n_positions, **options)
                continue
            config, n_trained = impl.best_shape(budget, n_tokens, n_positions, **options)
            assert config == expected[0], told
            check_whole(n_trained, expected[1], told)


def test_a_large_shape(impl):
    """A hundred heads or so, where widths are no small multiples of the aspect any more."""
    assert impl.best_shape(1e23, 50, 7) == slow_shape(1e23, 50, 7)


def test_budgets_beside_the_next_size(impl):
    """Exactly enough for a size, and one operation less."""
    options = {"head_width": 8, "aspect": 16, "tokens_per_parameter": 10}
    for n_heads in (1, 2, 3, 6):
        width = 8 * n_heads
        config = GPTConfig(96, 64, width, max(2, width // 16), n_heads)
        n_trained = 10 * slow_count(config)
        budget = n_trained * slow_flops(config)
        assert impl.best_shape(budget, 96, 64, **options) == (config, n_trained)
        if n_heads == 1:
            battery.refuses(impl.best_shape, budget - 1, 96, 64, **options)
        else:
            assert impl.best_shape(budget - 1, 96, 64, **options)[0].n_heads == n_heads - 1
    by_place = impl.best_shape(1e10, 96, 64, 10, 8, 16)
    assert by_place == slow_shape(1e10, 96, 64, 10, 8, 16)
    names = {"tokens_per_parameter": 10, "head_width": 8, "aspect": 16}
    assert impl.best_shape(budget=1e10, n_tokens=96, n_positions=64, **names) == by_place


def test_tokens_are_rounded_down(impl):
    """The budget hardly misses one more token, and a quotient rounded to float64 would not."""
    config = GPTConfig(96, 64, 8, 2, 1)
    for n in (2**20, 2**42, 2**50):
        whole = n * slow_flops(config)
        per_parameter = 0.9 * n / slow_count(config)  # so many that two heads are too many
        for budget in (whole - 1, math.nextafter(float(whole), 0.0)):
            got = impl.best_shape(budget, 96, 64, per_parameter, 8, 16)
            assert got == (config, n - 1), f"a budget of {budget!r}"


def test_shapes_that_cannot_be(impl):
    good = {"budget": 1e12, "n_tokens": 96, "n_positions": 64, "tokens_per_parameter": 10.0}
    good |= {"head_width": 8, "aspect": 16}
    for name, wrong in itertools.product(good, (0, -1, -8, -0.5, math.nan)):
        battery.refuses(impl.best_shape, **{**good, name: wrong})
    for budget in (1, 1000.0, 1e6):
        battery.refuses(impl.best_shape, budget, 96, 64)


def test_parameters_of_every_shape(impl):
    for config in configs():
        for has_embeddings in ([], [True], [False]):
            got = impl.count_parameters(config, *has_embeddings)
            check_whole(got, slow_count(config, *has_embeddings), f"{config}, {has_embeddings}")


def products(model, n_tokens, batch_size):
    """Run a model, and return the operations of its products and the entries of their results."""
    found, depth, multiply = [], [0], Tensor.__matmul__

    def counted(a, b):
        depth[0] += 1
        result = multiply(a, b)
        depth[0] -= 1
        if not depth[0]:  # a product may be made of another one
            found.append((2 * result.data.size * a.shape[-1], result.data.size))
        return result

    with mock.patch.object(Tensor, "__matmul__", counted):
        model(np.zeros((batch_size, n_tokens), int))
    return [sum(each) for each in zip(*found, strict=True)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_operations_and_results_of_real_models(impl, sizes):
    for number, options in enumerate(OPTIONS):
        model = real(sizes, options)
        for n_tokens in lengths(model.config)[1:]:
            batch_size = 1 + number % 3
            operations, entries = products(model, n_tokens, batch_size)
            got = impl.flops_per_token(model.config, n_tokens, is_training=False) * batch_size * n_tokens
            check_whole(got, operations, f"{model.config}, {n_tokens}")
            got = impl.memory(model.config, batch_size, n_tokens, bytes_per_number=1)["activations"]
            check_whole(got, entries, f"{model.config}, {n_tokens}, {batch_size}")


def test_operations_of_every_shape(impl):
    for config in configs():
        for n_tokens, training, causal in itertools.product(lengths(config), [True, False], [True, False]):
            got = impl.flops_per_token(config, n_tokens, training, causal)
            expected = slow_flops(config, n_tokens, training, causal)
            check_whole(got, expected, f"{config}, {n_tokens}, {training}, {causal}")
        check_whole(impl.flops_per_token(config), slow_flops(config), config)
        named = {"n_tokens": 1, "is_training": False, "is_causal": True}
        check_whole(impl.flops_per_token(config=config, **named), slow_flops(config, **named), config)


def test_memory_of_every_shape(impl):
    options = [
        {},
        {"n_states": 0},
        {"n_states": 1, "bytes_per_number": 2},
        {"n_states": 3, "bytes_per_number": 1},
    ]
    options += [{"bytes_per_number": 8}, {"n_states": 7}]
    turn = itertools.cycle(options)
    for config in configs():
        for n_tokens, batch_size in itertools.product(lengths(config), (1, 64)):
            chosen = next(turn)
            got = impl.memory(config, batch_size, n_tokens, **chosen)
            expected = slow_memory(config, batch_size, n_tokens, **chosen)
            assert list(got) == list(expected)
            for name, value in expected.items():
                check_whole(got[name], value, f"{name}: {config}, {batch_size}, {n_tokens}, {chosen}")
        assert impl.memory(config, batch_size=5) == slow_memory(config, 5)
        assert impl.memory(config, 5, 1, 1, 2) == slow_memory(config, 5, 1, 1, 2)
    got = impl.memory(config, 3)
    got.clear()
    assert impl.memory(config, 3) == slow_memory(config, 3)


def test_elsewhere(impl):
    config = GPTConfig(11, 9, 8, 3, 4)
    x, y = np.array([1.0, 4, 16, 64]), np.array([9.0, 5, 3, 2.1])
    here = impl.fit_power_law(x, y)
    with elsewhere(impl):
        assert impl.count_parameters(config) == slow_count(config)
        assert impl.flops_per_token(config) == slow_flops(config)
        assert impl.memory(config, 2) == slow_memory(config, 2)
        assert impl.fit_power_law(x, y) == here
        assert impl.best_shape(1e10, 96, 64, 10, 8, 16) == slow_shape(1e10, 96, 64, 10, 8, 16)
