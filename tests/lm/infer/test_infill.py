"""The whole way from a text with a hole to what is inserted, with a model that says what the test wants."""

import json

import pytest
import torch

from lm.byte_level_tokenizers import train_library_tokenizer
from techtree.lm.infer.fim_prompt import FimText
from techtree.lm.infer.generate import PrefixCache, decoder
from techtree.lm.infer.infill import Listener, infill
from techtree.lm.infer.limits import Limits
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.infer.shown_text import Place
from techtree.lm.tokenizer import SPECIAL_TOKENS, Tokenizer

GREEDY = SamplingParams()


@pytest.fixture
def cache(tiny_model):
    return PrefixCache(tiny_model, 128)


@pytest.fixture
def says(tiny_model, tiny_tokenizer, monkeypatch):
    """Make the model write a given text, and then the given special token."""

    def script(text, then="<|endoftext|>"):
        ids = [*tiny_tokenizer.encode(text), tiny_tokenizer.special_id(then)]
        left = iter(ids)

        def logits(self, hidden):
            wanted = torch.tensor(next(left, ids[-1]))
            return torch.nn.functional.one_hot(wanted, self.config.vocab_size).float().expand(1, 1, -1)

        monkeypatch.setattr(type(tiny_model), "logits", logits)

    return script


def run(tokenizer, cache, prefix, suffix="", n=50, pieces=None, max_line_s=None, order="spm", **options):
    return infill(
        tokenizer,
        decoder(cache, GREEDY, tokenizer.stop_ids),
        cache.max_len,
        FimText(prefix, suffix),
        Place(prefix, suffix, **options),
        Limits(n),
        order=order,
        max_line_s=max_line_s,
        listener=Listener(None if pieces is None else pieces.append),
    )


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_every_special_token_ends_the_text_and_none_is_shown(tiny_tokenizer, cache, says, token):
    says("return x", then=token)
    result = run(tiny_tokenizer, cache, "def f(x):\n    ")
    assert result.text == "return x"
    assert result.stop == "end_of_text"


@pytest.mark.parametrize(
    "token", ["<|fim_pad|>", "<|im_end|>", "<|repo_name|>", "</think>", "<｜fim▁hole｜>"]
)
def test_the_marks_of_other_tokenizers_end_the_text_and_none_is_shown(
    tiny_texts, tiny_model, token, monkeypatch
):
    library = train_library_tokenizer(tiny_texts, "qwen2", vocab_size=500, special=("<|endoftext|>",))
    library.add_tokens(["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", token])  # not called special
    tokenizer = Tokenizer(library)
    ids = iter([*tokenizer.encode("return x"), library.token_to_id(token), *tokenizer.encode("yz")])
    monkeypatch.setattr(
        type(tiny_model),
        "logits",
        lambda self, hidden: (
            torch.nn.functional.one_hot(torch.tensor(next(ids)), 512).float().expand(1, 1, -1)
        ),
    )
    result = run(tokenizer, PrefixCache(tiny_model, 128), "def f(x):\n    ")
    assert (result.text, result.stop) == ("return x", "end_of_text")


def test_a_token_without_bytes_ends_the_text(tiny_texts, tiny_model, monkeypatch):
    """Some vocabularies hold words that are neither bytes nor added tokens."""
    spec = json.loads(train_library_tokenizer(tiny_texts, "qwen2", vocab_size=500).to_str())
    spec["model"]["vocab"]["日本"] = 505
    spec["added_tokens"] += [
        {"id": 506 + i, "content": f"<|fim_{name}|>"} for i, name in enumerate(("prefix", "suffix", "middle"))
    ]
    tokenizer = Tokenizer(spec)
    ids = iter([*tokenizer.encode("ab"), 505, *tokenizer.encode("yz")])
    monkeypatch.setattr(
        type(tiny_model),
        "logits",
        lambda self, hidden: (
            torch.nn.functional.one_hot(torch.tensor(next(ids)), 512).float().expand(1, 1, -1)
        ),
    )
    result = run(tokenizer, PrefixCache(tiny_model, 128), "x")
    assert (result.text, result.stop) == ("ab", "rule")


def test_pieces_are_the_text(tiny_tokenizer, cache, says):
    says("total = '日本 é'\n    return total\n")
    pieces = []
    result = run(tiny_tokenizer, cache, "def f(x):\n    ", pieces=pieces)
    assert result.text == "total = '日本 é'\n    return total"
    assert "".join(pieces) == result.text
    assert len(pieces) > 5
    assert all(pieces)


def test_why_it_stops(tiny_tokenizer, cache, says):
    says("a = 1\n    b = 2\nc = 3")
    assert run(tiny_tokenizer, cache, "    ", n_indent=4).stop == "rule"
    says("a = 1\n    b = 2\nc = 3")
    result = run(tiny_tokenizer, cache, "    ", stop=("b =",))
    assert (result.stop, result.stopping_word, result.text) == ("stop_string", "b =", "a = 1")
    says("a = 1\n    b = 2\nc = 3")
    assert run(tiny_tokenizer, cache, "    ", n=3).stop == "max_tokens"


def test_time_is_up_only_after_a_whole_line(tiny_tokenizer, cache, says):
    says("a = 1 + 2 + 3\n    b = 2\n    c = 3")
    result = run(tiny_tokenizer, cache, "    ", max_line_s=0.0)
    assert result.text == "a = 1 + 2 + 3"
    assert result.stop == "slow"
    says("a = 1 + 2 + 3\n    b = 2")
    assert run(tiny_tokenizer, cache, "    ", max_line_s=60.0).stop == "end_of_text"


def test_no_tokens_cost_nothing(tiny_tokenizer, cache):
    result = run(tiny_tokenizer, cache, "x = ", n=0)
    assert result.text == ""
    assert result.progress.n_prompt == 0
    assert len(cache) == 0


def test_a_broken_character_ends_the_text(tiny_tokenizer, cache, tiny_model, monkeypatch):
    byte = {tiny_tokenizer.decode_bytes([i]): i for i in range(5, tiny_tokenizer.vocab_size)}
    ids = iter([byte[b"a"], byte[b"\xe6"], byte[b"b"], byte[b"c"]])
    monkeypatch.setattr(
        type(tiny_model),
        "logits",
        lambda self, hidden: (
            torch.nn.functional.one_hot(torch.tensor(next(ids)), 512).float().expand(1, 1, -1)
        ),
    )
    result = run(tiny_tokenizer, cache, "x")
    assert (result.text, result.stop) == ("a", "rule")


def test_truncation_is_reported(tiny_tokenizer, cache):
    assert run(tiny_tokenizer, cache, "x = 1\n" * 200, n=2).is_truncated
    assert not run(tiny_tokenizer, cache, "x = 1\n", n=2).is_truncated


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_a_warm_cache_changes_nothing(tiny_tokenizer, tiny_model, cache, order):
    source = "def add(a, b):\n    total = a + b\n    return total\n"
    for end in range(16, 30, 3):
        warm = run(tiny_tokenizer, cache, source[:end], source[end:], n=4, order=order)
        fresh = run(
            tiny_tokenizer, PrefixCache(tiny_model, 128), source[:end], source[end:], n=4, order=order
        )
        assert warm.text == fresh.text


def test_in_the_order_spm_typing_runs_few_tokens(tiny_tokenizer, cache):
    suffix = "\n    return total\n" * 5
    typed = "def add(a, b):\n    total = a +"
    run(tiny_tokenizer, cache, typed, suffix, n=1)
    progress = run(tiny_tokenizer, cache, typed + " b", suffix, n=1).progress
    assert progress.n_prompt - progress.n_reused <= 3


def test_stop_ids_are_all_special_tokens(tiny_tokenizer):
    assert tiny_tokenizer.stop_ids == {0, 1, 2, 3, 4}
