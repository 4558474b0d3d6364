"""Train through the rounding: the loss sees the weights that will be exported, the optimizer fine ones.

Claim: rounding after training moves each weight to its nearest step, whatever that does to the answers. A
network that computes with rounded weights while it learns finds steps that are good together.

Idea: forward, a weight is what its block would be worth in the file. Backward, the rounding is treated as if
it were not there: the derivative of a staircase is 0 almost everywhere, and would teach nothing. The float
weights stay, and gather updates that are smaller than a step until they cross a threshold.

Legend: kinds and blocks as in `quantization`; *fake-quantized*: floats that only have values that blocks
can have.

Left out: scales that are learned; rounding at random; activations of fewer than 8 bits.

Paper: Bengio, Léonard, Courville (2013), https://arxiv.org/abs/1308.3432; Jacob et al. (2017),
https://arxiv.org/abs/1712.05877
"""

from collections.abc import Iterator, Mapping

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, record
from techtree.techs.inference.quantization import QuantizedLinear, choose_kinds, dequantize, quantize
from techtree.techs.training.linear import Linear


def fake_quantize(x: Tensor, kind: str) -> Tensor:
    """Round a tensor to what its blocks are worth, and let the gradient through as if nothing had happened.

    Parameters
    ----------
    x
        (..., n), float32 or float64, n a multiple of 32. Not changed.
    kind
        ``"q8_0"`` or ``"q4_0"``.

    Returns
    -------
    Tensor
        Of the shape and dtype of x, new: exactly the numbers that `dequantize` gives for the blocks that
        `quantize` makes of x. The gradient with respect to x is the one that arrives, unchanged, for every
        entry: also for those that q4_0 cuts at 7 steps, and for the largest, on which the scale depends.

    Raises
    ------
    ValueError
        As for `quantize`.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.zeros(32)
    >>> w[:3] = [-8.0, 3.4, 7.9]
    >>> w = Tensor(w, requires_grad=True)
    >>> y = fake_quantize(w, "q4_0")
    >>> y.data[:3].tolist()
    [-8.0, 3.0, 7.0]
    >>> (y * y).sum().backward()
    >>> w.grad[:3].tolist()  # twice the rounded number
    [-16.0, 6.0, 14.0]
    """
    worth = dequantize(quantize(x.data, kind), kind).astype(x.dtype)
    return record(worth, (x, lambda g: g))


class QATLinear(Linear):
    """A linear layer that computes as a `QuantizedLinear` will, and can be trained.

    Parameters
    ----------
    linear
        Its weight and bias become those of this layer: the same `Parameter` objects, so that an optimizer
        which has them goes on. Its inputs are a multiple of 32; ``ValueError`` otherwise.
    kind
        ``"q8_0"`` or ``"q4_0"``; ``ValueError`` otherwise.

    Attributes
    ----------
    weight, bias
        As in `Linear`; the weight is not rounded.
    kind
        As given.
    """

    def __init__(self, linear: Linear, kind: str):
        quantize(linear.weight.data[:0], kind)  # refuses other kinds and widths
        self.weight, self.bias, self.kind = linear.weight, linear.bias, kind

    def forward(self, x: Tensor) -> Tensor:
        """Return what `Linear` does, with x fake-quantized to q8_0 and the weight to ``kind``.

        (..., n_out) for an ``x`` of (..., n_in); gradients flow to x, weight and bias. The bias is not
        rounded. Weight, bias and kind are read anew at each call. ``ValueError`` as for `Linear` and
        `fake_quantize`, also where a weight is infinite or NaN.
        """
        y = fake_quantize(x, "q8_0") @ fake_quantize(self.weight, self.kind).swapaxes(0, 1)
        return y if self.bias is None else y + self.bias


def prepare(model: Module, kinds: Mapping[str, str]) -> Module:
    """Turn the linear layers of a model into `QATLinear`, wherever they are, and keep their parameters.

    Parameters
    ----------
    model
        Changed: each layer in it whose class is `Linear` itself, and whose weight `choose_kinds` chooses by
        its name, becomes a `QATLinear` of that kind: in attributes, lists, tuples and dicts, nested at will.
        A layer that is in several places is the same one in all of them afterwards. Names, order and
        identity of all parameters stay, and so do their values and gradients. What is no such layer stays
        as it is: an embedding that a key chooses, a subclass of `Linear`, a `QATLinear`.
    kinds
        As for `choose_kinds`, with the names of the parameters of the model. Not changed.

    Returns
    -------
    Module
        The model; or, if it is itself such a layer, what it has become.

    Raises
    ------
    ValueError
        As for `choose_kinds`; nothing is changed then.
    """
    named = dict(model.named_parameters())
    chosen = choose_kinds({name: each.data for name, each in named.items()}, kinds)
    kind_of = {id(named[name]): kind for name, kind in chosen.items()}
    for layer in list(_layers(model, Linear, set())):
        if id(layer.weight) in kind_of:
            # The object itself becomes another one, so that all who hold it hold the new one.
            layer.__class__, layer.kind = QATLinear, kind_of[id(layer.weight)]
    return model


def convert(model: Module) -> Module:
    """Turn the `QATLinear` layers of a model into `QuantizedLinear`, with the blocks of their weights.

    Parameters
    ----------
    model
        Changed: each layer whose class is `QATLinear` becomes the `QuantizedLinear` that is made of it and
        its kind, found and shared as in `prepare`. It answers as before, up to rounding in float32. All
        else stays as it is: a weight that an embedding shares with such a layer, too.

    Returns
    -------
    Module
        The model; or, if it is itself such a layer, what it has become.

    Raises
    ------
    ValueError
        As for `quantize`; nothing is changed then.
    """
    layers = list(_layers(model, QATLinear, set()))
    made = [QuantizedLinear(layer, layer.kind) for layer in layers]
    for layer, each in zip(layers, made, strict=True):
        layer.__class__, layer.blocks, layer.bias = QuantizedLinear, each.blocks, each.bias
        del layer.weight
    return model


def _layers(each: object, kind: type, seen: set[int]) -> Iterator:
    """Give what is inside of an object and of exactly this class, once."""
    if id(each) in seen:
        return
    seen.add(id(each))
    if type(each) is kind:
        yield each
    if isinstance(each, Module):
        each = vars(each)
    inside = each.values() if isinstance(each, dict) else each if isinstance(each, list | tuple) else ()
    for child in inside:
        yield from _layers(child, kind, seen)
