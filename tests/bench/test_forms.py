"""What a form costs, on the tiny model."""

import pytest

torch = pytest.importorskip("torch")

import forms  # noqa: E402 - where there is PyTorch
from techtree.errors import InputError  # noqa: E402


def test_a_row_for_each_form(tiny_model, tiny_tokenizer, tmp_path):
    from techtree.lm.formats.gguf import save_gguf

    save_gguf(tmp_path / "tiny.gguf", tiny_model, tiny_tokenizer, torch.float32)
    rows = forms.measured(tmp_path / "tiny.gguf", rounds=1)
    assert [row[1] for row in rows] == list(forms.FORMS)
    assert {row[0] for row in rows} == {512}
    assert all(float(number) >= 0 for row in rows for number in row[2:])


def test_a_file_must_be_there(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        forms.Config(files=(tmp_path / "x.gguf",))
