"""Oracle: decoding all bytes at once."""

from hypothesis import given
from hypothesis import strategies as st

from techtree.lm.infer.text_stream import TextStream


def test_characters_come_whole(tiny_tokenizer):
    text = "π ≈ 3, 日本 👩‍🚀 é\n"
    stream = TextStream(tiny_tokenizer)
    ids = tiny_tokenizer.encode(text)
    assert len(ids) > len(text)  # so that tokens do end within characters
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) == stream.text == text
    assert "" in pieces
    assert not stream.is_broken


def test_an_incomplete_character_is_held_back(tiny_tokenizer):
    ids = tiny_tokenizer.encode("a日")
    stream = TextStream(tiny_tokenizer)
    assert "".join(stream.push(token) for token in ids[:-1]) == "a"
    assert not stream.is_broken
    assert stream.push(ids[-1]) == "日"


def test_bytes_that_are_not_utf8_end_the_text(tiny_tokenizer):
    byte = {tiny_tokenizer.decode_bytes([i]): i for i in range(5, tiny_tokenizer.vocab_size)}
    stream = TextStream(tiny_tokenizer)
    pieces = [stream.push(byte[b]) for b in (b"a", b"\xe6", b"b", b"c")]
    assert pieces == ["a", "", "", ""]
    assert stream.is_broken


def test_an_id_beyond_the_tokenizer_ends_the_text(tiny_tokenizer):
    stream = TextStream(tiny_tokenizer)
    assert stream.push(tiny_tokenizer.encode("a")[0]) == "a"
    assert stream.push(tiny_tokenizer.vocab_size) == ""
    assert stream.is_broken


@given(st.data())
def test_any_tokens_give_what_their_valid_bytes_say(tiny_tokenizer, data):
    ids = data.draw(st.lists(st.integers(5, tiny_tokenizer.vocab_size - 1), max_size=30))
    stream = TextStream(tiny_tokenizer)
    shown = "".join(stream.push(token) for token in ids)
    whole = tiny_tokenizer.decode_bytes(ids)
    assert whole.startswith(shown.encode("utf-8"))
    if not stream.is_broken:
        # At most three bytes of a four-byte character are waiting.
        assert len(whole) - len(shown.encode("utf-8")) <= 3
    else:
        assert shown == whole[: len(shown.encode())].decode()
