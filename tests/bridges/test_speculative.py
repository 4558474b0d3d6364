"""The lesson's lookup proposes what the product's does."""

import random

import pytest

from techtree.lm.infer.drafts import LONGEST_MATCH, N_DRAFT, SHORTEST_MATCH, Drafts
from techtree.lm.memory.growing import GrowingText
from techtree.techs.inference.speculative import prompt_lookup


@pytest.mark.parametrize("seed", range(8))
def test_the_product_guesses_the_same(seed):
    """Of places where two tokens stood the product compares the latest 16: these texts have no more."""
    generator = random.Random(seed)
    words = [[generator.randrange(9) for _ in range(generator.randrange(1, 9))] for _ in range(5)]
    text: list[int] = []
    while len(text) < 60:
        text += generator.choice(words)
    known = GrowingText()
    drafts = Drafts(known)
    n_guessed = 0
    for token in text:
        known.append(token)
        if max((known.ids.count(each) for each in set(known.ids)), default=0) > 16:
            break
        guess, _ = prompt_lookup(known.ids, N_DRAFT, None, SHORTEST_MATCH, LONGEST_MATCH)
        assert drafts.propose() == guess
        n_guessed += bool(guess)
    assert n_guessed > 0
