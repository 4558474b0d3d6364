"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import functools
import hashlib
import math
import secrets
from fractions import Fraction

import numpy as np

from techtree.techs.assistant import sandbox
from techtree.techs.assistant.sandbox import Limits
from techtree.techs.inference.sampling import StopStrings
from techtree.tree.answers import told

_CUT = r'return re.split("\n(?:class|def|#|if|print)", completion, maxsplit=1)[0]'
_NONCE = "    nonce = secrets.token_hex(16)\n"
_HASH = '    write(1, hashlib.sha256(nonce.encode()).hexdigest().encode() + b"\\\\n")\n'
_MODULE = 'module = sys.modules["program"] = types.ModuleType("program")'
_RUN = 'execute(compile(program, "<program>", "exec"), vars(module))'
_NAMES = 'names = {**vars(module), **plain, "__name__": "test", "__builtins__": plain}'
_TEST = "execute(test, names)\n"
_CHECK = '    names["check"](vars(module)[entry_point])\n'
_SHOWN = '    write(1, b"\\\\n" + nonce.encode() + b"\\\\n")\n'
_LEAVE = "    leave(0)\n"
_JOINED = "{problem.prompt + completion!r}"
_TOLD = 'told, *lines = run(f"{_HARNESS}judge{arguments}\\n", limits).output.splitlines() or [""]'
_VERDICT = 'return any(hashlib.sha256(line.encode("utf-8", "replace")).hexdigest() == told for line in lines)'
_IS_WHOLE = (
    "is_whole = all(isinstance(each, int | np.integer) and not isinstance(each, bool) for each in (n, c, k))"
)
_REFUSED = "if not is_whole or not (0 <= c <= n and 1 <= k <= n):"
_SORTED = "few, many = sorted((int(c), int(k)))"
_CERTAIN = "    if many > n - few:\n        return 1.0\n"
_FACTORS = "factors = -many / np.arange(n - few + 1.0, n + 1.0)"
_ESTIMATE = "return abs(float(np.expm1(np.log1p(factors).sum())))"
_NOTHING = "if not problems or not ks:"
_EARLY = "    for k in ks:\n        estimate(n, 0, k)\n"
_COUNTS = "counts = [sum(passes(each, sample(each), limits) for _ in range(n)) for each in problems]"
_KS = "    for k in ks:\n        scores"
_SCORES = "scores = np.array([estimate(n, c, k) for c in counts])"
_SPREAD = "spread = scores.std(ddof=1) if len(scores) > 1 else math.nan"
_FOUND = "found[k] = float(scores.mean()), float(spread / math.sqrt(len(scores)))"


def _by_source(mark, after):
    """Edits that print a mark behind the tests, which stands in the program's own source."""
    return [
        ("def judge(program, test, entry_point):", "def judge(program, test, entry_point, nonce):"),
        (_NONCE, ""),
        (_HASH, ""),
        (_TOLD, f'nonce = {mark}\n    arguments = f"{{arguments[:-1]}}, {{nonce!r}})"\n    {after}'),
        (_VERDICT, "return nonce in lines"),
    ]


_LINES = 'lines = run(f"{_HARNESS}judge{arguments}\\n", limits).output.splitlines()'

MISTAKES = {
    "truncate: only the start of a whole word counts": [(_CUT, _CUT.replace('print)"', 'print)\\\\b"'))],
    "truncate: comments do not end it": [(_CUT, _CUT.replace("|#", ""))],
    "truncate: any line that is not indented ends it": [
        (_CUT, r'return re.split(r"\n(?=\S)", completion, maxsplit=1)[0]')
    ],
    "truncate: words within a line end it": [(_CUT, _CUT.replace(r'"\n(?:', r'"(?:'))],
    "truncate: indented words end it, too": [(_CUT, _CUT.replace(r'"\n(?:', r'"\n[ \t]*(?:'))],
    "truncate: what begins with such a word is empty": [
        (_CUT, r'return re.split("(?:^|\n)(?:class|def|#|if|print)", completion, maxsplit=1)[0]')
    ],
    "truncate: cut at the last such line": [
        (
            _CUT,
            r'return completion[: max((m.start() for m in re.finditer("\n(?:class|def|#|if|print)", completion)), default=None)]',
        )
    ],
    "truncate: cut at the first word of the list that occurs": [
        (
            _CUT,
            r'return next((completion.split(s)[0] for s in ("\nclass", "\ndef", "\n#", "\nif", "\nprint") if s in completion), completion)',
        )
    ],
    "truncate: the end of the line stays": [
        (_CUT, r'return re.split("(?<=\n)(?:class|def|#|if|print)", completion, maxsplit=1)[0]')
    ],
    "truncate: blanks around it are cut, too": [(_CUT, _CUT + ".strip()")],
    "passes: the exit code decides": [
        (_VERDICT, "return not lines or True"),
        (
            _TOLD,
            'told, lines = "", []\n    if run(f"{_HARNESS}judge{arguments}\\n", limits).exit_code != 0:\n        return False',
        ),
    ],
    "passes: a fixed word behind the tests decides": _by_source('"passed"', _LINES),
    "passes: the nonce stands in the program's own source": [
        ("import hashlib\nimport math", "import hashlib\nimport math\nimport secrets"),
        *_by_source("secrets.token_hex(16)", _LINES),
    ],
    "passes: any line may be the hash": [
        (
            _VERDICT,
            'lines.append(told)\n    return any(hashlib.sha256(line.encode("utf-8", "replace")).hexdigest() in lines for line in lines)',
        )
    ],
    "passes: the hash is printed when the program has run": [(_HASH, ""), (_TEST, _TEST + _HASH)],
    "passes: what is printed must be all": [
        (_VERDICT, "return len(lines) == 2 and hashlib.sha256(lines[1].encode()).hexdigest() == told")
    ],
    "passes: the nonce needs no line of its own": [(_SHOWN, _SHOWN.replace('b"\\\\n" + nonce', "nonce"))],
    "passes: the nonce is printed by print": [(_SHOWN, "    print()\n    print(nonce, flush=True)\n")],
    "passes: the nonce goes to sys.stdout": [
        (_SHOWN, '    sys.stdout.write("\\\\n" + nonce + "\\\\n")\n    sys.stdout.flush()\n')
    ],
    "passes: what happens at the exit counts": [
        (_LEAVE, ""),
        (
            _TOLD,
            'outcome = run(f"{_HARNESS}judge{arguments}\\n", limits)\n    told, *lines = outcome.output.splitlines() or [""]',
        ),
        (_VERDICT, _VERDICT.replace("return any", "return outcome.exit_code == 0 and any")),
    ],
    "passes: the nonce is printed in any case": [
        (_CHECK, "    try:\n    " + _CHECK + "    except BaseException:\n        pass\n")
    ],
    "passes: failed assertions are caught": [
        (_CHECK, "    try:\n    " + _CHECK + "    except AssertionError:\n        pass\n")
    ],
    "passes: leaving with 0 is the end": [
        (_RUN, f"try:\n        {_RUN}\n    except SystemExit:\n        pass"),
    ],
    "passes: check is never called": [(_CHECK, "")],
    "passes: the test does not see the program's names": [(_NAMES, _NAMES.replace("**vars(module), ", ""))],
    "passes: the test sees other functions of builtins": [
        (_NAMES, 'names = {**vars(module), "__name__": "test"}')
    ],
    "passes: functions of builtins can be exchanged for the test": [
        (_NAMES, 'names = {**plain, **vars(module), "__name__": "test", "__builtins__": plain}')
    ],
    "passes: functions of builtins may not have the name of the entry point": [
        (_CHECK, _CHECK.replace("vars(module)[entry_point]", "names[entry_point]"))
    ],
    "passes: the program is the main one": [(_MODULE, 'module = types.ModuleType("__main__")')],
    "passes: the program's module cannot be found": [(_MODULE, 'module = types.ModuleType("program")')],
    "passes: the prompt is left out": [(_JOINED, "{completion!r}")],
    "passes: a new line stands between prompt and completion": [
        (_JOINED, "{problem.prompt + chr(10) + completion!r}")
    ],
    "passes: the completion is stripped": [(_JOINED, "{problem.prompt + completion.strip()!r}")],
    "passes: the completion is cut": [(_JOINED, "{problem.prompt + truncate(completion)!r}")],
    "passes: the limits are the usual ones": [(_TOLD, _TOLD.replace(", limits)", ")"))],
    "passes: nothing need be printed": [(_TOLD, _TOLD.replace(' or [""]', ""))],
    "passes: bytes that are no text are an error": [
        (_VERDICT, _VERDICT.replace('"utf-8", "replace"', '"ascii"'))
    ],
    "estimate: 1 - (1 - c/n)^k": [
        (_ESTIMATE, "return 1.0 - (1.0 - int(c) / int(n)) ** int(k)"),
        (_CERTAIN, ""),
    ],
    "estimate: the share of right ones, whatever k": [(_ESTIMATE, "return int(c) / int(n)"), (_CERTAIN, "")],
    "estimate: the chance that none is right": [
        (_ESTIMATE, "return float(np.exp(np.log1p(factors).sum()))"),
        (_CERTAIN, "    if many > n - few:\n        return 0.0\n"),
    ],
    "estimate: all k are right": [
        (_SORTED, "few, many = sorted((int(n) - int(c), int(k)))"),
        (_CERTAIN, "    if many > n - few:\n        return 0.0\n"),
        (_ESTIMATE, "return float(np.exp(np.log1p(factors).sum()))"),
    ],
    "estimate: one factor too few": [(_FACTORS, _FACTORS.replace("n - few + 1.0,", "n - few + 2.0,"))],
    "estimate: one factor too many": [
        (_FACTORS, "factors = -np.minimum(many, n - few) / np.arange(n - few * 1.0, n + 1.0)")
    ],
    "estimate: certain one wrong program too early": [
        (_CERTAIN, _CERTAIN.replace("> n - few", ">= n - few"))
    ],
    "estimate: log-gammas of large numbers are subtracted": [
        (
            _ESTIMATE,
            "w = n - few\n    return 1 - math.exp(math.lgamma(w + 1) - math.lgamma(w - many + 1) - math.lgamma(n + 1) + math.lgamma(n - many + 1))",
        )
    ],
    "estimate: sums of 32 bits": [
        (_ESTIMATE, "return abs(float(np.expm1(np.log1p(factors.astype(np.float32)).sum())))")
    ],
    "estimate: narrow whole numbers overflow": [(_SORTED, "few, many = sorted((c, k))")],
    "estimate: k may be larger than n": [(_REFUSED, _REFUSED.replace("1 <= k <= n", "1 <= k"))],
    "estimate: k may be 0": [(_REFUSED, _REFUSED.replace("1 <= k <= n", "0 <= k <= n"))],
    "estimate: c may be larger than n": [(_REFUSED, _REFUSED.replace("0 <= c <= n", "0 <= c"))],
    "estimate: c may be negative": [(_REFUSED, _REFUSED.replace("0 <= c <= n", "c <= n"))],
    "estimate: booleans are numbers": [
        (_IS_WHOLE, "is_whole = all(isinstance(each, int | np.integer | np.bool_) for each in (n, c, k))")
    ],
    "estimate: 2.0 is a whole number": [
        (_IS_WHOLE, "is_whole = not any(isinstance(each, bool | np.bool_) or each % 1 for each in (n, c, k))")
    ],
    "estimate: NumPy's whole numbers are none": [(_IS_WHOLE, _IS_WHOLE.replace("int | np.integer", "int"))],
    "estimate: a number of NumPy": [
        (_ESTIMATE, "return np.abs(np.expm1(np.log1p(factors).sum()))"),
    ],
    "evaluate: all samples are thrown together": [
        (_SCORES, "scores = np.full(len(counts), estimate(n * len(counts), sum(counts), k))")
    ],
    "evaluate: whether one of the first k is right": [
        (_COUNTS, "verdicts = [[passes(each, sample(each), limits) for _ in range(n)] for each in problems]"),
        (_SCORES, "scores = np.array([float(any(each[:k])) for each in verdicts])"),
    ],
    "evaluate: 1 - (1 - c/n)^k": [(_SCORES, "scores = np.array([1 - (1 - c / n) ** k for c in counts])")],
    "evaluate: the error is that of a population": [
        (_SPREAD, "spread = scores.std() if len(scores) > 1 else math.nan")
    ],
    "evaluate: the error is the spread": [(_FOUND, "found[k] = float(scores.mean()), float(spread)")],
    "evaluate: the error is that of throwing a coin for each problem": [
        (_SPREAD, "spread = math.sqrt(scores.mean() * (1 - scores.mean())) if len(scores) > 1 else math.nan")
    ],
    "evaluate: the error is that of all samples": [
        (_FOUND, "found[k] = float(scores.mean()), float(spread / math.sqrt(n * len(scores)))")
    ],
    "evaluate: the error of a single problem is 0": [(_SPREAD, _SPREAD.replace("math.nan", "0.0"))],
    "evaluate: percent": [
        (_FOUND, "found[k] = 100 * float(scores.mean()), 100 * float(spread / math.sqrt(len(scores)))")
    ],
    "evaluate: one completion for all n": [
        (_COUNTS, "counts = [n * passes(each, sample(each), limits) for each in problems]")
    ],
    "evaluate: a round of all problems, then the next": [
        (
            _COUNTS,
            "counts = [sum(each) for each in zip(*([passes(p, sample(p), limits) for p in problems] for _ in range(n)))]",
        )
    ],
    "evaluate: only the largest k": [(_KS, "    for k in [max(ks)]:\n        scores")],
    "evaluate: the ks are sorted": [(_KS, "    for k in sorted(ks):\n        scores")],
    "evaluate: a k that is too large is noticed late": [(_EARLY, "")],
    "evaluate: no problem is no error": [(_NOTHING, "if not ks:")],
    "evaluate: no k is no error": [(_NOTHING, "if not problems:")],
    "evaluate: completions are cut": [(_COUNTS, _COUNTS.replace("sample(each)", "truncate(sample(each))"))],
    "evaluate: the limits are the usual ones": [(_COUNTS, _COUNTS.replace(", limits)", ")"))],
}


def _whole(n, c, k):
    for each in (n, c, k):
        if isinstance(each, bool | np.bool_) or not isinstance(each, int | np.integer):
            raise ValueError("whole numbers, please")
    n, c, k = int(n), int(c), int(k)
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError("out of range")
    return n, c, k


def _by_fractions(n, c, k):
    """The definition."""
    n, c, k = _whole(n, c, k)
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def _by_comb(n, c, k):
    """Whole numbers of any size, divided once."""
    n, c, k = _whole(n, c, k)
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def _by_product(n, c, k):
    """As in the paper."""
    n, c, k = _whole(n, c, k)
    return 1.0 if n - c < k else float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def _by_log_gamma(n, c, k):
    """Log-gammas where they have digits enough, and a loop where they do not."""
    n, c, k = _whole(n, c, k)
    if n - c < k:
        return 1.0
    if n <= 500:
        logs = [math.lgamma(each + 1) for each in (n - c, n - k, n - c - k, n)]
        return -math.expm1(math.fsum([logs[0], logs[1], -logs[2], -logs[3]])) if c else 0.0
    left = 1.0
    for each in range(min(c, k)):
        left *= (n - max(c, k) - each) / (n - each)
    return 1.0 - left


def _by_marks(completion):
    """The filter for texts that arrive in pieces."""
    stops = StopStrings(["\nclass", "\ndef", "\n#", "\nif", "\nprint"])
    return stops.feed(completion) + stops.finish()


def _by_lines(completion):
    """Line by line."""
    first, *lines = completion.split("\n")
    kept = [first]
    for line in lines:
        if line.startswith(("class", "def", "#", "if", "print")):
            break
        kept.append(line)
    return "\n".join(kept)


_SECOND_HARNESS = """
def run_all(text, test, name, salt):
    import builtins as b, hashlib as h, os as o, sys as s, types as t
    known, do, make, out, end = b.__dict__.copy(), b.exec, b.compile, o.write, o._exit
    secret = h.sha512(o.urandom(32) + salt.encode()).digest()
    out(1, h.blake2b(secret).hexdigest().encode() + b"\\n")
    s.modules["answer"] = answer = t.ModuleType("answer")
    judge = make(test, "judge", "exec")
    do(make(text, "answer", "exec"), answer.__dict__)
    space = {key: value for key, value in answer.__dict__.items() if key not in known}
    space["__builtins__"] = known
    do(judge, space)
    space["check"](answer.__dict__[name])
    out(1, b"\\n<" + secret.hex().encode() + b">\\n")
    end(1)
"""


def _by_another_harness(problem, completion, limits=Limits()):  # noqa: B008
    """Bytes, another hash, another place for the names, and an exit code that says the contrary."""
    asked = (problem.prompt + completion, problem.test, problem.entry_point, secrets.token_hex(4))
    first, _, rest = sandbox.run(f"{_SECOND_HARNESS}\nrun_all(*{asked!r})\n", limits).output.partition("\n")
    for line in rest.split("\n"):
        if line[:1] == "<" and line[-1:] == ">" and len(line) == 130:
            try:
                if hashlib.blake2b(bytes.fromhex(line[1:-1])).hexdigest() == first:
                    return True
            except ValueError:
                continue
    return False


EQUIVALENTS = {
    "fractions": {"estimate": _by_fractions},
    "binomials of any size, and the filter for pieces of text": {"estimate": _by_comb, "truncate": _by_marks},
    "log-gammas of small numbers, line by line": {"estimate": _by_log_gamma, "truncate": _by_lines},
    "the product of the paper, and another harness": {
        "estimate": _by_product,
        "passes": _by_another_harness,
    },
    "equal completions are run once": [
        (
            _COUNTS,
            "counts = []\n    for each in problems:\n        texts = [sample(each) for _ in range(n)]\n"
            "        known = {text: passes(each, text, limits) for text in texts}\n"
            "        counts.append(sum(known[text] for text in texts))",
        )
    ],
}

_SPLIT = r"""re.split('\n(?:class|def|#|if|print)', completion, maxsplit=1)[0]"""
_NAN = "spread = scores.std(ddof=1) if len(scores) > 1 else math.nan => spread = scores.std(ddof=1) if"
HARMLESS = {
    f"return {_SPLIT} => return {_SPLIT.replace(', maxsplit=1', '')}": "the first part is the same",
    f"return {_SPLIT} => return {_SPLIT.replace('maxsplit=1', 'maxsplit=2')}": "the first part is the same",
    f"return {_SPLIT} => return {_SPLIT.replace('maxsplit=1', 'maxsplit=0')}": "the first part is the same",
    "estimate(n, 0, k) => estimate(n, 1, k)": "an n of at least 1 has room for 1, and no other is allowed",
    f"{_NAN} True else math.nan": "NumPy says NaN, too",
    f"{_NAN} len(scores) >= 1 else math.nan": "NumPy says NaN, too",
    f"{_NAN} len(scores) > 0 else math.nan": "NumPy says NaN, too",
    "evaluate: right at the first call only": "a dictionary is left as it is",
}

_run_once = functools.cache(sandbox.run)
"""Most versions run the same programs: each is run once. (Its nonce is in its own output.)"""


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    test = "def check(candidate):\n    assert [candidate(x) for x in (0, 3)] == [0, 6]\n"
    absolute = "def check(candidate):\n    assert abs(candidate(3) - helper(3)) == 0\n"
    double = "def double(x):\n", "double", test
    with_helper = "def helper(x):\n    return 2 * x\n\ndef double(x):\n", "double", absolute
    patient = Limits(cpu_seconds=10.0, wall_seconds=30.0)

    def once(call):
        def probe(impl):
            if vars(impl).get("run") is sandbox.run:
                impl.run = _run_once
            return call(impl)

        return told(probe)

    def passed(completion, problem=double, limits=patient):
        return once(lambda impl: impl.passes(impl.Problem(*problem), completion, limits))

    def cut(text):
        return told(lambda impl: impl.truncate(text))

    def estimated(*numbers):
        def call(impl):
            found = impl.estimate(*numbers)
            return [type(found).__name__, float(found)]

        return told(call)

    def evaluated(verdicts, ks, n=None, limits=patient, right="    return 2 * x\n"):
        def call(impl):
            problems = [impl.Problem(*double, solution=str(number)) for number in range(len(verdicts))]
            left, asked = [list(each) for each in verdicts], []

            def sample(problem):
                asked.append(int(problem.solution))
                return right if left[asked[-1]].pop(0) else "    return 5\n"

            try:
                found = impl.evaluate(problems, sample, len(verdicts[0]) if n is None else n, ks, limits)
            except ValueError:
                return ["ValueError", asked]
            return [[k, *map(float, both)] for k, both in found.items()], asked

        return once(call)

    of_a = hashlib.sha256(b"a").hexdigest()
    leave = "import os\nos._exit(0)\n"
    read = "import sys\ntexts = [*sys.argv, *sys.orig_argv[1:]]\nfor path in [*texts, '/proc/self/cmdline']:\n    try:\n"
    read += "        texts.append(open(path).read())\n    except (OSError, ValueError):\n        pass\nimport re\n"
    read += "print(*re.findall('[0-9a-f]{8,}', ' '.join(texts)), sep='\\n', flush=True)\n"
    return {
        "a word that goes on": cut("    return 1\niffy = 3\ndef f(): pass\n"),
        "a comment": cut("    return 1\n# f\n\nprint(f(1))\n"),
        "another line": cut("    return 1\nx = 3\n\nclass A: pass\n"),
        "words in a line": cut("    return 'class'\n"),
        "indented": cut("    if x:\n        print(x)\n    return 1\n"),
        "no head": cut("def f():\n    pass\n"),
        "two stops": cut("    return 1\n\nprint(f(1))\ndef g(): pass\nclass A: pass\n"),
        "right": passed("    return 2 * x"),
        "right, and prints": passed("    return 2 * x\nprint('hello')\n"),
        "right, and prints without an end": passed("    return 2 * x\nprint('hello', end='', flush=True)\n"),
        "right, and prints signs": passed("    return 2 * x\nimport os\nos.write(1, b'\\xff\\n')\n"),
        "right, without print": passed("    return 2 * x\nimport builtins\nbuiltins.print = None\n"),
        "right, without standard output": passed(
            "    return 2 * x\nimport io, sys\nsys.stdout = io.StringIO()\n"
        ),
        "right, with an exit code": passed(
            "    return 2 * x\nimport atexit, os\natexit.register(os._exit, 3)\n"
        ),
        "right, and a main block": passed(
            "    return 2 * x\nif __name__ == '__main__':\n    raise ValueError\n"
        ),
        "right, and a dataclass": passed(
            "    return A(2 * x).y\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    y: 'int'\n"
        ),
        "right, then leaves": passed("    return 2 * x\nraise SystemExit(0)\n"),
        "right, within the line": passed(" 2 * x", ("def double(x):\n    return", "double", test)),
        "right, after a blank": passed("2 * x\n\n", ("def double(x):\n    return ", "double", test)),
        "right, with a helper in the prompt": passed("    return 2 * x", with_helper),
        "right, a helper behind": passed("    return f(x)\n\ndef f(x):\n    return 2 * x\n"),
        "right, and much to say": passed(
            "    return 2 * x\nprint('x' * 20000)\n", limits=Limits(wall_seconds=30.0, output_bytes=40_000)
        ),
        "right, named as another": passed(
            "    return 2 * x", ("def abs(x):\n", "abs", "def check(f):\n    assert f(3) == 6\n")
        ),
        "wrong": passed("    return x"),
        "raises": passed("    raise ValueError"),
        "leaves": passed(f"    {leave.replace(chr(10), chr(10) + '    ')}"),
        "wrong, leaves": passed(f"    return x\n{leave}"),
        "wrong, another abs": passed("    return x\nabs = lambda x: 0\n", with_helper),
        "wrong, another abs in builtins": passed(
            "    return x\nimport builtins\nbuiltins.abs = lambda x: 0\n", with_helper
        ),
        "wrong, and says that it passed": passed(f"    return x\nprint('passed', flush=True)\n{leave}"),
        "wrong, and a hash": passed(f"    return x\nprint('{of_a}', 'a', sep='\\n', flush=True)\n{leave}"),
        "wrong, and reads": passed(f"    return x\n{read}{leave}"),
        "no time at all": passed("    return 2 * x", limits=Limits(wall_seconds=0.001)),
        "one of three, two": estimated(3, 1, 2),
        "one of three, one": estimated(3, 1, 1),
        "two of five, three": estimated(5, 2, 3),
        "two of five, four": estimated(5, 2, 4),
        "three of five, four": estimated(5, 3, 4),
        "few of many": estimated(10**6, 3, 1000),
        "NumPy's numbers": estimated(np.uint8(200), np.uint8(60), np.uint8(100)),
        "k is too large": estimated(3, 0, 4),
        "k is 0": estimated(3, 1, 0),
        "c is too large": estimated(3, 4, 2),
        "c is negative": estimated(3, -1, 2),
        "a boolean": estimated(3, True, 2),
        "a float": estimated(3, 1.0, 2),
        "two problems": evaluated(
            [[True, False, False], [False, False, True], [True, True, True]], [3, 1, 2]
        ),
        "several problems": evaluated([[False, True], [False, False], [True, True], [True, False]], [1, 2]),
        "a problem": evaluated([[True, False]], [1]),
        "too large a k": evaluated([[True, True]], [1, 3]),
        "no k": evaluated([[True]], []),
        "no problem": evaluated([], [1], n=1),
        "a helper behind": evaluated([[True]], [1], right="    return f(x)\n\ndef f(x):\n    return 2 * x\n"),
        "no time": evaluated([[True]], [1], limits=Limits(wall_seconds=0.001)),
    }
