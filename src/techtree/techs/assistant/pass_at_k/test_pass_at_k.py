"""Oracles: exact fractions, choices counted one by one, programs of which all can say if they are right."""

import contextlib
import functools
import itertools
import math
import statistics
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest

from techtree.techs import aim, battery
from techtree.techs.assistant import sandbox
from techtree.techs.assistant.sandbox import Limits
from techtree.techs.battery import Case
from techtree.techs.elsewhere import elsewhere

# The estimate -----------------------------------------------------------------------------------------------


def exact(n, c, k):
    """The definition; a few seconds of work where all three are large."""
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def check_estimate(impl, n, c, k, expected=None):
    got, expected = impl.estimate(n, c, k), exact(n, c, k) if expected is None else expected
    is_exact = c == 0 or int(n) - int(c) < k
    if type(got) is not float or not abs(got - expected) <= (0 if is_exact else 1e-10):
        raise battery.MismatchError(
            f"another estimate for n={n}, c={c}, k={k}", [f"expected: {expected!r}", f"yours:    {got!r}"]
        )


def test_estimates_count_the_choices(impl):
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            choices = list(itertools.combinations(range(n), k))
            check_estimate(impl, n, c, k, sum(min(each) < c for each in choices) / len(choices))


def test_estimates_of_every_small_triple(impl):
    for n in range(1, 31):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            check_estimate(impl, n, c, k)


def test_estimates_of_larger_numbers(impl, rng):
    sizes = aim.sizes(31, 64, 65, 127, 128, 129, 163, 164, 200, 255, 256, 257, 500, 999, 1000, at_most=2000)
    for n in sizes:
        near = {0, 1, 2, 3, n // 3, n // 2, n - 2, n - 1, n, *rng.integers(n + 1, size=3).tolist()}
        near |= {each for number in aim.whole(3, n - 1) for each in (number, number + 1)}
        for c, k in itertools.product(sorted(near), sorted(near - {0})):
            check_estimate(impl, n, c, k)


def test_estimates_of_very_large_numbers(impl):
    """Up to a million, but for k that make whole numbers of a million digits."""
    for n in (10**4, 30_000, 65_536, 10**6, *(each for each in aim.sizes(at_most=10**6) if each > 2000)):
        few = {1, 2, 3, 10, 100, 1000, *aim.whole(3, 1000)}
        many = {n - 1, n - 2, n - 3, n - 10}
        middle = {n // 3, n // 2, 2 * n // 3}
        for c in few | many | middle:
            check_estimate(impl, n, c, 1, c / n)
        for k in few | many | {n} | (middle if n <= 30_000 else set()):
            check_estimate(impl, n, 0, k, 0)
            check_estimate(impl, n, n, k, 1)
            check_estimate(impl, n, 1, k, k / n)
            for c in (2, 3, 10):  # all c among the n - k that are not chosen
                check_estimate(impl, n, c, k, float(1 - Fraction(math.comb(n - k, c), math.comb(n, c))))
        for c, k in itertools.product(few | middle, few):
            check_estimate(impl, n, c, k)
        for c, k in itertools.product(few | many, many):
            if c + k > n:
                check_estimate(impl, n, c, k, 1)
                check_estimate(impl, n, k, c, 1)


def test_estimates_of_numbers_of_numpy(impl):
    kinds = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
    for kind, (n, c, k) in itertools.product(kinds, [(3, 1, 2), (120, 7, 100), (100, 50, 60), (9, 0, 9)]):
        check_estimate(impl, kind(n), kind(c), kind(k), exact(n, c, k))
        check_estimate(impl, n, kind(c), k, exact(n, c, k))
    check_estimate(impl, 1000, np.uint8(200), np.int16(700), exact(1000, 200, 700))


def test_what_has_no_estimate(impl):
    wrong = [(3, 1, 4), (3, 4, 1), (3, -1, 2), (3, 1, 0), (3, 1, -1), (0, 0, 0), (0, 0, 1), (-3, -1, -2)]
    wrong += [
        (3, 4, 4),
        (-1, 0, 1),
        (200, 201, 100),
        (200, 100, 201),
        (3, 0, 4),
        (3, 3, 4),
        (5, 0, 0),
        (5, 5, 0),
    ]
    wrong += [(2.0, 1, 1), (2, 1.0, 1), (2, 1, 1.0), (2, 0.5, 1), (2.5, 1, 1), (2, 1, 1.5)]
    wrong += [
        (True, 1, 1),
        (2, True, 1),
        (2, 1, True),
        (2, False, 1),
        (2, np.bool_(True), 1),
        (2, 1, np.bool_(1)),
    ]
    wrong += [(np.float64(2), 1, 1), (2, np.float32(1), 1), (math.nan, 1, 1), (2, math.inf, 1), (3, 0.0, 2)]
    wrong += [(2, 1, Fraction(1)), (3, 0, 1.0), (3, 3, 1.0), (3.0, 3, 3)]
    for n, c, k in wrong:
        battery.refuses(impl.estimate, n, c, k)


def test_another_machine_and_day_change_no_estimate(impl):
    def everything():
        cut = impl.truncate("    return 1\n\nprint(2)")
        return [impl.estimate(n, c, k) for n, c, k in [(3, 1, 2), (200, 7, 100), (10, 3, 9)]], cut

    before = everything()
    with elsewhere(impl):
        assert everything() == before


# Where a completion is cut --------------------------------------------------------------------------------

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def first_part(completion):
    """The definition."""
    return completion[: min(place for stop in STOPS if (place := f"{completion}{stop}".find(stop)) >= 0)]


def test_completions_are_cut_at_the_first_stop(impl):
    body = "    return 2 * x\n"
    by_hand = [
        "",
        "\n",
        body,
        body.strip(),
        "def f(x):\n    pass",
        "print(1)",
        "if x:\n    y",
        "#",
        "class A: pass",
    ]
    by_hand += [*STOPS, *(stop[:-1] for stop in STOPS)]
    by_hand += [body + stop + rest for stop in STOPS for rest in ("", " x", "x", "\n    y\n", "(3)\n")]
    by_hand += [body + "\n\n\n" + stop.strip() + " A:\n" for stop in STOPS]
    by_hand += [body + "    " + stop.strip() + " x\n    y = 1\n" for stop in STOPS]
    by_hand += [
        body + one + " a:\n    1\n" + other + " b\n" for one, other in itertools.permutations(STOPS, 2)
    ]
    by_hand += [
        "    x = 'def'; y = 3 # if print class\n    return y\n",
        body + "\n@decorated\ndef f(): pass\n",
    ]
    by_hand += [
        body.replace("\n", "\r\n") + "\r\ndef f(): pass\r\n",
        body + "\rdef f",
        body + "\x0bdef f\x0cif x",
    ]
    by_hand += [body + "\u2028def f", body + "\x85if x", body + "\n \ndef f", body + "\n\t#", "\n" * 50 + "#"]
    by_hand += [
        body + "\nreturn 1\nfor x in y:\n    z\nwhile 1: pass\nx = 1\n```\nimport os\n",
        body + "\nDef\nIf\n",
    ]
    by_hand += [body + "\nelif x:\n\nelse:\n\n'''\n\"\"\"\nassert x\nprin\nclas\nde\ni\n"]
    texts = [part + stop + part for part in battery.texts(70).values() for stop in ("", "\n#")]
    texts += [("    y = 1\n" * n) + "print(y)" for n in aim.sizes(1, 300, at_most=600)]
    texts += ["y" * n + "\nprint(y)" for n in aim.sizes(2000, at_most=500_000)]
    battery.sweep_plain(impl.truncate, first_part, [Case("", (text,)) for text in [*by_hand, *texts]])


# Runs -----------------------------------------------------------------------------------------------------

HEAD, CHECK = "def double(x):\n", "def check(f):\n    assert [f(x) for x in (0, 3, -7)] == [0, 6, -14]\n"
DOUBLE = HEAD, "double", CHECK
BODY, WRONG_BODY = "    return 2 * x\n", "    return x\n"
LIMITS = Limits(cpu_seconds=10.0, wall_seconds=30.0)  # for a machine that has much else to do

ODD = {
    "prints": "print('hello')\n",
    "prints without an end of line": "import sys\nsys.stdout.write('abc')\nsys.stdout.flush()\n",
    "prints errors": "import sys\nprint('warning', file=sys.stderr, flush=True)\n",
    "prints what is no text": "import os\nos.write(1, bytes(range(256)))\n",
    "has a dataclass": "from dataclasses import dataclass\n@dataclass\nclass A:\n    y: 'int'\nA(3)\n",
    "has a main block": "if __name__ == '__main__':\n    raise SystemExit(1)\n",
    "has an exit code": "import atexit, os\natexit.register(os._exit, 3)\n",
    "catches its exceptions": "try:\n    double([][1])\nexcept IndexError:\n    pass\n",
    "defines it again": "def double(x):\n    return helper(x)\ndef helper(x):\n    return 2 * x\n",
    "uses the names of others": "exec = os = hashlib = sys = test = None\ndef check(f): raise ValueError\n",
    "has no functions of builtins": "import builtins\nbuiltins.print = builtins.exec = None\n",
    "has no standard output": "import io, sys\nsys.stdout = sys.__stdout__ = io.StringIO()\n",
}
"""What a right program may do besides, in an order in which it may do all of it."""

READ = """
import os, re, sys
texts = [*sys.argv, *sys.orig_argv[1:]]
main = getattr(sys.modules["__main__"], "__file__", "") or ""
for path in [*texts, globals().get("__file__") or "", main, "/proc/self/cmdline"]:
    try:
        texts.append(open(path, errors="replace").read())
    except (OSError, ValueError):
        pass
words = {word for text in texts for word in re.findall(r"\\w+|[^\\s'\\"]+", text)}
words = sorted(words, key=lambda word: (any(map(str.isdigit, word)), len(word)))
"""
"""Long words with digits come last: a nonce looks so."""

LEAVE = "import os\nos._exit(0)\n"
HASHES = """
import hashlib
for kind in ("sha256", "sha1", "md5", "sha512", "sha256"):
    print(hashlib.new(kind, b"a").hexdigest(), "a", sep="\\n", flush=True)
"""

ANY = """
class Any(AssertionError, ZeroDivisionError, KeyError, IndexError, TypeError, ValueError, RecursionError,
          NotImplementedError, EOFError, BufferError, ReferenceError, MemoryError):
    pass
"""
"""Whatever a harness catches, if it is not NameError, OSError or the like, which cannot be others, too."""

WRONG = {
    "is wrong": WRONG_BODY,
    "is empty": "",
    "is right only at first": "    return 2 * x if x >= 0 else x\n",
    "fails behind the function": BODY + "\nassert double(2) == 5\n",
    "raises behind the function": BODY + "\nundefined\n",
    "raises anything behind the function": BODY + f"{ANY}\nraise Any\n",
    "raises anything": f"    raise Any\n{ANY}",
    "is no Python": BODY + "\nHere is what I did:\n",
    "does not keep the function": BODY + "del double\n",
    "leaves when it is loaded": BODY + "raise SystemExit(0)\n",
    "leaves when it is called": "    raise SystemExit(0)\n",
    "leaves at once": "    import os\n    os._exit(0)\n",
    "kills itself": "    import os\n    os.kill(os.getpid(), 9)\n",
    "leaves instead of failing": WRONG_BODY + "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\n",
    "leaves at the exit": WRONG_BODY + "import atexit, os\natexit.register(os._exit, 0)\n",
    "has a thread that leaves": "    import time\n    time.sleep(20)\n"
    "import os, threading\nthreading.Timer(0.01, os._exit, [0]).start()\n",
    "says that it passed": WRONG_BODY + "import atexit\n"
    "for each in ('passed', 'OK', 'True', 'PASS', 'ok', '1'):\n    atexit.register(print, each)\n",
    "has another check": WRONG_BODY + "check = lambda f: None\n",
    "prints all that it can read": f"{WRONG_BODY}{READ}print(*words, sep='\\n', flush=True)\n{LEAVE}",
    "prints one word that it can read": f"{WRONG_BODY}{READ}print(words[-1], flush=True)\n{LEAVE}",
    "prints a hash and what it is of": f"{WRONG_BODY}{HASHES}{LEAVE}",
}


_run_once = functools.cache(sandbox.run)
"""Versions that differ elsewhere run the same programs. (What a run has drawn is in its own output.)"""


@pytest.fixture(autouse=True)
def _equal_programs_run_once(impl):
    if vars(impl).get("run") is sandbox.run:
        impl.run = _run_once


def check_passes(impl, problem, completion, expected, label, limits=LIMITS):
    got = impl.passes(problem, completion, limits)
    if got is not expected:
        raise battery.MismatchError(
            f"a program that {label}: {'it is right' if expected else 'it must not pass'}",
            [f"the program: {(problem.prompt + completion)!r}", f"expected: {expected}", f"yours: {got!r}"],
        )


def test_right_programs_pass(impl):
    problem = impl.Problem(*DOUBLE)
    check_passes(impl, problem, BODY.rstrip(), True, "has no end of line")
    everything = BODY + "".join(ODD.values())
    if impl.passes(problem, everything, LIMITS) is not True:
        for label, odd in ODD.items():
            check_passes(impl, problem, BODY + odd, True, label)
        check_passes(impl, problem, everything, True, "does odd things")


def test_wrong_programs_do_not_pass(impl):
    for label, completion in WRONG.items():
        check_passes(impl, impl.Problem(*DOUBLE), completion, False, label)


def test_programs_of_unusual_characters(impl):
    problem = impl.Problem(*DOUBLE)
    signs = "    s = '\ufeff\u2028\x0c\t\U0001f600e\u0301'\r\n    # \ud7ff\r\n    return (len(s) - 5) * x\r\n"
    check_passes(impl, problem, signs, True, "has unusual characters")
    for what in ("\0", "\ud800", "\ufeff"):
        check_passes(impl, problem, BODY + what, False, f"ends with {what!r}, which is no Python")


def test_limits_are_those_of_the_run(impl):
    problem = impl.Problem(*DOUBLE)
    endless = "    import time\n    time.sleep(60)\n"
    check_passes(impl, problem, endless, False, "does not end", Limits(wall_seconds=0.3))
    check_passes(impl, problem, BODY, False, "ends before it begins", Limits(wall_seconds=0.001))
    talkative = BODY + "print('x' * 20_000, flush=True)\n"
    check_passes(impl, problem, talkative, False, "prints too much")
    more = Limits(cpu_seconds=10.0, wall_seconds=30.0, output_bytes=40_000)
    check_passes(impl, problem, talkative, True, "prints much, and may", more)
    assert impl.passes(problem, BODY) is True
    assert impl.passes(problem, talkative) is False


def test_what_is_run_is_prompt_and_completion(impl):
    prompt = "from __future__ import annotations\nimport math\n\ndef helper(x):\n    return 10 * x\n\n"
    prompt += "def tenfold(x):\n    '''Say \"\"\" and \u00e9\\n.'''\n    y ="
    check = "def check(f):\n    assert helper(2) == f(2) == tenfold(2) == 20, '\\'\"'\n"
    problem = impl.Problem(prompt, "tenfold", check, solution="nothing that matters")
    check_passes(impl, problem, " helper(x)\n    return y", True, "goes on within a line")
    check_passes(impl, problem, "= helper(x)\n    return y", False, "goes on with the sign before it")
    blank = impl.Problem("def double(x):\n    return ", "double", CHECK)
    check_passes(impl, blank, "2 * x\n\n", True, "goes on after a blank")
    check_passes(impl, blank, "f(x)\n\ndef f(x):\n    return 2 * x\n", True, "has a helper behind")
    anything = "def check(f):\n    pass\n"
    check_passes(impl, impl.Problem(HEAD, "twice", anything), BODY, False, "has no such function")
    check_passes(impl, impl.Problem(" " + HEAD, "double", CHECK), BODY, False, "is indented")


def test_tests_see_the_program_and_what_python_has(impl):
    check = "def check(f):\n    assert abs(f(3) - 6) <= 0 and sum([1, 2]) == 3\n"
    problem = impl.Problem(HEAD, "double", check)
    exchanged = "abs = lambda x: 0\n", "import builtins\nbuiltins.abs = lambda x: 0\n"
    for code in exchanged:
        check_passes(impl, problem, WRONG_BODY + code, False, "has another abs")
    check_passes(impl, problem, BODY + "sum = max = lambda x: 0\n" + exchanged[1], True, "has another sum")
    own = impl.Problem("def abs(x):\n", "abs", "def check(f):\n    assert f(-3) == -6 and abs(-1) == 1\n")
    check_passes(impl, own, BODY, True, "defines abs, as it should")
    names = "x = 1\ndef check(f):\n    assert f(x) == 2\ndouble = None\nassert __name__ != '__main__'\n"
    check_passes(
        impl, impl.Problem(HEAD, "double", names), BODY, True, "is tested by one with the same names"
    )
    outside = impl.Problem(HEAD, "double", "def check(f):\n    pass\nassert double(3) == 6\n")
    check_passes(impl, outside, BODY, True, "is tested outside of check")
    check_passes(impl, outside, WRONG_BODY, False, "is tested outside of check")
    check_passes(impl, impl.Problem(HEAD, "double", "chek = print"), BODY, False, "has a test without check")
    loud = (
        "def check(f):\n    try:\n        assert f(1) > 1\n    finally:\n        print('end', flush=True)\n"
    )
    check_passes(impl, impl.Problem(HEAD, "double", loud), WRONG_BODY, False, "has a test that prints")


def test_problems_are_what_they_say(impl):
    problem = impl.Problem("a", "b", "c")
    assert (problem.prompt, problem.entry_point, problem.test, problem.solution) == ("a", "b", "c", "")
    assert impl.Problem(prompt="a", entry_point="b", test="c", solution="d") == impl.Problem(
        "a", "b", "c", "d"
    )


# Evaluation ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def without_processes(impl, limits):
    """Let `passes` know what is right, for a version that asks it, and require that it gets the limits."""

    def known(problem, completion, *rest, **named):
        assert (*rest, *named.values()) == (limits,), "the limits are not handed on"
        return "2 * x" in completion

    with mock.patch.object(impl, "passes", known):
        yield


def scripted(impl, verdicts):
    """Problems, a sample that writes right and wrong completions as listed, and what was asked of it."""
    heads = [f"# {97 * (number + 1) % 101}\n{HEAD}" for number in range(len(verdicts))]  # in no order
    problems = [impl.Problem(head, "double", CHECK, str(number)) for number, head in enumerate(heads)]
    left, asked = [list(each) for each in verdicts], []

    def sample(problem):
        asked.append(int(problem.solution))
        return BODY if left[asked[-1]].pop(0) else "    return 5\n"

    return problems, sample, asked


def test_evaluation_is_its_definition(impl, rng):
    cases = [
        ([[True, False, False], [False, False, True], [True, True, True]], [3, 1, 2]),
        ([[False, False], [False, True], [False, False], [True, True]], (1, 2)),
        ([[False], [True], [False]], {1}),
    ]
    for n_problems, n in (
        (2, 1),
        (2, 30),
        (9, 12),
        (40, 20),
        *((size, 3) for size in aim.sizes(at_most=300)),
    ):
        if n_problems > 1:
            verdicts = (rng.random((n_problems, n)) < rng.random((n_problems, 1))).tolist()
            cases.append((verdicts, sorted({1, n // 2 + 1, n})))
    for verdicts, ks in cases:
        n = len(verdicts[0])
        problems, sample, asked = scripted(impl, verdicts)
        with without_processes(impl, LIMITS):
            found = impl.evaluate(problems, sample, n, ks, LIMITS)
        assert asked == [number for number in range(len(problems)) for _ in range(n)]
        assert type(found) is dict
        assert list(found) == list(ks)
        for k in ks:
            scores = [exact(n, sum(each), k) for each in verdicts]
            expected = statistics.mean(scores), statistics.stdev(scores) / math.sqrt(len(scores))
            assert type(found[k]) is tuple
            assert [type(each) for each in found[k]] == [float, float]
            facts = [f"right ones: {[sum(each) for each in verdicts]} of {n}, k={k}", f"expected: {expected}"]
            if not np.allclose(found[k], expected, rtol=0, atol=1e-9):
                raise battery.MismatchError("another mean or error", [*facts, f"yours: {found[k]}"])


def test_a_single_problem_has_no_error(impl):
    problems, sample, _ = scripted(impl, [[True, False]])
    with without_processes(impl, LIMITS):
        (mean, error), (two, _) = impl.evaluate(problems, sample, 2, [1, 2], LIMITS).values()
    assert abs(mean - 0.5) < 1e-9
    assert two == 1
    assert type(error) is float
    assert math.isnan(error)


def test_solutions_are_right_and_nothing_is_wrong(impl):
    helper = "    return g(x)\ndef g(x): return x[-1]"
    last = impl.Problem("def last(x):\n", "last", "def check(f):\n    assert f('abc') == 'c'\n", helper)
    problems = [impl.Problem(*DOUBLE, solution="    return x + x\n"), last]
    assert impl.evaluate(problems, lambda problem: problem.solution, 1, [1], LIMITS) == {1: (1.0, 0.0)}
    assert impl.evaluate(problems, lambda problem: "", 1, [1]) == {1: (0.0, 0.0)}
    hasty = Limits(wall_seconds=0.001)
    assert impl.evaluate(problems, lambda problem: problem.solution, 1, [1], hasty) == {1: (0.0, 0.0)}


def test_what_is_not_evaluated(impl):
    problems, sample, asked = scripted(impl, [[True, True], [True, True]])
    for some, n, ks in (
        ([], 2, [1]),
        (problems, 2, []),
        (problems, 2, [3]),
        (problems, 2, [1, 3]),
        (problems, 2, [1, 0]),
        (problems, 2, [-1]),
        (problems, 2, [1.0]),
        (problems, 2, [2, True]),
        (problems, 0, [1]),
        (problems, -1, [1]),
        (problems, 2.0, [1]),
        (problems, True, [1]),
    ):
        with without_processes(impl, LIMITS):
            battery.refuses(impl.evaluate, some, sample, n, ks, LIMITS)
        assert asked == [], "a completion was drawn"
