"""`check`: the learner's file is judged, and a wrong one is told what is wrong, in a few lines.

What can be seen without running it comes first: a file that does not parse, is not begun, is ours word for
word, or imports what it may not. Then the technology's tests judge it in a process of their own. The answers
to the technology's probes are compared with those of every known mistake: equal ones name the bug.
"""

import ast
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from techtree.errors import InputError
from techtree.learn.workspace import Workspace, stub
from techtree.tree.answers import same
from techtree.tree.certificate import certificates, read_certificates
from techtree.tree.grading import Outcome, Report, grade
from techtree.tree.probing import KnownAnswers, known_answers
from techtree.tree.rules import import_rule
from techtree.tree.technology import Technology

TIMEOUT_S = 20
"""For all tests of a file; a single endless test is stopped earlier."""


@dataclass(frozen=True)
class Verdict:
    """What came of a check.

    Attributes
    ----------
    tech
        The technology.
    seed
        Of the tests' random inputs.
    problem
        Why the file was not run, or why its green tests do not count, in one sentence; empty otherwise.
    outcome
        How the tests went, if they ran.
    mistake
        The known mistake that the file makes, if its answers are equal to that one's.
    n_lines
        How many lines of the file ran.
    """

    tech: Technology
    seed: int
    problem: str = ""
    details: list[str] = field(default_factory=list)
    outcome: Outcome | None = None
    mistake: str = ""
    n_lines: int = 0

    @property
    def is_right(self) -> bool:
        """Whether everything passed."""
        judged = self.outcome is not None and self.outcome.n_passed > 0 and not self.outcome.failures
        return judged and not self.problem


def check(workspace: Workspace, tech: Technology, seed: int | None = None) -> Verdict:
    """Judge the learner's version of a technology.

    Parameters
    ----------
    workspace
        Where it lies.
    tech
        The technology.
    seed
        Of the tests' random inputs; drawn when left out.

    Raises
    ------
    InputError
        When there is no file yet, or the tests of this installation are not the certified ones.
    """
    path = workspace.file(tech)
    if not path.is_file():
        raise InputError(f"there is no {workspace.shown(tech)} yet: techtree learn start {tech.id}")
    _require_certified(workspace, tech)
    seed = secrets.randbelow(10_000) if seed is None else seed
    problem, details = _static_problem(workspace, tech)
    if problem:
        return Verdict(tech, seed, problem, details)
    with ThreadPoolExecutor(1) as pool:
        known = pool.submit(known_answers, tech)
        report = grade(tech, str(path), seed, timeout_s=TIMEOUT_S)
        return _verdict(tech, seed, report, known.result())


def _require_certified(workspace: Workspace, tech: Technology) -> None:
    """Refuse to judge by tests that are not those that were tried on right and wrong versions."""
    current = certificates(workspace.tree)
    if read_certificates(workspace.tree.root).get(tech.id) != current[tech.id]:
        raise InputError(
            f"the tests of {tech.id} in this installation are not the certified ones: install techtree again,"
            f" or in a clone run techtree unlock {tech.id}"
        )


def _static_problem(workspace: Workspace, tech: Technology) -> tuple[str, list[str]]:
    """Return what is wrong with a file before it runs, and lines that show where."""
    path = workspace.file(tech)
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except UnicodeDecodeError as error:
        return f"the file must be UTF-8; byte {error.start} is not", []
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        shown = [f"line {line}: {(getattr(error, 'text', '') or '').strip()}"] if line else []
        return f"the file must be valid Python: {getattr(error, 'msg', error)}", shown
    ours = tech.implementation.read_text(encoding="utf-8")
    if _bare(tree) == _bare(ast.parse(stub(tech))):
        return f"not written yet: {', '.join(tech.exercise)} must get bodies", []
    if _bare(tree) == _bare(ast.parse(ours)):
        return "this is our implementation word for word, which unlocks nothing: write your own", []
    violations = import_rule(workspace.tree, tech, is_ours=False).violations(source, tech.module)
    if violations:
        return f"forbidden: {violations[0]}", violations[1:3]
    return "", []


def _bare(tree: ast.Module) -> str:
    """Return what a source does, without its docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(body, list) and isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            body[0] = ast.Pass()
    return ast.dump(tree)


def _verdict(tech: Technology, seed: int, report: Report, known: KnownAnswers) -> Verdict:
    if report.error:
        return Verdict(tech, seed, report.error)
    outcome = report.outcomes[0]
    mistake = _named(report.answers, known)
    problem = ""
    if not outcome.failures and mistake:
        # Every mistake is wrong somewhere: these random inputs did not show it.
        problem = "the tests passed with these random inputs, yet"
    elif not outcome.failures and not report.n_lines:
        problem = "none of your lines ran while the tests passed"
    return Verdict(tech, seed, problem, [], outcome, mistake, report.n_lines)


def _named(answers: dict[str, object], known: KnownAnswers) -> str:
    """Return the mistake whose answers to all probes are these, or an empty string."""
    if not answers or _equal(answers, known.own):
        return ""
    return next((name for name, said in known.mistakes.items() if _equal(answers, said)), "")


def _equal(answers: dict[str, object], others: dict[str, object]) -> bool:
    return answers.keys() == others.keys() and all(same(answers[label], others[label]) for label in answers)
