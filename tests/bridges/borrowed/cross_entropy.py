"""What `cross_entropy` opens, behind the exercise's name: PyTorch's loss as one operation on our tape."""

import numpy as np
import torch
import torch.nn.functional as F

from techtree.techs.autodiff.tensor_autodiff import record

__all__ = ["cross_entropy"]


def cross_entropy(logits, targets, ignore_index=-100, reduction="mean"):
    targets = np.asarray(targets)
    if logits.ndim == 0 or logits.shape[-1] == 0 or targets.shape != logits.shape[:-1]:
        raise ValueError("PyTorch reads other shapes in other ways")
    if targets.dtype.kind not in "iu":
        raise ValueError("PyTorch would take these for probabilities")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError("PyTorch knows no other reduction")
    plain = [-100 if each == ignore_index else each for each in targets.ravel().tolist()]
    if any(each >= logits.shape[-1] or (each < 0 and each != -100) for each in plain) or (
        ignore_index != -100 and (targets == -100).any()
    ):
        raise ValueError("PyTorch counts targets in int64")
    targets, ignore_index = np.array(plain, np.int64).reshape(targets.shape), -100
    # PyTorch adds up in the dtype of the logits, so that many float16 tokens overflow
    wide = np.result_type(logits.dtype, np.float32)
    leaf = torch.tensor(logits.data.astype(wide), requires_grad=True)
    flat = torch.tensor(targets).reshape(-1)
    rows = leaf.reshape(-1, leaf.shape[-1])
    rows = torch.where((flat != ignore_index)[:, None], rows, 0)  # in PyTorch NaN in padding leaks
    try:
        out = F.cross_entropy(rows, flat, ignore_index=ignore_index, reduction=reduction)
    except (IndexError, RuntimeError) as error:  # PyTorch's errors for targets that are no classes
        raise ValueError(str(error)) from error
    if reduction == "mean" and (targets == ignore_index).all():
        out = leaf[..., :0].sum()  # PyTorch divides 0 by 0
    out = out.reshape(targets.shape) if reduction == "none" else out

    def pull_back(g):
        arriving = torch.tensor(np.array(g, wide))
        return torch.autograd.grad(out, leaf, arriving, retain_graph=True)[0].numpy()

    return record(out.detach().numpy().astype(logits.dtype), (logits, pull_back))
