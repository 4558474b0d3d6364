"""The same ids for the same text, and the same bytes back: in ours, in the library, in llama.cpp.

The tests with llama.cpp need it installed; the others compare ours with the `tokenizers` library alone.
"""

import random
import unicodedata
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from lm.byte_level_tokenizers import PRE_TOKENIZERS, train_library_tokenizer, train_tokenizer
from lm.llama_cpp_peer import LlamaCpp, needs_llama_cpp
from techtree.lm.config import ModelConfig
from techtree.lm.formats.gguf import save_gguf
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.tokenizer import SPECIAL_TOKENS, Tokenizer

CODE = '''\
class Stack:
\t"""A stack.\tWith tabs."""

    def push(self, item: int = 0x1F) -> "Stack":   \t
        if item is not None and self.items[-1] != item:
            for i in range(1_000_000):
                while True:
                    self.items += [item ** 2, 3.14e-10, b"\\x00", f"{item!r:>10}"]  # it's, WE'LL, they'd
        return self
'''
TEXTS = {
    "empty": "",
    "code, deeply indented": CODE + "".join(" " * i + f"x{i} = y[{i}]\n" for i in range(0, 80, 4)),
    "code, indented by tabs": CODE.replace("    ", "\t").replace("\n", "\r\n"),
    "line ends of every kind": "a\nb\r\nc\rd\n\re\r\r\nf\n\n\n\r\n\r\n  \r\n \r \n g\n",
    "tabs": "\t\t a \t b\t\n\t\n \t",
    "other spaces": " \x0b\x0c \x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u3000 ",
    "trailing spaces": "x = 1   \ny = 2\t \n   \n\t",
    "emoji": "🙂 👍🏽🇩🇪🇯🇵 1\ufe0f\u20e3 ❤\ufe0f",
    "emoji, joined": "👩\u200d💻👨\u200d👩\u200d👧\u200d👦🤦🏿\u200d♂\ufe0f 🏳\ufe0f\u200d🌈",
    "combining, composed": unicodedata.normalize("NFC", "Ünïcödé naïve Å ệ क़ 각 Ω"),
    "combining, decomposed": unicodedata.normalize("NFD", "Ünïcödé naïve Å ệ क़ 각 Ω") + "\u0301\u0301",
    "Chinese, Japanese, Korean": "注释：返回“值”。これは変数です｡ﾊﾛｰ 함수를 정의한다 𠮷野家 １２３",
    "right to left": "def שלום(): # תגובה\n    return 'مرحبا، العالم ١٢٣'\u200f\u202e abc \u202c",
    "invisible": "a\u200bb\u200c\u200d\u2060\ufeffc\u00add\u034f\u180e",
    "every latin-1 character": bytes(range(256)).decode("latin-1"),
    "control characters": "".join(map(chr, [*range(32), 127, *range(128, 160)])) * 2,
    "names of special tokens": "".join(SPECIAL_TOKENS)
    + " <|im_start|> [PAD600] <fim_prefix\u200b> <|endoftext|",
    "runs of spaces": "".join(" " * i + "x" for i in (1, 2, 3, 4, 7, 8, 15, 16, 31, 100, 1000)) + " " * 500,
    "runs of newlines": "".join("\n" * i + "x" for i in (1, 2, 3, 4, 8, 100)) + "\r\n" * 50 + "\n" * 300,
    "runs of one character": "a" * 1000 + "=" * 500 + "é" * 300 + "🙂" * 100 + "\u0301" * 50,
    "digits": "0 12 345 6789 0123456789 1.5e-10 0xdeadbeef v2.10.3 ²³ ½ Ⅷ ٣٤٥ १२३ 𝟙𝟚",
    "contractions": "it's IT'S we'Ll don'T 'tis ''s 're' I'D'VE l'été 'S' can't\u2019s",
    "symbols": "a+=b;--c!=d<<>>&&||??::->=>/*x*/#!@$%^~`\\|\"'([{}])_,.;:…—“”‘’«»€£₿√∑→",
    "mathematics, ancient scripts": "𝒜𝕏 ∀x∈ℝ 𓂀 𒀀 ꙮ ﷽ \ue000\uf8ff\U000f0000\U0010ffff\ufffe",
    "not assigned": "\u0378\u0379a\u0378 \u0378\u0378\U000e0080 x",
}
NOT_SURROGATES = st.characters(exclude_categories=["Cs"])
PIECES = [
    *(
        "def ",
        "return",
        "self.",
        "'s",
        "'LL",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\r",
        "x",
        "Y",
        "_",
        "7",
        "42",
        "(",
        "->",
    ),
    *(
        "é",
        "e\u0301",
        "ß",
        "ſ",
        "中",
        "한",
        "ا",
        "🙂",
        "\u200d",
        "\ufe0f",
        "\x00",
        "\x85",
        "\xa0",
        "\u2028",
        "\u3000",
    ),
    *("²", "Ⅷ", "\u0378", "\U000e0001", "<|endoftext|>", "<fim_prefix>"),
]
FUZZ = st.one_of(st.text(NOT_SURROGATES), st.lists(st.sampled_from(PIECES) | NOT_SURROGATES).map("".join))

UNICODE_16 = [
    *((0x1C89, 0x1C8A), (0xA7CB, 0xA7CD), (0xA7DA, 0xA7DC), (0x105C0, 0x105F3), (0x10D40, 0x10D65)),
    *((0x10D6F, 0x10D85), (0x10EC2, 0x10EC4), (0x11380, 0x11389), (0x1138B, 0x1138B), (0x1138E, 0x1138E)),
    *((0x11390, 0x113B5), (0x113B7, 0x113B7), (0x113D1, 0x113D1), (0x113D3, 0x113D3), (0x116D0, 0x116E3)),
    *((0x11BC0, 0x11BE0), (0x11BF0, 0x11BF9), (0x13460, 0x143FA), (0x16100, 0x1611D), (0x16130, 0x16139)),
    *((0x16D40, 0x16D6C), (0x16D70, 0x16D79), (0x18CFF, 0x18CFF), (0x1CCF0, 0x1CCF9), (0x1E5D0, 0x1E5ED)),
    (0x1E5F0, 0x1E5FA),
]
"""The letters and digits that Unicode 16 brought, from first to last: not yet ones for llama.cpp."""


def is_read_alike(text: str) -> bool:
    """Whether llama.cpp knows all that the splitting of a text depends on."""
    has_new = any(first <= ord(char) <= last for char in text for first, last in UNICODE_16)
    return not has_new and "'ſ" not in text


@pytest.fixture(scope="module")
def tokenizer(tiny_texts) -> Tokenizer:
    """Trained on these texts as well, so that it has merges in all scripts."""
    rare = ["a\u1c89 \u1c89b 'ſK 'ſKe\u0301 é "] * 20
    return Tokenizer.train([*tiny_texts, *TEXTS.values(), *TEXTS.values(), *rare], 1500)


@pytest.fixture(scope="module")
def library(tokenizer) -> tokenizers.Tokenizer:
    """The library's reading of our file; it leaves the names of special tokens in text alone."""
    library = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    library.encode_special_tokens = True
    return library


@pytest.fixture(scope="module")
def every_byte(tokenizer) -> list[int]:
    """The ids of the single bytes, from 0 to 255."""
    ids = {tokenizer.decode_bytes([i]): i for i in range(tokenizer.vocab_size)}
    return [ids[bytes([byte])] for byte in range(256)]


# ---- ours and the library


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_comes_back(tokenizer, library, name):
    text = TEXTS[name]
    ids = tokenizer.encode(text)
    assert ids == library.encode(text).ids
    assert tokenizer.decode_bytes(ids) == text.encode("utf-8")
    assert library.decode(ids, skip_special_tokens=False) == text
    assert min(ids, default=5) >= len(SPECIAL_TOKENS)


@settings(deadline=None, max_examples=300)
@given(FUZZ)
def test_any_text_comes_back(tokenizer, library, text):
    ids = tokenizer.encode(text)
    assert ids == library.encode(text).ids
    assert tokenizer.decode_bytes(ids) == text.encode("utf-8")
    assert library.decode(ids, skip_special_tokens=False) == text


@given(st.binary(max_size=30))
@example(bytes(range(256)))
@example("👩‍💻".encode()[1:-1])
def test_any_bytes_come_back_from_their_tokens(tokenizer, library, every_byte, data):
    ids = [every_byte[byte] for byte in data]
    assert tokenizer.decode_bytes(ids) == data
    # What is no UTF-8 is replaced alike, one sign for each part that could not be the beginning of one.
    assert tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=False)


# ---- llama.cpp, with our tokenizer


def loaded(folder: Path, tokenizer: Tokenizer) -> LlamaCpp:
    """Return llama.cpp with a tokenizer, and a model that has no more than it must."""
    shape = {"d_model": 8, "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "head_dim": 8, "d_ff": 8}
    model = LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size + 3, **shape))
    save_gguf(folder / "tokenizer.gguf", model, tokenizer, torch.float32)
    process = LlamaCpp()
    process.load(folder / "tokenizer.gguf")
    return process


@pytest.fixture(scope="module")
def llama_cpp(tokenizer, tmp_path_factory):
    process = loaded(tmp_path_factory.mktemp("ours"), tokenizer)
    yield process
    process.close()


@needs_llama_cpp
def test_llama_cpp_gives_a_text_the_same_ids_and_it_comes_back(tokenizer, llama_cpp):
    ids = {name: tokenizer.encode(text) for name, text in TEXTS.items()}
    assert dict(zip(TEXTS, llama_cpp.encode(list(TEXTS.values())), strict=True)) == ids
    assert llama_cpp.decode(list(ids.values())) == [text.encode("utf-8") for text in TEXTS.values()]


@needs_llama_cpp
@settings(deadline=None, max_examples=400)
@given(texts=st.lists(FUZZ.filter(is_read_alike), min_size=1, max_size=8))
def test_llama_cpp_gives_any_text_the_same_ids_and_it_comes_back(tokenizer, llama_cpp, texts):
    ids = [tokenizer.encode(text) for text in texts]
    assert llama_cpp.encode(texts) == ids
    assert llama_cpp.decode(ids) == [text.encode("utf-8") for text in texts]


@needs_llama_cpp
def test_llama_cpp_gives_real_code_the_same_ids(tokenizer, llama_cpp, tiny_texts):
    assert llama_cpp.encode(tiny_texts) == tokenizer.encode_batch(tiny_texts)


@needs_llama_cpp
def test_every_token_is_the_same_bytes_in_llama_cpp(tokenizer, llama_cpp):
    ids = range(tokenizer.vocab_size)
    assert llama_cpp.pieces(ids) == [tokenizer.decode_bytes([i]) for i in ids]


@needs_llama_cpp
def test_all_bytes_come_back_from_their_tokens_in_llama_cpp(llama_cpp, every_byte):
    shuffled = random.Random(0).sample(range(256), 256)
    assert llama_cpp.decode([[every_byte[byte] for byte in shuffled]]) == [bytes(shuffled)]
    assert llama_cpp.pieces(every_byte) == [bytes([byte]) for byte in range(256)]


@needs_llama_cpp
def test_llama_cpp_parses_and_shows_special_tokens_on_request_alone(tokenizer, llama_cpp):
    text = "".join(f"{token} x" for token in SPECIAL_TOKENS)
    (plain,), (parsed,) = llama_cpp.encode([text]), llama_cpp.encode([text], parse_special=True)
    assert plain == tokenizer.encode(text)
    assert parsed == tokenizer.encode(text, parse_special=True)
    assert llama_cpp.decode([parsed]) == [text.encode("utf-8")]
    assert llama_cpp.decode([parsed], special=False) == [b" x" * len(SPECIAL_TOKENS)]


@needs_llama_cpp
def test_special_tokens_have_their_roles_in_llama_cpp(tokenizer, llama_cpp):
    found = llama_cpp.properties()
    end = tokenizer.end_of_text_id
    assert (found["bos"], found["eos"], found["eot"], found["pad"]) == (end, end, end, end)
    fim = tokenizer.fim_prefix_id, tokenizer.fim_suffix_id, tokenizer.fim_middle_id
    assert (found["fim_pre"], found["fim_suf"], found["fim_mid"]) == fim
    assert found["fim_sep"] == tokenizer.file_sep_id
    assert found["ends"] == [end, tokenizer.file_sep_id]  # its programs stop there, as ours do
    assert found["control"] == list(range(len(SPECIAL_TOKENS)))
    assert not found["adds_bos"]
    assert llama_cpp.encode(["x"], add_bos=True) == [tokenizer.encode("x")]


# ---- llama.cpp, with the tokenizers of others


@pytest.fixture(scope="module", params=PRE_TOKENIZERS)
def foreign(request, tiny_texts, tmp_path_factory):
    """A name, a tokenizer that splits in this way, and llama.cpp with it."""
    tokenizer = train_tokenizer([*tiny_texts, *TEXTS.values()], request.param, vocab_size=1500)
    process = loaded(tmp_path_factory.mktemp(request.param), tokenizer)
    yield request.param, tokenizer, process
    process.close()


@needs_llama_cpp
def test_llama_cpp_splits_as_the_tokenizers_of_others(foreign):
    _, tokenizer, llama_cpp = foreign
    ids = [tokenizer.encode(text) for text in TEXTS.values()]
    assert llama_cpp.encode(list(TEXTS.values())) == ids
    for text, some in zip(TEXTS.values(), ids, strict=True):
        assert b"".join(llama_cpp.pieces(some)) == text.encode("utf-8")


@needs_llama_cpp
@settings(deadline=None, max_examples=60)
@given(texts=st.lists(FUZZ.filter(is_read_alike), min_size=1, max_size=8))
def test_llama_cpp_splits_any_text_as_the_tokenizers_of_others(foreign, texts):
    _, tokenizer, llama_cpp = foreign
    assert llama_cpp.encode(texts) == [tokenizer.encode(text) for text in texts]


@needs_llama_cpp
def test_llama_cpp_reads_added_tokens_from_text_unless_they_are_special(tiny_texts, tmp_path):
    library = train_library_tokenizer(tiny_texts, "qwen2")
    library.add_tokens(["<tool_call>", "<|fim_prefix|>"])
    call, fim = map(library.token_to_id, ("<tool_call>", "<|fim_prefix|>"))
    tokenizer = Tokenizer(library)
    llama_cpp = loaded(tmp_path, tokenizer)
    (theirs,) = llama_cpp.encode(["a<tool_call>b<|fim_prefix|>"])
    assert theirs == [*tokenizer.encode("a"), call, *tokenizer.encode("b<|fim_prefix|>")]
    assert llama_cpp.encode(["<|fim_prefix|>"], parse_special=True) == [[fim]]
    assert llama_cpp.decode([[call, fim]], special=False) == [b"<tool_call>"]
    llama_cpp.close()


@needs_llama_cpp
def test_llama_cpp_adds_a_token_before_every_text_on_request(tiny_texts, tmp_path):
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
    tokenizer = train_tokenizer(tiny_texts, "llama-bpe", special=names, bos=names[0])
    llama_cpp = loaded(tmp_path, tokenizer)
    begin, end, turn = map(tokenizer.special_id, names)
    assert llama_cpp.encode(["x"], add_bos=True) == [[begin, *tokenizer.encode("x")]]
    assert llama_cpp.encode(["x"]) == [tokenizer.encode("x")]
    found = llama_cpp.properties()
    assert (found["bos"], found["eos"], found["eot"]) == (begin, end, turn)
    assert found["ends"] == [end, turn]
    llama_cpp.close()


# ---- what llama.cpp really does otherwise: these tests say so when that changes


@needs_llama_cpp
@pytest.mark.parametrize("text", ["a\u1c89", "'ſK"])
def test_new_letters_and_the_long_s_are_split_otherwise(tokenizer, llama_cpp, text):
    assert not is_read_alike(text)
    (theirs,) = llama_cpp.encode([text])
    assert theirs != tokenizer.encode(text)
    assert llama_cpp.decode([theirs]) == [text.encode("utf-8")]


@needs_llama_cpp
def test_llama_cpp_never_normalizes(tiny_texts, tmp_path):
    texts = [*tiny_texts, *["é e\u0301 "] * 50]
    tokenizer = train_tokenizer(texts, "qwen2", normalizer=normalizers.NFC(), vocab_size=700)
    llama_cpp = loaded(tmp_path, tokenizer)
    composed, decomposed = tokenizer.encode("é"), tokenizer.encode("e\u0301")
    assert composed == decomposed
    (their_composed, their_decomposed) = llama_cpp.encode(["é", "e\u0301"])
    assert their_composed == composed
    assert their_decomposed != decomposed
    llama_cpp.close()


@needs_llama_cpp
def test_some_names_cost_spaces_before_punctuation(foreign):
    name, tokenizer, llama_cpp = foreign
    ids = tokenizer.encode("what ? it 's")
    kept = name in ("qwen2", "smollm")
    assert llama_cpp.decode([ids]) == [b"what ? it 's" if kept else b"what? it's"]
    assert b"".join(llama_cpp.pieces(ids)) == b"what ? it 's"


def test_the_new_letters_are_as_many_as_the_documentation_says():
    assert sum(last - first + 1 for first, last in UNICODE_16) == 4382
