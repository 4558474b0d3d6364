"""Oracles: the whole text encoded at once, and the training data's own way to write a cut text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers, pre_tokenizers

from lm.byte_level_tokenizers import PRE_TOKENIZERS, train_library_tokenizer, train_tokenizer
from techtree.errors import InputError
from techtree.lm.data.fill_in_the_middle import Cut, encode_cut
from techtree.lm.infer.fim_prompt import Chunk, FimText, fim_prompt, first_tokens, last_chunks, last_lines
from techtree.lm.tokenizer import SPECIAL_TOKENS, Tokenizer

CODE = "".join(f"def f{i}(x):\n    y = x + {i}\n\n    return y * {i * i}\n\n\n" for i in range(60))


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_a_short_text_is_written_as_in_training(tiny_tokenizer, order):
    prefix, suffix = "def f(x):\n    return ", "\n\nprint(f(1))\n"
    prompt = fim_prompt(tiny_tokenizer, FimText(prefix, suffix), 100, order)
    example = encode_cut(Cut(prefix, "x", suffix), tiny_tokenizer, 100, is_spm=order == "spm")
    assert prompt.ids == example[:-2]  # without the middle and the end
    assert not prompt.is_truncated


def test_the_layout(tiny_tokenizer):
    extra = (Chunk("a.py", "A = 1\n"), Chunk("b.py", "B = 2\n"))
    prompt = fim_prompt(tiny_tokenizer, FimText("x = ", "\ny", extra), 200, "psm")
    assert tiny_tokenizer.decode(prompt.ids) == (
        "<file_sep>a.py\nA = 1\n<file_sep>b.py\nB = 2\n<fim_prefix>x = <fim_suffix>\ny<fim_middle>"
    )


@pytest.mark.parametrize("place", ["prefix", "suffix", "text", "filename"])
@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_text_is_never_a_command(tiny_tokenizer, place, token):
    words = dict.fromkeys(["prefix", "suffix", "text", "filename"], "x") | {place: f"a{token}b"}
    chunk = Chunk(words.pop("filename"), words.pop("text"))
    prompt = fim_prompt(tiny_tokenizer, FimText(**words, extra=(chunk,)), 200)
    special = [i for i in prompt.ids if i in {tiny_tokenizer.special_id(t) for t in SPECIAL_TOKENS}]
    names = ["<file_sep>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
    assert special == [tiny_tokenizer.special_id(name) for name in names]
    assert f"a{token}b" in tiny_tokenizer.decode(prompt.ids)


def test_the_shares_when_both_are_long(tiny_tokenizer):
    prompt = fim_prompt(tiny_tokenizer, FimText(CODE, CODE), 103, "psm")
    middle = prompt.ids.index(tiny_tokenizer.fim_suffix_id)
    prefix, suffix = prompt.ids[1:middle], prompt.ids[middle + 1 : -1]
    assert prompt.is_truncated
    assert len(prompt.ids) <= 103
    assert len(suffix) == 25  # a quarter of the room
    assert 0.75 * 75 <= len(prefix) <= 75  # three quarters, less what a good cut loses
    assert CODE.endswith(tiny_tokenizer.decode(prefix))
    assert CODE.startswith(tiny_tokenizer.decode(suffix))


def test_the_prefix_uses_what_the_suffix_leaves(tiny_tokenizer):
    text, is_cut = last_lines(tiny_tokenizer, CODE, 100)
    prompt = fim_prompt(tiny_tokenizer, FimText(CODE, ""), 103, "psm")
    assert prompt.ids[1:-2] == text
    assert is_cut
    assert len(text) >= 75


@pytest.mark.parametrize(
    "text",
    [
        FimText(CODE, ""),
        FimText("", CODE),
        FimText("x", "y", (Chunk("a.py", CODE),)),
        FimText("x", "y", (Chunk("a.py", CODE), Chunk("b.py", "B"))),
    ],
)
def test_truncation_is_never_silent(tiny_tokenizer, text):
    assert fim_prompt(tiny_tokenizer, text, 100).is_truncated
    assert not fim_prompt(tiny_tokenizer, text, 10_000).is_truncated


def test_a_cut_is_at_the_start_of_a_line(tiny_tokenizer):
    ids, is_cut = last_lines(tiny_tokenizer, CODE + "    z = 1", 60)
    text = tiny_tokenizer.decode(ids)
    assert is_cut
    assert f"\n{text}" in CODE + "    z = 1"
    assert text.split("\n")[0].strip()


def test_a_cut_stays_where_it_is_while_somebody_types(tiny_tokenizer):
    typed = "    total = first_value + second_value"
    starts = [
        tiny_tokenizer.decode(last_lines(tiny_tokenizer, CODE + typed[:n], 200)[0])[:30]
        for n in range(len(typed))
    ]
    assert len(set(starts)) <= 2


def test_a_cut_does_not_depend_on_what_is_far_away(tiny_tokenizer):
    ids, _ = last_lines(tiny_tokenizer, CODE, 200)
    assert last_lines(tiny_tokenizer, CODE[2000:], 200)[0] == ids
    assert last_lines(tiny_tokenizer, "#" * 1_000_000 + CODE, 200)[0] == ids


def test_one_endless_line_is_cut_anywhere(tiny_tokenizer):
    line = "x + " * 50_000
    ids, is_cut = last_lines(tiny_tokenizer, line, 50)
    assert is_cut
    assert len(ids) == 50
    assert line.endswith(tiny_tokenizer.decode(ids))
    ids, is_cut = first_tokens(tiny_tokenizer, line, 50)
    assert is_cut
    assert line.startswith(tiny_tokenizer.decode(ids))


WORDS = st.sampled_from(
    [
        "x",
        " ",
        "    ",
        "\n",
        "\n\n",
        "  \n",
        "\t",
        "def f():",
        "é",
        "日本",
        "\r\n",
        "'s",
        "12",
        "):",
        "\x0c",
        "\u2028",
        " \n  y",
        "\r",
        "\n\r",
        " \r",
        "\n    b",
        "e\u0301",
        "\u0301",
        "0123456789",
        "\x1c",
        "\x85",
    ]
)


@pytest.fixture(
    scope="module", params=[*PRE_TOKENIZERS, "qwen2 with NFC", "split at nothing", "split anywhere"]
)
def foreign(request, tiny_texts):
    """A tokenizer that splits in this way."""
    texts = [*tiny_texts, *["a\n    b\n\n        c = e\u0301 日本\r\n" * 50] * 3]
    normalizer = normalizers.NFC() if "NFC" in request.param else None
    name = request.param if request.param in PRE_TOKENIZERS else "qwen2"
    library = train_library_tokenizer(texts, name, normalizer=normalizer)
    pattern = {"split at nothing": r"\z", "split anywhere": r"[^\n]{1,3}|\n *"}.get(request.param)
    if pattern:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        library.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    return Tokenizer(library)


def test_the_sample_of_a_tokenizer_that_takes_line_feed_and_blanks_together(tiny_texts):
    tokenizer = train_tokenizer([*tiny_texts, "a\n    b" * 200], "gpt-2")
    assert last_lines(tokenizer, "a\n    b", 100) == (tokenizer.encode("a\n    b"), False)
    assert len(tokenizer.encode("a\n    b")) < len([i for t in ("a\n", "    b") for i in tokenizer.encode(t)])


@settings(max_examples=150)
@given(text=st.lists(WORDS, max_size=40).map("".join))
def test_a_prefix_has_the_ids_of_the_whole_whatever_splits_it(foreign, text):
    assert last_lines(foreign, text, 1000) == (foreign.encode(text), False)


@settings(max_examples=80)
@given(text=st.lists(WORDS, max_size=60).map("".join), room=st.integers(0, 30))
def test_a_prefix_that_is_cut_has_the_last_ids_of_the_whole(foreign, text, room):
    ids, is_cut = last_lines(foreign, text, room)
    whole = foreign.encode(text)
    assert len(ids) <= room
    assert ids == whole[len(whole) - len(ids) :]
    assert is_cut == (len(ids) < len(whole))


def test_a_long_prefix_has_the_last_ids_of_the_whole(foreign, tiny_texts):
    for text in (tiny_texts[0] * 3, "x = '日本'\n" * 9000, "a" * 9000 + CODE, "".join(tiny_texts)):
        for room in (40, 500):
            ids, is_cut = last_lines(foreign, text, room)
            assert is_cut
            assert 0.7 * room <= len(ids) <= room
            assert ids == foreign.encode(text)[-len(ids) :]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("x = '\ud83d", "x = '\ufffd"),
        ("\ude42' + y", "\ufffd' + y"),
        ("a\ud83d\ude42b", "a🙂b"),
        ("\ud83d\ud83d\ude42\ude42", "\ufffd🙂\ufffd"),
        ("\ufeff\udcff", "\ufeff\ufffd"),
        ("🙂", "🙂"),
    ],
)
@pytest.mark.parametrize("place", ["prefix", "suffix", "text", "filename"])
def test_half_a_character_is_replaced_and_loses_nothing_else(tiny_tokenizer, text, whole, place):
    def prompt(text):
        words = dict.fromkeys(["prefix", "suffix", "text", "filename"], "x") | {place: text}
        chunk = Chunk(words.pop("filename"), words.pop("text"))
        return fim_prompt(tiny_tokenizer, FimText(**words, extra=(chunk,)), 200)

    assert prompt(text) == prompt(whole)


@settings(max_examples=300)
@given(st.lists(WORDS, max_size=40).map("".join))
def test_lines_apart_are_the_tokens_of_the_whole(tiny_tokenizer, text):
    assert last_lines(tiny_tokenizer, text, 1000) == (tiny_tokenizer.encode(text), False)


@given(st.lists(WORDS, max_size=60).map("".join), st.integers(0, 30))
def test_the_end_never_exceeds_its_room(tiny_tokenizer, text, room):
    ids, is_cut = last_lines(tiny_tokenizer, text, room)
    kept = tiny_tokenizer.decode_bytes(ids)
    assert len(ids) <= room
    assert text.encode("utf-8").endswith(kept)
    assert is_cut == (kept != text.encode("utf-8"))


@given(
    st.lists(WORDS, max_size=60).map("".join),
    st.lists(WORDS, max_size=60).map("".join),
    st.lists(st.builds(Chunk, st.just("f.py"), st.lists(WORDS, max_size=30).map("".join)), max_size=4),
    st.integers(7, 150),
    st.sampled_from(["psm", "spm"]),
)
def test_a_prompt_never_exceeds_its_length(tiny_tokenizer, prefix, suffix, extra, max_tokens, order):
    text = FimText(prefix, suffix, tuple(extra))
    prompt = fim_prompt(tiny_tokenizer, text, max_tokens, order)
    assert len(prompt.ids) <= max_tokens
    whole = fim_prompt(tiny_tokenizer, text, 10_000, order)
    assert not whole.is_truncated
    assert prompt.is_truncated == (prompt.ids != whole.ids)


def test_the_last_chunks_stay(tiny_tokenizer):
    chunks = [Chunk(f"{name}.py", f"{name} = 1\n" * 4) for name in "abc"]
    one = 1 + len(tiny_tokenizer.encode(f"c.py\n{chunks[2].text}"))
    assert last_chunks(tiny_tokenizer, chunks, 3 * one)[1] is False
    ids, is_cut = last_chunks(tiny_tokenizer, chunks, 2 * one)
    assert is_cut
    assert tiny_tokenizer.decode(ids) == "".join(f"<file_sep>{c.filename}\n{c.text}" for c in chunks[1:])
    ids, is_cut = last_chunks(tiny_tokenizer, chunks, 2 * one - 3)
    assert is_cut
    assert tiny_tokenizer.decode(ids).startswith("<file_sep>b.py\nb = 1\n")
    assert len(ids) == 2 * one - 3
    assert last_chunks(tiny_tokenizer, chunks, 3) == ([], True)
    assert last_chunks(tiny_tokenizer, [], 3) == ([], False)


def test_chunks_stay_the_same_while_the_prefix_grows(tiny_tokenizer):
    extra = tuple(Chunk(f"{i}.py", f"value_{i} = {i}\n" * 3) for i in range(9))
    prompts = [fim_prompt(tiny_tokenizer, FimText("ab" * n, "", extra), 150).ids for n in range(10)]
    place = prompts[0].index(tiny_tokenizer.fim_prefix_id)
    assert place > 16
    assert all(p[: place + 1] == prompts[0][: place + 1] for p in prompts)


def test_there_must_be_room(tiny_tokenizer):
    with pytest.raises(InputError, match="room"):
        fim_prompt(tiny_tokenizer, FimText("a", "b"), 6)


@pytest.mark.parametrize("prefix", ["", "x = 1\n", CODE])
def test_a_model_that_never_learned_to_fill_in_goes_on_from_the_prefix(tiny_texts, prefix):
    library = train_library_tokenizer(tiny_texts, "qwen2", vocab_size=500, special=("<|endoftext|>",))
    library.add_tokens(["<fim_prefix>", "<fim_suffix>"])  # two of three are not enough
    tokenizer = Tokenizer(library)
    prompt = fim_prompt(tokenizer, FimText(prefix, "after", (Chunk("b.py", "y"),)), 10_000)
    assert prompt.ids == (tokenizer.encode(prefix) or [tokenizer.end_of_text_id])
    assert not prompt.is_truncated
    short = fim_prompt(tokenizer, FimText(CODE, ""), 20)
    assert short.is_truncated
    assert 0 < len(short.ids) <= 20
    assert CODE.endswith(tokenizer.decode(short.ids))
