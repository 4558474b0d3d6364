import xml.etree.ElementTree as ET

import pytest

from techtree.lm.train.loss_plot import loss_plot


@pytest.mark.parametrize("n_steps", [1, 2, 31, 100_000])
def test_it_is_a_picture_of_bounded_size(n_steps):
    image = loss_plot([3.0 + (i % 7) / 10 for i in range(n_steps)])
    assert ET.fromstring(image).tag == "{http://www.w3.org/2000/svg}svg"
    assert len(image) < 1_000_000


def test_the_held_out_loss_is_a_line_more():
    assert len(loss_plot([3.0, 2.0], 1.5)) > len(loss_plot([3.0, 2.0]))
