"""Make a model to ship: `python models/make.py`, and the same again after Ctrl-C or a kill.

It learns from Python's library, from the packages that are installed, and from those of packages.txt, which
it fetches; from each only where its metadata name a permissive licence. Everything lies in one folder: what
was chosen (sources.json), the rows (data/), the training (run/) and at last the model. None is shipped yet:
what two tries gave is in results/LOG.md.
"""

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from techtree import atomic
from techtree.lm.data.corpus import standard_library
from techtree.lm.eval.problems import Hole, read_problems

PERMISSIVE = re.compile(r"\b(MIT|BSD|Apache|ISC|0BSD|PSF|Python Software Foundation|Zlib|HPND|CC0|Unlicense)")
RECIPROCAL = re.compile(r"GPL|MPL|Mozilla|EPL|EUPL|CDDL|CC-BY-SA", re.IGNORECASE)

HELD_OUT = ("attrs", "Jinja2", "networkx", "rich", "starlette")
"""Whole projects that measure the model and never train it."""

LEFT_OUT = ("pip", "setuptools", "techtree")
"""The first two carry copies of other projects, held-out ones too; the last is where people try it."""

MAX_PACKAGE_BYTES = 3_000_000
"""More of one package is more of the same; what stays is spread evenly over its files."""

MIN_PROJECT_BYTES = 20_000

NO_LESSON = frozenset({"site-packages", "test", "tests", "idle_test", "__pycache__"})
"""Folders that hold other projects, or long lists of cases."""

PACKAGES = Path(__file__).with_name("packages.txt")

N_WORDS = 13
"""Texts that share so many words in a row are taken for copies of one another."""

SOURCES = "sources.json"
LIBRARY = f"Python {sys.version.split()[0]}"
Files = list[tuple[Path, Path]]
"""Each as the name within its project, and where it lies."""

VOCAB_SIZE, SEQ_LEN, FIM_RATE = 8192, 1024, 0.7
DEPTH, BATCH_TOKENS = 4, 8192


def main() -> None:
    """Choose, prepare, train and write the model, each once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/shipped"), help="the folder to work in")
    parser.add_argument("--steps", type=int, default=7000, help=f"of {BATCH_TOKENS:,} tokens")
    parser.add_argument(
        "--keep-out",
        type=Path,
        nargs="*",
        default=(),
        help="problems (.jsonl.gz) that no taken file may hold",
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    corpus, data, run, packages = (options.out / name for name in ("corpus", "data", "run", "packages"))
    if not (options.out / SOURCES).exists():
        fetch(packages)
        chosen = gather(corpus, packages, kept_out(options.keep_out))
        atomic.write_text(options.out / SOURCES, json.dumps(chosen, indent=1) + "\n")
    rows = ["--vocab-size", VOCAB_SIZE, "--seq-len", SEQ_LEN, "--fim-rate", FIM_RATE]
    techtree("data", corpus, "--out", data, *rows, "--held-out-percent", 0.5)
    steps = ["--steps", options.steps, "--batch-tokens", BATCH_TOKENS]
    techtree("train", data, "--out", run, "--depth", DEPTH, *steps)
    if not (options.out / "model").exists():
        techtree("export", run / "model", "--to", "hf", "--dtype", "bfloat16", "--out", options.out / "model")


def fetch(packages: Path) -> None:
    """Install what packages.txt names into a folder, to be read and never imported."""
    if not packages.exists():
        part = packages.with_name("packages.part")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--upgrade"]
        subprocess.run([*pip, "--target", str(part), "-r", str(PACKAGES)], check=True)
        part.rename(packages)


def kept_out(files: Sequence[Path]) -> set[int]:
    """Return the runs of words of evaluation problems, each as a hash."""
    found = set()
    for file in files:
        for problem in read_problems(file):
            is_hole = isinstance(problem, Hole)
            text = problem.prefix + problem.middle if is_hole else problem.prompt + problem.solution
            found |= runs_of_words(text)
    return found


def runs_of_words(text: str) -> set[int]:
    """Return each run of so many words of a text, as a hash."""
    words = re.findall(r"\w+", text)
    return {hash(tuple(words[i : i + N_WORDS])) for i in range(len(words) - N_WORDS + 1)}


def gather(corpus: Path, packages: Path, problems: set[int]) -> list[dict]:
    """Copy the files to learn from into a folder, by project; return what was taken and what left out."""
    projects = []
    for project, licence, files in sorted(candidates(packages)):
        sizes = [source.stat().st_size for _, source in files]
        reason = why_not(project, licence, sum(sizes))
        taken = [] if reason else files if project == LIBRARY else within(MAX_PACKAGE_BYTES, files, sizes)
        n_bytes, copies = 0, []
        for name, source in taken:
            text = source.read_bytes()
            if problems & runs_of_words(text.decode("utf-8", "replace")):
                copies.append(name.as_posix())
                continue
            n_bytes += len(text)
            place = corpus / project.partition(" ")[0] / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text)
        facts = {"project": project, "licence": licence, "files": len(taken) - len(copies), "bytes": n_bytes}
        projects.append({**facts, "left out": reason, "copies of problems": copies})
    return projects


def candidates(packages: Path) -> list[tuple[str, str, Files]]:
    """Return each project that is installed: name with version, licence, and files with Python code."""
    library = standard_library()
    own = [(file.relative_to(library), file) for file in sorted(library.rglob("*.py"))]
    found = {LIBRARY: ("PSF-2.0", lessons(own))}
    for one in importlib.metadata.distributions(path=[*sys.path, str(packages)]):
        named = [(Path(name), Path(str(one.locate_file(name)))) for name in one.files or ()]
        files = [
            (n, f) for n, f in sorted(named) if n.suffix == ".py" and ".." not in n.parts and f.is_file()
        ]
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"])
        if not any(known.partition(" ")[0].lower() == name.lower() for known in found):
            found[f"{name} {one.version}"] = (licence_of(one.metadata), lessons(files))
    return [(project, licence, files) for project, (licence, files) in found.items()]


def lessons(files: Files) -> Files:
    """Return the files that are a project's own code."""
    return [(name, file) for name, file in files if not NO_LESSON & set(name.parts)]


def licence_of(metadata: importlib.metadata.PackageMetadata) -> str:
    """Return what a project's metadata say of its licence."""
    fields = [metadata.get("License-Expression") or ""]
    fields += [
        line.rpartition("::")[2].strip()
        for line in metadata.get_all("Classifier") or ()
        if "License ::" in line
    ]
    fields += [(metadata.get("License") or "").strip().partition("\n")[0][:60]]
    return "; ".join(dict.fromkeys(filter(None, fields)))


def why_not(project: str, licence: str, n_bytes: int) -> str:
    """Return why a project does not train the model; an empty string when it does."""
    name = project.partition(" ")[0]
    if name in HELD_OUT:
        return "held out"
    if name in LEFT_OUT:
        return "copies of others"
    if RECIPROCAL.search(licence) or not PERMISSIVE.search(licence):
        return "licence"
    return "" if n_bytes >= MIN_PROJECT_BYTES else "small"


def within(limit: int, files: Files, sizes: list[int]) -> Files:
    """Return evenly chosen files of a project that have so many bytes together at most."""
    total = sum(sizes)
    if total <= limit:
        return files
    taken, passed, kept = [], 0, 0
    for file, size in zip(files, sizes, strict=True):
        passed += size
        if kept + size <= passed * limit / total:
            taken.append(file)
            kept += size
    return taken


def techtree(*words: object) -> None:
    """Run a command; stop with its exit code when it fails."""
    print("techtree", *words, flush=True)
    code = subprocess.call([sys.executable, "-m", "techtree", *map(str, words)])
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
