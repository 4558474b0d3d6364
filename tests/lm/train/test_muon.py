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
        gradient = torch.randn(shape, generator=generator)
        momentum = 0.9 * momentum + 0.1 * gradient
        direction = slowly_orthogonalized(0.9 * momentum + 0.1 * gradient)
        expected = expected * (1 - 0.1 * scale * 0.5)
        expected -= 0.1 * scale * max(1, shape[0] / shape[1]) ** 0.5 * direction
        muon.update({"w": gradient}, step, scale)
    torch.testing.assert_close(weight.double(), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(muon.state["momentum"]["w"].double(), momentum, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(3, 6, 4), (3, 4, 6), (1, 5, 5)])
def test_each_matrix_of_a_stack_is_treated_by_itself(shape):
    generator = torch.Generator().manual_seed(0)
    stack, gradients = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    gradients[-1] *= 1e-3  # An expert that was seldom chosen moves as far as the others.
    alone = {str(i): matrix.clone() for i, matrix in enumerate(stack)}
    Muon({"w": stack}, lr=0.1).update({"w": gradients}, 1, 1.0)
    Muon(alone, lr=0.1).update({str(i): gradient for i, gradient in enumerate(gradients)}, 1, 1.0)
    # A product of stacks may add up in another order.
    torch.testing.assert_close(stack, torch.stack(list(alone.values())), atol=1e-5, rtol=0)


def test_a_stack_of_no_matrices_stays_empty():
    assert orthogonalized(torch.zeros(0, 4, 3)).shape == (0, 4, 3)
