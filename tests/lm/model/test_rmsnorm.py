import pytest
import torch
import torch.nn.functional as F

from techtree.lm.model.rmsnorm import RMSNorm


def test_value_by_hand():
    # rms((3, 4)) = sqrt(12.5)
    norm = RMSNorm(2, eps=1e-12)
    torch.testing.assert_close(norm(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]]) / 12.5**0.5)


def test_gradients_are_those_of_finite_differences():
    x = torch.randn(
        2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    norm = RMSNorm(5, eps=1e-2).double()
    norm.weight.data = torch.linspace(0.5, 1.5, 5, dtype=torch.float64)

    def normalize(x, gain):
        norm.weight = gain
        return norm(x)

    assert torch.autograd.gradcheck(normalize, (x, norm.weight))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("shape", [(7, 24), (2, 5, 3, 16), (1, 1)])
def test_both_paths_agree(dtype, tolerance, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype).requires_grad_()
    upstream = torch.randn(shape, generator=generator).to(dtype)
    norm = RMSNorm(shape[-1], eps=1e-6)
    norm.weight.data.uniform_(0.5, 2, generator=generator)
    y = norm(x)
    dx, dgain = torch.autograd.grad(y, (x, norm.weight), upstream)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), y.detach(), atol=tolerance, rtol=tolerance)
    exact_x = x.detach().double().requires_grad_()
    exact = F.rms_norm(exact_x, (shape[-1],), norm.weight.double(), 1e-6)
    expected = torch.autograd.grad(exact, (exact_x, norm.weight), upstream.double())
    torch.testing.assert_close(dx.double(), expected[0], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(dgain, expected[1], atol=10 * tolerance, rtol=10 * tolerance)


def test_a_row_of_zeros_stays_zero():
    x = torch.zeros(2, 4, requires_grad=True)
    y = RMSNorm(4, eps=1e-6)(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, 4))
    assert torch.isfinite(x.grad).all()
