"""The tokenizer against the library's own encoder, against transformers, and on its promises."""

import contextlib
import io
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from lm.byte_level_tokenizers import train_tokenizer
from techtree.errors import InputError
from techtree.lm.tokenizer import (
    END_OF_TEXT,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    MAX_TRAINED_CHARS,
    MIN_VOCAB_SIZE,
    QWEN2_PATTERN,
    SPECIAL_TOKENS,
    Tokenizer,
    _without_long_words,
)
from techtree.lm.tokenizer_settings import TokenizerSettings

TEXTS = [Path(module.__file__).read_text(encoding="utf-8") for module in (contextlib, json, io, subprocess)]
VOCAB_SIZE = 700
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
ASCII = st.text(st.characters(max_codepoint=127))
CODE_LIKE = st.lists(
    st.sampled_from(["def", " ", "  ", "\n", "\r\n", "\t", "x", "'s", "12", "_", "->", "é", "\x1c", "\x85"])
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, VOCAB_SIZE)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def library(folder) -> tokenizers.Tokenizer:
    """The library's reading of the file that we write; it leaves special tokens in text alone."""
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.encode_special_tokens = True
    return library


# ---- the vocabulary


def test_special_tokens_come_first(tokenizer):
    assert [tokenizer.special_id(token) for token in SPECIAL_TOKENS] == list(range(5))
    ids = tokenizer.end_of_text_id, tokenizer.fim_prefix_id, tokenizer.fim_middle_id, tokenizer.fim_suffix_id
    assert ids == (0, 1, 2, 3)
    assert tokenizer.file_sep_id == 4


def test_every_byte_is_a_token(tokenizer):
    tokens = {tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)}
    assert {bytes([byte]) for byte in range(256)} <= tokens


def test_vocabulary_has_the_size_asked_for(tokenizer):
    assert tokenizer.vocab_size == VOCAB_SIZE


def test_short_texts_give_a_smaller_vocabulary():
    tokenizer = Tokenizer.train(["ab ab ab"], 5000)
    assert MIN_VOCAB_SIZE < tokenizer.vocab_size < MIN_VOCAB_SIZE + 5
    assert tokenizer.decode(tokenizer.encode("unseen ✓")) == "unseen ✓"


def test_every_digit_is_a_token_of_its_own(tokenizer):
    assert len(tokenizer.encode("1234567")) == 7


def test_training_is_deterministic(tokenizer):
    code = (
        "import contextlib, io, json, subprocess\nfrom pathlib import Path\n"
        "from techtree.lm.tokenizer import Tokenizer\n"
        "texts = [Path(m.__file__).read_text(encoding='utf-8') for m in (contextlib, json, io, subprocess)]\n"
        f"print(Tokenizer.train(texts, {VOCAB_SIZE}).to_json(), end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode("utf-8").replace("\r\n", "\n") == tokenizer.to_json()


# ---- long words

LONG = {
    "a genome": "".join(random.Random(0).choices("ACGT", k=900_000)),
    "letters": "".join(random.Random(1).choices("éèàü", k=300_000)),
    "no blanks": "".join(random.Random(2).choices("日本語文字列返値", k=300_000)),
    "signs": "".join(random.Random(3).choices("+-*/_=", k=300_000)),
    "blanks": " " * 300_000,
    "line feeds": "\n" * 300_000,
    "of two minds": "".join(random.Random(4).choices("\x1c+-\u0378", k=300_000)),
    "new letters": "".join(random.Random(5).choices("a\u1c89", k=300_000)),
}


@pytest.mark.parametrize("line", LONG.values(), ids=LONG)
def test_a_long_line_is_learned_from_in_a_moment(line):
    started = time.process_time()  # of all threads
    tokenizer = Tokenizer.train([line], 300)
    assert time.process_time() - started < 30  # some seconds; without the cuts, hours
    assert tokenizer.decode(tokenizer.encode(line[:5000])) == line[:5000]


def test_words_are_cut_at_a_thousand_characters_and_all_else_stays():
    pieces = list(_without_long_words("x = 1\n" + "a" * 2500 + "(" + "é" * 1001 + ")\n"))
    # Outside of ASCII a letter may be a sign to the library: "(" and what follows are one run.
    assert [len(piece) for piece in pieces] == [6 + 1000, 1000, 500 + 1000, 2 + 2]
    for text in ("", *TEXTS, "a" * 999, ("a" * 999 + " ") * 5, "1" * 5000, "a1" * 5000):
        assert list(_without_long_words(text)) == [text]


@given(st.lists(st.sampled_from(["a" * 999, "é" * 999, "+" * 999, " " * 999, "\n", "1", "x", "_", "\x1c"])))
def test_no_word_to_learn_from_is_long(pieces):
    text = "".join(pieces)
    found = list(_without_long_words(text))
    assert "".join(found) == text
    words = [word for piece in found for word, _ in pre_tokenizers.Split(
        tokenizers.Regex(QWEN2_PATTERN), "isolated").pre_tokenize_str(piece)]  # fmt: skip
    assert max(map(len, words), default=0) <= 2 * MAX_TRAINED_CHARS + 1


# ---- what is kept of words


def test_what_is_kept_of_words_is_bounded_in_bytes(tokenizer):
    """Ever new words, as a server gets them: of 6,000 letters, of 100, and of 20."""
    fresh, rng = Tokenizer(json.loads(tokenizer.to_json())), random.Random(0)
    for length, n_words in ((6000, 300), (100, 3000), (20, 3000)):
        for _ in range(n_words):
            word = "".join(rng.choices("abcdefghij", k=length))
            assert fresh.decode(fresh.encode(word)) == word
    kept = fresh._word_ids
    assert max(map(len, kept)) <= kept.MAX_WORD_CHARS
    size = sum(sys.getsizeof(w) + sys.getsizeof(ids) + 28 * len(ids) for w, ids in kept.items())
    assert size + sys.getsizeof(kept) < kept.MAX_BYTES
    kept.MAX_BYTES = 50_000
    for n in range(3000):
        word = "".join(rng.choices("abcdefghij", k=9))
        assert fresh.decode(fresh.encode(word)) == word
        size = sum(sys.getsizeof(w) + sys.getsizeof(ids) + 28 * len(ids) for w, ids in kept.items())
        assert n < 100 or size < 50_000


# ---- encoding


@settings(deadline=None)
@given(UNICODE | ASCII | CODE_LIKE.map("".join))
@example("\r\n\t tab \r lone return \x00 \x7f\x80 \u2028 🙂👩‍💻 e\u0301 \ufeff")
@example("")
def test_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode("utf-8")


@settings(deadline=None, max_examples=300)
@given(UNICODE | ASCII | CODE_LIKE.map("".join))
def test_fast_path_equals_the_library(tokenizer, library, text):
    assert tokenizer.encode(text) == library.encode(text).ids


def test_fast_path_equals_the_library_on_code(tokenizer, library):
    unseen = [Path(module.__file__).read_text(encoding="utf-8") for module in (pytest, np)] + TEXTS
    assert all(text.isascii() for text in TEXTS)
    assert tokenizer.encode_batch(unseen) == [library.encode(text).ids for text in unseen]


@pytest.mark.parametrize(
    "text", [*SPECIAL_TOKENS, f"x = '{END_OF_TEXT}'", f"é{FIM_MIDDLE}é", f"{FIM_PREFIX} a"]
)
def test_text_never_gives_a_special_token(tokenizer, text):
    ids = tokenizer.encode(text)
    assert min(ids) >= len(SPECIAL_TOKENS)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text]) == [ids]


def test_special_tokens_are_parsed_on_request(tokenizer):
    ids = tokenizer.encode(f"{FIM_PREFIX}a{FIM_SUFFIX}b{FIM_MIDDLE}", parse_special=True)
    assert ids == [1, *tokenizer.encode("a"), 3, *tokenizer.encode("b"), 2]
    assert tokenizer.decode(ids) == f"{FIM_PREFIX}a{FIM_SUFFIX}b{FIM_MIDDLE}"


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb"])
@pytest.mark.parametrize("parse_special", [False, True])
def test_half_a_surrogate_pair_is_refused(tokenizer, text, parse_special):
    with pytest.raises(InputError, match="half of a surrogate pair"):
        tokenizer.encode(text, parse_special=parse_special)
    with pytest.raises(InputError, match="half of a surrogate pair"):
        Tokenizer.train([text], 300)


# ---- decoding


def test_part_of_a_character_is_replaced_in_text_and_exact_in_bytes(tokenizer):
    ids = tokenizer.encode("é✓")
    assert tokenizer.decode(ids[:-1]).endswith("\ufffd")
    pieces = [tokenizer.decode_bytes([i]) for i in ids]
    assert b"".join(pieces).decode() == "é✓"


@pytest.mark.parametrize("kind", [list, tuple, np.array, iter])
def test_ids_may_come_in_any_iterable(tokenizer, kind):
    assert tokenizer.decode(kind(tokenizer.encode("def f"))) == "def f"


@pytest.mark.parametrize("wrong", [VOCAB_SIZE, -1])
def test_unknown_ids_are_refused(tokenizer, wrong):
    with pytest.raises(InputError, match=rf"vocabulary of {VOCAB_SIZE}; got {wrong}"):
        tokenizer.decode([5, wrong])


# ---- files


def test_loaded_equals_saved(tokenizer, folder):
    loaded = Tokenizer.load(folder)
    assert loaded.to_json() == tokenizer.to_json()
    assert [loaded.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


@pytest.mark.parametrize("with_model_config", [False, True])
def test_transformers_reads_the_folder_alike(tokenizer, folder, tmp_path, with_model_config):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    if with_model_config:  # which makes transformers look for the tokenizer class of that architecture
        (tmp_path / "config.json").write_text(
            '{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}'
        )
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    texts = [*TEXTS, "naïve ✓ e\u0301 \r\n\t x", f"{FIM_PREFIX}a {FIM_SUFFIX} b{FIM_MIDDLE}", " lead", "1234"]
    for text in texts:
        ids = tokenizer.encode(text, parse_special=True)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    assert theirs.eos_token_id == theirs.pad_token_id == tokenizer.end_of_text_id
    assert len(theirs) == tokenizer.vocab_size


def test_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match=r"must hold a tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"{bad", b"[1]", b'{"model":{}}', b"\xff\xfe", b'{"version":"1.0"']
)
def test_damaged_file_is_one_clear_error(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_half_a_file_is_one_clear_error(folder, tmp_path):
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(InputError, match="is damaged"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("model", [models.WordLevel({"a": 0}, "a"), models.BPE({"a": 0}, [])])
def test_other_kinds_of_tokenizer_are_refused(tmp_path, model):
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="must be byte-level BPE; got"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("vocab_size", [0, MIN_VOCAB_SIZE - 1])
def test_vocabulary_without_room_for_the_bytes_is_refused(vocab_size):
    with pytest.raises(InputError, match=f"got {vocab_size}: use 261 or more"):
        Tokenizer.train(["text"], vocab_size)


# ---- tokenizers of others


def _as_qwen(spec: dict) -> dict:
    """Return our tokenizer with Qwen2.5-Coder's names: behind the vocabulary, not marked as special."""
    vocab = {token: i - 5 for token, i in spec["model"]["vocab"].items() if i >= 5}
    names = [END_OF_TEXT, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
    added = [
        spec["added_tokens"][0] | {"id": len(vocab) + i, "content": name, "special": i == 0}
        for i, name in enumerate(names)
    ]
    model = spec["model"] | {"vocab": vocab}
    return spec | {"model": model, "added_tokens": added, "normalizer": {"type": "NFC"}}


def test_qwens_names_are_understood_and_never_parsed_from_text(tokenizer):
    foreign = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(_as_qwen(json.loads(tokenizer.to_json())))))
    n = VOCAB_SIZE - 5
    assert foreign.vocab_size == n + 4
    assert (foreign.end_of_text_id, foreign.fim_prefix_id, foreign.fim_suffix_id) == (n, n + 1, n + 3)
    for text in ("a<|fim_prefix|>b", "é<|fim_prefix|>é"):
        assert max(foreign.encode(text)) < n
        assert foreign.decode(foreign.encode(text)) == text
        assert n + 1 in foreign.encode(text, parse_special=True)
    assert foreign.encode(TEXTS[0]) == [i - 5 for i in tokenizer.encode(TEXTS[0])]
    with pytest.raises(InputError, match="no special token '<file_sep>'"):
        foreign.file_sep_id  # noqa: B018


def test_another_pattern_takes_the_library_path(tokenizer):
    spec = json.loads(tokenizer.to_json())
    gpt2 = tokenizers.Tokenizer.from_str(json.dumps(spec))
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    text = "x = 1234  # it's"
    assert Tokenizer(gpt2).encode(text) == gpt2.encode(text).ids


def test_llama_3s_end_of_text_is_understood(tiny_texts, tmp_path):
    tokenizer = train_tokenizer(tiny_texts[:1], "llama-bpe", special=("<|begin_of_text|>", "<|end_of_text|>"))
    assert tokenizer.end_of_text_id == tokenizer.special_id("<|end_of_text|>")
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["eos_token"] == config["pad_token"] == "<|end_of_text|>"


# ---- templates for chats

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'] }}{% endfor %}é"


@pytest.fixture
def with_template(tokenizer) -> Tokenizer:
    return Tokenizer(json.loads(tokenizer.to_json()), TokenizerSettings(chat_template=TEMPLATE))


def test_a_chat_template_is_kept(tokenizer, with_template, tmp_path):
    with_template.save(tmp_path)
    assert Tokenizer.load(tmp_path).chat_template == TEMPLATE
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).chat_template is None


def test_transformers_reads_our_chat_template_and_we_read_theirs(with_template, tmp_path):
    transformers = pytest.importorskip("transformers")
    with_template.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    chat = [{"role": "user", "content": "hello"}]
    assert theirs.apply_chat_template(chat, tokenize=False) == "<user>\nhelloé"
    theirs.save_pretrained(tmp_path / "theirs")
    assert Tokenizer.load(tmp_path / "theirs").chat_template == TEMPLATE


def test_an_older_chat_template_does_not_outlive_its_tokenizer(tokenizer, with_template, tmp_path):
    (tmp_path / "chat_template.jinja").write_text("older", encoding="utf-8")
    with_template.save(tmp_path)
    assert Tokenizer.load(tmp_path).chat_template == TEMPLATE


def test_of_several_chat_templates_the_default_is_read(with_template, tmp_path):
    with_template.save(tmp_path)
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert Tokenizer.load(tmp_path).chat_template == "y"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named[:1]}))
    assert Tokenizer.load(tmp_path).chat_template is None


@pytest.mark.parametrize("content", ["{", "[]", "3", '{"chat_template": [3]}'])
def test_damaged_settings_are_one_clear_error(tokenizer, tmp_path, content):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(InputError, match=r"tokenizer_config\.json is damaged"):
        Tokenizer.load(tmp_path)


def test_unknown_special_token_gets_a_hint(tokenizer):
    with pytest.raises(InputError, match="did you mean <fim_prefix>"):
        tokenizer.special_id("<fim_prefx>")


def test_the_fingerprint_is_that_of_what_the_file_says(tokenizer):
    said = json.loads(tokenizer.to_json())
    assert Tokenizer(said).fingerprint == tokenizer.fingerprint
    others = [json.loads(tokenizer.to_json()) for _ in range(3)]
    *_, one, other = others[0]["model"]["vocab"]
    vocab = others[0]["model"]["vocab"]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    others[1]["model"]["merges"].pop()
    others[2]["model"]["ignore_merges"] = True
    found = {Tokenizer(each).fingerprint for each in others}
    assert len(found | {tokenizer.fingerprint}) == 4
