"""`techtree data`: what it makes, how it goes on, and what is wrong with its inputs."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from techtree.cli.main import main

pytest.importorskip("torch")

from techtree.lm.data import store_builder
from techtree.lm.data.shard import write_shard
from techtree.lm.data.store import TokenStore
from techtree.lm.pipeline import data_folder
from techtree.lm.pipeline.corpus_file import read_documents
from techtree.lm.pipeline.run_folder import locked

SMALL = ["--vocab-size", "400", "--seq-len", "64"]


@pytest.fixture(scope="module")
def corpus(tiny_texts, tmp_path_factory) -> Path:
    """Twelve source files, and a text that is taken only by its name."""
    folder = tmp_path_factory.mktemp("corpus")
    for i, text in enumerate(tiny_texts):
        (folder / f"a{i}.py").write_text(text[:1500], encoding="utf-8")
        (folder / f"b{i}.py").write_text(text[1500:3000], encoding="utf-8")
    (folder / "verse.txt").write_text("".join(f"line {i} of a poem\n" for i in range(2000)), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(data_folder, "grouped", functools.partial(store_builder.grouped, n_bytes=3000))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the times that the stages took."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "stages.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Path:
    """A folder that was made in one go; read it, never write to it."""
    out = tmp_path_factory.mktemp("data") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_folder, "grouped", functools.partial(store_builder.grouped, n_bytes=3000))
        assert main(["data", str(corpus), "--out", str(out), *SMALL]) == 0
    return out


def test_the_folder_of_a_corpus(whole, corpus):
    store = TokenStore(whole / "tokens")
    assert (store.seq_len, store.tokenizer.vocab_size) == (64, 400)
    assert len(store.manifest.shards) > 2
    assert {path.name for path in whole.iterdir()} == {
        "held_out.jsonl.gz",
        "settings.json",
        "stages.json",
        "tokens",
    }
    held_out = {d.path: d.text for d in read_documents(whole / "held_out.jsonl.gz")}
    sources = {path.name: path.read_text(encoding="utf-8") for path in corpus.glob("*.py")}
    assert 0 < len(held_out) < len(sources)
    assert held_out.items() <= sources.items()
    n_documents = sum(shard.n_documents for shard in store.manifest.shards)
    assert n_documents + len(held_out) == len(sources)


def test_rows_hold_the_documents_that_are_not_held_out(corpus, tmp_path):
    out = tmp_path / "plain"
    assert main(["data", str(corpus), "--out", str(out), *SMALL, "--fim-rate", "0"]) == 0
    store = TokenStore(out / "tokens")
    held_out = {d.text for d in read_documents(out / "held_out.jsonl.gz")}
    texts = {path.read_text(encoding="utf-8") for path in corpus.glob("*.py")} - held_out
    t = store.tokenizer
    expected = [i for text in texts for i in (*t.encode(text), t.end_of_text_id)]
    tokens, is_learned = store.rows(np.arange(store.n_rows))
    assert sorted(tokens[is_learned].tolist()) == sorted(expected)


def test_of_one_text_the_end_is_held_out(corpus, tmp_path, capsys):
    out = tmp_path / "verse"
    words = ["data", str(corpus / "verse.txt"), "--out", str(out), *SMALL, "--held-out-percent", "10"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next      techtree train {out}"
    whole = (corpus / "verse.txt").read_text(encoding="utf-8")
    end = "".join(document.text for document in read_documents(out / "held_out.jsonl.gz"))
    assert whole.endswith(end)
    assert end.startswith("line ")
    assert len(end) == pytest.approx(0.1 * len(whole), abs=20)  # one line
    assert TokenStore(out / "tokens").manifest.shards[0].n_bytes == len(whole) - len(end)


def test_a_finished_folder_is_not_made_again(whole, corpus, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert main(["data", str(corpus), "--out", str(whole), *SMALL]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{whole} is finished",
        f"next      techtree train {whole}",
    ]
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


@pytest.mark.parametrize("n_shards", [0, 2])
def test_after_ctrl_c_it_goes_on_and_ends_the_same(whole, corpus, tmp_path, monkeypatch, capsys, n_shards):
    written = []

    def interrupted(path, rows):
        if len(written) == n_shards:
            raise KeyboardInterrupt
        write_shard(path, rows)
        written.append(path)

    files = tmp_path / "corpus"
    files.mkdir()
    for path in corpus.glob("*.py"):
        (files / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(store_builder, "write_shard", interrupted)
        assert main(["data", str(files), "--out", str(out), *SMALL]) == 130
    assert "stopped; the same command goes on from here" in capsys.readouterr().err
    (files / "a0.py").write_text("changed = True\n", encoding="utf-8")  # It has read the files already.
    assert main(["data", str(files), "--out", str(out), *SMALL]) == 0
    expected = contents(whole)
    expected["settings.json"] = expected["settings.json"].replace(
        json.dumps(str(corpus.resolve())).encode(), json.dumps(str(files.resolve())).encode()
    )
    assert contents(out) == expected


def test_the_tokenizer_of_a_model(corpus, tiny_model_folder, tmp_path):
    out = tmp_path / "out"
    words = ["data", str(corpus), "--out", str(out), "--tokenizer", str(tiny_model_folder), "--seq-len", "64"]
    assert main(words) == 0
    given = (tiny_model_folder / "tokenizer.json").read_text(encoding="utf-8")
    assert TokenStore(out / "tokens").tokenizer.to_json() == given


def test_a_tokenizer_without_the_marks_serves_for_text_alone(corpus, tiny_model_folder, tmp_path, capsys):
    spec = json.loads((tiny_model_folder / "tokenizer.json").read_text(encoding="utf-8"))
    spec["added_tokens"] = [token for token in spec["added_tokens"] if "fim" not in token["content"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    words = ["data", str(corpus), "--tokenizer", str(tmp_path), "--seq-len", "64", "--out"]
    assert main([*words, str(tmp_path / "code")]) == 2
    assert "'<fim_prefix>'" in (error := capsys.readouterr().err)
    assert "with --fim-rate 0 it needs none" in error
    assert main([*words, str(tmp_path / "text"), "--fim-rate", "0"]) == 0


def refused(words: list[str], capsys) -> str:
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("techtree: error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing", "--out", "new"], "a corpus path must exist; got missing"),
        (["--out", "new"], "must have at least one file or folder"),
        (["empty", "--out", "new"], "found none that can be used under empty"),
        (["tiny.py", "--out", "new"], "must fill at least one row"),
        (["latin.txt", "--out", "new"], "latin.txt is not UTF-8"),
        (["empty", "--out", "new", "--seq-len", "3"], "seq_len must be at least 16"),
        (["empty", "--out", "new", "--fim-rate", "2"], "fim_rate must lie in [0, 1]"),
        (["empty", "--out", "new", "--held-out-percent", "0"], "--held-out-percent must be above 0"),
        (["empty", "--out", "new", "--held-out-percent", "nan"], "--held-out-percent must be above 0"),
        (["tiny.py", "--out", "new", "--vocab-size", "9"], "vocab_size must hold 256 bytes"),
        (
            ["tiny.py", "--out", "new", "--vocab-size", "999", "--tokenizer", "."],
            "leave it out, or --tokenizer",
        ),
        (["tiny.py", "--out", "new", "--tokenizer", "empty"], "must hold a tokenizer.json"),
        (["tiny.py", "--out", "full"], "must be a new folder; full holds thesis.tex"),
        (["tiny.py", "--out", "tiny.py"], "must be a folder; tiny.py is a file"),
    ],
)
def test_wrong_inputs_are_one_clear_error(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work", encoding="utf-8")
    (tmp_path / "tiny.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    assert message in refused(words, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seq-len", "32"], "was begun with --seq-len 64, now it is 32"),
        (["--fim-rate", "0.25"], "was begun with --fim-rate 0.5, now it is 0.25"),
        (["--vocab-size", "401"], "was begun with --vocab-size 400, now it is 401"),
        (["--held-out-percent", "5"], "was begun with --held-out-percent 4.0, now it is 5.0"),
    ],
)
def test_other_settings_do_not_join_a_folder(whole, corpus, capsys, words, message):
    before = contents(whole)
    assert message in refused([str(corpus), "--out", str(whole), *SMALL, *words], capsys)
    assert contents(whole) == before


def test_another_corpus_and_another_tokenizer_do_not_join_a_folder(whole, corpus, capsys, tiny_model_folder):
    error = refused([str(corpus / "verse.txt"), "--out", str(whole), *SMALL], capsys)
    assert f"was begun with corpus {corpus.resolve()}, now it is" in error
    words = ["--tokenizer", str(tiny_model_folder), "--seq-len", "64"]
    error = refused([str(corpus), "--out", str(whole), *words], capsys)
    assert "was begun with --tokenizer left out, now it is" in error


def test_a_damaged_finished_folder_is_one_clear_error(whole, corpus, tmp_path, capsys):
    out = tmp_path / "out"
    for name, data in contents(whole).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    shard = out / "tokens" / "rows-00001.npy"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert f"delete {out / 'tokens'} and make it again" in refused(
        [str(corpus), "--out", str(out), *SMALL], capsys
    )


@pytest.mark.parametrize(
    "mistyped",
    [
        ["missing"],
        ["empty"],
        ["tiny.py"],  # too little for a row: the last stage says so
        ["latin.txt"],
        ["CORPUS", "--tokenizer", "empty"],
        ["CORPUS", "--vocab-size", "9"],
    ],
)
def test_what_was_mistyped_at_first_does_not_stop_the_corrected_command(
    mistyped, corpus, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "tiny.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    refused([word.replace("CORPUS", str(corpus)) for word in mistyped] + ["--out", "new"], capsys)
    assert not (tmp_path / "new").exists()
    assert main(["data", str(corpus), "--out", "new", *SMALL]) == 0


def test_what_was_begun_is_not_forgotten(whole, corpus, tmp_path, monkeypatch, capsys):
    """After a Ctrl-C, other options are refused and nothing is removed."""

    def interrupted(*_):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(data_folder, "build_store", interrupted)
        assert main(["data", str(corpus), "--out", str(out), *SMALL]) == 130
    before = contents(out)
    capsys.readouterr()
    assert "was begun with" in refused([str(corpus), "--out", str(out), *SMALL[:2]], capsys)
    assert contents(out) == before
    assert main(["data", str(corpus), "--out", str(out), *SMALL]) == 0
    assert contents(out) == contents(whole)


def test_a_second_one_in_the_same_folder_is_refused_at_once(corpus, tmp_path, capsys):
    with locked(tmp_path / "out"):
        error = refused([str(corpus), "--out", str(tmp_path / "out"), *SMALL], capsys)
    assert "is being filled by another process" in error
    assert not (tmp_path / "out" / "settings.json").exists()


@pytest.mark.parametrize("out", ["x" * 300, "/dev/null/x", "loop"])
def test_a_folder_that_cannot_be_is_one_sentence(out, corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    refused([str(corpus), "--out", out, *SMALL], capsys)
