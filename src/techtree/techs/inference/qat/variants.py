"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad, record
from techtree.techs.inference.quantization import QuantizedLinear, choose_kinds, dequantize, quantize
from techtree.techs.training.linear import Linear

_WORTH = "worth = dequantize(quantize(x.data, kind), kind).astype(x.dtype)"
_RECORD = "return record(worth, (x, lambda g: g))"
_REFUSE = "quantize(linear.weight.data[:0], kind)"
_TAKE = "self.weight, self.bias, self.kind = linear.weight, linear.bias, kind"
_PRODUCT = 'y = fake_quantize(x, "q8_0") @ fake_quantize(self.weight, self.kind).swapaxes(0, 1)'
_ANSWER = "return y if self.bias is None else y + self.bias"
_CHOSEN = "chosen = choose_kinds({name: each.data for name, each in named.items()}, kinds)"
_KIND_OF = "kind_of = {id(named[name]): kind for name, kind in chosen.items()}"
_PREPARED = "for layer in list(_layers(model, Linear, set())):"
_IF = "if id(layer.weight) in kind_of:"
_BECOMES = "layer.__class__, layer.kind = QATLinear, kind_of[id(layer.weight)]"
_CONVERTED = "layers = list(_layers(model, QATLinear, set()))"
_MADE = "made = [QuantizedLinear(layer, layer.kind) for layer in layers]"
_BLOCKS = "layer.__class__, layer.blocks, layer.bias = QuantizedLinear, each.blocks, each.bias"
_DELETE = "del layer.weight"
_ONCE = "if id(each) in seen:"
_EXACTLY = "if type(each) is kind:"
_INSIDE = (
    "inside = each.values() if isinstance(each, dict) else each if isinstance(each, list | tuple) else ()"
)

MISTAKES = {
    "fake_quantize: the derivative of the staircase, 0, is taken": [
        (_RECORD, "return record(worth, (x, lambda g: 0 * g))")
    ],
    "fake_quantize: the result is a constant": [(_RECORD, "return Tensor(worth)")],
    "fake_quantize: what is cut gets no gradient": [
        (
            _RECORD,
            "rows = x.data.reshape(-1, 32)\n"
            "    m = np.take_along_axis(rows, np.abs(rows).argmax(axis=-1)[:, None], axis=-1)\n"
            '    cut = (rows * np.sign(m) < -7.5 / 8 * np.abs(m)) & (kind == "q4_0")\n'
            "    return record(worth, (x, lambda g: np.where(cut.reshape(x.shape), 0, g)))",
        ),
        (
            "from collections.abc import Iterator, Mapping",
            "from collections.abc import Iterator, Mapping\n\nimport numpy as np",
        ),
    ],
    "fake_quantize: the largest of each block gets no gradient": [
        (
            _RECORD,
            "rows = np.abs(x.data.reshape(-1, 32))\n"
            "    is_largest = (rows == rows.max(axis=-1, keepdims=True)).reshape(x.shape)\n"
            "    return record(worth, (x, lambda g: np.where(is_largest, 0, g)))",
        ),
        (
            "from collections.abc import Iterator, Mapping",
            "from collections.abc import Iterator, Mapping\n\nimport numpy as np",
        ),
    ],
    "fake_quantize: what was rounded to 0 gets no gradient": [
        (_RECORD, "return record(worth, (x, lambda g: g * (worth != 0)))")
    ],
    "fake_quantize: the gradient is scaled by how rounding changed the number": [
        (_RECORD, "return record(worth, (x, lambda g: g * (worth + 1e-12) / (x.data + 1e-12)))")
    ],
    "fake_quantize: the gradient is rounded, too": [
        (_RECORD, "return record(worth, (x, lambda g: dequantize(quantize(g, kind), kind)))")
    ],
    "fake_quantize: the gradient is cut to what is between -1 and 1": [
        (_RECORD, "return record(worth, (x, lambda g: g.clip(-1, 1)))")
    ],
    "fake_quantize: the number itself is rounded": [
        (_RECORD, "x.data[...] = worth\n    return record(worth, (x, lambda g: g))")
    ],
    "fake_quantize: the result is float32": [(_WORTH, _WORTH.removesuffix(".astype(x.dtype)"))],
    "fake_quantize: the kind is always q4_0": [
        (_WORTH, f'kind = quantize(x.data, kind) is None or "q4_0"\n    {_WORTH}')
    ],
    "fake_quantize: half way between the number and its rounding": [
        (_WORTH, f"{_WORTH}\n    worth = (worth + x.data) / 2")
    ],
    "fake_quantize: without a gradient to pass on nothing is rounded": [
        (_RECORD, "return record(worth if x.requires_grad else x.data.copy(), (x, lambda g: g))")
    ],
    "QATLinear: it has parameters of its own": [
        (_TAKE, f"{_TAKE}\n        self.weight = type(linear.weight)(linear.weight.data)")
    ],
    "QATLinear: the weight is rounded when it is made": [
        (
            _TAKE,
            f"{_TAKE}\n        self.weight.data[...] = dequantize(quantize(self.weight.data, kind), kind)",
        )
    ],
    "QATLinear: the weight is rounded in each call, for good": [
        (
            _PRODUCT,
            f"self.weight.data[...] = dequantize(quantize(self.weight.data, self.kind), self.kind)\n        {_PRODUCT}",
        )
    ],
    "QATLinear: it computes with what the weight was worth when it was made": [
        (_TAKE, f"{_TAKE}\n        self._worth = fake_quantize(Tensor(self.weight.data), kind).data"),
        (
            _PRODUCT,
            'w = record(self._worth, (self.weight, lambda g: g)).swapaxes(0, 1)\n        y = fake_quantize(x, "q8_0") @ w',
        ),
    ],
    "QATLinear: x is not rounded": [(_PRODUCT, _PRODUCT.replace('fake_quantize(x, "q8_0")', "x"))],
    "QATLinear: x is rounded to the kind of the weight": [
        (_PRODUCT, _PRODUCT.replace('"q8_0"', "self.kind"))
    ],
    "QATLinear: the weight is not rounded": [
        (_PRODUCT, _PRODUCT.replace("fake_quantize(self.weight, self.kind)", "self.weight"))
    ],
    "QATLinear: the weight is rounded to q4_0 always": [(_PRODUCT, _PRODUCT.replace("self.kind", '"q4_0"'))],
    "QATLinear: nothing is rounded in use": [
        (_PRODUCT, f"if not self.is_training:\n            return super().forward(x)\n        {_PRODUCT}")
    ],
    "QATLinear: the bias is forgotten": [(_ANSWER, "return y")],
    "QATLinear: the gradient of x is that of the float weight": [
        (
            _PRODUCT,
            "w = self.weight.data\n"
            '        y = fake_quantize(x, "q8_0").detach() @ fake_quantize(self.weight, self.kind).swapaxes(0, 1)\n'
            "        y = y + record(0 * (x.data @ w.T), (x, lambda g: g @ w))",
        )
    ],
    "QATLinear: widths that fill no blocks are found at the first call": [
        (_REFUSE, "quantize(linear.weight.data[:0, :0], kind)")
    ],
    "QATLinear: kinds that there are not are found at the first call": [
        (_REFUSE, 'quantize(linear.weight.data[:0], "q8_0")')
    ],
    "QATLinear: kind is not kept": [(_TAKE, _TAKE.replace("linear.bias, kind", 'linear.bias, "q8_0"'))],
    "prepare: subclasses of Linear become QATLinear, too": [
        (_EXACTLY, "if type(each) is kind or (isinstance(each, kind) and not hasattr(each, 'kind')):")
    ],
    "prepare: a QATLinear takes the new kind": [
        (_EXACTLY, "if type(each) is kind or (kind is Linear and type(each) is QATLinear):")
    ],
    "prepare: layers in lists are not found": [(_INSIDE, _INSIDE.replace("list | tuple", "tuple"))],
    "prepare: layers in tuples are not found": [(_INSIDE, _INSIDE.replace("list | tuple", "list"))],
    "prepare: layers in dicts are not found": [
        (
            "        each = vars(each)\n    inside = each.values() if isinstance(each, dict) else each",
            "        each = list(vars(each).values())\n    inside = each",
        )
    ],
    "prepare: layers in layers in lists are not found": [
        (
            _INSIDE,
            _INSIDE.replace("each if isinstance", "[x for x in each if isinstance(x, Linear)] if isinstance"),
        )
    ],
    "prepare: each layer has a copy of its parameters": [
        (_BECOMES, f"{_BECOMES}\n            layer.weight = type(layer.weight)(layer.weight.data)")
    ],
    "prepare: all become the kind of the first": [
        (_BECOMES, "layer.__class__, layer.kind = QATLinear, next(iter(kind_of.values()))")
    ],
    "prepare: all layers become QATLinear, chosen or not": [
        (_IF, "if layer.weight.shape[1] % 32 == 0 and kind_of:"),
        (_BECOMES, _BECOMES.replace("[id(layer.weight)]", '.get(id(layer.weight), "q8_0")')),
    ],
    "prepare: nothing comes back": [
        (f"            {_BECOMES}\n    return model", f"            {_BECOMES}\n    return None"),
    ],
    "prepare: the weights are rounded": [
        (
            _BECOMES,
            f"{_BECOMES}\n            layer.weight.data[...] = fake_quantize(layer.weight, layer.kind).data",
        )
    ],
    "prepare: a key that speaks for nothing is ignored": [
        (
            _CHOSEN,
            f'used = {{key: k for key, k in kinds.items() if any(f"{{n}}.".startswith(f"{{key}}." if key else "") for n in named)}}\n    {_CHOSEN.replace(", kinds)", ", used)")}',
        )
    ],
    "prepare: layers whose weight has its name elsewhere are left": [
        (
            _KIND_OF,
            'kind_of = {id(named[n]): k for n, k in chosen.items() if n.rpartition(".")[2] == "weight"}',
        )
    ],
    "convert: plain layers become blocks, too": [
        (
            _CONVERTED,
            "layers = [*_layers(model, QATLinear, set()), *(e for e in _layers(model, Linear, set()) if e.weight.shape[1] % 32 == 0)]",
        ),
        (_MADE, _MADE.replace("layer.kind", 'getattr(layer, "kind", "q8_0")')),
        (_BLOCKS, f"{_BLOCKS}\n        layer.kind = each.kind"),
    ],
    "convert: all become q4_0": [
        (_MADE, _MADE.replace("layer.kind", '"q4_0"')),
        (_BLOCKS, f"{_BLOCKS}\n        layer.kind = each.kind"),
    ],
    "convert: the bias is forgotten": [(_BLOCKS, _BLOCKS.replace("each.bias", "None"))],
    "convert: the bias stays a parameter": [(_BLOCKS, _BLOCKS.replace("each.bias", "layer.bias"))],
    "convert: the weight stays": [(_DELETE, "pass")],
    "convert: layers that come before one that is refused are changed": [
        (_MADE, "made = (QuantizedLinear(layer, layer.kind) for layer in layers)")
    ],
    "convert: nothing comes back": [
        (f"        {_DELETE}\n    return model", f"        {_DELETE}\n    return None")
    ],
    "convert: only the first layer is changed": [(_CONVERTED, f"{_CONVERTED}[:1]")],
    "convert: blocks are made of what a plain layer would be rounded to: row by row": [
        (
            _BLOCKS,
            f"{_BLOCKS}\n        layer.blocks = quantize(layer.weight.data / abs(layer.weight.data).max(), layer.kind)",
        )
    ],
}


def _detached(x: Tensor, kind: str) -> Tensor:
    """The rounding error is a constant that is added."""
    worth = dequantize(quantize(x.data, kind), kind).astype(x.dtype)
    with np.errstate(all="ignore"):
        return record(worth, (x, lambda g: np.array(g)))


class _OtherQAT(Linear):
    """One operation for all: the gradients are written out."""

    def __init__(self, linear, kind):
        if kind not in ("q8_0", "q4_0") or linear.weight.shape[1] % 32:
            raise ValueError("no such kind, or no blocks")
        self.weight = linear.weight
        self.bias = linear.bias
        self.kind = kind

    def forward(self, x):
        if not x.ndim or x.shape[-1] != self.weight.shape[1]:
            raise ValueError("x does not fit")
        x_worth = dequantize(quantize(x.data, "q8_0"), "q8_0").astype(x.dtype)
        w_worth = dequantize(quantize(self.weight.data, self.kind), self.kind).astype(self.weight.dtype)
        edges = [
            (x, lambda g: np.einsum("...o,oi->...i", g, w_worth)),
            (self.weight, lambda g: g.reshape(-1, len(w_worth)).T @ x_worth.reshape(-1, w_worth.shape[1])),
        ]
        y = np.einsum("...i,oi->...o", x_worth, w_worth)
        if self.bias is None:
            return record(y, *edges)
        return record(y + self.bias.data, *edges, (self.bias, lambda g: g))


def _exchanged(each, new, seen):
    """Return an object with some layers in it exchanged for others."""
    if id(each) in new:
        return new[id(each)]
    if id(each) in seen:
        return each
    seen.add(id(each))
    if isinstance(each, Module):
        for name, child in list(vars(each).items()):
            setattr(each, name, _exchanged(child, new, seen))
    elif isinstance(each, list):
        each[:] = [_exchanged(child, new, seen) for child in each]
    elif isinstance(each, dict):
        each.update({key: _exchanged(child, new, seen) for key, child in each.items()})
    elif isinstance(each, tuple):
        return tuple(_exchanged(child, new, seen) for child in each)
    return each


def _found(model, kind):
    """All layers of exactly one class, with a list of what is to be looked at."""
    waiting, seen, found = [model], {}, []
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen[id(each)] = each
        if type(each) is kind:
            found.append(each)
        if isinstance(each, Module):
            waiting.extend(vars(each).values())
        elif isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            waiting.extend(each)
    return found


def _prepare_by_exchange(model, kinds):
    named = list(model.named_parameters())
    chosen = choose_kinds(model.state_dict(), kinds)
    new = {}
    for layer in _found(model, Linear):
        for name, each in named:
            if each is layer.weight and name in chosen:
                new[id(layer)] = _OtherQAT(layer, chosen[name])
    return _exchanged(model, new, set())


def _convert_by_exchange(model):
    new = {id(layer): QuantizedLinear(layer, layer.kind) for layer in _found(model, _OtherQAT)}
    return _exchanged(model, new, set())


EQUIVALENTS = {
    "fake_quantize with a copied gradient": {"fake_quantize": _detached},
    "QATLinear as one operation, with its gradients written out; layers are exchanged, not changed": {
        "QATLinear": _OtherQAT,
        "prepare": _prepare_by_exchange,
        "convert": _convert_by_exchange,
    },
    "layers are found with a list of what is to be looked at": {
        "_layers": lambda model, kind, seen: _found(model, kind)
    },
    "QATLinear with the ancestor's forward": [
        (
            f"{_PRODUCT}\n        {_ANSWER}",
            "layer = Linear.__new__(Linear)\n"
            "        layer.weight, layer.bias = fake_quantize(self.weight, self.kind), self.bias\n"
            '        return layer(fake_quantize(x, "q8_0"))',
        )
    ],
}

_A_MODEL = "its result is a model, which this mutant leaves as it is"

HARMLESS = {
    "prepare: right at the first call only": _A_MODEL,
    "convert: right at the first call only": _A_MODEL,
    **{
        f"fake_quantize: wrong for {what}": "no kind is such a text"
        for what in (
            "text with a byte order mark",
            "text with NUL",
            "text with CRLF",
            "text beyond 255 characters",
            "empty text",
        )
    },
}


class _Part(Module):
    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)


class _Own(Linear):
    pass


def _layer(seed, n_in=32, has_bias=True, kind=Linear):
    rng = np.random.default_rng(seed)
    layer = kind(n_in, 2, rng, has_bias)
    if has_bias:
        layer.bias.data[:] = [0.25, -3.3]
    return layer


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    del rng
    w = np.zeros(32)
    w[:6] = [-8.0, 3.4, 7.9, 0.3, -2.2, 5.7]
    g = np.linspace(-1.7, 2.3, 32)
    inputs = np.random.default_rng(1).normal(size=(3, 32))

    def faked(kind, dtype=np.float64, wants=True):
        def probe(impl):
            x = Tensor(w.astype(dtype), requires_grad=wants)
            y = impl.fake_quantize(x, kind)
            if y.requires_grad:
                y.backward(g)
            grad = "None" if x.grad is None else x.grad.tolist()
            return [y.data, grad, x.data.tolist()]

        return probe

    def answered(kind, is_training=True, has_bias=True):
        def probe(impl):
            linear = _layer(0, has_bias=has_bias)
            kept = linear.weight.data.copy()
            layer = impl.QATLinear(linear, kind)
            same = [layer.weight is linear.weight, layer.kind, bool((linear.weight.data == kept).all())]
            (layer.train if is_training else layer.eval)()
            x = Tensor(inputs, requires_grad=True)
            y = layer(x)
            y.backward(np.array([[1.0, 0.5], [-0.3, 2.0], [0.7, 0.1]]))
            left = bool((linear.weight.data == kept).all())
            layer.weight.data += 0.1
            return [*same, left, y.data, x.grad, layer.weight.grad, layer(Tensor(inputs)).data]

        return probe

    def refused(action):
        def probe(impl):
            try:
                action(impl)
            except ValueError:
                return "ValueError"
            return "an answer"

        return probe

    def model():
        tied = _layer(5)
        made = _Part(
            table=Parameter(np.ones((2, 32))), first=_layer(1), layers=[_layer(2), _Part(b=_layer(3))]
        )
        made.pair, made.named, made.own = (_layer(4),), {"x": _layer(6)}, _layer(7, kind=_Own)
        tied.weight, made.tied = made.table, tied
        return made

    def named(impl, each):
        return "QATLinear" if type(each) is impl.QATLinear else type(each).__name__

    def seen(impl, made):
        parts = [
            made.first,
            made.layers[0],
            made.layers[1].b,
            made.pair[0],
            made.named["x"],
            made.own,
            made.tied,
        ]
        return [[named(impl, each), getattr(each, "kind", "")] for each in parts]

    def prepared(kinds):
        def probe(impl):
            made = model()
            before = dict(made.named_parameters())
            values = made.state_dict()
            back = impl.prepare(made, kinds)
            after = dict(made.named_parameters())
            same = [before[name] is after[name] for name in before]
            alike = [bool((values[name] == after[name].data).all()) for name in before]
            return [back is made, seen(impl, made), list(after), same, alike]

        return probe

    def twice(impl):
        made = model()
        impl.prepare(made, {"first": "q8_0"})
        impl.prepare(made, {"": "q4_0"})
        return seen(impl, made)

    def converted(kinds):
        def probe(impl):
            made = model()
            impl.prepare(made, kinds)
            back = impl.convert(made)
            layer = made.first
            bias = getattr(layer, "bias", None)
            found = [
                type(bias).__name__,
                "None" if bias is None else np.asarray(getattr(bias, "data", bias)).tolist(),
            ]
            blocks = layer.blocks if hasattr(layer, "blocks") else "none"
            return [
                back is made,
                seen(impl, made),
                [name for name, _ in made.named_parameters()],
                found,
                blocks,
            ]

        return probe

    def broken(impl):
        made = _Part(a=_layer(1), b=_layer(2))
        impl.prepare(made, {"": "q4_0"})
        made.b.weight.data[0, 0] = np.nan
        told = refused(lambda impl: impl.convert(made))(impl)
        return [told, named(impl, made.a), named(impl, made.b)]

    def unrecorded(impl):
        with no_grad():
            return impl.fake_quantize(Tensor(w, requires_grad=True), "q4_0").data

    return {
        "q4_0": faked("q4_0"),
        "q8_0": faked("q8_0"),
        "float32": faked("q4_0", np.float32),
        "a constant": faked("q4_0", wants=False),
        "without recording": unrecorded,
        "layer": answered("q4_0"),
        "layer of q8_0": answered("q8_0"),
        "layer in use": answered("q4_0", is_training=False),
        "layer without a bias": answered("q4_0", has_bias=False),
        "a layer of 33 inputs": refused(lambda impl: impl.QATLinear(_layer(0, 33), "q4_0")),
        "a layer of another kind": refused(lambda impl: impl.QATLinear(_layer(0), "q5_0")),
        "prepared": prepared({"": "q4_0"}),
        "prepared in parts": prepared({"layers": "q4_0", "first": "q8_0", "table": "q4_0"}),
        "prepared twice": twice,
        "a misspelled key": refused(lambda impl: impl.prepare(model(), {"frist": "q4_0"})),
        "converted": converted({"": "q4_0"}),
        "converted in parts": converted({"first": "q8_0", "named": "q4_0"}),
        "what is refused": broken,
    }
