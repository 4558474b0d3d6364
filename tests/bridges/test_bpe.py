"""`bpe` and the `tokenizers` library learn the same merges, ties included, and encode every text alike."""

import json
import sysconfig
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers, trainers

from techtree.lm.tokenizer import QWEN2_PATTERN, SPECIAL_TOKENS, Tokenizer
from techtree.techs.text.bpe import BPE, train
from techtree.techs.text.pretokenize import from_visible, visible

LIBRARY = Path(sysconfig.get_path("stdlib"))
TRAINING = ("ast.py", "argparse.py", "datetime.py", "decimal.py", "inspect.py", "statistics.py", "tarfile.py")
UNSEEN = (
    "bisect.py",
    "enum.py",
    "heapq.py",
    "locale.py",
    "shlex.py",
    "tokenize.py",
    "typing.py",
    "zipfile.py",
)


def library(texts: list[str], vocab_size: int, special_tokens: tuple[str, ...] = ()) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def merges(tokenizer: tokenizers.Tokenizer) -> list[tuple[bytes, bytes]]:
    pairs = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(from_visible(left), from_visible(right)) for left, right in pairs]


def texts_of(names: tuple[str, ...]) -> list[str]:
    # A module of one version of Python may be a package, or missing, in another.
    return [(LIBRARY / name).read_text(encoding="utf-8") for name in names if (LIBRARY / name).is_file()]


SMALL = st.text(alphabet="ab", max_size=30) | st.text(alphabet="abc \n1.é", max_size=40)


@given(st.lists(SMALL, min_size=1, max_size=6), st.integers(0, 40), SMALL)
@settings(max_examples=300, deadline=None)
def test_merges_of_few_letters(texts, n_merges, unseen):
    ours, theirs = train(texts, 256 + n_merges), library(texts, 256 + n_merges)
    assert [*ours.merges] == merges(theirs)
    assert ours.encode(unseen) == theirs.encode(unseen).ids


@pytest.mark.parametrize("seed", range(20))
def test_merges_of_random_texts(seed):
    """Longer texts than hypothesis makes: hundreds of merges, most of them with rivals of the same count."""
    rng = np.random.default_rng(seed)
    alphabet = list("abcdefgh "[: rng.integers(2, 10)] + " é東")
    texts = ["".join(rng.choice(alphabet, size=rng.integers(1, 800))) for _ in range(rng.integers(1, 8))]
    ours, theirs = train(texts, 700, ["<s>"]), library(texts, 700, ("<s>",))
    assert [*ours.merges] == merges(theirs)
    unseen = "".join(rng.choice(alphabet, size=2000))
    assert ours.encode(unseen) == theirs.encode(unseen).ids


@pytest.fixture(scope="module")
def trained() -> tuple[BPE, tokenizers.Tokenizer]:
    texts = texts_of(TRAINING)
    return train(texts, 2048, SPECIAL_TOKENS), library(texts, 2048, SPECIAL_TOKENS)


def test_merges_of_source_code(trained):
    ours, theirs = trained
    assert [*ours.merges] == merges(theirs)


def test_ids_of_the_whole_vocabulary(trained):
    ours, theirs = trained
    names = [*SPECIAL_TOKENS, *(visible(token) for token in [*ours.vocab.values()][len(SPECIAL_TOKENS) :])]
    assert {name: i for i, name in enumerate(names)} == theirs.get_vocab()


def test_unseen_files_are_encoded_alike(trained):
    ours, theirs = trained
    for text in texts_of(UNSEEN):
        ids = ours.encode(text)
        assert ids == theirs.encode(text).ids
        assert ours.decode(ids) == text


def test_texts_from_all_of_unicode_are_encoded_alike(trained):
    ours, theirs = trained
    rng = np.random.default_rng(0)
    # The library knows characters of a later Unicode as letters, too.
    known = [c for c in map(chr, range(0xD800)) if unicodedata.category(c) != "Cn"]
    for _ in range(300):
        text = "".join(rng.choice(known, size=40))
        assert ours.encode(text) == theirs.encode(text).ids, repr(text)
        assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("alphabet", ["a", "ab", "abcdefghijklmnopqrstuvwxyz", "=-", " \n"])
def test_long_words_are_encoded_alike(trained, alphabet):
    ours, theirs = trained
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list(alphabet), size=20_000))
    assert ours.encode(text) == theirs.encode(text).ids


def test_special_tokens_are_found_alike(trained):
    ours, theirs = trained
    rng = np.random.default_rng(0)
    parts = [*SPECIAL_TOKENS, "<fim_", "<|endoftext", "|>", " ", "  ", "\n", "def", "x", "<", ">", "_prefix>"]
    for _ in range(300):
        text = "".join(rng.choice(parts, size=rng.integers(1, 12)))
        assert ours.encode(text, SPECIAL_TOKENS) == theirs.encode(text).ids, repr(text)


def test_the_product_gives_the_same_ids():
    texts = texts_of(TRAINING[:3])
    product = Tokenizer.train(texts, vocab_size=600)
    ours = train(texts, 600, SPECIAL_TOKENS)
    for text in [*texts_of(UNSEEN[:3]), "<|endoftext|> naïve 東京 'ſa"]:
        assert ours.encode(text) == product.encode(text)
        assert ours.encode(text, SPECIAL_TOKENS) == product.encode(text, parse_special=True)
        assert ours.decode_bytes(ours.encode(text)) == product.decode_bytes(product.encode(text))
