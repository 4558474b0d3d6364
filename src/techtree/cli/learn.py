"""`techtree learn`: the learner's loop, in a folder of the learner's own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from techtree.errors import InputError
from techtree.learn import checking, telling, watching, workspace
from techtree.learn.workspace import Workspace
from techtree.tree.description import hints
from techtree.tree.graph import Tree, load_tree
from techtree.tree.technology import Technology

Action = Literal["init", "next", "start", "check", "watch", "hint", "reveal", "testout", "bisect", "quiz"]


@dataclass(frozen=True)
class Config:
    """Learn: write the technologies yourself, in a folder of your own, and have them graded.

    init FOLDER makes the folder. In it, next shows what is open and where each leads, start TECH writes the
    stub, and check TECH grades your file (without a name: all that are stale, or else those that are begun).
    watch grades on every save. hint TECH shows one more hint each time, reveal TECH our version once yours is
    right. testout TECH is for those who know it already: stubs for a whole branch, and one check of all.
    quiz TECH asks the questions of a lesson, in any folder, and tells an answer once you have given yours.
    bisect FILE:LINE:COL finds which of your technologies makes a model answer otherwise than on our code.
    """

    action: Annotated[Action, tyro.conf.Positional]
    """What to do."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = field(default=())
    """A technology, several for ``start`` and ``check``, the folder for ``init``, or a place."""

    seed: int | None = None
    """Of the tests' random inputs; a check prints the one that it drew."""

    anyway: bool = False
    """Reveal our version although yours is not right yet."""

    model: Path | None = None
    """For ``bisect``: the model's folder, runs/NAME/model; the newest finished run when left out."""


def run(config: Config) -> int:
    """Do one step of the loop."""
    tree = load_tree()
    if config.seed is not None and not 0 <= config.seed < 2**63:
        raise InputError(f"--seed must lie between 0 and 2^63; got {config.seed}")
    if config.action == "init":
        return _init(tree, config.names)
    if config.action == "quiz":
        return _quiz(tree, config.names)
    mine = workspace.require(tree)
    if config.action == "bisect":
        return _bisect(mine, config.names, config.model)
    techs = [tree[name] for name in config.names]
    if config.action == "next":
        print(_next(mine))
        return 0
    if config.action == "check":
        return _check(mine, techs or _due(mine), config.seed)
    if config.action == "watch":
        return _watch(mine, config.seed)
    if not techs:
        raise InputError(f"which technology? techtree learn {config.action} TECH (techtree learn next)")
    if config.action == "start":
        for tech in techs:
            print(_start(mine, tech))
        return 0
    if len(techs) > 1:
        raise InputError(f"one technology at a time; got {', '.join(config.names)}")
    if config.action == "testout":
        return _test_out(mine, techs[0], config.seed)
    print(_hint(mine, techs[0]) if config.action == "hint" else _reveal(mine, techs[0], config.anyway))
    return 0


def _init(tree: Tree, names: tuple[str, ...]) -> int:
    if len(names) != 1:
        raise InputError("techtree learn init needs the name of one new folder: techtree learn init my-tree")
    made = workspace.create(Path(names[0]), tree)
    first = next(tech for tech in tree.written if made.state(tech) == "open")
    print(f"{names[0]} is ready.\n  cd {names[0]}\n  techtree learn start {first.id}")
    return 0


def _next(mine: Workspace) -> str:
    tree = mine.tree
    states = {tech.id: mine.state(tech) for tech in tree.technologies}
    n_unlocked = sum(state == "unlocked" for state in states.values())
    lines = [f"{n_unlocked} of {len(tree.written)} written technologies unlocked"]
    stale = [name for name, state in states.items() if state == "stale"]
    if stale:
        lines.append(f"stale, to be checked again: {', '.join(stale)}      techtree learn check")
    for tech in tree.written:
        if states[tech.id] == "open":
            leads = ", ".join(each.id for each in tree.leads_to(tech.id))
            begun = "begun" if mine.file(tech).is_file() else "open "
            lines.append(f"  {begun} {tech.id:<18} {tech.minutes:>3} min  {tech.summary}")
            if leads:
                lines.append(f"        leads to {leads}")
    if len(lines) == 1:
        lines.append("everything that is written is unlocked")
    return "\n".join(lines)


def _start(mine: Workspace, tech: Technology) -> str:
    is_new = tech.is_written and not mine.file(tech).exists()
    mine.write_stub(tech)
    lines = [
        f"{mine.shown(tech)} {'is yours to write' if is_new else 'is there already, and stays as it is'}"
    ]
    missing = mine.missing(tech)
    if missing:
        lines.append(f"  it counts when {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} unlocked")
    lines.append(f"  read:  {tech.file('README.md')}")
    lines.append(f"  write: {', '.join(tech.exercise)}")
    if tech.replaces:
        lines.append(f"  without: {', '.join(tech.replaces)}")
    lines.append(f"  then:  techtree learn check {tech.id}")
    return "\n".join(lines)


def _due(mine: Workspace) -> list[Technology]:
    """Return what a check without a name is about: what is stale, or else what is begun."""
    begun = [tech for tech in mine.tree.written if mine.file(tech).is_file()]
    due = [tech for tech in begun if mine.state(tech) == "stale"]
    due = due or [tech for tech in begun if mine.state(tech) != "unlocked"]
    if not due:
        raise InputError("there is nothing to check: techtree learn next shows what to start")
    return due


def _check(mine: Workspace, techs: list[Technology], seed: int | None) -> int:
    all_right = True
    for number, tech in enumerate(techs):
        if number:
            print()
        mine, verdict = _checked(mine, tech, seed)
        print(telling.told(mine, verdict), flush=True)
        all_right = all_right and verdict.is_right
    return 0 if all_right else 1


def _checked(mine: Workspace, tech: Technology, seed: int | None) -> tuple[Workspace, checking.Verdict]:
    """Check a file; keep its certificate if it is right and its prerequisites are unlocked."""
    if not tech.is_written:
        raise InputError(f"{tech.id} is planned, not written: techtree learn next shows what is open")
    verdict = checking.check(mine, tech, seed)
    if verdict.is_right and not mine.missing(tech):
        mine = mine.with_certificate(tech)
    return mine, verdict


def _watch(mine: Workspace, seed: int | None) -> int:
    """Grade on every save until q or Ctrl-C."""

    def files() -> list[Path]:
        return [path for tech in mine.tree.written if (path := mine.file(tech)).is_file()]

    by_file = {mine.file(tech): tech for tech in mine.tree.written}
    begun = [by_file[path] for path in files() if mine.state(by_file[path]) != "unlocked"]
    last = begun[-1] if begun else None
    keys = "c check again   h hint   n next   q quit"
    with watching.keyboard() as read_key:
        print(f"watching {mine.folder.name}: save a file and it is graded      {keys}", flush=True)
        for event in watching.saves(files, read_key):
            if event == "q":
                return 0
            if event == "n":
                print(_next(_fresh(mine)), flush=True)
                continue
            if isinstance(event, Path):
                last = by_file[event]
            if last is None or event not in ("c", "h", mine.file(last)):
                continue
            mine = _fresh(mine)
            if event == "h":
                print(_hint(mine, last), flush=True)
                mine = _fresh(mine)
                continue
            try:
                mine, verdict = _checked(mine, last, seed)
                print(f"\n{telling.told(mine, verdict)}", flush=True)
            except InputError as error:
                print(f"\n{error}", flush=True)
    return 0


def _fresh(mine: Workspace) -> Workspace:
    """Return the workspace as it is on disk now."""
    return workspace.find(mine.folder, mine.tree) or mine


def _hint(mine: Workspace, tech: Technology) -> str:
    if not tech.is_written:
        raise InputError(f"{tech.id} is planned, not written: there are no hints yet")
    texts = hints(tech)
    shown = mine.hints.get(tech.id, 0)
    mine.hints[tech.id] = min(shown + 1, len(texts))
    mine.save()
    number = min(shown, len(texts) - 1)
    after = (
        f"\n  one more: techtree learn hint {tech.id}"
        if number + 1 < len(texts)
        else f"\n  that was the last; our version: techtree learn reveal {tech.id} --anyway"
    )
    return f"hint {number + 1} of {len(texts)}: {texts[number]}{after}"


def _reveal(mine: Workspace, tech: Technology, anyway: bool) -> str:
    if not tech.is_written:
        raise InputError(f"{tech.id} is planned, not written: there is nothing to reveal")
    if not anyway and not mine.is_unlocked(tech):
        raise InputError(
            f"yours is not right yet: {telling.next_hint(mine, tech)},"
            f" or techtree learn reveal {tech.id} --anyway"
        )
    return tech.implementation.read_text(encoding="utf-8").rstrip("\n")


def _test_out(mine: Workspace, tech: Technology, seed: int | None) -> int:
    """Check a technology and all that it stands on; write the stubs that are missing."""
    branch = [each for each in (*mine.tree.ancestors(tech.id), tech) if each.is_written]
    if tech not in branch:
        raise InputError(f"{tech.id} is planned, not written: techtree learn next shows what is open")
    rows = []
    for each in branch:
        if not mine.file(each).is_file():
            mine.write_stub(each)
        if mine.is_unlocked(each):
            rows.append((each, "unlocked"))
            continue
        mine = _fresh(mine)
        mine, verdict = _checked(mine, each, seed)
        state = (
            "unlocked" if mine.is_unlocked(each) else "right, but locked" if verdict.is_right else "not yet"
        )
        rows.append((each, state))
        told = telling.told(mine, verdict).splitlines()
        shown = told[0] if verdict.is_right else " ".join(line.strip() for line in told[:2])
        print(f"{state:<18} {shown}"[:150], flush=True)
    n_unlocked = sum(state == "unlocked" for _, state in rows)
    print(f"{n_unlocked} of {len(rows)} technologies of the branch of {tech.id} are unlocked")
    return 0 if n_unlocked == len(rows) else 1


def _quiz(tree: Tree, names: tuple[str, ...]) -> int:
    """Ask the questions of one lesson, and tell where those that were missed are explained."""
    from techtree.learn.quizzing import Asked, quiz
    from techtree.site.content import read_lesson
    from techtree.site.markup import plain

    if len(names) != 1:
        raise InputError("which technology? techtree learn quiz TECH (techtree map lists all)")
    tech = tree[names[0]]
    lesson = read_lesson(tech)
    if lesson is None or not lesson.questions:
        raise InputError(f"{tech.id} is planned, not written: there are no questions yet")
    print(f"{tech.id}: {lesson.title}")
    asked = [Asked(plain(q.text), plain(q.answer), q.after) for q in lesson.questions]
    try:
        missed = quiz(asked, input, lambda text: print(text, flush=True))
    except EOFError:
        print("\nstopped: there are no more answers")
        return 0
    print(f"\nyou knew {len(asked) - len(missed)} of {len(asked)}")
    for section in dict.fromkeys(question.section for question in missed):
        print(f'  read again: "{section}" in {tech.file("README.md")}')
    return 0


def _bisect(mine: Workspace, names: tuple[str, ...], model: Path | None) -> int:
    """Tell which of the learner's technologies changes what a model says at a place in a file."""
    if len(names) != 1:
        raise InputError("where? techtree learn bisect FILE:LINE:COL, as for techtree complete")
    from techtree.cli.complete import around
    from techtree.engines.model_folder import find_model_folder
    from techtree.engines.numpy_engine import MAX_CONTEXT_LENGTH
    from techtree.learn.bisecting import Bisection
    from techtree.learn.mine import own_files
    from techtree.lm.infer.fim_prompt import FimText, fim_prompt
    from techtree.lm.tokenizer import Tokenizer

    prefix, suffix = around(names[0])
    folder = find_model_folder(model)
    prompt = fim_prompt(Tokenizer.load(folder), FimText(prefix, suffix), MAX_CONTEXT_LENGTH // 2, "spm")
    search = Bisection(folder, prompt.ids, own_files(mine))
    if not search.names:
        raise InputError("the model must use a technology that you have unlocked; it uses none of them yet")
    print(f"{len(search.names)} of yours run in this model: {', '.join(search.names)}", flush=True)
    n_found = 0
    for name, how in search.culprits():
        n_found += 1
        print(f"{name} changes the answer: {how}\n  techtree learn check {name}", flush=True)
    if not n_found:
        print("the answer is the same as on our code")
    return 1 if n_found else 0
