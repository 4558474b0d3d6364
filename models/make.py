"""Make a model to ship: `python models/make.py`, and the same again after Ctrl-C or a kill.

It learns from Python code that a developer's machine has anyway: the interpreter's library and the installed
packages whose metadata name a permissive licence. Everything lies in one folder: what was chosen
(sources.json), the rows (data/), the training (run/) and at last the model. None is shipped yet: what a first
try gave is in results/LOG.md.
"""

import argparse
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from techtree import atomic
from techtree.lm.data.corpus import standard_library

PERMISSIVE = re.compile(r"\b(MIT|BSD|Apache|ISC|0BSD|PSF|Python Software Foundation|Zlib|HPND|CC0|Unlicense)")
RECIPROCAL = re.compile(r"GPL|MPL|Mozilla|EPL|EUPL|CDDL|CC-BY-SA", re.IGNORECASE)

HELD_OUT = ("attrs", "Jinja2", "networkx", "rich", "starlette")
"""Whole projects that measure the model and never train it."""

LEFT_OUT = ("pip", "setuptools", "techtree")
"""The first two carry copies of other projects, held-out ones too; the last is where people try it."""

MAX_PACKAGE_BYTES = 8_000_000
"""More of one package is more of the same; what stays is spread evenly over its files."""

MIN_PROJECT_BYTES = 20_000

NO_LIBRARY = frozenset({"site-packages", "test", "tests", "idle_test", "__pycache__"})
"""Folders beside the library's own code."""

SOURCES = "sources.json"
LIBRARY = f"Python {sys.version.split()[0]}"
Files = list[tuple[Path, Path]]
"""Each as the name within its project, and where it lies."""

VOCAB_SIZE, SEQ_LEN, FIM_RATE = 8192, 1024, 0.7
DEPTH, BATCH_TOKENS = 4, 4096


def main() -> None:
    """Choose, prepare, train and write the model, each once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/shipped"), help="the folder to work in")
    parser.add_argument("--steps", type=int, default=7000, help=f"of {BATCH_TOKENS:,} tokens")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    corpus, data, run = (options.out / name for name in ("corpus", "data", "run"))
    if not (options.out / SOURCES).exists():
        atomic.write_text(options.out / SOURCES, json.dumps(gather(corpus), indent=1) + "\n")
    rows = ["--vocab-size", VOCAB_SIZE, "--seq-len", SEQ_LEN, "--fim-rate", FIM_RATE]
    techtree("data", corpus, "--out", data, *rows, "--held-out-percent", 0.5)
    steps = ["--steps", options.steps, "--batch-tokens", BATCH_TOKENS]
    techtree("train", data, "--out", run, "--depth", DEPTH, *steps)
    if not (options.out / "model").exists():
        techtree("export", run / "model", "--to", "hf", "--dtype", "bfloat16", "--out", options.out / "model")


def gather(corpus: Path) -> list[dict]:
    """Copy the files to learn from into a folder, by project; return what was taken and what left out."""
    projects = []
    for project, licence, files in sorted(candidates()):
        sizes = [source.stat().st_size for _, source in files]
        reason = why_not(project, licence, sum(sizes))
        taken = [] if reason else files if project == LIBRARY else within(MAX_PACKAGE_BYTES, files, sizes)
        for name, source in taken:
            place = corpus / project.partition(" ")[0] / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        facts = {"project": project, "licence": licence, "files": len(taken)}
        projects.append(
            {**facts, "bytes": sum(source.stat().st_size for _, source in taken), "left out": reason}
        )
    return projects


def candidates() -> list[tuple[str, str, Files]]:
    """Return each project that is installed: name with version, licence, and files with Python code."""
    library = standard_library()
    own = [(file.relative_to(library), file) for file in sorted(library.rglob("*.py"))]
    own = [(name, file) for name, file in own if not NO_LIBRARY & set(name.parts)]
    found = [(LIBRARY, "PSF-2.0", own)]
    for one in importlib.metadata.distributions():
        named = [(Path(name), Path(str(one.locate_file(name)))) for name in one.files or ()]
        files = [
            (n, f) for n, f in sorted(named) if n.suffix == ".py" and ".." not in n.parts and f.is_file()
        ]
        found.append((f"{one.metadata['Name']} {one.version}", licence_of(one.metadata), files))
    return found


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
