"""From a folder of files to a model that knows them: clean, split, learn the tokens, then the weights.

Claim: a language model of a few hundred thousand weights, trained for two minutes by NumPy alone, predicts
code that it has not seen better than all counts of the same text can.

Idea: nothing new is invented here; what is easily done wrong is the order. What is held out is decided first,
by groups of near copies; the tokenizer and the weights see the rest only. Then every step is a batch of rows,
a gradient that is cut to a largest norm, and two optimizers at once: Muon for the matrices inside the
blocks, AdamW for tables, gains and biases.

Legend: ``rows`` (n_rows, T + 1) of `pack`; ``end`` the id of the end token, 0 here.

Left out: several machines, 16 bits, a validation loss during the run, several passes over unequal sources.

Paper: Radford et al. (2019),
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.text.bpe import BPE
from techtree.techs.text.bpe import train as train_tokenizer
from techtree.techs.text.causal_lm import loss, pack
from techtree.techs.text.corpus import near_duplicates, split
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.dataloader import BatchStream, DataLoader
from techtree.techs.training.muon import Muon, split_parameters
from techtree.techs.training.schedule_clip import warmup_linear
from techtree.techs.training.sgd import Optimizer
from techtree.techs.training.train_loop import train


@dataclass(frozen=True)
class Prepared:
    """What `prepare` makes of files."""

    tokenizer: BPE
    """Learned from the training texts; its only special token is ``"<|endoftext|>"``, of id 0."""
    rows: np.ndarray
    """(n_rows, T + 1), int64: the training texts, encoded and packed in the order of ``train``."""
    train: list[str]
    """The names of the training texts, ascending."""
    held_out: list[str]
    """The names of the texts to measure with, ascending."""


def prepare(
    files: Mapping[str, str], vocab_size: int, length: int, share: float = 0.1, seed: int = 0
) -> Prepared:
    r"""Make of files what a model is trained with and what it is measured with.

    Parameters
    ----------
    files
        Name -> text, in any order, which does not matter.
    vocab_size
        Of the tokenizer, the end token included.
    length
        T, of the rows.
    share, seed
        As for `split`.

    Returns
    -------
    Prepared
        The names, in ascending order, are grouped by `near_duplicates` of their texts, with its defaults, and
        assigned by `split`, which keeps these groups together. Then of each group the least name alone stays.
        Tokenizer (`bpe.train` of the training texts with ``vocab_size``) and rows come from the training
        texts alone.

    Raises
    ------
    ValueError
        When all training texts together, or all held-out texts, have no byte; and as for the parts.

    Examples
    --------
    >>> files = {f"{name}.py": f"{name} = {name} + 1\n" * 9 for name in ("one", "two", "three", "four")}
    >>> made = prepare(files | {"copy.py": files["two.py"]}, vocab_size=270, length=8, share=0.4)
    >>> made.train, made.held_out  # two.py is left out, as copy.py is the same
    (['four.py', 'three.py'], ['copy.py', 'one.py'])
    >>> made.tokenizer.decode(made.rows[0])
    '<|endoftext|>four = four + 1\nfour'
    """
    names = sorted(files)
    groups = near_duplicates([files[name] for name in names])
    is_first = {group[0] for group in groups}
    sides = split(names, groups, share, seed)
    training, held_out = ([names[i] for i in side if i in is_first] for side in sides)
    if not any(files[name] for name in training) or not any(files[name] for name in held_out):
        raise ValueError(
            f"both sides need a text; got {len(training)} files to train on and {len(held_out)} to measure "
            "with: give more files, or another share or seed"
        )
    texts = [files[name] for name in training]
    tokenizer = train_tokenizer(texts, vocab_size, ["<|endoftext|>"])
    return Prepared(tokenizer, pack(map(tokenizer.encode, texts), length, 0), training, held_out)


class Optimizers:
    """Several optimizers that step as one, as a training loop wants it.

    Parameters
    ----------
    *optimizers
        At least one, in the order in which they step; ``ValueError`` without one.

    Attributes
    ----------
    groups
        A new list of the groups of all optimizers, in order: the dictionaries themselves, so that what is
        changed in them counts.

    Examples
    --------
    >>> from techtree.techs.autodiff.modules import Parameter
    >>> from techtree.techs.training.sgd import SGD
    >>> a, b = Parameter([1.0]), Parameter([1.0])
    >>> both = Optimizers(SGD([a], lr=0.5), SGD([b], lr=0.25, momentum=0.5))
    >>> a.grad = b.grad = np.array([1.0])
    >>> both.step()
    >>> a.data.tolist(), b.data.tolist(), [group["lr"] for group in both.groups], list(both.state_dict())
    ([0.5], [0.75], [0.5, 0.25], ['0.0.momentum', '1.0.momentum'])
    """

    def __init__(self, *optimizers: Optimizer):
        if not optimizers:
            raise ValueError("several optimizers are at least one; got none")
        self._optimizers = optimizers

    @property
    def groups(self) -> list[dict]:
        """The groups of all."""
        return [group for each in self._optimizers for group in each.groups]

    def step(self) -> None:
        """Let each take a step."""
        for each in self._optimizers:
            each.step()

    def zero_grad(self) -> None:
        """Set the ``grad`` of every parameter to None."""
        for each in self._optimizers:
            each.zero_grad()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of all that is remembered: ``"1.3.momentum"`` is ``"3.momentum"`` of the second."""
        return {
            f"{n}.{key}": value
            for n, each in enumerate(self._optimizers)
            for key, value in each.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state, which is not changed.

        Raises
        ------
        ValueError
            When a name is missing or not expected, or a shape is another. None of the optimizers is changed
            then.
        """
        parts: list[dict[str, np.ndarray]] = [{} for _ in self._optimizers]
        for key, value in state.items():
            number, _, rest = key.partition(".")
            if number not in map(str, range(len(parts))):
                raise ValueError(f"{key} is not expected of {len(parts)} optimizers")
            parts[int(number)][rest] = value
        before = [each.state_dict() for each in self._optimizers]
        try:
            for each, part in zip(self._optimizers, parts, strict=True):
                each.load_state_dict(part)
        except ValueError:
            for each, part in zip(self._optimizers, before, strict=True):
                each.load_state_dict(part)
            raise


@dataclass(frozen=True)
class Recipe:
    """How a run is trained: all that decides about it besides the model and the rows.

    Raises
    ------
    ValueError
        When ``n_steps`` or ``batch_size`` is less than 1, or ``n_warmup`` is negative or above ``n_steps``.
    """

    n_steps: int
    """Of the whole run."""
    batch_size: int = 8
    """Rows in a step; all of them where there are fewer."""
    n_warmup: int = 0
    """Steps in which the rates rise, by `warmup_linear`; they fall to 0 in the others."""
    matrix_rate: float = 0.03
    """The highest rate of Muon."""
    rate: float = 0.006
    """The highest rate of AdamW."""
    weight_decay: float = 0.0
    """Of Muon; AdamW has none."""
    max_norm: float = 1.0
    """That gradients are clipped to."""
    seed: int = 0
    """Of the order of the rows, by `DataLoader`."""

    def __post_init__(self):
        if self.n_steps < 1 or self.batch_size < 1:
            raise ValueError(
                f"n_steps and batch_size must be at least 1; got {self.n_steps} and {self.batch_size}"
            )
        if not 0 <= self.n_warmup <= self.n_steps:
            raise ValueError(f"n_warmup must be from 0 to n_steps={self.n_steps}; got {self.n_warmup}")


def optimizers_for(model: Module, recipe: Recipe) -> Optimizers:
    """Return what trains a model: Muon for the matrices in its blocks, AdamW for the rest.

    Parameters
    ----------
    model
        Its parameters are told apart by `split_parameters`; ``token_embedding``, ``position_embedding`` and
        ``head`` are others.
    recipe
        Gives the rates and Muon's weight decay.

    Returns
    -------
    Optimizers
        `Muon` with its defaults otherwise, and then `AdamW` with betas (0.9, 0.95), no weight decay, and its
        defaults otherwise. One that would have no parameter is left out.
    """
    matrices, rest = split_parameters(model, ("token_embedding", "position_embedding", "head"))
    made: list[Optimizer] = []
    if matrices:
        made.append(Muon(matrices, recipe.matrix_rate, weight_decay=recipe.weight_decay))
    if rest:
        made.append(AdamW(rest, recipe.rate, betas=(0.9, 0.95), weight_decay=0.0))
    return Optimizers(*made)


def pretrain(
    model: Module,
    rows: np.ndarray,
    recipe: Recipe,
    end: int = 0,
    path: str | Path | None = None,
    save_every: int = 100,
) -> list[float]:
    """Train a language model on rows.

    Parameters
    ----------
    model
        Maps ids to logits, like `GPT`. Its weights are changed.
    rows
        As from `pack`, at least one; ``ValueError`` otherwise. Not changed.
    recipe
        Says how.
    end
        The end token of the rows.
    path, save_every
        As for `train_loop.train`: a checkpoint from which the run goes on, and which it renews.

    Returns
    -------
    list[float]
        The mean loss in nats per target that counts, in each step of this call, before its update.

    Notes
    -----
    The loop is `train_loop.train` with the `loss` of `causal_lm`, the optimizers of `optimizers_for`, a
    `BatchStream` of a `DataLoader` (which leaves a last, smaller batch out), one batch in each step, the
    schedule `warmup_linear` and the norm of the recipe.
    """
    if not len(rows):
        raise ValueError("a model learns from at least one row; got none")
    loader = DataLoader(len(rows), min(recipe.batch_size, len(rows)), recipe.seed)

    def batch_loss(model: Any, batch: Any) -> tuple[Tensor, int]:
        return loss(model, rows[batch], end)

    optimizer: Any = optimizers_for(model, recipe)  # no Optimizer, but all that the loop asks of one
    return train(
        model,
        batch_loss,
        optimizer,
        BatchStream(loader),
        recipe.n_steps,
        schedule=lambda step: warmup_linear(step, recipe.n_steps, recipe.n_warmup),
        max_norm=recipe.max_norm,
        path=path,
        save_every=save_every,
    )
