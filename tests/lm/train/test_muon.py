import pytest
import torch

from techtree.lm.train.muon import N_ITERATIONS, NEWTON_SCHULZ, Muon, orthogonalized

SHAPES = pytest.mark.parametrize("shape", [(6, 6), (4, 11), (11, 4), (1, 5), (64, 48)])


def slowly_orthogonalized(matrix):
    """The same polynomial, applied to the singular values themselves."""
    a, b, c = NEWTON_SCHULZ
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(N_ITERATIONS):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ vt


@SHAPES
def test_it_is_the_polynomial_of_the_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalized(matrix)
    # Nine float32 products; the steep start of the polynomial multiplies an error by up to 3.4^3.
    torch.testing.assert_close(found.double(), slowly_orthogonalized(matrix), atol=1e-4, rtol=0)


@SHAPES
def test_singular_values_come_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    before = torch.linalg.svdvals(matrix)
    after = torch.linalg.svdvals(orthogonalized(matrix))
    assert (after < 1.21).all()
    assert (after[before > 0.02 * matrix.norm()] > 0.65).all()


def test_bfloat16_is_near_float32():
    matrix = torch.randn(32, 80, generator=torch.Generator().manual_seed(0))
    rounded = orthogonalized(matrix.to(torch.bfloat16)).float()
    exact = orthogonalized(matrix)
    assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_the_scale_does_not_matter_and_zero_stays_zero():
    matrix = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalized(matrix * 1e-9), orthogonalized(matrix), atol=1e-3, rtol=0)
    assert not orthogonalized(torch.zeros(3, 4)).any()
    assert not orthogonalized(torch.zeros(3, 4, dtype=torch.bfloat16)).any()


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_updates_by_the_definition(shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    expected, momentum = weight.double(), torch.zeros(shape, dtype=torch.float64)
    muon = Muon({"w": weight}, lr=0.1, momentum=0.9, weight_decay=0.5)
    for step, scale in enumerate((1.0, 0.5, 0.25), start=1):
        weight.grad = torch.randn(shape, generator=generator)
        momentum = 0.9 * momentum + 0.1 * weight.grad
        direction = slowly_orthogonalized(0.9 * momentum + 0.1 * weight.grad)
        expected = expected * (1 - 0.1 * scale * 0.5)
        expected -= 0.1 * scale * max(1, shape[0] / shape[1]) ** 0.5 * direction
        muon.update(step, scale)
    torch.testing.assert_close(weight.double(), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(muon.state["momentum.w"].double(), momentum, atol=1e-6, rtol=0)
