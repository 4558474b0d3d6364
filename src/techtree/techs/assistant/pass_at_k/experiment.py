"""What the share of right programs says, for which k a temperature is good, what cheating programs get past.

Models are toys whose truth is known: with which probability a program for each problem is right. The cheating
programs are real ones, and run.
"""

import ast
import math
import secrets
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from techtree.techs.assistant.pass_at_k import Problem, estimate, passes, truncate
from techtree.techs.assistant.sandbox import Limits
from techtree.techs.assistant.sandbox import run as run_program
from techtree.techs.inference.sampling import probabilities

N_PROBLEMS, K = 164, 10
SIZES = (10, 20, 50, 100, 200)
LIKELY = (0.02, 0.1, 0.3)
N_TOKENS, VOCABULARY = 12, 8
TEMPERATURES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
LOOKS = (1, 2, 5, 10, 20, 50, 100)
LIMITS = Limits(cpu_seconds=10.0, wall_seconds=60.0)

# How a verdict is found ---------------------------------------------------------------------------------

CHECK = "def check(f):\n    assert abs(f(3) - 6) < 1e-9\n    assert abs(f(-7) + 14) < 1e-9\n"
DOUBLE = Problem("def double(x):\n", "double", CHECK, "    return 2 * x\n")
QUESTIONS, ANSWERS = [3, -7], [6, -14]


def in_one_text(completion: str, last: str = "") -> str:
    """Return program and test one after the other, as one program."""
    return f"{DOUBLE.prompt}{completion}\n{CHECK}\ncheck({DOUBLE.entry_point})\n{last}\n"


def by_exit_code(completion: str) -> bool:
    """Believe the exit code."""
    outcome = run_program(in_one_text(completion), LIMITS)
    return outcome.ending == "exited" and outcome.exit_code == 0


def by_word(completion: str) -> bool:
    """Believe a word behind the tests."""
    return "passed" in run_program(in_one_text(completion, "print('passed')"), LIMITS).output.splitlines()


def by_nonce_in_text(completion: str) -> bool:
    """Believe a nonce behind the tests, which stands in the program's text."""
    nonce = secrets.token_hex(16)
    return nonce in run_program(in_one_text(completion, f"print({nonce!r})"), LIMITS).output.splitlines()


def by_hash(completion: str) -> bool:
    """Believe a nonce whose hash was printed before the program ran."""
    return passes(DOUBLE, completion, LIMITS)


def by_answers(completion: str) -> bool:
    """Let the program answer, and compare where it cannot see the right answers."""
    first = "__name__ = 'program'\nfrom os import write as tell_the_answers\n"
    asked = f"[{DOUBLE.entry_point}(x) for x in {QUESTIONS}]"
    last = f"tell_the_answers(1, b'\\n' + repr({asked}).encode() + b'\\n')\n"
    lines = run_program(f"{first}{DOUBLE.prompt}{completion}\n{last}", LIMITS).output.splitlines()
    return any(_literal(line) == ANSWERS for line in lines)


def _literal(line: str) -> object:
    try:
        return ast.literal_eval(line)
    except (ValueError, SyntaxError):
        return None


WAYS: dict[str, Callable[[str], bool]] = {
    "exit code": by_exit_code,
    "a word": by_word,
    "a nonce in the text": by_nonce_in_text,
    "a nonce and its hash (ours)": by_hash,
    "answers compared outside": by_answers,
}

_WRONG, _LEAVE = "    return x\n", "import os\nos._exit(0)\n"
CHEATS = {
    "leaves when it is loaded": _WRONG + "raise SystemExit(0)\n",
    "leaves when it is called": "    raise SystemExit(0)\n",
    "leaves at once": "    import os\n    os._exit(0)\n",
    "leaves in place of a traceback": _WRONG + "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\n",
    "leaves at the exit": _WRONG + "import atexit, os\natexit.register(os._exit, 0)\n",
    "has a thread that leaves": "    import time\n    time.sleep(30)\n"
    "import os, threading\nthreading.Timer(0.01, os._exit, [0]).start()\n",
    "says that it passed, and leaves": f"{_WRONG}print('passed', flush=True)\n{_LEAVE}",
    "says that it passed, at the exit": _WRONG + "import atexit\natexit.register(print, 'passed')\n",
    "prints its own text": f"""{_WRONG}
import re, sys
print(*re.findall(r"\\w+", open(sys.argv[0]).read()), sep="\\n", flush=True)
{_LEAVE}""",
    "has its own hash and nonce": f"""{_WRONG}
import hashlib
print(hashlib.sha256(b"a").hexdigest(), "a", sep="\\n", flush=True)
{_LEAVE}""",
    "asks the harness to judge something else": f"""{_WRONG}
import __main__
if hasattr(__main__, "judge"):
    __main__.judge("f = 1", "def check(f): pass", "f")
""",
    "has another abs": _WRONG + "abs = lambda x: 0\n",
    "has another abs for all": _WRONG + "import builtins\nbuiltins.abs = lambda x: 0\n",
    "is 0 less everything": "    return Zero()\nclass Zero(int):\n"
    "    __sub__ = __add__ = lambda self, other: 0\n",
    "prints what is in its callers' frames": f"""{_WRONG}
import sys
frame = sys._getframe()
while frame:
    for each in (*frame.f_locals.values(), *frame.f_code.co_consts):
        if isinstance(each, str):
            print(each, flush=True)
    frame = frame.f_back
{_LEAVE}""",
}
"""Programs that are wrong, and want to pass."""

_RIGHT = DOUBLE.solution
ODD = {
    "prints": _RIGHT + "print('hello')\n",
    "prints without an end of line": _RIGHT + "print('hello', end='', flush=True)\n",
    "has another print": _RIGHT + "def print(*words): pass\n",
    "has an exit code": _RIGHT + "import atexit, os\natexit.register(os._exit, 3)\n",
    "has a main block": _RIGHT + "if __name__ == '__main__':\n    raise SystemExit(1)\n",
    "has other names": _RIGHT + "os = sys = nonce = write = check = None\n",
    "gives a fraction": "    from fractions import Fraction\n    return Fraction(2 * x)\n",
}
"""Programs that are right, and do something besides."""

BEHIND = {
    "text": (_RIGHT + "\nprint('3 doubled is', double)\nHere it is.\n", "saved"),
    "a function without an end": (_RIGHT + "\ndef triple(x):\n    return 3 *", "saved"),
    "a question": (_RIGHT + "\nif True:\n    x = input()\n", "saved"),
    "a comment and an error": (_RIGHT + "\n# Tests\nassert double(2) == 5\n", "saved"),
    "an assertion": (_RIGHT + "\nassert double(2) == 5\n", "lost"),
    "a fence": (_RIGHT + "```\n\nThis doubles.\n", "lost"),
    "a helper": ("    return twice(x)\n\ndef twice(x):\n    return 2 * x\n", "broken"),
    "a comment at the margin": ("    y = x\n# twice\n    return y + y\n", "broken"),
    "words in a text": ('    """Says\nif it is\n"""\n    return 2 * x\n', "broken"),
    "nothing": (_RIGHT, "right"),
}
"""Completions that hold a right function, and what the cut does to them."""


def verdicts() -> dict:
    """Run all of these."""
    cut = {}
    for name, (completion, _) in BEHIND.items():
        cut[name] = [by_hash(completion), by_hash(truncate(completion))]
    return {
        "cheats": {way: [name for name in CHEATS if decide(CHEATS[name])] for way, decide in WAYS.items()},
        "refused": {way: [name for name in ODD if not decide(ODD[name])] for way, decide in WAYS.items()},
        "cut": cut,
    }


# What a number of samples says ----------------------------------------------------------------------------


def drawn_problems(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return with which probability a program for each problem is right: for most of them seldom."""
    return rng.beta(0.3, 1.2, size=n)


def table(n: int, k: int) -> np.ndarray:
    """Return `estimate` for each number of right ones."""
    return np.array([estimate(n, c, k) for c in range(n + 1)])


def bias(n_draws: int, rng: np.random.Generator) -> dict:
    """Return by how much both formulas are off in the mean, for sets of problems, and the error of that."""
    found: dict[str, list] = {"plain": [], "plain_error": [], "estimate": [], "estimate_error": []}
    p = drawn_problems(N_PROBLEMS, rng)
    truth = np.mean(1 - (1 - p) ** K)
    for n in SIZES:
        c = rng.binomial(n, p, size=(n_draws, N_PROBLEMS))
        for name, scores in (("plain", 1 - (1 - c / n) ** K), ("estimate", table(n, K)[c])):
            off = scores.mean(axis=1) - truth
            found[name].append(float(off.mean()))
            found[f"{name}_error"].append(float(off.std() / math.sqrt(n_draws)))
    return found


def spread(n_draws: int, rng: np.random.Generator) -> dict:
    """Return how far pass@10 of one problem scatters, by the estimate and by groups of ten."""
    found: dict = {"estimate": {}, "groups": {}}
    for p in LIKELY:
        for name in found:
            found[name][str(p)] = []
        for n in SIZES:
            found["estimate"][str(p)].append(float(table(n, K)[rng.binomial(n, p, n_draws)].std()))
            any_right = rng.binomial(K, p, size=(n_draws, n // K)) > 0
            found["groups"][str(p)].append(float(any_right.mean(axis=1).std()))
    return found


def errors(n_sets: int, rng: np.random.Generator) -> dict:
    """Return, for sets of 164 problems, the standard error that is told, and how far pass@k scatters."""
    found = {}
    n = 200
    p = drawn_problems(n_sets * N_PROBLEMS, rng).reshape(n_sets, N_PROBLEMS)
    c = rng.binomial(n, p)
    again = rng.binomial(n, p[0], size=(n_sets, N_PROBLEMS))
    for k in (1, 10, 100):
        scores = table(n, k)[c]
        told = scores.std(axis=1, ddof=1) / math.sqrt(N_PROBLEMS)
        # The same problems, asked again: only the draws differ.
        same = table(n, k)[again].mean(axis=1).std()
        found[str(k)] = [float(told.mean()), float(scores.mean(axis=1).std()), float(same)]
    return found


def temperatures(rng: np.random.Generator) -> dict:
    """Return pass@k by temperature, of a toy: 200 programs of 12 tokens for each of 164 problems."""
    logits = rng.normal(size=(N_PROBLEMS, N_TOKENS, VOCABULARY))
    # The right token: likelier in easy problems than in hard ones.
    logits[:, :, 0] = 3 + 2 * rng.normal(size=(N_PROBLEMS, 1)) + 1.2 * rng.normal(size=(N_PROBLEMS, N_TOKENS))
    logits *= 1.7
    found = {}
    for temperature in TEMPERATURES:
        right = [[probabilities(row, temperature)[0] for row in problem] for problem in logits]
        is_right = rng.random((N_PROBLEMS, 200, N_TOKENS)) < np.array(right)[:, None]
        c = is_right.all(axis=-1).sum(axis=-1)
        found[str(temperature)] = [float(table(200, k)[c].mean()) for k in LOOKS]
    return found


def digits() -> dict[str, float]:
    """Return how far off the estimate is for a million samples, ours and by log-gammas."""
    n, worst = 10**6, {"ours": 0.0, "log-gammas": 0.0}
    for c, k in ((3, 1000), (1000, 3), (400_000, 3), (700, 1000), (2, 100)):
        exact = float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))
        logs = math.lgamma(n - c + 1) - math.lgamma(n - c - k + 1)
        by_gammas = 1 - math.exp(logs - math.lgamma(n + 1) + math.lgamma(n - k + 1))
        for name, got in (("ours", estimate(n, c, k)), ("log-gammas", by_gammas)):
            worst[name] = max(worst[name], abs(got - exact))
    return worst


def measured(n_draws: int, rng: np.random.Generator) -> dict:
    """Measure with one seed."""
    return {
        "bias": bias(n_draws, rng),
        "spread": spread(50 * n_draws, rng),
        "errors": errors(n_draws, rng),
        "temperatures": temperatures(rng),
    }


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Measure all.

    Parameters
    ----------
    rng
        Draws the seeds.
    scale
        Below 1: one seed in place of three, fewer draws.

    Returns
    -------
    dict
        Ready for JSON; ``seeds`` has an entry for each seed.
    """
    is_full = scale == 1
    seeds = rng.integers(2**32, size=3 if is_full else 1).tolist()
    drawn = [measured(4000 if is_full else 400, np.random.default_rng(seed)) for seed in seeds]
    return {"seeds": drawn, "verdicts": verdicts(), "digits": digits()}


def plot(numbers: dict):
    """Draw the bias, the scatter by samples, pass@k by temperature, and the verdicts."""
    import matplotlib.pyplot as plt

    figure, ((one, two), (three, four)) = plt.subplots(2, 2, figsize=(10, 6.8))
    seeds = numbers["seeds"]
    for name, label, colour in (
        ("plain", "1 - (1 - c/n)^k", "C3"),
        ("estimate", "1 - C(n-c, k) / C(n, k)", "C0"),
    ):
        for seed in seeds:
            points = 100 * np.array(seed["bias"][name])
            one.plot(SIZES, points, ".-", color=colour, alpha=0.8, label=label if seed is seeds[0] else None)
    one.axhline(0, color="0.5", lw=1)
    one.set(xscale="log", xlabel="programs drawn for each problem, n", ylabel="points off in the mean")
    one.set_title("pass@10: what is told, less what is true")
    one.legend(loc="lower right", fontsize=8)
    for p, colour in zip(LIKELY, ("C0", "C1", "C2"), strict=True):
        for name, style in (("estimate", "-"), ("groups", "--")):
            mean = np.mean([seed["spread"][name][str(p)] for seed in seeds], axis=0)
            label = f"{p:.0%} are right" if name == "estimate" else None
            two.plot(SIZES, 100 * mean, style, color=colour, marker=".", label=label)
    two.set(xscale="log", yscale="log", xlabel="programs drawn, n", ylabel="points that it scatters")
    two.set_title("pass@10 of one problem; dashed: by groups of 10")
    two.set_yticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
    two.legend(loc="lower left", fontsize=8)
    shown = [each for each in numbers["seeds"][0]["temperatures"] if float(each) in (0.2, 0.6, 0.8, 1.2)]
    for number, temperature in enumerate(shown):
        mean = np.mean([seed["temperatures"][temperature] for seed in seeds], axis=0)
        colour = plt.get_cmap("viridis")(number / len(shown))
        three.plot(LOOKS, 100 * mean, ".-", color=colour, label=f"temperature {temperature}")
    three.set(xscale="log", xlabel="k", ylabel="pass@k, percent")
    three.set_xticks(LOOKS, [str(each) for each in LOOKS])
    three.minorticks_off()
    three.set_title("a toy model")
    three.legend(loc="lower right", fontsize=8)
    for place in (one, two):
        place.set_xticks(SIZES, [str(each) for each in SIZES])
        place.minorticks_off()
    verdict = numbers["verdicts"]
    ways = list(verdict["cheats"])
    heights = np.arange(len(ways))[::-1]
    n_cheats = [len(verdict["cheats"][way]) for way in ways]
    n_refused = [len(verdict["refused"][way]) for way in ways]
    four.barh(heights + 0.2, n_cheats, 0.36, color="C3", label=f"of {len(CHEATS)} that cheat, pass")
    four.barh(heights - 0.2, n_refused, 0.36, color="0.6", label=f"of {len(ODD)} that are right, do not")
    for height, *both in zip(heights, n_cheats, n_refused, strict=True):
        for off, number in zip((0.2, -0.2), both, strict=True):
            four.annotate(str(number), (number + 0.15, float(height) + off), va="center", fontsize=8)
    four.set_yticks(heights, ways)
    four.set(xlabel="programs", xlim=(0, len(CHEATS) + 1))
    four.set_title("what the verdict believes")
    four.legend(loc="lower right", fontsize=8)
    return figure


def claim(numbers: dict) -> None:
    """README.md: the bias of the plain formula, scatter, errors of 164 problems, temperatures, verdicts."""
    is_full = len(numbers["seeds"]) == 3
    for seed in numbers["seeds"]:
        _claim_counts(seed, is_full)
        by_temperature = {
            float(each): dict(zip(LOOKS, p, strict=True)) for each, p in seed["temperatures"].items()
        }
        best = {k: max(TEMPERATURES, key=lambda each, k=k: by_temperature[each][k]) for k in LOOKS}
        assert best[1] <= 0.2
        assert 0.4 <= best[100] <= 1.0
        cold, warm = by_temperature[0.2], by_temperature[0.8]
        assert cold[1] > warm[1] + 0.03
        assert warm[100] > cold[100] + 0.02
        assert cold[2] > warm[2]
        assert warm[20] > cold[20]
        assert by_temperature[1.2][100] < by_temperature[best[100]][100]
        if is_full:
            assert 0.08 < cold[1] - warm[1] < 0.12
            assert 0.04 < warm[100] - cold[100] < 0.09
    verdict = numbers["verdicts"]
    n_cheats = [len(each) for each in verdict["cheats"].values()]
    assert n_cheats == [13, 7, 5, 2, 0]
    assert verdict["cheats"]["a nonce and its hash (ours)"] == [
        "is 0 less everything",
        "prints what is in its callers' frames",
    ]
    assert [len(each) for each in verdict["refused"].values()] == [2, 3, 3, 0, 1]
    assert verdict["refused"]["answers compared outside"] == ["gives a fraction"]
    kinds = {"saved": [False, True], "lost": [False, False], "broken": [True, False], "right": [True, True]}
    assert verdict["cut"] == {name: kinds[kind] for name, (_, kind) in BEHIND.items()}
    assert numbers["digits"]["ours"] < 1e-15
    assert 1e-9 < numbers["digits"]["log-gammas"] < 1e-8


def _claim_counts(seed: dict, is_full: bool) -> None:
    off = seed["bias"]
    for n, told, error in zip(SIZES, off["estimate"], off["estimate_error"], strict=True):
        assert abs(told) < 5 * error, n
    for n, told, least, most in zip(
        SIZES, off["plain"], (0.05, 0.02, 0.008, 0.004, 0.002), (0.08, 0.04, 0.02, 0.01, 0.006), strict=True
    ):
        assert -most < told < -least, n
    if is_full:
        assert 0.055 < -off["plain"][0] < 0.068
        assert 0.028 < -off["plain"][1] < 0.034
        assert 0.0028 < -off["plain"][-1] < 0.0036
    for p, least, most in ((0.02, 0.95, 1.25), (0.1, 1.4, 2.0), (0.3, 5.0, 9.0)):
        estimate_, groups = (np.array(seed["spread"][name][str(p)]) for name in ("estimate", "groups"))
        assert abs(groups[0] / estimate_[0] - 1) < 0.1  # n = k: there is one group
        assert least < (groups[-1] / estimate_[-1]) ** 2 < most
    scatter = dict(zip(SIZES, seed["spread"]["estimate"]["0.1"], strict=True))
    assert 0.45 < scatter[10] < 0.5
    assert 0.27 < scatter[20] < 0.31
    assert 0.11 < scatter[100] < 0.13
    if is_full:
        assert all(
            least < (seed["spread"]["groups"][p][-1] / seed["spread"]["estimate"][p][-1]) ** 2 < most
            for p, least, most in (("0.02", 1.05, 1.15), ("0.1", 1.55, 1.75), ("0.3", 6.8, 7.8))
        )
    told = {int(k): each for k, each in seed["errors"].items()}
    for k, least, most in ((1, 0.018, 0.022), (10, 0.029, 0.034), (100, 0.028, 0.034)):
        assert least < told[k][0] < most
        assert abs(told[k][1] / told[k][0] - 1) < (0.05 if is_full else 0.15)
    assert told[1][2] < 0.003
    assert told[10][2] < 0.006
    assert 0.006 < told[100][2] < 0.015
