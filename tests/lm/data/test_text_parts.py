"""Parts joined are the text; they are not too long, nor cut within a line where that can be helped."""

from hypothesis import given
from hypothesis import strategies as st

from techtree.lm.data.text_parts import text_parts

TEXTS = st.lists(st.text("ab\n", max_size=9)).map("".join)


@given(TEXTS, st.integers(2, 30))
def test_parts_joined_are_the_text(text, n_chars):
    parts = list(text_parts(text, n_chars))
    assert "".join(parts) == text
    assert all(0 < len(part) <= n_chars for part in parts)
    assert all(len(part) > n_chars // 2 for part in parts[:-1])


@given(TEXTS, st.integers(2, 30))
def test_cuts_come_after_paragraphs_or_lines(text, n_chars):
    for part in list(text_parts(text, n_chars))[:-1]:
        if not part.endswith("\n\n"):
            # Nowhere in what could be cut off is there a better place.
            assert "\n\n" not in part[n_chars // 2 :]
            assert part.endswith("\n") or "\n" not in part[n_chars // 2 :]


def test_a_short_text_is_one_part():
    assert list(text_parts("a\nb\n")) == ["a\nb\n"]
    assert list(text_parts("")) == []
