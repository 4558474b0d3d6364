"""The four rules under which a technology is unlocked, all of them checked by the program.

1. It has a description.
2. Its prerequisites are unlocked.
3. It has an own implementation, which uses only NumPy, the standard library and its prerequisites.
4. Its unit tests pass, and refuse the stub and every known mistake.
"""

import ast
import os
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from techtree.errors import did_you_mean
from techtree.tree.description import missing_from_description
from techtree.tree.grading import Report, grade
from techtree.tree.graph import Tree
from techtree.tree.import_rule import ImportRule, sources
from techtree.tree.technology import Technology

MIN_MISTAKES, MIN_EQUIVALENTS = 20, 4
"""What the tests of a technology must have been tried on, besides the stub."""

RULES = {1: "description", 2: "prerequisites", 3: "own implementation", 4: "unit tests"}


@dataclass(frozen=True)
class Verdict:
    """What the four rules say of one technology: the problems under each broken rule, none if unlocked."""

    tech: Technology
    problems: dict[int, list[str]]

    @property
    def is_unlocked(self) -> bool:
        """Whether all four rules hold."""
        return not any(self.problems.values())


def import_rule(tree: Tree, tech: Technology, is_ours: bool = True) -> ImportRule:
    """Return what an implementation may import: the ancestors, and if it is ours its own folder."""
    packages = {ancestor.module for ancestor in tree.ancestors(tech.id)}
    packages |= {tech.module} if is_ours else set()
    return ImportRule(frozenset(packages), frozenset(tech.replaces), tech.starts_processes)


def verify(tree: Tree, chosen: Collection[str] | None = None) -> Iterator[Verdict]:
    """Check the four rules, prerequisites first, and give each verdict as soon as it is known.

    Parameters
    ----------
    tree
        The tree.
    chosen
        Ids of the technologies to verify; their ancestors are verified with them. All when left out.
    """
    wanted = _with_ancestors(tree, chosen)
    verdicts: dict[str, Verdict] = {}
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        static = {tech.id: _static_problems(tree, tech) for tech in wanted}
        # The tests of all are started at once; they matter only where the other rules hold.
        tests = {tech.id: pool.submit(grade, tech) for tech in wanted if not static[tech.id][3]}
        for tech in wanted:
            problems = static[tech.id]
            problems[2] = [
                problem
                for need in tech.requires
                if (problem := prerequisite_problem(tree, need.tech, verdicts))
            ]
            problems[4] = []
            if tech.id in tests and not problems[2]:
                report = tests[tech.id].result()
                problems[4] = report.problems() or _too_few(report)
            verdicts[tech.id] = Verdict(tech, {rule: problems[rule] for rule in RULES if problems[rule]})
            yield verdicts[tech.id]
        pool.shutdown(cancel_futures=True)


def _static_problems(tree: Tree, tech: Technology) -> dict[int, list[str]]:
    if not tech.is_written:
        return {1: [], 3: [f"{tech.id} is planned, not written"]}
    return {1: missing_from_description(tech), 3: implementation_problems(tree, tech)}


def _too_few(report: Report) -> list[str]:
    """Return what the tests were not tried on enough."""
    subjects = [outcome.subject.partition(":")[0] for outcome in report.outcomes]
    wanted = {"own": 1, "stub": 1, "mistake": MIN_MISTAKES, "equivalent": MIN_EQUIVALENTS}
    return [
        f"the tests must be tried on {least} of the kind {kind!r}; got {subjects.count(kind)}"
        for kind, least in wanted.items()
        if subjects.count(kind) < least
    ]


def _with_ancestors(tree: Tree, chosen: Collection[str] | None) -> list[Technology]:
    if chosen is None:
        return list(tree.written)
    names = {name for each in chosen for name in (each, *(a.id for a in tree.ancestors(each)))}
    return [tech for tech in tree.technologies if tech.id in names and (tech.is_written or tech.id in chosen)]


def prerequisite_problem(tree: Tree, name: str, verdicts: dict[str, Verdict]) -> str:
    """Return why a prerequisite does not count as unlocked, or an empty string."""
    if name in verdicts:
        return "" if verdicts[name].is_unlocked else f"{name} is not unlocked"
    if name in tree.by_id:
        return f"{name} is planned, not written"
    return f"there is no technology {name}{did_you_mean(name, tree.by_id)}"


def implementation_problems(tree: Tree, tech: Technology) -> list[str]:
    """Return what a technology's sources break of rule 3, one sentence each."""
    if not tech.implementation.is_file():
        return [f"{tech.id}.py is missing"]
    rule = import_rule(tree, tech)
    found = []
    for path in sources(tech.file("")):
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            return [f"{path.name} must be UTF-8: byte {error.start} is not"]
        found += [f"{path.name}, {violation}" for violation in rule.violations(source, tech.module)]
    if found:
        return found
    defined = _defined_names(tech.implementation.read_text(encoding="utf-8"))
    return [f"{tech.id}.py does not define {name}" for name in tech.exercise if name not in defined]


def _defined_names(source: str) -> set[str]:
    """Return the names of the functions, classes and constants on top of a module."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names
