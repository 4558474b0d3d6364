"""`techtree eval`: a line for a text, from files or what `techtree data` held out; a table for problems."""

import json
import math
import re
import shutil

import pytest
import torch

from problem_entry import EXERCISE
from techtree.cli.main import main
from techtree.lm.data.corpus import Document
from techtree.lm.pipeline.corpus_file import write_documents
from techtree.lm.pipeline.data_folder import HELD_OUT
from techtree.lm.tokenizer import Tokenizer
from techtree.sandbox import why_not_confined

SOURCE = "def add(a, b):\n    return a + b\n" * 20


def measured(capsys, *words) -> float:
    assert main(["eval", *map(str, words)]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    return float(re.match(r"([0-9.]+) bits per byte ", line)[1])


def test_it_measures_files_and_what_was_held_out_alike(tmp_path, tiny_model_folder, capsys):
    (tmp_path / "x.py").write_text(SOURCE)
    write_documents(tmp_path / "data" / HELD_OUT, [Document("y.py", SOURCE)])
    found = measured(capsys, tmp_path / "x.py", "--model", tiny_model_folder)
    assert found == measured(capsys, tmp_path / "data", "--model", tiny_model_folder)
    twice = measured(capsys, tmp_path / "x.py", tmp_path / "data", "--model", tiny_model_folder)
    assert twice == found


def test_a_gguf_file_is_measured_like_its_folder(tmp_path, tiny_model_folder, capsys):
    (tmp_path / "x.py").write_text(SOURCE)
    export = ["export", str(tiny_model_folder), "--to", "gguf", "--out"]
    assert main([*export, str(tmp_path / "exact.gguf")]) == 0
    assert main([*export, str(tmp_path / "rough.gguf"), "--dtype", "q4_0"]) == 0
    capsys.readouterr()
    found, exact, rough = (
        measured(capsys, tmp_path / "x.py", "--model", model)
        for model in (tiny_model_folder, tmp_path / "exact.gguf", tmp_path / "rough.gguf")
    )
    assert found == exact
    assert 0 < abs(rough - exact) < 0.5


def test_the_line_holds_the_sum_of_the_tokens_losses(
    tmp_path, tiny_model, tiny_tokenizer, tiny_model_folder, capsys
):
    (tmp_path / "x.py").write_text("x = 1\n")
    end = tiny_tokenizer.end_of_text_id
    ids = torch.tensor([end, *tiny_tokenizer.encode("x = 1\n"), end])
    with torch.inference_mode():
        nats = -tiny_model(ids[None, :-1])[0].log_softmax(-1).gather(1, ids[1:, None]).sum().item()
    found = measured(capsys, tmp_path / "x.py", "--model", tiny_model_folder)
    # bfloat16 keeps eight bits of each activation.
    assert found == pytest.approx(nats / math.log(2) / 6, rel=1e-2)


def test_the_figure_counts_every_byte_of_the_files(tmp_path, tiny_model_folder, capsys):
    files = {
        "lines.py": b"x = 1\r\ny = 2\r\n",
        "mark.py": b"\xef\xbb\xbfx = 1\n",
        "old.py": b"x = 1\ry = 2\r",
        "decomposed.py": "x = 'e\u0301 \u212b \ufb01'\n".encode(),
        "special.py": b"x = '<|endoftext|>'\n",
        "wide.py": "x = '\u65e5\u672c \U0001f642 \u2028'\n".encode(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name, data in [*files.items(), ("", b"".join(files.values()))]:
        assert main(["eval", str(tmp_path / name), "--model", str(tiny_model_folder)]) == 0
        assert f" {len(data):,} bytes, " in capsys.readouterr().out


def test_files_that_were_left_out_are_told(tmp_path, tiny_model_folder, capsys):
    (tmp_path / "a.py").write_bytes(b"x = 1\n")
    (tmp_path / "b.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "c.py").write_bytes(b"")
    assert main(["eval", str(tmp_path), "--model", str(tiny_model_folder)]) == 0
    out, err = capsys.readouterr()
    assert "1 documents, 6 bytes, " in out
    assert err == "techtree: left out 2 files (1 is not UTF-8, 1 is empty)\n"


@pytest.mark.parametrize(
    "change",
    [
        {"truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}},
        {
            "padding": {
                "strategy": {"Fixed": 99},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 5,
            }
        },
        {"normalizer": {"type": "NFC"}},
        {"post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_tokenizer_asks_for_does_not_shorten_the_text(change, tmp_path, tiny_model_folder, capsys):
    model = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (tmp_path / "x.py").write_text(SOURCE + "# e\u0301\n", encoding="utf-8")
    expected = measured(capsys, tmp_path / "x.py", "--model", model)
    spec = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    (model / "tokenizer.json").write_text(json.dumps(spec | change), encoding="utf-8")
    assert measured(capsys, tmp_path / "x.py", "--model", model) == expected


def test_a_tokenizer_that_loses_text_is_refused(tmp_path, tiny_model_folder, monkeypatch, capsys):
    (tmp_path / "x.py").write_text(SOURCE)
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text, **options: encode(self, text, **options)[:7])
    assert main(["eval", str(tmp_path / "x.py"), "--model", str(tiny_model_folder)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"must count all of a text; of x.py, with {len(SOURCE)} bytes, the tokenizer keeps " in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "at least one file or folder; got none"),
        (["nowhere.py"], "nowhere.py"),
        (["x.py", "--max-bytes", "-1"], "--max-bytes must not be negative"),
        (["x.py", "--seq-len", "0"], "--seq-len must be at least 1"),
    ],
)
def test_wrong_inputs_get_one_line(words, message, tmp_path, monkeypatch, tiny_model_folder, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").write_text(SOURCE)
    assert main(["eval", *words, "--model", str(tiny_model_folder)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture
def problem_files(tmp_path):
    """Three holes, and three functions."""
    holes, functions = tmp_path / "holes.jsonl", tmp_path / "functions.jsonl"
    entries = [EXERCISE | {"task_id": f"T/{i}"} for i in range(3)]
    holes.write_text("".join(json.dumps(entry | {"suffix": "\n# end\n"}) + "\n" for entry in entries))
    functions.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return holes, functions


def cells(line: str) -> list[str]:
    return re.split(r"  +", line.strip())


needs_sandbox = pytest.mark.skipif(bool(why_not_confined()), reason=f"needs {why_not_confined()}")


@needs_sandbox
def test_holes_are_filled_in_and_judged(problem_files, tiny_model_folder, capsys):
    holes, _ = problem_files
    assert main(["eval", str(holes), "--model", str(tiny_model_folder)]) == 0
    first = capsys.readouterr().out
    head, names, *rows = first.splitlines()
    assert head.startswith("holes.jsonl: 3 holes; per cent")
    assert cells(names) == ["exact", "similarity", "passing", "valid", "ended", "leaking", "repeating"]
    by_name = {cells(row)[0]: cells(row)[1:] for row in rows}
    assert list(by_name)[1:] == ["nothing", "always 'return 1'", "the line before", "the line after"]
    assert by_name["always 'return 1'"][:4] == ["100.0 ± 0.0"] * 4
    assert by_name["nothing"][:3] == ["0.0 ± 0.0"] * 3
    assert main(["eval", str(holes), "--model", str(tiny_model_folder)]) == 0
    assert capsys.readouterr().out == first


@needs_sandbox
def test_functions_are_written_and_run(problem_files, tiny_model_folder, capsys):
    _, functions = problem_files
    words = ["eval", str(functions), "--model", str(tiny_model_folder), "--n", "2", "--samples", "10"]
    assert main(words) == 0
    head, names, ours, known = capsys.readouterr().out.splitlines()
    assert head.startswith("functions.jsonl: 2 functions, gone on with, each 10 times at temperature 0.8")
    assert cells(names) == ["pass@1", "pass@10"]
    assert cells(ours)[1:] == ["0.0 ± 0.0"] * 2
    assert cells(known) == ["the file's own solutions", "100.0 ± 0.0", "100.0 ± 0.0"]


def test_lines_of_a_project_with_its_memory(tmp_path, tiny_model_folder, capsys):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(SOURCE)
    words = ["eval", str(tmp_path), "--holes", "2", "--model", str(tiny_model_folder)]
    exact = {}
    for memory in ("none", "project"):
        assert main([*words, "--memory", memory]) == 0
        head, _, ours, *_ = capsys.readouterr().out.splitlines()
        assert head.startswith("holes: 2 holes")
        exact[memory] = float(cells(ours)[1].split()[0])
    assert exact["project"] > exact["none"]


@needs_sandbox
def test_a_server_is_asked_instead_of_a_model(problem_files, capsys):
    pytest.importorskip("starlette")
    from serve.loopback import FakeEngine, running

    with running(FakeEngine(("    return 1",))) as address:
        for path in problem_files:
            assert main(["eval", str(path), "--server", address.url, "--chat", "no"]) == 0
            ours = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fake"))
            assert cells(ours)[1] == "100.0 ± 0.0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["holes.jsonl", "x.py"], "problems are measured by themselves"),
        (["holes.jsonl", "--holes", "3"], "problems are measured by themselves"),
        (["none.jsonl"], "must be a file of problems that can be read"),
        (["holes.jsonl", "--samples", "0"], "--samples must be at least 1"),
        (["holes.jsonl", "--n", "-1"], "--n must not be negative"),
        (["holes.jsonl", "--memory", "project"], "--memory project needs one folder"),
        (["x.py", "--server", "http://127.0.0.1:9"], "a server does not tell the bits"),
        (["holes.jsonl", "--server", "http://127.0.0.1:9", "--memory", "text"], "a server has a model"),
        (["holes.jsonl", "--server", "http://127.0.0.1:9"], "there must be a server"),
    ],
)
def test_wrong_questions_get_one_line(words, message, problem_files, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").write_text(SOURCE)
    (tmp_path / "runs").mkdir()
    assert main(["eval", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
