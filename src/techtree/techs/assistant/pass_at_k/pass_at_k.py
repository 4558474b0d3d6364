"""How often a model's programs are right: draw several for each problem, run them against tests, and count.

Claim: that a program is right can be found out by running it, if two things are done with care. The program
must not be asked whether it passed, since it would say yes. And "one of k is right" must not be computed as
if the share of right ones were known: it was counted on the same few samples.

Idea: draw n programs, more than k, and find c of them right. Of all ways to choose k of the n, count those
without a right one. For the verdict, a nonce is drawn in the program's own process, so it stands in no text
that the program could read; its hash is printed before the program runs, the nonce behind the last test.

Legend: ``n`` programs drawn for a problem, ``c`` of them right, ``k`` that somebody would look at.

Left out: where the completions come from (`sampling`), what holds a program back (`sandbox`), and programs
that take the harness apart from inside: they can still fool it, as the page says.

Paper: Chen et al. (2021), https://arxiv.org/abs/2107.03374
"""

import hashlib
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from techtree.techs.assistant.sandbox import Limits, run


@dataclass(frozen=True)
class Problem:
    """A function that is to be written, and a test of it.

    Attributes
    ----------
    prompt
        The beginning of a program, up to where the completion goes on: imports, other functions that are
        needed, and the head of the function.
    entry_point
        The function's name.
    test
        A program that defines ``check(candidate)``, which raises an exception if the candidate is wrong.
    solution
        A completion that is right; empty if none is known.
    """

    prompt: str
    entry_point: str
    test: str
    solution: str = ""


def truncate(completion: str) -> str:
    r"""Cut off what a model wrote behind its function.

    Parameters
    ----------
    completion
        What a model wrote behind a prompt.

    Returns
    -------
    str
        All before the first place where a line begins with ``class``, ``def``, ``#``, ``if`` or ``print``,
        without the ``\n`` before it: not indented, whatever follows (also in ``iffy``). The beginning of
        the completion is no beginning of a line. All of it if there is no such place.

    Examples
    --------
    >>> truncate("    return 2 * x\n\nprint(double(3))\n")
    '    return 2 * x\n'
    """
    return re.split("\n(?:class|def|#|if|print)", completion, maxsplit=1)[0]


_HARNESS = """\
import builtins, hashlib, os, secrets, sys, types


def judge(program, test, entry_point):
    # What comes behind the program must not depend on what it puts in the place of others' functions.
    write, leave, execute, plain = os.write, os._exit, exec, dict(vars(builtins))
    test = compile(test, "<test>", "exec")
    nonce = secrets.token_hex(16)
    write(1, hashlib.sha256(nonce.encode()).hexdigest().encode() + b"\\n")
    module = sys.modules["program"] = types.ModuleType("program")
    execute(compile(program, "<program>", "exec"), vars(module))
    names = {**vars(module), **plain, "__name__": "test", "__builtins__": plain}
    execute(test, names)
    names["check"](vars(module)[entry_point])
    write(1, b"\\n" + nonce.encode() + b"\\n")
    leave(0)


"""


def passes(problem: Problem, completion: str, limits: Limits = Limits()) -> bool:  # noqa: B008
    """Tell whether a completion solves a problem, by a run in the sandbox.

    Parameters
    ----------
    problem
        What is asked. Its solution does not matter.
    completion
        What is appended to the prompt, as it is.
    limits
        Of the run.

    Returns
    -------
    bool
        Whether this comes to its end within the limits: the program, which is prompt and completion, runs;
        then the test runs; then its ``check`` is called with the function that the program has under the
        name of the entry point. A program that is no Python, or leaves, or raises, does not.

        Nothing else matters: neither exit code nor what is printed, nor what the program does when the
        process ends, nor which names it defines, nor what it puts in place of ``sys.stdout`` or of functions
        of `builtins`.
        For program and test ``__name__`` is not ``"__main__"``. The test sees the program's names too, but
        functions of `builtins` as they are in Python, though the program may have others of these names.

        A wrong program does not pass by printing all that its source and its command line contain, nor a
        hash with what it is of. (What stands in the frames of its callers may help it.)

    Examples
    --------
    >>> double = Problem("def double(x):", "double", "def check(candidate): assert candidate(3) == 6")
    >>> passes(double, " return 2 * x"), passes(double, " return 9"), passes(double, " raise SystemExit(0)")
    (True, False, False)
    """
    arguments = f"({problem.prompt + completion!r}, {problem.test!r}, {problem.entry_point!r})"
    told, *lines = run(f"{_HARNESS}judge{arguments}\n", limits).output.splitlines() or [""]
    return any(hashlib.sha256(line.encode("utf-8", "replace")).hexdigest() == told for line in lines)


def estimate(n: int, c: int, k: int) -> float:
    """Estimate how likely it is that at least one of k programs is right, from n of which c are.

    Parameters
    ----------
    n, c, k
        Whole numbers, Python's or NumPy's of any width, with ``0 <= c <= n`` and ``1 <= k <= n``.

    Returns
    -------
    float
        The share of all choices of k among the n that hold at least one of the c: a plain ``float``, off by
        at most 1e-10, for n up to a million. 0 if c is 0, and 1 if fewer than k are wrong, exactly.

    Raises
    ------
    ValueError
        When a number is out of its range, or no whole number: a boolean and 2.0 are none.

    Notes
    -----
    1 - C(n - c, k) / C(n, k), as Chen et al. (2021) have it. Its mean over samples is 1 - (1 - p)**k, if each
    program is right with probability p: it has no bias.

    Examples
    --------
    >>> round(estimate(3, 1, 2), 6)  # of the three pairs, two hold the right one
    0.666667
    """
    is_whole = all(isinstance(each, int | np.integer) and not isinstance(each, bool) for each in (n, c, k))
    if not is_whole or not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"whole numbers must be 0 <= c <= n, 1 <= k <= n; got n={n!r}, c={c!r}, k={k!r}")
    few, many = sorted((int(c), int(k)))  # The two may be exchanged: choose the c among which no k is.
    if many > n - few:
        return 1.0
    factors = -many / np.arange(n - few + 1.0, n + 1.0)
    return abs(float(np.expm1(np.log1p(factors).sum())))


def evaluate(
    problems: Sequence[Problem],
    sample: Callable[[Problem], str],
    n: int,
    ks: Collection[int],
    limits: Limits = Limits(),  # noqa: B008
) -> dict[int, tuple[float, float]]:
    """Measure how often a model solves problems.

    Parameters
    ----------
    problems
        At least one.
    sample
        Draws a completion for a problem; called n times for each problem, one problem after the other.
    n
        How many completions are drawn for each problem.
    ks
        For how many looks the model is measured; at least one number.
    limits
        Of each run, as for `passes`.

    Returns
    -------
    dict[int, tuple[float, float]]
        For each k, in the order of ks, plain floats: the mean of `estimate` over the problems, and its
        standard error: the standard deviation of the estimates over the problems, with the number of problems
        minus 1 below the fraction, divided by the root of the number of problems. The error is NaN for a
        single problem.

    Raises
    ------
    ValueError
        Before anything is drawn: when there is no problem or no k; when `estimate` refuses n or a k.

    Examples
    --------
    >>> double = Problem("def double(x):", "double", "def check(candidate): assert candidate(3) == 6")
    >>> answers = iter([" return 6", " return x", " return 3", " return x + 3"])
    >>> evaluate([double, double], lambda problem: next(answers), n=2, ks=[1, 2])
    {1: (0.5, 0.0), 2: (1.0, 0.0)}
    """
    if not problems or not ks:
        raise ValueError(f"there must be a problem and a k; got {len(problems)} problems, ks={ks!r}")
    for k in ks:
        estimate(n, 0, k)
    counts = [sum(passes(each, sample(each), limits) for _ in range(n)) for each in problems]
    found = {}
    for k in ks:
        scores = np.array([estimate(n, c, k) for c in counts])
        spread = scores.std(ddof=1) if len(scores) > 1 else math.nan
        found[k] = float(scores.mean()), float(spread / math.sqrt(len(scores)))
    return found
