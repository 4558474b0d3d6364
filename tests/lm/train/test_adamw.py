import torch

from techtree.lm.train.adamw import AdamW


def test_updates_are_those_of_pytorch():
    generator = torch.Generator().manual_seed(0)
    ours = {"table": torch.randn(4, 3, generator=generator), "gain": torch.ones(5)}
    theirs = {name: tensor.clone().requires_grad_() for name, tensor in ours.items()}
    options = {"lr": 0.05, "betas": (0.7, 0.9), "eps": 1e-6, "weight_decay": 0.3}
    optimizer = AdamW(ours, **options)
    reference = torch.optim.AdamW(theirs.values(), **options)
    for step in range(1, 21):
        scale = 1 / step
        gradients = {}
        for name, tensor in ours.items():
            # Of very different sizes, and sometimes zero, as the rows of a table are.
            size = 10.0 ** (step % 5 - 3) * (step % 4 > 0)
            gradients[name] = torch.randn(tensor.shape, generator=generator) * size
            theirs[name].grad = gradients[name].clone()
        reference.param_groups[0]["lr"] = 0.05 * scale
        reference.step()
        optimizer.update(gradients, step, scale)
    for name, tensor in ours.items():
        # Twenty float32 steps of size 0.05 in another order of operations.
        torch.testing.assert_close(tensor, theirs[name].detach(), atol=1e-6, rtol=1e-5)


def test_the_first_step_is_the_learning_rate_in_every_coordinate():
    weight = torch.zeros(3)
    AdamW({"w": weight}, lr=0.1).update({"w": torch.tensor([1e-6, -1.0, 1e6])}, 1, 1.0)
    torch.testing.assert_close(weight, torch.tensor([-0.1, 0.1, -0.1]), atol=1e-4, rtol=0)
