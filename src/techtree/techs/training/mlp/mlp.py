"""Layers with a bend between them: the first network that learns something no straight line can.

Claim: linear layers alone, however many, are one linear layer. With a function that is not linear between
them each hidden unit adds a bend to what the network computes, and enough bends follow any shape.

Idea: the network is a chain of modules, so its gradient, its parameters and its optimizer are there already.
What is new is the routine around them: take a batch, compute the loss, go backward, step; and measure on
examples that were not trained on.

Legend: ``x`` examples (N, ...), of whatever shape the model takes, often rows (N, D); ``y`` labels (N,),
integers from 0 to K - 1; logits (N, K).

Left out: everything that keeps large networks from memorising, such as dropout, noise and more data.

Paper: Rumelhart, Hinton, Williams (1986), https://doi.org/10.1038/323533a0
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.activations import relu
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.dataloader import DataLoader
from techtree.techs.training.linear import Linear, gain_of
from techtree.techs.training.sgd import Optimizer


class MLP(Module):
    """A multi-layer perceptron: linear layers, with an activation after each but the last.

    Parameters
    ----------
    widths
        The number of inputs, of units in each hidden layer, and of outputs: at least two numbers.
    rng
        Draws the initial weights, layer by layer from the first.
    activation
        Takes a tensor and returns one of the same shape.
    dtype
        Of weights and biases.

    Attributes
    ----------
    layers
        ``Linear(widths[n], widths[n + 1], rng)`` for each n, in order. Those that an activation follows have
        the gain that makes up for it, ``gain_of(activation)``; the last one has 1.

    Raises
    ------
    ValueError
        When there are fewer than two widths.

    Examples
    --------
    >>> model = MLP([1, 2, 1], np.random.default_rng(0))
    >>> state = model.state_dict()
    >>> list(state)
    ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']
    >>> model.load_state_dict(state | {"layers.0.weight": [[1.0], [-1.0]], "layers.1.weight": [[1.0, 1.0]]})
    >>> model(Tensor([[3.0], [-2.0]])).data.tolist()  # two bends make the absolute value
    [[3.0], [2.0]]
    """

    def __init__(
        self,
        widths: Sequence[int],
        rng: np.random.Generator,
        activation: Callable[[Tensor], Tensor] = relu,
        dtype: type = np.float64,
    ):
        if len(widths) < 2:
            raise ValueError(
                f"an MLP needs a width of inputs and one of outputs at least; got {list(widths)}"
            )
        *hidden, last = pairwise(widths)
        gain = gain_of(activation)
        self.layers = [Linear(*shape, rng, gain=gain, dtype=dtype) for shape in hidden]
        self.layers.append(Linear(*last, rng, dtype=dtype))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., widths[0]), with any leading axes, to (..., widths[-1]); a new tensor."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x)


def fit(
    model: Module, x: np.ndarray, y: np.ndarray, optimizer: Optimizer, loader: DataLoader, n_epochs: int
) -> list[float]:
    """Train a classifier with the cross-entropy of its logits, and return the loss of each epoch.

    Parameters
    ----------
    model
        Called with ``Tensor(x[batch])``, gives the logits. In the mode of `Module.train` meanwhile, and
        after.
    x, y
        Examples and their labels. Not changed.
    optimizer
        Takes one step for each batch, with the gradient of the mean loss over this batch alone: what
        gradients there were before does not matter.
    loader
        Gives the batches: those of its epochs 0 to ``n_epochs`` - 1, in order.
    n_epochs
        May be 0.

    Returns
    -------
    list[float]
        For each epoch the mean loss over the examples in its batches, each example counting once, computed
        before the step of its batch.
    """
    model.train()
    losses = []
    for number in range(n_epochs):
        total, n_examples = 0.0, 0
        for batch in loader.epoch(number):
            optimizer.zero_grad()
            loss = cross_entropy(model(Tensor(x[batch])), y[batch])
            loss.backward()
            optimizer.step()
            total, n_examples = total + float(loss.data) * len(batch), n_examples + len(batch)
        losses.append(total / n_examples)
    return losses


def accuracy(model: Module, x: np.ndarray, y: np.ndarray) -> float:
    """Return the share of examples whose largest logit is that of their label.

    Parameters
    ----------
    model
        As for `fit`. Computes in the mode of `Module.eval`, and without recording; afterwards, also after
        an error, ``is_training`` is what it was.
    x, y
        Examples and their labels, at least one. Not changed.

    Examples
    --------
    >>> class Keep(Module):
    ...     def forward(self, x):
    ...         return x
    >>> accuracy(Keep(), np.array([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]]), np.array([0, 1, 1]))  # 2 of 3
    0.6666666666666666
    """
    was_training = model.is_training
    model.eval()
    try:
        with no_grad():
            logits = model(Tensor(x)).data
    finally:
        if was_training:
            model.train()
    return float((logits.argmax(axis=-1) == y).mean())
