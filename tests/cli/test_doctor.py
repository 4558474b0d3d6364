"""`techtree doctor` on this machine and on poorer ones."""

import socket

import pytest

from techtree.cli import doctor
from techtree.cli.main import main

pytest.importorskip("torch")


def told(out):
    """Return what was told by name; advice is a name's second line."""
    found, name = {}, ""
    for line in out.splitlines():
        name = line[:14].strip() or name
        found.setdefault(name, []).append(line[15:])
    return found


def test_a_machine_with_all(capsys, tiny_model_folder):
    assert main(["doctor", "--model", str(tiny_model_folder)]) == 0
    found = told(capsys.readouterr().out)
    assert {"techtree", "processors", "PyTorch", "bfloat16", "accelerator", "decoder in C"} <= found.keys()
    assert found["model"] == [str(tiny_model_folder)]
    assert " tokens a second (16 tokens; " in found["decoding"][0]
    assert found["decoding"][0].endswith("it fills in")


def test_a_machine_without_a_model_or_with_a_damaged_one(capsys, tmp_path, tiny_model_folder):
    assert main(["doctor", "--model", str(tmp_path)]) == 1
    assert told(capsys.readouterr().out)["model"][0] == "none"
    for file in tiny_model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:100])
    assert main(["doctor", "--model", str(tmp_path)]) == 1
    assert told(capsys.readouterr().out)["decoding"][0] == "failed"


def test_a_machine_without_pytorch_or_pygls(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    assert main(["doctor"]) == 1
    found = told(capsys.readouterr().out)
    assert found["PyTorch"] == ["torch is not installed", "-> pip install 'techtree[lm]'"]
    assert "techtree[lsp]" in found["techtree lsp"][1]
    assert "model" not in found


def test_a_machine_without_a_compiler_or_bfloat16(monkeypatch):
    import torch

    from techtree.lm.native import library
    from techtree.lm.train import precision

    def fail():
        raise library.NoCompilerError("there is no C compiler")

    monkeypatch.setattr(library, "library", fail)
    monkeypatch.setattr(precision, "compute_dtype", lambda device: torch.float32)
    assert doctor.compiler().what == "no: there is no C compiler"
    assert doctor.compiler().advice
    assert doctor.bfloat16().what.startswith("no")


def test_processors_and_ports():
    assert doctor.processors(2, 2, 0.1) == doctor.Finding("processors", "2, load 0.1")
    assert doctor.processors(8, 2, None).what == "2 of 8 may be used"
    assert "slower" in doctor.processors(2, 2, 4.0).advice
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        assert doctor.port(number).advice
    assert doctor.port(number).what == "free"
