"""`techtree build` as a user calls it: its result, its resumption after kills, its errors."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORDS = ["value", "result", "index", "total", "name", "item", "count", "text", "line", "path", "node", "data"]


def write_corpus(folder: Path, n_files: int = 30) -> Path:
    """Write source files that differ from one another, a few kB each."""
    rng = random.Random(1)
    folder.mkdir()
    for i in range(n_files):
        lines = []
        for j in range(40):
            a, b, c = rng.choices(WORDS, k=3)
            lines.append(f"def {a}_{b}_{i}_{j}({c}, limit={rng.randrange(99)}):")
            lines.append(
                f"    if {c} > limit:\n        return {a} + {c} * {rng.randrange(9)}\n    return {b}\n"
            )
        (folder / f"module{i}.py").write_text("\n".join(lines), encoding="utf-8")
    return folder


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "techtree", "build", *map(str, words)]


def build(*words: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(*words), capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "src")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus) -> Path:
    """An uninterrupted run of 40 steps."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run = build("--corpus", corpus, "--out", out, "--steps", 40, "--depth", 1)
    assert run.returncode == 0, run.stderr
    assert "bits per byte on held-out files" in run.stdout
    return out


def test_the_folder_of_a_finished_run(finished):
    report = json.loads((finished / "report.json").read_text(encoding="utf-8"))
    assert set(report["ngram_bits_per_byte"]) == {"2", "3", "4", "5"}
    assert (report["steps"], report["tokens"]) == (40, 40 * 2048)
    assert report["n_parameters"] > 0
    assert report["tokens_per_s"] > 0
    assert 0 < report["bits_per_byte"] < 8
    assert report["seconds"] == pytest.approx(sum(report["stage_seconds"].values()))
    assert len(report["samples"]) == len({sample["path"] for sample in report["samples"]})
    names = {path.name for path in (finished / "model").iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= names
    page = (finished / "report.md").read_text(encoding="utf-8")
    assert f"{report['bits_per_byte']:.3f} bits per byte" in page
    assert not list(finished.glob("checkpoint*"))


def test_a_model_that_is_there_learns_more(finished, tmp_path):
    other = write_corpus(tmp_path / "other", 20)
    for file in other.iterdir():  # code of another taste
        file.write_text(file.read_text().replace("return", "yield").replace("limit", "bound"))
    out = tmp_path / "more"
    words = ("--corpus", other, "--out", out, "--steps", 40)
    run = build(*words, "--init", finished / "model")
    assert run.returncode == 0, run.stderr
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["bits_per_byte"] < 0.95 * report["bits_per_byte_before"]
    assert f"{report['bits_per_byte_before']:.3f} bits per byte before" in run.stdout
    shapes = [json.loads((folder / "report.json").read_text())["model"] for folder in (finished, out)]
    assert shapes[0] == shapes[1]
    tokenizers = [(folder / "model" / "tokenizer.json").read_bytes() for folder in (finished, out)]
    assert tokenizers[0] == tokenizers[1]


def test_a_finished_run_is_not_run_again(finished):
    before = (finished / "report.json").stat().st_mtime_ns
    run = build("--out", finished)
    assert run.returncode == 0
    assert "holds a finished run" in run.stdout
    assert (finished / "report.json").stat().st_mtime_ns == before


def test_five_kills_change_no_bit_of_the_weights(finished, corpus, tmp_path):
    """SIGKILL at random moments; a checkpoint after every step, so that kills fall into its writing too."""
    out = tmp_path / "killed"
    out.mkdir()
    plan = json.loads((finished / "plan.json").read_text(encoding="utf-8"))
    plan["train"]["checkpoint_interval_s"] = 0.0
    (out / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    words = ["--corpus", corpus, "--out", out, "--steps", 40, "--depth", 1]
    rng = random.Random(os.getpid())
    for kill in range(5):
        process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        delay = rng.uniform(1.5, 5.0)
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        print(f"kill {kill} after {delay:.2f} s")
    last = build(*words)
    assert last.returncode == 0, last.stderr
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (out / "model" / name).read_bytes() == (finished / "model" / name).read_bytes()
    scores = [json.loads((run / "evaluation.json").read_text(encoding="utf-8")) for run in (finished, out)]
    assert scores[0] == scores[1]


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_saves_and_says_how_to_go_on(corpus, tmp_path):
    out = tmp_path / "stopped"
    process = subprocess.Popen(
        command("--corpus", corpus, "--out", out, "--steps", 100_000, "--depth", 1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("checkpoint*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (lambda root: (root / "empty").mkdir(), ["--corpus", "empty"], "found none that can be used"),
        (
            lambda root: (root / "one.py").write_text("x = 1\n"),
            ["--corpus", "one.py"],
            "at least two different",
        ),
        (lambda root: (root / "l.py").write_bytes(b"\xff\xfe"), ["--corpus", "l.py"], "is not UTF-8"),
        (lambda root: None, ["--corpus", "missing"], "must exist; got missing"),
        (lambda root: None, ["--minutes", "0"], "--minutes must be above 0; got 0"),
        (lambda root: None, ["--minutes", "-3"], "--minutes must be above 0"),
        (lambda root: None, ["--minutes", "nan"], "--minutes must be above 0"),
        (lambda root: None, ["--steps", "0"], "--steps must be at least 1"),
        (lambda root: None, ["--depth", "0"], "--depth must be from 1 to 48"),
        (lambda root: (root / "out").write_text("a file"), ["--out", "out"], "out"),
    ],
)
def test_wrong_inputs_are_one_clear_error(tmp_path, make, words, message):
    make(tmp_path)
    run = build(*words, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("techtree: error: ")
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_another_corpus_does_not_join_a_run(finished, corpus, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    for name in ("corpus.json", "corpus.jsonl.gz"):
        (out / name).write_bytes((finished / name).read_bytes())
    other = write_corpus(tmp_path / "other", 5)
    run = build("--corpus", other, "--out", out)
    assert run.returncode == 2
    assert "give the same --corpus, or another --out" in run.stderr


def test_a_truncated_checkpoint_is_one_clear_error_and_is_kept(finished, corpus, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    for name in ("corpus.json", "corpus.jsonl.gz", "plan.json", "ngram.json"):
        (out / name).write_bytes((finished / name).read_bytes())
    checkpoint = out / "checkpoints" / "step-00000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "checkpoint.json").write_text('{"format": "techtree training checkpoint 2"')
    run = build("--corpus", corpus, "--out", out, "--steps", 40, "--depth", 1)
    assert run.returncode == 2
    assert "step-00000010 cannot be resumed: it is damaged" in run.stderr
    assert (checkpoint / "checkpoint.json").exists()


def test_two_at_once_in_one_folder_and_other_options_after_a_kill(corpus, tmp_path):
    out = tmp_path / "run"
    words = ["--corpus", corpus, "--out", out, "--depth", 1, "--steps"]
    first = subprocess.Popen(command(*words, 100_000), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoints/*")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    second = build(*words, 100_000)
    assert second.returncode == 2
    assert f"is being filled by another process (number {first.pid})" in second.stderr
    assert first.poll() is None
    first.kill()
    first.communicate()
    # What the killed one has left locks nobody out, and other options are still refused.
    other = build(*words, 30)
    assert other.returncode == 2
    assert "was begun with --steps 100000, now it is 30: give the same --steps" in other.stderr
