"""The lesson's estimate is the product's, and SciPy's; both give a model the same mean."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import hypergeom

from techtree.lm.eval.pass_rate import Rate, pass_at_k
from techtree.techs.assistant.pass_at_k import Problem, estimate, evaluate


def test_the_estimate_is_the_products():
    for n in (1, 2, 3, 10, 33):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            assert estimate(n, c, k) == pytest.approx(pass_at_k(n, c, k), abs=1e-12)
            assert estimate(n, c, k) == pytest.approx(hypergeom.sf(0, n, c, k), abs=1e-12)


def test_a_model_has_the_same_mean(monkeypatch):
    """The product divides by the number of problems, the lesson by one less."""
    monkeypatch.setattr(
        "techtree.techs.assistant.pass_at_k.pass_at_k.passes", lambda problem, text, _: text == "right"
    )
    n, counts = 4, [0, 1, 4, 2, 1]
    problems = [Problem("", "f", "", str(number)) for number in range(len(counts))]
    left = [["right"] * c + ["wrong"] * (n - c) for c in counts]
    found = evaluate(problems, lambda problem: left[int(problem.solution)].pop(), n, [1, 2, 4])
    for k, (mean, error) in found.items():
        rate = Rate.of([pass_at_k(n, c, k) for c in counts])
        assert mean == pytest.approx(rate.value)
        assert error == pytest.approx(rate.error * math.sqrt(len(counts) / (len(counts) - 1)))
    assert np.isnan(evaluate(problems[:1], lambda problem: "wrong", 1, [1])[1][1])
