"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, concatenate, einsum, record
from techtree.techs.training.activations import gelu_tanh
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.layernorm import LayerNorm
from techtree.techs.transformer.mha import MultiHeadAttention

_FEED = "return self.down(self.activation(self.up(x)))"
_UP = "self.up = Linear(width, hidden, rng, has_bias, dtype=dtype)"
_DOWN = "self.down = Linear(hidden, width, rng, has_bias, gain, dtype)"
_KEPT = "self.activation = activation"
_HIDDEN = "hidden = 4 * width if hidden is None else hidden"
_NORM_1 = "self.attention_norm = LayerNorm(width, eps, has_bias, dtype)"
_ATTENTION = "self.attention = MultiHeadAttention(width, n_heads, rng, has_bias, gain, dtype)"
_NORM_2 = "self.feed_forward_norm = LayerNorm(width, eps, has_bias, dtype)"
_PART = "self.feed_forward = FeedForward(width, hidden, rng, has_bias=has_bias, gain=gain, dtype=dtype)"
_FIRST = "x = x + self.attention(self.attention_norm(x), mask)"
_SECOND = "return x + self.feed_forward(self.feed_forward_norm(x))"

MISTAKES = {
    "each sum is normalized after it is made, as in post-norm": [
        (_FIRST, "x = self.attention_norm(x + self.attention(x, mask))"),
        (_SECOND, "return self.feed_forward_norm(x + self.feed_forward(x))"),
    ],
    "attention's answer replaces the token": [(_FIRST, _FIRST.replace("x + ", ""))],
    "the feed-forward part's answer replaces the token": [(_SECOND, _SECOND.replace("x + ", ""))],
    "both parts read the token that came in, side by side": [
        (_FIRST, "start = x\n        " + _FIRST),
        (_SECOND, _SECOND.replace("norm(x)", "norm(start)")),
    ],
    "attention reads the token as it is": [(_FIRST, _FIRST.replace("self.attention_norm(x)", "x"))],
    "the feed-forward part reads the token as it is": [
        (_SECOND, _SECOND.replace("self.feed_forward_norm(x)", "x"))
    ],
    "attention's answer is added to the normalized token": [
        (_FIRST, "x = self.attention_norm(x)\n        x = x + self.attention(x, mask)")
    ],
    "the feed-forward part's answer is added to the normalized token": [
        (_SECOND, "x = self.feed_forward_norm(x)\n        return x + self.feed_forward(x)")
    ],
    "the first norm serves both parts": [(_SECOND, _SECOND.replace("feed_forward_norm", "attention_norm"))],
    "the norms are exchanged": [
        (_FIRST, _FIRST.replace("attention_norm", "feed_forward_norm")),
        (_SECOND, _SECOND.replace("feed_forward_norm", "attention_norm")),
    ],
    "the feed-forward part comes first": [
        (_FIRST, _SECOND.replace("return", "x =")),
        (_SECOND, _FIRST.replace("x =", "return")),
    ],
    "the answers are normalized, not what is read": [
        (_FIRST, "x = x + self.attention_norm(self.attention(x, mask))"),
        (_SECOND, "return x + self.feed_forward_norm(self.feed_forward(x))"),
    ],
    "the block ends with one more norm": [
        (_SECOND, "return self.feed_forward_norm(x + self.feed_forward(self.feed_forward_norm(x)))")
    ],
    "each sum is divided by the root of 2": [
        (_FIRST, _FIRST + "\n        x = x * 0.5**0.5"),
        (_SECOND, "return (x + self.feed_forward(self.feed_forward_norm(x))) * 0.5**0.5"),
    ],
    "the mask is ignored": [(_FIRST, _FIRST.replace(", mask", ""))],
    "the mask says what may not be seen": [
        (_FIRST, "mask = mask if mask is None or mask.dtype != bool else ~mask\n        " + _FIRST)
    ],
    "without a mask no token sees a later one": [
        (
            _FIRST,
            "mask = np.tri(x.shape[-2] if x.ndim > 1 else 1, dtype=bool) if mask is None else mask\n        "
            + _FIRST,
        )
    ],
    "FeedForward's default is the exact GELU": [
        (
            _KEPT,
            "from techtree.techs.training.activations import gelu\n"
            "        self.activation = gelu if activation is gelu_tanh else activation",
        )
    ],
    "FeedForward's default is ReLU": [
        (
            _KEPT,
            "from techtree.techs.training.activations import relu\n"
            "        self.activation = relu if activation is gelu_tanh else activation",
        )
    ],
    "FeedForward takes no other activation than its default": [(_KEPT, "self.activation = gelu_tanh")],
    "FeedForward has no activation": [(_FEED, "return self.down(self.up(x))")],
    "FeedForward bends its answer, too": [
        (_FEED, "return self.activation(self.down(self.activation(self.up(x))))")
    ],
    "FeedForward adds its input": [(_FEED, _FEED + " + x")],
    "there are as many hidden units as numbers in a token": [(_HIDDEN, _HIDDEN.replace("4 * ", ""))],
    "there are four times the width hidden units, whatever is asked for": [(_HIDDEN, "hidden = 4 * width")],
    "no hidden units stand for four times the width": [(_HIDDEN, "hidden = hidden or 4 * width")],
    "the gain is ignored": [
        (_ATTENTION, _ATTENTION.replace("gain", "1.0")),
        (_PART, _PART.replace("=gain", "=1.0")),
    ],
    "the gain counts for the attention alone": [(_PART, _PART.replace("gain=gain, ", ""))],
    "the gain counts for the feed-forward part alone": [(_ATTENTION, _ATTENTION.replace("gain", "1.0"))],
    "FeedForward's first layer has the gain, too": [(_UP, _UP.replace("has_bias, ", "has_bias, gain, "))],
    "the norms have biases, whatever is asked for": [
        (each, each.replace("has_bias", "True")) for each in (_NORM_1, _NORM_2)
    ],
    "the feed-forward part has biases, whatever is asked for": [(_PART, _PART.replace("=has_bias", "=True"))],
    "the attention has biases, whatever is asked for": [(_ATTENTION, _ATTENTION.replace("has_bias", "True"))],
    "FeedForward's second layer has no bias": [(_DOWN, _DOWN.replace("has_bias", "False"))],
    "eps is ignored": [
        (each, each.replace("eps, has_bias", "1e-5, has_bias")) for each in (_NORM_1, _NORM_2)
    ],
    "eps counts for the first norm alone": [(_NORM_2, _NORM_2.replace("eps, has_bias", "1e-5, has_bias"))],
    "the norms ignore the dtype": [(each, each.replace(", dtype", "")) for each in (_NORM_1, _NORM_2)],
    "the feed-forward part ignores the dtype": [(_PART, _PART.replace(", dtype=dtype", ""))],
    "the two norms share their parameters": [(_NORM_2, "self.feed_forward_norm = self.attention_norm")],
    "the feed-forward part is drawn first": [
        (_ATTENTION, f"later = {_PART.removeprefix('self.feed_forward = ')}\n        {_ATTENTION}"),
        (_PART, "self.feed_forward = later"),
    ],
    "the second layer of FeedForward is drawn first": [
        (_UP, f"down = {_DOWN.removeprefix('self.down = ')}\n        {_UP}"),
        (_DOWN, "self.down = down"),
    ],
    "both norms are named before the rest": [
        (_ATTENTION, f"{_NORM_2}\n        {_ATTENTION}"),
        (f"{_NORM_2}\n        {_PART}", _PART),
    ],
    "no gradient goes along the tokens themselves": [
        (_FIRST, _FIRST.replace("x + ", "Tensor(x.data) + ")),
        (_SECOND, _SECOND.replace("x + ", "Tensor(x.data) + ")),
    ],
    "no gradient comes from what attention reads": [
        (_FIRST, _FIRST.replace("attention_norm(x)", "attention_norm(Tensor(x.data))"))
    ],
    "the feed-forward part of the start is kept, whatever takes its place": [
        (_PART, _PART + "\n        self._start = (lambda part: lambda x: part(x))(self.feed_forward)"),
        (_SECOND, _SECOND.replace("self.feed_forward(", "self._start(")),
    ],
    "a single vector is a text of one token": [
        (
            _FIRST,
            "if x.ndim == 1:\n            return self.forward(x.reshape(1, -1), mask)[0]\n        " + _FIRST,
        )
    ],
}


class _Block(Module):
    """The parts of ours; `forward` puts them together."""

    def __init__(self, width, n_heads, rng, hidden=None, has_bias=True, gain=1.0, eps=1e-5, dtype=np.float64):
        self.attention_norm = LayerNorm(width, eps, has_bias, dtype)
        self.attention = MultiHeadAttention(width, n_heads, rng, has_bias, gain, dtype)
        self.feed_forward_norm = LayerNorm(width, eps, has_bias, dtype)
        hidden = 4 * width if hidden is None else hidden
        self.feed_forward = self.part()(width, hidden, rng, has_bias=has_bias, gain=gain, dtype=dtype)

    @staticmethod
    def part():
        return _Feed


class _Feed(Module):
    """The layers of ours, step by step."""

    def __init__(self, width, hidden, rng, activation=gelu_tanh, has_bias=True, gain=1.0, dtype=np.float64):
        self.up = Linear(width, hidden, rng, has_bias=has_bias, dtype=dtype)
        self.down = Linear(hidden, width, rng, has_bias=has_bias, gain=gain, dtype=dtype)
        self.activation = activation

    def forward(self, x):
        h = self.up(x)
        h = self.activation(h)
        return self.down(h)


class _InALoop(_Block):
    """Both parts are the same thing: read a normalized copy, add the answer."""

    def forward(self, x, mask=None):
        parts = (
            (self.attention_norm, lambda y: self.attention(y, mask)),
            (self.feed_forward_norm, self.feed_forward),
        )
        for norm, part in parts:
            x = part(norm(x)) + x
        return x


class _OneSum(_Block):
    """The three terms are added at once; the first two also for the norm."""

    def forward(self, x, mask=None):
        a = self.attention(self.attention_norm(x), mask)
        f = self.feed_forward(self.feed_forward_norm(x + a))
        return record(x.data + a.data + f.data, *((each, lambda g: g) for each in (x, a, f)))


def _cast(x, dtype):
    return record(x.data.astype(dtype), (x, lambda g: g.astype(x.dtype)))


class _InFloat64(_Block):
    """Sums in float64, rounded at the end."""

    def forward(self, x, mask=None):
        wide = _cast(x, np.float64)
        wide = wide + self.attention(self.attention_norm(wide), mask)
        return _cast(wide + self.feed_forward(self.feed_forward_norm(wide)), x.dtype)


class _FeedByEinsum(_Feed):
    """Products written out where the layers are linear ones."""

    def forward(self, x):
        if not (isinstance(self.up, Linear) and isinstance(self.down, Linear)):
            return self.down(self.activation(self.up(x)))
        if not x.ndim or x.shape[-1] != self.up.weight.shape[1]:
            raise ValueError("the last axis of x must be the width")
        rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
        h = einsum("nw,hw->nh", rows, self.up.weight)
        h = self.activation(h if self.up.bias is None else h + self.up.bias)
        y = einsum("nh,wh->nw", h, self.down.weight)
        y = y if self.down.bias is None else y + self.down.bias
        return y.reshape(*x.shape)


class _FeedInPieces(_Feed):
    """The hidden units of one part of the tokens at a time."""

    def forward(self, x):
        if x.ndim < 2 or x.shape[0] < 2:
            return self.down(self.activation(self.up(x)))
        middle = x.shape[0] // 2
        pieces = [self.down(self.activation(self.up(each))) for each in (x[:middle], x[middle:])]
        return concatenate(pieces, axis=0)


EQUIVALENTS = {
    "one loop over both parts": {"TransformerBlock": _InALoop, "FeedForward": _Feed},
    "one sum of three terms": {"TransformerBlock": _OneSum, "FeedForward": _Feed},
    "sums in float64": {"TransformerBlock": _InFloat64, "FeedForward": _Feed},
    "the feed-forward part by einsum": {"FeedForward": _FeedByEinsum},
    "half of the tokens at a time": {"FeedForward": _FeedInPieces},
}

HARMLESS = {}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x = rng.normal(size=(3, 4))
    mask = np.array([[True, False, True], [True, True, False], [False, False, True]])
    fill = np.random.default_rng(int(rng.integers(2**32)))
    values = {}

    def filled(module):
        for name, each in module.named_parameters():
            key = (name, each.shape)
            if key not in values:
                values[key] = fill.normal(size=each.shape)
            each.data[...] = values[key]
        return module

    def block(impl, **options):
        return filled(impl.TransformerBlock(4, 2, np.random.default_rng(0), **options))

    def answer(mask=None, **options):
        return lambda impl: block(impl, **options)(Tensor(x), mask).data

    def feed(**options):
        return lambda impl: (
            filled(impl.FeedForward(4, 3, np.random.default_rng(0), **options))(Tensor(x)).data
        )

    def gradient(impl):
        leaf = Tensor(x.copy(), requires_grad=True)
        block(impl)(leaf, mask).backward(np.cos(np.arange(12.0)).reshape(3, 4))
        return leaf.grad

    def refused(call):
        def probe(impl):
            try:
                call(impl)
            except Exception as error:
                return type(error).__name__
            return "nothing"

        return probe

    def made(look, kind="TransformerBlock", *arguments, **options):
        return lambda impl: look(getattr(impl, kind)(4, *arguments, np.random.default_rng(0), **options))

    def names(module):
        return [f"{name} {each.shape}" for name, each in module.named_parameters()]

    def draws(module):
        return [float(np.abs(each.data).sum()) for _, each in module.named_parameters()]

    def dtypes(module):
        return [str(each.dtype) for each in module.parameters()]

    def exchanged(impl):
        one = block(impl)
        one.feed_forward = filled(impl.FeedForward(4, 3, np.random.default_rng(0)))
        return one(Tensor(x)).data

    return {
        "no mask": answer(),
        "a mask": answer(mask),
        "a large eps": answer(eps=0.5),
        "feed-forward": feed(),
        "feed-forward with tanh": feed(activation=Tensor.tanh),
        "gradient": gradient,
        "a vector": refused(lambda impl: block(impl)(Tensor(x[0]))),
        "no hidden units": refused(
            lambda impl: impl.TransformerBlock(4, 2, np.random.default_rng(0), hidden=0)
        ),
        "names": made(names, "TransformerBlock", 2),
        "names of few": made(names, "TransformerBlock", 2, hidden=3),
        "names without biases": made(names, "TransformerBlock", 2, has_bias=False),
        "names of the feed-forward part": made(names, "FeedForward", 3),
        "draws": made(draws, "TransformerBlock", 2),
        "draws with a gain": made(draws, "TransformerBlock", 2, gain=0.25),
        "draws of the feed-forward part": made(draws, "FeedForward", 3, gain=0.25),
        "dtypes": made(dtypes, "TransformerBlock", 2, dtype=np.float32),
        "exchanged": exchanged,
    }
