"""Oracle: every place of every text, compared token by token."""

import numpy as np
import pytest

from techtree.lm.memory.growing import N_LATEST, GrowingText
from techtree.lm.memory.index import BOUNDARY, LONGEST_MATCH, N_LOOKED_AT, TokenIndex


def slow_match(texts, context, shortest=1):
    """Return how many tokens agree at most, and what follows there with its count."""
    best, followers = 0, {}
    for text in texts:
        for place in range(1, len(text)):
            n = 0
            while n < min(place, len(context), LONGEST_MATCH) and text[place - 1 - n] == context[-1 - n]:
                n += 1
            if n > best:
                best, followers = n, {}
            if n == best >= shortest:
                followers[text[place]] = followers.get(text[place], 0) + 1
    return (best, followers) if best >= shortest else None


def told(match):
    return match and (
        match.n_tokens,
        dict(zip(match.followers.tolist(), match.counts.tolist(), strict=True)),
    )


def some_texts(rng, n_values):
    return [rng.integers(0, n_values, rng.integers(0, 40)).tolist() for _ in range(4)]


@pytest.mark.parametrize("n_values", [1, 2, 3, 50, 8192, 150_000])
def test_the_longest_match_and_what_followed(rng, n_values):
    n_found = 0
    for _ in range(60):
        texts = some_texts(rng, n_values)
        index = TokenIndex(texts)
        assert [index.text(i).tolist() for i in range(index.n_texts)] == texts
        source = texts[int(rng.integers(4))]
        contexts = [rng.integers(0, n_values, rng.integers(0, 50)).tolist(), source[: len(source) // 2], []]
        for context in contexts:
            expected = slow_match(texts, context)
            if expected is None or sum(expected[1].values()) <= N_LOOKED_AT:
                assert told(index.match(context)) == expected
                n_found += expected is not None
    assert n_found > 20


def test_a_hidden_text_does_not_count_and_a_shorter_match_takes_its_place(rng):
    for _ in range(60):
        texts = some_texts(rng, 3)
        index = TokenIndex(texts)
        is_hidden = rng.random(4) < 0.5
        context = texts[int(rng.integers(4))][:20]
        seen = [text for text, hidden in zip(texts, is_hidden, strict=True) if not hidden]
        found = index.match(context, is_hidden)
        expected = slow_match(seen, context)
        if expected is None or found is None:  # where more places match than are looked at, all may be hidden
            assert found is None
        elif sum(slow_match(texts, context)[1].values()) <= N_LOOKED_AT:
            assert told(found) == expected


def test_matches_do_not_cross_texts_and_stop_at_the_limit():
    text = list(range(100))
    index = TokenIndex([text, [7, 8], [50]])
    assert index.match(text[:90]).n_tokens == LONGEST_MATCH
    assert told(index.match([98])) == (1, {99: 1})
    assert index.match([99]) is index.match([50, 99]) is index.match([200]) is index.match([]) is None
    assert told(index.match([200, 7])) == (1, {8: 2})


def test_of_many_places_some_are_looked_at():
    index = TokenIndex([[1, 2] * 5000])
    match = index.match([2, 1])
    assert match.followers.tolist() == [2]
    assert match.counts.sum() <= N_LOOKED_AT
    assert 4500 < match.n_places < 5500


def test_an_index_without_texts():
    for texts in ([], [[]], [[], []], [[5]]):
        index = TokenIndex(texts)
        assert index.n_texts == len(texts)
        assert index.match([5]) is None


def test_which_texts_hold_some_tokens():
    index = TokenIndex([[1, 2, 3, 4], [9, 2, 3, 5], [1, 2, 3, 7]])
    assert index.texts_with([2, 3]) == {0, 1, 2}
    assert index.texts_with([1, 2]) == {0, 2}
    assert index.texts_with([3, 2]) == set()


def test_kept_arrays_give_the_same(tmp_path, rng):
    texts = some_texts(rng, 3)
    index = TokenIndex(texts)
    index.save(tmp_path)
    again = TokenIndex.load(tmp_path)
    for _ in range(50):
        context = rng.integers(0, 3, 12).tolist()
        assert told(again.match(context)) == told(index.match(context))
    np.save(tmp_path / "starts.npy", np.arange(3))
    with pytest.raises(ValueError, match="do not fit"):
        TokenIndex.load(tmp_path)


def test_a_growing_text_finds_what_an_index_of_it_would(rng):
    for n_values in (2, 3, 30):
        ids = rng.integers(0, n_values, 120).tolist()
        text = GrowingText()
        for n, token in enumerate(ids):
            expected = slow_match([ids[:n]], ids[:n], shortest=2)
            if n_values == 30 or expected is None:
                assert told(text.match()) == expected
            else:  # of many places the latest count
                assert text.match().n_tokens <= expected[0]
                assert text.match().n_places <= N_LATEST
            text.append(token)


def test_a_growing_text_becomes_another(rng):
    text = GrowingText()
    for _ in range(100):
        ids = rng.integers(0, 3, rng.integers(0, 30)).tolist()
        text.become(ids)
        assert text.ids == ids
        assert told(text.match()) == told(GrowingText(ids).match())


def test_what_follows_a_text_within_a_growing_one_is_nothing():
    assert GrowingText([1, 2, BOUNDARY, 1, 2]).match() is None
    assert told(GrowingText([1, 2, 3, BOUNDARY, 1, 2]).match()) == (2, {3: 1})
