"""The lesson's estimate is the product's, and SciPy's; both judge programs alike, and models."""

import itertools

import numpy as np
import pytest
from scipy.stats import hypergeom

from techtree.lm.eval.pass_rate import Rate, pass_at_k, passes
from techtree.sandbox import why_not_confined
from techtree.techs.assistant import pass_at_k as lesson
from techtree.techs.assistant.pass_at_k import Problem, estimate, evaluate


def test_the_estimate_is_the_products():
    for n in (1, 2, 3, 10, 33):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            assert estimate(n, c, k) == pytest.approx(pass_at_k(n, c, k), abs=1e-12)
            assert estimate(n, c, k) == pytest.approx(hypergeom.sf(0, n, c, k), abs=1e-12)


def test_a_model_has_the_same_mean(monkeypatch):
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
        assert error == pytest.approx(rate.error)
    assert np.isnan(evaluate(problems[:1], lambda problem: "wrong", 1, [1])[1][1])


@pytest.mark.skipif(bool(why_not_confined()), reason=f"needs {why_not_confined()}")
@pytest.mark.parametrize(
    "completion",
    [
        "    return 2 * x\n",
        "    return 9\n",
        "    print('x' * 500)\n    return 2 * x\n",
        "    import os\n    os._exit(0)\n",
        "    raise SystemExit\n",
        "    return 2 * x\nimport builtins\nbuiltins.AssertionError = None\n",
        "    return 9\nimport builtins, sys\nbuiltins.print(sys.argv, *sys.stdin)\n",
        "    import sys\n    sys.stdout.close()\n    return 2 * x\n",
        "    while True: print('y' * 99)\n",
        "    return (\n",
    ],
)
def test_programs_are_judged_alike(completion):
    problem = Problem("def double(x):\n", "double", "def check(f):\n    assert f(3) == 6\n")
    found = passes(problem.prompt + completion, f"{problem.test}\ncheck({problem.entry_point})\n")
    assert found == lesson.passes(problem, completion)
