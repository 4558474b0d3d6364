"""What a check says, in at most fifteen lines: what is wrong, why, and what to try. Never our solution."""

import textwrap

from techtree.learn.checking import Verdict
from techtree.learn.workspace import Workspace
from techtree.tree.technology import Technology

MAX_LINES, MAX_COLUMNS = 15, 120


def told(workspace: Workspace, verdict: Verdict) -> str:
    """Return the message of a check; the workspace is that after it."""
    lines = _passed(workspace, verdict) if verdict.is_right else _failed(workspace, verdict)
    return "\n".join(_cut(line) for line in lines[:MAX_LINES])


def _cut(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= MAX_COLUMNS else line[: MAX_COLUMNS - 3] + "..."


def _passed(workspace: Workspace, verdict: Verdict) -> list[str]:
    tech, outcome = verdict.tech, verdict.outcome
    assert outcome is not None
    missing = workspace.missing(tech)
    lines = [
        f"{tech.id}  PASS  {_checks(outcome.n_passed, outcome.n_passed)}        {_where(workspace, verdict)}",
    ]
    if missing:
        return [
            *lines,
            f"  right, but locked until {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} unlocked",
            f"  try: techtree learn start {missing[0]}      all at once: techtree learn testout {tech.id}",
        ]
    lines.append("  unlocked")
    if tech.opens:
        lines.append(f"  you may now borrow: {', '.join(tech.opens)}")
    stale = [each.id for each in workspace.tree.written if workspace.state(each) == "stale"]
    if stale:
        lines.append(f"  stale, to be checked again: {', '.join(stale)}      techtree learn check")
    opened = [each.id for each in workspace.tree.leads_to(tech.id) if workspace.state(each) == "open"]
    following = opened or [each.id for each in workspace.tree.written if workspace.state(each) == "open"]
    if opened:
        lines.append(f"  open now: {', '.join(opened)}")
    if following:
        lines.append(f"  next: techtree learn start {following[0]}")
    lines.append(f"  compare with ours: techtree learn reveal {tech.id}")
    return lines


def _failed(workspace: Workspace, verdict: Verdict) -> list[str]:
    tech, outcome = verdict.tech, verdict.outcome
    if outcome is None:
        lines = [f"{tech.id}  FAIL        {workspace.shown(tech)}", f"  {verdict.problem}"]
        return [*lines, *(f"  {each}" for each in verdict.details), *_what_to_do(workspace, verdict)]
    n_failed = len(outcome.failures)
    counted = _checks(n_failed, n_failed + outcome.n_passed) if n_failed else "one bug"
    lines = [f"{tech.id}  FAIL  {counted}        {_where(workspace, verdict)}"]
    if verdict.problem:
        lines.append(f"  {verdict.problem}")
    if verdict.mistake:
        named = f"diagnosis: it answers like the version in which {verdict.mistake}"
        lines += textwrap.wrap(named, MAX_COLUMNS, initial_indent="  ", subsequent_indent="    ")[:3]
    if outcome.failures:
        # What a battery's sweep found comes with the smallest input on which it fails.
        test = next(
            (each for each in outcome.failures if outcome.facts.get(each)), next(iter(outcome.failures))
        )
        facts = outcome.facts.get(test) or [outcome.failures[test]]
        lines += [f"  {test}", *(f"    {fact}" for fact in facts[:7])]
        others = [each for each in outcome.failures if each != test]
        if others:
            more = f" and {len(others) - 2} more" if len(others) > 2 else ""
            lines.append(f"  also: {', '.join(others[:2])}{more}")
    return [*lines, *_what_to_do(workspace, verdict)]


def _checks(n: int, n_all: int) -> str:
    return f"{n} of {n_all} checks" if n != n_all else f"{n} check{'s' if n != 1 else ''}"


def _where(workspace: Workspace, verdict: Verdict) -> str:
    ran = f", {verdict.n_lines} lines ran" if verdict.n_lines else ""
    return f"{workspace.shown(verdict.tech)}{ran}      seed {verdict.seed}"


def _what_to_do(workspace: Workspace, verdict: Verdict) -> list[str]:
    tech = verdict.tech
    again = f"techtree learn check {tech.id} --seed {verdict.seed}"
    return [f"  try: {next_hint(workspace, tech)}      again: {again}"]


def next_hint(workspace: Workspace, tech: Technology) -> str:
    """Return the command for the next hint, or what remains when all were shown."""
    shown = workspace.hints.get(tech.id, 0)
    return (
        f"techtree learn hint {tech.id} ({shown + 1} of 3)"
        if shown < 3
        else f"read {tech.id}'s page once more"
    )
