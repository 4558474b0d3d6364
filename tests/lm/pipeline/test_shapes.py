import math

import pytest

from techtree.lm.pipeline.plan import shape
from techtree.lm.pipeline.shapes import SHAPES


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7, 12])
@pytest.mark.parametrize("vocab_size", [300, 4096, 4097])
def test_every_shape_comes_in_every_depth(depth, vocab_size):
    for make in SHAPES.values():
        assert (make(depth, vocab_size).n_layers, make(depth, vocab_size).vocab_size) == (depth, vocab_size)


def test_experts_multiply_as_much_as_the_plain_shape():
    plain, experts = shape(4, 4096), SHAPES["experts"](4, 4096)
    routers = 4 * 8 * plain.d_model
    assert experts.n_active_parameters == plain.n_parameters + routers
    assert experts.n_parameters > 2 * plain.n_parameters


def test_the_tables_of_n_grams_have_no_divisor_in_common_with_the_vocabulary():
    for vocab_size in (300, 4096, 4097, 151_936):
        tables = SHAPES["speedrun"](4, vocab_size).speedrun
        assert math.gcd(tables.ngram_rows, vocab_size) == 1
