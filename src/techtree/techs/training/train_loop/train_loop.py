"""The loop: gather gradients, step, measure, save; and go on after a kill as if nothing had happened.

Claim: a training run is a function of its state, and the state is small: weights, optimizer, where the data
stands, and the number of the step. Who saves all four in one file, replaced whole, loses no more than the
steps since then, and arrives at the same weights to the last bit.

Idea: a large batch is a sum over its examples, so it may be computed in portions that fit into memory, if the
sum is divided by the number of all examples at the end, and not each portion by its own.

Legend: ``batch_loss(model, batch)`` is what the caller writes: it returns the *sum* of the losses of the
examples that count, a tensor of shape () that was computed from parameters, and their number, an integer. A
batch is whatever it understands. One in which no example counts adds nothing, whatever its loss is, also NaN.

Left out: random numbers inside of the model. Draw them from ``random_stream(seed, f"dropout, step {step}")``,
and there is nothing to save.

Paper: Goyal et al. (2017), https://arxiv.org/abs/1706.02677
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.safetensors import load_file, read_metadata, save_file
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.dataloader import BatchStream
from techtree.techs.training.schedule_clip import clip_grad_norm
from techtree.techs.training.sgd import Optimizer


def accumulate(
    model: Module, batch_loss: Callable[[Module, object], tuple[Tensor, int]], batches: Iterable
) -> float:
    """Leave in each parameter the gradient of the mean loss over all examples of several batches.

    A parameter that no loss depends on has None. Weights and the model's mode stay as they are.

    Parameters
    ----------
    model
        Gradients that its parameters have from before are dropped.
    batch_loss
        As in the legend. Called once for each batch, in order; each is differentiated before the batch after
        the next is drawn, so that memory does not grow with their number.
    batches
        Any iterable, walked once.

    Returns
    -------
    float
        The mean loss: the sum over all batches, divided by the number of all examples that count.

    Raises
    ------
    ValueError
        When no example counts.

    Examples
    --------
    >>> from techtree.techs.autodiff.modules import Parameter
    >>> class Constant(Module):
    ...     def __init__(self):
    ...         self.w = Parameter(0.0)
    >>> def squares(model, batch):
    ...     error = model.w - np.array(batch)
    ...     return (error * error).sum(), len(batch)
    >>> constant = Constant()
    >>> accumulate(constant, squares, [[1.0, 2.0, 3.0], [6.0]])  # (1 + 4 + 9 + 36) / 4
    12.5
    >>> float(constant.w.grad)  # minus twice the mean, 3
    -6.0
    """
    for parameter in model.parameters():
        parameter.grad = None
    total, n_examples = 0.0, 0
    for batch in batches:
        loss, n = batch_loss(model, batch)
        if n:
            loss.backward()
            total, n_examples = total + float(loss.data), n_examples + int(n)
    _require_examples(n_examples)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad = np.asarray(parameter.grad / n_examples)
    return total / n_examples


def evaluate(
    model: Module, batch_loss: Callable[[Module, object], tuple[Tensor, int]], batches: Iterable
) -> float:
    """Return the mean loss over all examples of some batches, without changing the model.

    Parameters
    ----------
    model
        In one mode with all its parts. Computes in that of `Module.eval`, and without recording; afterwards,
        also after an error, it is in its own again. Gradients are left alone.
    batch_loss, batches
        As in `accumulate`.

    Returns
    -------
    float
        The sum over all batches, divided by the number of all examples that count.

    Raises
    ------
    ValueError
        When no example counts.
    """
    was_training = model.is_training
    model.eval()
    total, n_examples = 0.0, 0
    try:
        with no_grad():
            for batch in batches:
                loss, n = batch_loss(model, batch)
                if n:
                    total, n_examples = total + float(loss.data), n_examples + int(n)
    finally:
        if was_training:
            model.train()
    _require_examples(n_examples)
    return total / n_examples


def save_checkpoint(path: str | Path, step: int, parts: Mapping[str, Any]) -> None:
    """Write all parts of a run into one file, which takes the place of an old one in a single step.

    Parameters
    ----------
    path
        A safetensors file: the tensor ``"model.layers.0.weight"`` is the entry ``"layers.0.weight"`` of the
        ``state_dict`` of the part ``"model"``. The metadata has ``"step"``, and ``"parts"``, a JSON list of
        the names in order.
    step
        The number of steps done.
    parts
        Name -> part: a model, an optimizer, a stream, or what else has `state_dict` and `load_state_dict`. A
        state may be empty.

    Raises
    ------
    ValueError
        When a name of a part has a dot in it.
    """
    if dotted := [name for name in parts if "." in name]:
        raise ValueError(f"the name of a part must have no dot in it; got {dotted[0]!r}")
    tensors = {
        f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()
    }
    save_file(tensors, path, {"step": str(step), "parts": json.dumps(list(parts))})


def load_checkpoint(path: str | Path, parts: Mapping[str, Any]) -> int:
    """Give each part its state from a file of `save_checkpoint`, and return the number of steps done.

    Parameters
    ----------
    path
        The file.
    parts
        Name -> part, in any order.

    Raises
    ------
    ValueError
        When the names are not those of the parts that were saved, or the file is no checkpoint. Nothing is
        changed then. Errors of a part's ``load_state_dict`` pass through.
    """
    metadata = read_metadata(path)
    if not {"step", "parts"} <= metadata.keys():
        raise ValueError(
            f"{path} must be a checkpoint, with step and parts in its metadata; it is another file"
        )
    step, saved = int(metadata["step"]), json.loads(metadata["parts"])
    if sorted(saved) != sorted(parts):
        raise ValueError(f"{path} holds the parts {', '.join(saved)}: load these; got {', '.join(parts)}")
    states: dict[str, dict[str, np.ndarray]] = {name: {} for name in saved}
    for key, value in load_file(path).items():
        name, _, rest = key.partition(".")
        states[name][rest] = value
    for name, part in parts.items():
        part.load_state_dict(states[name])
    return step


def train(
    model: Module,
    batch_loss: Callable[[Module, object], tuple[Tensor, int]],
    optimizer: Optimizer,
    stream: BatchStream,
    n_steps: int,
    *,
    n_accumulate: int = 1,
    schedule: Callable[[int], float] = lambda step: 1.0,
    max_norm: float = math.inf,
    path: str | Path | None = None,
    save_every: int = 100,
) -> list[float]:
    """Train until ``n_steps`` steps are done; with a file, go on from it and save to it.

    Parameters
    ----------
    model
        In the mode of `Module.train` during the steps, and afterwards.
    batch_loss
        As in the legend; its batches are those of the stream.
    optimizer
        Its learning rates are those of the first steps at full height. In step number ``step``, counted from
        0, each group has its own times ``schedule(step)``; at the end, also after an error, its own again.
    stream
        Each step takes the next ``n_accumulate`` batches, as in `accumulate`.
    n_steps
        Of the whole run, what was done before the file was saved included.
    n_accumulate, schedule
        As said.
    max_norm
        Before each update the gradients of the model are clipped to this norm by `clip_grad_norm`. If their
        norm is infinite or NaN, the step is done without an update.
    path
        A checkpoint with the parts ``"model"``, ``"optimizer"`` and ``"stream"``. If the file exists, it is
        loaded, and the run goes on after its step. None neither loads nor saves.
    save_every
        The file is saved after each so many steps of the run, and after the last.

    Returns
    -------
    list[float]
        The mean loss in each step of this call, before its update; none if all were done before.

    Notes
    -----
    A run that was killed at any moment, and is called again with new objects made as before, ends with the
    weights, the optimizer and the stream of a run that was not, to the last bit.
    """
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "stream": stream}
    first = load_checkpoint(path, parts) if path is not None and Path(path).exists() else 0
    rates = [group["lr"] for group in optimizer.groups]
    losses = []
    model.train()
    try:
        for step in range(first, n_steps):
            for group, rate in zip(optimizer.groups, rates, strict=True):
                group["lr"] = rate * schedule(step)
            losses.append(accumulate(model, batch_loss, (stream.next_batch() for _ in range(n_accumulate))))
            if math.isfinite(clip_grad_norm(model.parameters(), max_norm)):
                optimizer.step()
            if path is not None and ((step + 1) % save_every == 0 or step + 1 == n_steps):
                save_checkpoint(path, step + 1, parts)
    finally:
        for group, rate in zip(optimizer.groups, rates, strict=True):
            group["lr"] = rate
    return losses


def _require_examples(n_examples: int) -> None:
    if not n_examples:
        raise ValueError("at least one example must count; the batches hold none")
