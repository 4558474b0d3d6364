"""Which tokens end a text, or belong into none, by whichever file says so."""

import json

import pytest

from lm.byte_level_tokenizers import train_library_tokenizer
from techtree.errors import InputError
from techtree.lm.formats.huggingface import load_pretrained, save_pretrained
from techtree.lm.tokenizer import Tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED = (
    *(
        "<|fim_pad|>",
        "<|repo_name|>",
        "<tool_call>",
        "</think>",
        "<｜fim▁hole｜>",
        "[INST]",
        "<｜end of turn｜>",
    ),
    *("    ", "\t\t", "foo", "a < b > c", "[x]"),
)
"""None is marked as special; Qwen does that with the first ones, GPT-NeoX with runs of blanks."""
TEXT = ADDED[-5:]


@pytest.fixture(scope="module")
def library(tiny_texts):
    found = train_library_tokenizer(tiny_texts[:2], "qwen2", vocab_size=400, special=SPECIAL)
    found.add_tokens(list(ADDED))
    return found


@pytest.fixture
def folder(library, tmp_path):
    (tmp_path / "tokenizer.json").write_text(library.to_str(), encoding="utf-8")
    return tmp_path


def write(folder, name, values):
    (folder / name).write_text(json.dumps(values), encoding="utf-8")


def test_marks_belong_into_no_text_and_plain_text_does(folder, library):
    tokenizer = Tokenizer.load(folder)
    marks = [token for token in (*SPECIAL, *ADDED) if token not in TEXT]
    assert tokenizer.stop_ids == {library.token_to_id(token) for token in marks}
    assert tokenizer.end_ids == (tokenizer.end_of_text_id,)
    for token in TEXT:
        assert tokenizer.decode([library.token_to_id(token)]) == token


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("form", ["one", "list"])
def test_every_id_that_the_models_files_name_ends_a_text(folder, library, name, form):
    plain, turn = library.token_to_id("foo"), library.token_to_id("<|im_end|>")
    write(folder, name, {"eos_token_id": plain if form == "one" else [turn, plain]})
    tokenizer = Tokenizer.load(folder)
    assert plain in tokenizer.stop_ids
    ends = (plain,) if form == "one" else (turn, plain)
    assert tokenizer.end_ids == (*ends, tokenizer.end_of_text_id)


def test_both_files_count_and_that_of_generation_comes_first(folder):
    write(folder, "config.json", {"eos_token_id": 7})
    write(folder, "generation_config.json", {"eos_token_id": [9, 8]})
    assert Tokenizer.load(folder).end_ids[:3] == (9, 8, 7)


@pytest.mark.parametrize("value", ["foo", {"content": "foo", "special": True}])
def test_the_tokenizers_own_end_counts(folder, library, value):
    write(folder, "tokenizer_config.json", {"eos_token": value})
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.end_ids == (library.token_to_id("foo"), tokenizer.end_of_text_id)
    assert library.token_to_id("foo") in tokenizer.stop_ids


def test_what_transformers_calls_special_counts(folder):
    write(
        folder, "tokenizer_config.json", {"added_tokens_decoder": {"77": {"content": "x", "special": True}}}
    )
    assert 77 in Tokenizer.load(folder).stop_ids
    write(folder, "tokenizer_config.json", {"added_tokens_decoder": {"77": {"special": False}, "x": {}}})
    assert 77 not in Tokenizer.load(folder).stop_ids


@pytest.mark.parametrize("value", ["2", [None, "x"], [1.5], True, {"a": 1}, -3])
def test_an_end_that_is_no_id_is_refused(folder, value):
    write(folder, "generation_config.json", {"eos_token_id": value})
    with pytest.raises(InputError, match=r"eos_token_id in .*generation_config\.json must be whole numbers"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("value", [None, [], 10**9])
def test_an_end_that_nobody_has_is_none(folder, value):
    write(folder, "generation_config.json", {"eos_token_id": value})
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.end_ids == (tokenizer.end_of_text_id,)


def test_the_ends_of_a_model_are_written_with_it(folder, library, tiny_model):
    turn, end = library.token_to_id("<|im_end|>"), library.token_to_id("<|endoftext|>")
    write(folder, "generation_config.json", {"eos_token_id": [turn, end]})
    write(folder, "tokenizer_config.json", {"eos_token": "<|im_end|>", "chat_template": "{{ messages }}"})
    save_pretrained(folder / "again", tiny_model, Tokenizer.load(folder))
    _, tokenizer = load_pretrained(folder / "again")
    assert tokenizer.end_ids == (turn, end)
    assert tokenizer.chat_template == "{{ messages }}"
    for name in ("config.json", "generation_config.json"):
        values = json.loads((folder / "again" / name).read_text())
        assert values["eos_token_id"] == [turn, end]
    settings = json.loads((folder / "again" / "tokenizer_config.json").read_text())
    assert (settings["eos_token"], settings["pad_token"]) == ("<|im_end|>", "<|endoftext|>")
