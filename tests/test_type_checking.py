"""That the checking of shapes is on in this test run, and that it can fail."""

import jaxtyping
import pytest

torch = pytest.importorskip("torch")


def test_a_wrong_shape_is_refused():
    from techtree.lm.infer.sampling import SamplingParams, distribution

    distribution(torch.zeros(3), SamplingParams())
    with pytest.raises(jaxtyping.TypeCheckError):
        distribution(torch.zeros(2, 3), SamplingParams())


def test_a_wrong_type_is_refused():
    from techtree.lm.infer.sampling import SamplingParams, distribution

    with pytest.raises(jaxtyping.TypeCheckError):
        distribution(torch.zeros(3, dtype=torch.int64), SamplingParams())
    with pytest.raises(jaxtyping.TypeCheckError):
        distribution(torch.zeros(3), None)
