"""`techtree build` within this process: what it goes on with, what it refuses, what it forgets."""

import random
from pathlib import Path

import pytest

from techtree.cli.main import main

pytest.importorskip("torch")

from techtree.lm.pipeline import pipeline
from techtree.lm.pipeline.run_folder import locked

SMALL = ("--steps", "20", "--depth", "1")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    rng = random.Random(1)
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(12):
        lines = [
            f"def name_{rng.randrange(10**6)}(x):\n    return x + {rng.randrange(99)}\n" for _ in range(30)
        ]
        (folder / f"m{i}.py").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def stopped(corpus, tmp_path, monkeypatch):
    """A run that was interrupted when its training began."""

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_run_training", interrupted)
        words = ["build", "--corpus", str(corpus), "--out", str(tmp_path / "run"), *SMALL]
        assert main(words) == 130
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", "21", "--depth", "1"), "was begun with --steps 20, now it is 21"),
        (("--depth", "1"), "was begun with --steps 20, now it is left out"),
        (("--steps", "20", "--depth", "2"), "was begun with --depth 1, now it is 2"),
        (("--steps", "20"), "was begun with --depth 1, now it is left out"),
        ((*SMALL, "--seed", "1"), "was begun with --seed 0, now it is 1"),
        ((*SMALL, "--minutes", "7"), "was begun with --minutes 5.0, now it is 7.0"),
    ],
)
def test_an_interrupted_run_does_not_go_on_with_other_options(stopped, corpus, words, message, capsys):
    before = contents(stopped)
    capsys.readouterr()
    assert main(["build", "--corpus", str(corpus), "--out", str(stopped), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert contents(stopped) == before


def test_nor_on_another_corpus_and_without_options(stopped, corpus, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    for words in (["--corpus", str(tmp_path / "other")], []):
        assert main(["build", *words, "--out", str(stopped), *SMALL]) == 2
        assert "give the same --corpus, or another --out" in capsys.readouterr().err


def test_a_second_build_in_the_same_folder_is_refused_at_once(stopped, corpus, capsys):
    words = ["build", "--corpus", str(corpus), "--out", str(stopped), *SMALL]
    with locked(stopped):
        before = contents(stopped)
        assert main(words) == 2
        assert contents(stopped) == before
    assert "is being filled by another process" in capsys.readouterr().err


@pytest.mark.parametrize("mistyped", ["missing", "empty", "one"])
def test_a_mistyped_corpus_leaves_nothing_that_stops_the_corrected_command(
    mistyped, corpus, tmp_path, monkeypatch, capsys
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.py").write_text("x = 1\n")
    out = tmp_path / "run"
    assert main(["build", "--corpus", str(tmp_path / mistyped), "--out", str(out), *SMALL]) == 2
    assert not out.exists()

    def began(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_run_training", began)
    assert main(["build", "--corpus", str(corpus), "--out", str(out), *SMALL]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "1e308"], "--minutes must be 525600, a year, at most; got 1e+308"),
        (["--minutes", "inf"], "--minutes must be 525600"),
        (["--minutes", "nan"], "--minutes must be above 0"),
        (["--minutes", "-1e308"], "--minutes must be above 0"),
        (["--seed", str(2**65)], f"--seed must be {2**63 - 1} at most; got {2**65}"),
        (["--seed", "-1"], "--seed must be at least 0; got -1"),
        (["--seed", str(2**63)], "--seed must be"),
        (["--steps", "9" * 4000], "--steps must be 1000000000 at most; got more than 30 digits"),
        (["--depth", "9" * 40], "--depth must be from 1 to 48"),
        (["--out", "x" * 300], "File name too long"),
        (["--out", "/dev/null/x"], "must be a folder that can be read and written"),
        (["--out", "/dev/null"], "must be a folder; /dev/null is a file"),
        (["--out", "loop"], "loop"),
        (["--corpus", "loop"], "must exist; got loop"),
        (["--corpus", "x" * 5000], "must exist; got xxx"),
    ],
)
def test_extreme_options_are_one_sentence(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    assert main(["build", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("techtree: error: ")
    assert message in error
    assert error.count("\n") == 1
