"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.tensor_autodiff import Tensor, einsum, record, where
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.attention import attention

_SPLIT = "return x.reshape(*leading, n_tokens, n_heads, width // n_heads).swapaxes(-2, -3)"
_MERGE = "return x.swapaxes(-2, -3).reshape(*leading, n_tokens, n_heads * width)"
_HEADS = "q, k, v = (split_heads(layer(x), self.n_heads) for layer in (self.query, self.key, self.value))"
_SEEN = "seen = None if mask is None else np.asarray(mask)[..., None, :, :]"
_OUT = "return self.output(merge_heads(attention(q, k, v, seen)))"
_CHECK = "if n_heads < 1 or width % n_heads:"
_QUERY, _KEY, _VALUE = (
    f"self.{name} = Linear(width, width, rng, has_bias, dtype=dtype)" for name in ("query", "key", "value")
)
_OUTPUT = "self.output = Linear(width, width, rng, has_bias, gain, dtype)"


def _after_heads(*lines):
    """Put lines after the one that makes queries, keys and values."""
    return [(_HEADS, "\n        ".join((_HEADS, *lines)))]


MISTAKES = {
    "split_heads cuts the rows where it should cut the width: heads and positions are mixed": [
        (_SPLIT, "return x.reshape(*leading, n_heads, n_tokens, width // n_heads)")
    ],
    "merge_heads joins heads without bringing the tokens to the front": [
        (_MERGE, "return x.reshape(*leading, n_tokens, n_heads * width)")
    ],
    "split_heads gives head h every H-th number from h on": [
        (
            _SPLIT,
            "return x.reshape(*leading, n_tokens, width // n_heads, n_heads).swapaxes(-1, -2).swapaxes(-2, -3)",
        )
    ],
    "split_heads numbers the heads from the end": [(_SPLIT, _SPLIT + "[..., ::-1, :, :]")],
    "merge_heads puts the last head first": [
        (_MERGE, "return x[..., ::-1, :, :].swapaxes(-2, -3).reshape(*leading, n_tokens, n_heads * width)")
    ],
    "split_heads puts the heads before the samples": [
        (
            _SPLIT,
            "y = x.reshape(*leading, n_tokens, n_heads, width // n_heads).swapaxes(-2, -3)\n"
            "    return y.swapaxes(0, -3) if leading else y",
        )
    ],
    "split_heads leaves the tape: no gradient reaches x": [(_SPLIT, _SPLIT.replace("x.", "Tensor(x.data)."))],
    "merge_heads leaves the tape: no gradient reaches x": [
        (_MERGE, _MERGE.replace("x.", "Tensor(x.data).", 1))
    ],
    "split_heads takes a single vector for a single token": [
        ("if x.ndim < 2:", "if x.ndim == 1:\n        x = x.reshape(1, -1)\n    if x.ndim < 2:")
    ],
    "merge_heads takes a matrix for a single head": [
        ("if x.ndim < 3:", "if x.ndim == 2:\n        x = x.reshape(1, *x.shape)\n    if x.ndim < 3:")
    ],
    "no heads raise another error than ValueError": [(_CHECK, "if width % n_heads:")],
    "a negative number of heads is taken for its size": [
        (_CHECK, "if n_heads == 0 or width % n_heads:"),
        (_SPLIT, _SPLIT.replace("n_heads, width // n_heads", "abs(n_heads), width // abs(n_heads)")),
    ],
    "scores are divided by the root of the whole width": _after_heads("q = q * (1 / self.n_heads**0.5)"),
    "scores are divided by the root of the number of heads, too": _after_heads("q = q * (1 / self.n_heads)"),
    "scores are not divided": _after_heads("q = q * q.shape[-1] ** 0.5"),
    "queries and keys are exchanged": _after_heads("q, k = k, q"),
    "keys serve as values": [(_HEADS, _HEADS.replace("self.value", "self.key"))],
    "the tokens themselves are the values": _after_heads("v = split_heads(x, self.n_heads)"),
    "the output layer is left out": [(_OUT, "return merge_heads(attention(q, k, v, seen))")],
    "the token is added to the answer": [(_OUT, _OUT + " + x")],
    "one head does the work of all": [
        (_HEADS, _HEADS.replace("self.n_heads)", "1)")),
    ],
    "every head looks where the first one looks": _after_heads(
        "q, k = (each[..., :1, :, :] + 0 * each for each in (q, k))"
    ),
    "the mask is ignored": [(_SEEN, "seen = None")],
    "the mask is transposed": [
        (_SEEN, _SEEN + "\n        seen = None if mask is None else seen.swapaxes(-1, -2)")
    ],
    "the mask says what may not be seen": [
        (_SEEN, _SEEN + "\n        seen = None if mask is None or seen.dtype != bool else ~seen")
    ],
    "the samples of a mask are taken for heads": [(_SEEN, "seen = mask")],
    "of several masks the first counts for all samples": [
        (_SEEN, _SEEN + "\n        seen = seen if mask is None else seen.reshape(-1, *seen.shape[-3:])[0]")
    ],
    "numbers as a mask count as true where they are not 0": [
        (_SEEN, _SEEN.replace("(mask)", "(mask, bool)"))
    ],
    "without a mask no token sees a later one": [
        (_SEEN, _SEEN.replace("None if", "np.tri(x.shape[-2], dtype=bool) if", 1))
    ],
    "no token sees itself": [
        (
            _SEEN,
            "mask = np.ones(x.shape[-2:-1] * 2, bool) if mask is None else mask\n"
            "        seen = (np.asarray(mask) & ~np.eye(x.shape[-2], dtype=bool))[..., None, :, :]"
            " if np.asarray(mask).dtype == bool else mask",
        )
    ],
    "gradients flow through the values only": _after_heads("q, k = Tensor(q.data), Tensor(k.data)"),
    "has_bias counts for the output layer only": [
        (_QUERY, _QUERY.replace("has_bias", "False")),
        (_KEY, _KEY.replace("has_bias", "False")),
        (_VALUE, _VALUE.replace("has_bias", "False")),
    ],
    "the output layer has no bias": [(_OUTPUT, _OUTPUT.replace("has_bias", "False"))],
    "has_bias is ignored": [
        (each, each.replace("has_bias", "True")) for each in (_QUERY, _KEY, _VALUE, _OUTPUT)
    ],
    "the gain is ignored": [(_OUTPUT, _OUTPUT.replace("gain", "1.0"))],
    "the gain counts for the values, too": [(_VALUE, _VALUE.replace("has_bias,", "has_bias, gain,"))],
    "the dtype is ignored": [
        *((each, each.replace(", dtype=dtype", "")) for each in (_QUERY, _KEY, _VALUE)),
        (_OUTPUT, _OUTPUT.replace(", dtype)", ")")),
    ],
    "queries and keys start equal": [
        (_KEY, _KEY + "\n        self.key.weight.data[...] = self.query.weight.data")
    ],
    "queries and keys share a layer": [(_KEY, "self.key = self.query")],
    "the output layer is drawn and named first": [
        (_QUERY, f"{_OUTPUT}\n        {_QUERY}"),
        (_OUTPUT + "\n        self.n_heads", "self.n_heads"),
    ],
    "the keys are drawn and named before the queries": [
        (_QUERY, f"{_KEY}\n        {_QUERY}"),
        (f"{_KEY}\n        {_VALUE}", _VALUE),
    ],
    "the layers of the start are kept, whatever takes their place": [
        (
            "self.n_heads = n_heads",
            "self.n_heads = n_heads\n"
            "        self._start = (lambda *each: lambda: each)(self.query, self.key, self.value)",
        ),
        (_HEADS, _HEADS.replace("(self.query, self.key, self.value)", "self._start()")),
    ],
}


class _Module(Module):
    """The layers of ours; `mixed` makes the answers."""

    def __init__(self, width, n_heads, rng, has_bias=True, gain=1.0, dtype=np.float64):
        if n_heads < 1 or width % n_heads:
            raise ValueError("n_heads must divide the width")
        self.query, self.key, self.value = (
            Linear(width, width, rng, has_bias, dtype=dtype) for _ in range(3)
        )
        self.output = Linear(width, width, rng, has_bias, gain, dtype)
        self.n_heads = n_heads

    def forward(self, x, mask=None):
        if x.ndim < 2:
            raise ValueError("x must have two axes")
        if mask is not None and mask.dtype != bool:
            raise ValueError("a mask must be boolean")
        return self.mixed(x, mask)


class _HeadByHead(_Module):
    """A loop over slices of the width; each head's answer goes through its columns of the output layer."""

    def mixed(self, x, mask):
        q, k, v = self.query(x), self.key(x), self.value(x)
        width = q.shape[-1] // self.n_heads
        total = None
        for head in range(self.n_heads):
            part = slice(head * width, (head + 1) * width)
            answer = attention(q[..., part], k[..., part], v[..., part], mask)
            mixed = answer @ self.output.weight[:, part].swapaxes(0, 1)
            total = mixed if total is None else total + mixed
        return total if self.output.bias is None else total + self.output.bias


class _Einsum(_Module):
    """All samples in one axis, one einsum for the scores and one for the answers."""

    def mixed(self, x, mask):
        *leading, n, width = x.shape
        seen = np.ones((n, n), bool) if mask is None else mask
        if seen.shape[-2:] != (n, n):
            raise ValueError("the mask must be (T, T)")
        leading = np.broadcast_shapes(tuple(leading), seen.shape[:-2])
        repeated = x + Tensor(np.zeros((*leading, n, width), x.dtype))
        flat = repeated.reshape(-1, n, width)
        seen = np.broadcast_to(seen, (*leading, n, n)).reshape(-1, 1, n, n)
        shape = (len(flat.data), n, self.n_heads, width // self.n_heads)
        q, k, v = (layer(flat).reshape(*shape) for layer in (self.query, self.key, self.value))
        scores = where(seen, einsum("bqhd,bkhd->bhqk", q, k) * (1 / math.sqrt(shape[-1])), -math.inf)
        largest = scores.data.max(axis=-1, keepdims=True)
        e = (scores - np.where(np.isfinite(largest), largest, 0).astype(scores.dtype)).exp()
        total = e.sum(axis=-1, keepdims=True)
        answer = einsum("bhqk,bkhd->bqhd", e / where(total.data > 0, total, 1.0), v)
        return self.output(answer.reshape(*leading, n, width))


class _OneProjection(_Module):
    """Queries, keys and values by one product with the three weights on top of each other, cut afterwards."""

    def mixed(self, x, mask):
        layers = (self.query, self.key, self.value)
        width = x.shape[-1]

        def stacked(parts):
            rows = np.concatenate([each.data for each in parts])
            n = len(parts[0].data)
            return record(
                rows, *((each, lambda g, i=i: g[i * n : (i + 1) * n]) for i, each in enumerate(parts))
            )

        weight = stacked([each.weight for each in layers])
        if width != weight.shape[1]:
            raise ValueError("the last axis of x must be the width")
        y = x @ weight.swapaxes(0, 1)
        if self.query.bias is not None:
            y = y + stacked([each.bias for each in layers])
        q, k, v = (
            y[..., i * width : (i + 1) * width]
            .reshape(*x.shape[:-1], self.n_heads, width // self.n_heads)
            .swapaxes(-2, -3)
            for i in range(3)
        )
        answer = attention(q, k, v, None if mask is None else np.expand_dims(mask, -3))
        return self.output(answer.swapaxes(-2, -3).reshape(*answer.shape[:-3], *x.shape[-2:]))


def _split_by_stacking(x, n_heads):
    if x.ndim < 2 or n_heads < 1 or x.shape[-1] % n_heads:
        raise ValueError("x must have two axes, and a width that the heads divide")
    width = x.shape[-1] // n_heads

    def back(g):
        return np.concatenate([g[..., h, :, :] for h in range(n_heads)], axis=-1)

    return record(
        np.stack([x.data[..., h * width : (h + 1) * width] for h in range(n_heads)], axis=-3), (x, back)
    )


def _merge_by_einsum(x):
    if x.ndim < 3:
        raise ValueError("x must have three axes")
    *leading, n_heads, n_tokens, width = x.shape
    return einsum("nhtd->nthd", x.reshape(math.prod(leading), n_heads, n_tokens, width)).reshape(
        *leading, n_tokens, n_heads * width
    )


EQUIVALENTS = {
    "one head after the other": {"MultiHeadAttention": _HeadByHead},
    "two einsums over samples in one axis": {"MultiHeadAttention": _Einsum},
    "one product for queries, keys and values": {"MultiHeadAttention": _OneProjection},
    "split_heads stacks slices": {"split_heads": _split_by_stacking},
    "merge_heads by einsum": {"merge_heads": _merge_by_einsum},
}

_UNPACKED = "taking the shape apart refuses the same, in other words"
HARMLESS = {
    **{
        f"if x.ndim < {n}: => {other}:": _UNPACKED
        for n in (2, 3)
        for other in ("if False", f"if x.ndim < {n - 1}")
    },
    "split_heads: changes an argument": "changes nothing where the result is a view, as ours is",
    "raise ValueError(f'x must have the shape (..., T, W); got {x.shape}') => pass": _UNPACKED,
    "raise ValueError(f'x must have the shape (..., H, T, D); got {x.shape}') => pass": _UNPACKED,
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x = rng.normal(size=(2, 3, 4))
    state = {
        f"{name}.{part}": rng.normal(size=(4, 4) if part == "weight" else 4)
        for name in ("query", "key", "value", "output")
        for part in ("weight", "bias")
    }
    masks = {
        "one mask": np.array([[True, False, True], [True, True, False], [False, False, True]]),
        "two masks": np.array([np.tri(3, dtype=bool), [[True] * 3, [False] * 3, [False, True, False]]]),
        "numbers": np.array([[1.0, 0, 2], [1, 1, 0], [0, 1, 1]]),
    }

    def module(impl, n_heads=2):
        found = impl.MultiHeadAttention(4, n_heads, np.random.default_rng(0))
        mine = {name for name, _ in found.named_parameters()}
        found.load_state_dict({name: each for name, each in state.items() if name in mine})
        return found

    def answer(n_heads, mask=None):
        return lambda impl: module(impl, n_heads)(Tensor(x), masks.get(mask)).data

    def gradients(n_heads):
        def probe(impl):
            one, leaf = module(impl, n_heads), Tensor(x.copy(), requires_grad=True)
            one(leaf).backward(np.cos(np.arange(24.0)).reshape(2, 3, 4))
            found = [leaf.grad, *(each.grad for each in one.parameters())]
            return [float("nan") if each is None else float(np.abs(each).sum()) for each in found]

        return probe

    def split(shape, n_heads):
        return lambda impl: (
            impl.split_heads(Tensor(np.arange(math.prod(shape)).reshape(shape) * 1.0), n_heads).data
        )

    def merge(*shape):
        return lambda impl: impl.merge_heads(Tensor(np.arange(math.prod(shape)).reshape(shape) * 1.0)).data

    def gradient(name, shape, *more):
        def probe(impl):
            leaf = Tensor(np.ones(shape), requires_grad=True)
            result = getattr(impl, name)(leaf, *more)
            result.backward(np.arange(result.data.size).reshape(result.shape) * 1.0)
            return "none" if leaf.grad is None else leaf.grad

        return probe

    def refused(call):
        def probe(impl):
            try:
                call(impl)
            except Exception as error:
                return "ValueError" if isinstance(error, ValueError) else type(error).__name__
            return "nothing"

        return probe

    def made(look, *arguments, **options):
        return lambda impl: look(impl.MultiHeadAttention(*arguments, np.random.default_rng(0), **options))

    def names(found):
        return [name for name, _ in found.named_parameters()]

    def draws(found):
        return [
            float(np.abs(getattr(found, name).weight.data).sum())
            for name in ("query", "key", "value", "output")
        ]

    def exchanged(impl):
        one, other = module(impl), module(impl, 1)
        for each in other.parameters():
            each.data *= 0.5
        for name in ("query", "key", "value", "output"):
            setattr(one, name, getattr(other, name))
        return one(Tensor(x)).data

    return {
        "two heads": answer(2),
        "one head": answer(1),
        "four heads": answer(4),
        **{f"{n} heads, {name}": answer(n, name) for n in (1, 2, 4) for name in masks},
        "gradients": gradients(2),
        "gradients of one head": gradients(1),
        "split": split((3, 4), 2),
        "split of samples": split((2, 3, 6), 3),
        "split into one": split((2, 3), 1),
        "merge": merge(2, 3, 2),
        "merge of samples": merge(2, 3, 2, 2),
        "gradient of a split": gradient("split_heads", (3, 4), 2),
        "gradient of a merge": gradient("merge_heads", (2, 3, 2)),
        "a vector in heads": refused(lambda impl: impl.split_heads(Tensor(np.ones(4)), 2)),
        "a matrix as heads": refused(lambda impl: impl.merge_heads(Tensor(np.ones((2, 4))))),
        **{
            f"{n} heads of 4": refused(
                lambda impl, n=n: impl.MultiHeadAttention(4, n, np.random.default_rng(0))
            )
            for n in (0, -2, 3)
        },
        "minus two heads of a matrix": refused(lambda impl: impl.split_heads(Tensor(np.ones((3, 4))), -2)),
        "names": made(names, 4, 2),
        "names without biases": made(names, 4, 2, has_bias=False),
        "draws": made(draws, 4, 2),
        "draws with a gain": made(draws, 4, 2, gain=0.25),
        "dtypes": made(
            lambda found: sorted({str(each.dtype) for each in found.parameters()}), 4, 2, dtype=np.float32
        ),
        "exchanged layers": exchanged,
    }
