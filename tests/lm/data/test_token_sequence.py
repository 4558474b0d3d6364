"""The tokens between two ends of text."""

import numpy as np

from techtree.lm.data.token_sequence import token_sequence


def test_text_between_two_ends(tiny_tokenizer):
    ids = token_sequence("x = 1", tiny_tokenizer)
    assert ids.dtype == np.int32
    assert tiny_tokenizer.decode(ids) == "<|endoftext|>x = 1<|endoftext|>"
    assert token_sequence("", tiny_tokenizer).tolist() == [tiny_tokenizer.end_of_text_id] * 2
