"""Programs are judged by reaching their end; pass@k is what k fresh answers would achieve."""

import itertools
import math

import pytest

from techtree.lm.eval.pass_rate import Rate, all_passing, pass_at_k, passes
from techtree.sandbox import why_not_confined

needs_sandbox = pytest.mark.skipif(bool(why_not_confined()), reason=f"needs {why_not_confined()}")


@needs_sandbox
def test_right_and_wrong_programs():
    programs = [("x = 2", "assert x == 2"), ("x = 2", "assert x == 3"), ("raise SystemExit", ""), ("x =", "")]
    assert all_passing(programs) == [True, False, False, False]


@needs_sandbox
@pytest.mark.parametrize(
    "habit",
    [
        "print('x', end='')",
        "print('x' * 1000)",
        "import sys; sys.stdout.close()",
        "def print(*words): raise ValueError",
        "from __future__ import annotations",
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int = 1",
        "if __name__ == '__main__': raise ValueError",
        "assert_ = sorted = len = None",
        "import atexit, os; atexit.register(os._exit, 3)",
        "import threading, time; threading.Thread(target=time.sleep, args=(99,)).start()",
    ],
)
def test_odd_habits_pass(habit):
    assert passes(f"{habit}\nx = 2", "assert sorted([x, 1]) == [1, 2]\nassert len('a') == 1")


@needs_sandbox
@pytest.mark.parametrize(
    "trick",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "print('0' * 32)\nraise SystemExit(0)",
        "import atexit, sys; atexit.register(print, 'passed'); sys.exit()",
        "import builtins, os; builtins.print = lambda *a, **k: os._exit(0)",
        "import builtins; builtins.len = lambda x: 3",
        "import builtins; builtins.AssertionError = builtins.Exception = KeyError",
        "import sys; print(sys.argv, sys.orig_argv, *open('/proc/self/cmdline'), *sys.stdin)",
        "import hashlib; print(hashlib.sha256(b'a').hexdigest()); print('a')",
        "while True: print('0' * 32)",
        "import os; os.close(1)",
        "exit()",
        "'''",
    ],
)
def test_no_trick_passes(trick):
    assert not passes(f"{trick}\nx = 2", "assert len([x]) == 3")


@needs_sandbox
def test_a_program_that_writes_much_before_its_end_does_not_pass():
    assert not passes("print('x' * 10 ** 7)", "")


@pytest.mark.parametrize(("n", "c"), [(n, c) for n in range(1, 7) for c in range(n + 1)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n, c):
    answers = [i < c for i in range(n)]
    for k in range(1, n + 1):
        draws = [any(draw) for draw in itertools.combinations(answers, k)]
        assert pass_at_k(n, c, k) == pytest.approx(sum(draws) / len(draws), abs=1e-12)


def test_pass_at_k_of_many():
    expected = 1 - math.comb(9_000, 100) / math.comb(10_000, 100)
    assert pass_at_k(10_000, 1_000, 100) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_pass_at_k_refuses_what_makes_no_sense(n, c, k):
    with pytest.raises(ValueError, match="must hold"):
        pass_at_k(n, c, k)


def test_rates():
    assert Rate.of([True, False, False, False]) == Rate(0.25, 0.25, 4)
    assert str(Rate.of([True, False, False, False])) == "25.0 ± 25.0"
    assert str(Rate.of([])) == "-"
    assert str(Rate.of([1.0])) == "100.0"
    assert Rate.of([0.1, 0.4, 0.7]).error == pytest.approx(0.3 / math.sqrt(3))
