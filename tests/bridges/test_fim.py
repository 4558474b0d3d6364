"""The lesson's examples and prompts are the product's, as long as nothing has to be left out of a prompt."""

import itertools

import numpy as np
import pytest

from techtree.lm.data.fill_in_the_middle import Cut, encode_cut
from techtree.lm.infer.fim_prompt import FimText, fim_prompt
from techtree.techs.assistant.fim import Sentinels, arrange, cut, prompt, restore, trim

TEXT = "def f(x):\n    return x + 1  # <fim_middle>\n\n\nprint(f(2))\n"


def marks_of(tokenizer) -> Sentinels:
    ids = (
        tokenizer.fim_prefix_id,
        tokenizer.fim_suffix_id,
        tokenizer.fim_middle_id,
        tokenizer.end_of_text_id,
    )
    return Sentinels(*ids)


@pytest.mark.parametrize("is_spm", [False, True])
def test_examples_are_the_products(tiny_tokenizer, is_spm):
    rng, marks = np.random.default_rng(0), marks_of(tiny_tokenizer)
    for max_tokens in (4, 5, 9, 14, 20, 27, 200):
        for _ in range(30):
            parts = cut(TEXT, rng)
            theirs = encode_cut(Cut(*parts), tiny_tokenizer, max_tokens, is_spm)
            ours = arrange(*trim(*tiny_tokenizer.encode_batch(list(parts)), max_tokens - 4), marks, is_spm)
            assert ours == theirs
            if max_tokens == 200:
                assert tiny_tokenizer.decode(restore(theirs, marks)) == TEXT


def test_prompts_are_the_products(tiny_tokenizer):
    marks = marks_of(tiny_tokenizer)
    for place, is_spm in itertools.product(range(len(TEXT) + 1), (False, True)):
        before, after = TEXT[:place], TEXT[place:]
        theirs = fim_prompt(tiny_tokenizer, FimText(before, after), 400, "spm" if is_spm else "psm")
        assert not theirs.is_truncated
        assert prompt(before, after, tiny_tokenizer, marks, 400, is_spm) == theirs.ids
