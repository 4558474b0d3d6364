"""A weight that is no number is found whatever its type, and refused by its name."""

import pytest
import torch

from techtree.errors import InputError
from techtree.lm.formats.finite import are_finite, check_finite

NAN, INF = float("nan"), float("inf")
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("place", [0, 1, 699, 1398, 1399])
def test_one_is_enough(dtype, value, place):
    tensor = torch.randn(20, 70, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert are_finite(tensor)
    assert are_finite(tensor.T)
    tensor.view(-1)[place] = value
    assert not are_finite(tensor)
    assert not are_finite(tensor.T)
    with pytest.raises(
        InputError, match=f"a must hold numbers that {str(dtype)[6:]} holds; it holds {value}"
    ):
        check_finite({"b": torch.ones(3), "a": tensor}, dtype, "copy it again")


def test_the_largest_numbers_are_finite():
    for dtype in TYPES:
        assert are_finite(torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min], dtype=dtype))
    assert are_finite(torch.empty(0, 3))
    assert are_finite(torch.tensor(1.5))


def test_a_narrower_type_holds_less():
    # 65,519 is rounded down to float16's largest number, 65,504; 65,520 is not.
    for value, fits in ((65_519.0, True), (-65_519.0, True), (65_520.0, False), (-7e4, False)):
        assert are_finite(torch.tensor([1.0, value]), torch.float16) is fits
    with pytest.raises(InputError, match="a must hold numbers that float16 holds; it holds -70000: wider"):
        check_finite({"a": torch.tensor([[1.0, -7e4]])}, torch.float16, "wider")
    check_finite({"a": torch.tensor([1 << 40])}, torch.float16, "whole numbers are stored as they are")
