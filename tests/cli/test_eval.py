"""`techtree eval`: one line, from files or from what `techtree data` held out."""

import math
import re

import pytest
import torch

from techtree.cli.main import main
from techtree.lm.data.corpus import Document
from techtree.lm.pipeline.corpus_file import write_documents
from techtree.lm.pipeline.data_folder import HELD_OUT

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
