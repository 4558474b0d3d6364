import math

import torch

from techtree.lm.model.rope import rotate, rotation

CPU = torch.device("cpu")


def test_one_pair_by_hand():
    # At position 1, the only pair (x0, x1) turns by one radian.
    turn = rotation(1, 1, head_dim=2, base=10_000.0, dtype=torch.float32, device=CPU)
    turned = rotate(torch.tensor([[[[1.0, 0.0]]]]), turn)
    torch.testing.assert_close(turned.flatten(), torch.tensor([math.cos(1), math.sin(1)]))


def test_it_is_the_complex_product():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, 3, 8, generator=generator)
    turned = rotate(x, rotation(5, 9, 8, 100.0, torch.float32, CPU))
    positions = torch.arange(5, 14, dtype=torch.float64)
    angles = positions[:, None, None] * 100.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    z = torch.complex(x[..., :4].double(), x[..., 4:].double()) * torch.polar(torch.ones_like(angles), angles)
    # Angles up to 13 in float32.
    torch.testing.assert_close(turned, torch.cat((z.real, z.imag), -1).float(), atol=1e-5, rtol=0)


def test_the_gradient_is_the_rotation_back():
    x = torch.randn(
        1, 4, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    turn = rotation(3, 4, 6, 10.0, torch.float64, CPU)
    assert torch.autograd.gradcheck(lambda x: rotate(x, turn), (x,))


def test_products_depend_on_the_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))

    def product(i, j):
        at = [rotate(x, rotation(p, 1, 16, 1e4, torch.float32, CPU)) for x, p in ((q, i), (k, j))]
        return (at[0] * at[1]).sum()

    torch.testing.assert_close(product(7, 3), product(507, 503), atol=1e-3, rtol=0)  # float32 angles of 500


def test_far_positions_differ_in_bfloat16_too():
    turn = rotation(256, 2, 4, 1e4, torch.bfloat16, CPU)
    assert not torch.equal(turn.sin[0], turn.sin[1])
