"""The lesson's matches are the product's: as long, in as many places, with the same followers."""

import random

import pytest

from techtree.lm.memory.growing import N_LATEST, GrowingText
from techtree.lm.memory.index import LONGEST_MATCH, N_LOOKED_AT, Match, TokenIndex
from techtree.techs.inference.memory import GrowingIndex, SuffixIndex, longest_match


def as_the_lesson_has_it(match: Match | None) -> tuple[int, dict[int, int]]:
    if match is None:
        return 0, {}
    return match.n_tokens, dict(zip(match.followers.tolist(), match.counts.tolist(), strict=True))


def a_text(generator: random.Random, n_tokens: int, n_letters: int) -> list[int]:
    """Words of a few tokens, again and again: with long matches, too."""
    words = [[generator.randrange(n_letters) for _ in range(generator.randrange(1, 9))] for _ in range(9)]
    text: list[int] = []
    while len(text) < n_tokens:
        text += generator.choice(words)
    return text[:n_tokens]


@pytest.mark.parametrize("seed", range(8))
def test_texts_that_stay(seed):
    """Of places that match the product looks at a part, where they are many: these are not."""
    generator = random.Random(seed)
    n_letters = (9, 40, 2000)[seed % 3]
    texts = [a_text(generator, generator.choice((0, 1, 30, 90)), n_letters) for _ in range(5)]
    copied = a_text(generator, 50, n_letters)
    texts += [copied, copied[:45]]  # longer matches than the product compares
    lesson, product = SuffixIndex(texts), TokenIndex(texts)
    lengths = set()
    for text in [*texts, a_text(generator, 60, n_letters)]:
        for end in range(len(text)):
            context = text[max(0, end - LONGEST_MATCH) : end]
            length, counts = longest_match(lesson, context, LONGEST_MATCH)
            match = product.match(context)
            if sum(counts.values()) <= N_LOOKED_AT:
                assert as_the_lesson_has_it(match) == (length, counts)
                assert (match.n_places if match else 0) == sum(counts.values())
                lengths.add(length)
    assert lengths >= {0, 1, 2, 3, LONGEST_MATCH}


@pytest.mark.parametrize("seed", range(8))
def test_a_text_that_grows(seed):
    """The product begins at two tokens, and compares the latest places of them: these texts have no more."""
    generator = random.Random(seed)
    text = a_text(generator, 150, 60)
    lesson, product = GrowingIndex(LONGEST_MATCH), GrowingText()
    lengths = set()
    for place, token in enumerate(text):
        lesson.append(token)
        product.append(token)
        pair = text[place - 1 : place + 1]
        if sum(lesson.followers(pair).values()) <= N_LATEST:
            length, counts = longest_match(lesson, text[: place + 1], LONGEST_MATCH)
            expected = (length, counts) if length > 1 else (0, {})
            assert as_the_lesson_has_it(product.match()) == expected
            lengths.add(length)
    assert max(lengths) > 5
