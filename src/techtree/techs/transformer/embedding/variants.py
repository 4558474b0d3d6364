"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, einsum, no_grad, record

_CHECK = "if ids.size and not 0 <= (wrong := ids.min() if ids.min() < 0 else ids.max()) < weight.shape[0]:"
_DTYPE = 'if ids.dtype.kind not in "iu":'
_PLACES = "places = ids.astype(np.intp)"
_ADD = "np.add.at(whole, places, g)  # whole[places] += g would keep one gradient for each row"
_WHOLE = "whole = np.zeros(weight.shape, np.result_type(g, np.float32))"
_LOOK = "return record(weight.data.take(places, axis=0), (weight, scatter_add))"
_DRAW = "std * rng.normal(size=(n_tokens, width))"
_PRODUCT = "return x @ self.weight.swapaxes(0, 1)"
_SHAPE = "if x.ndim == 0 or x.shape[-1] != width:"
_SIZES = "if n_tokens < 1 or width < 1:"
_MADE = "self.weight = Parameter("


def _table(**methods):
    """Make an Embedding with some methods in the place of the right ones."""

    class Embedding(Module):
        def __init__(self, n_tokens, width, rng, std=0.02, dtype=np.float64):
            if min(n_tokens, width) < 1:
                raise ValueError("a table has rows and columns")
            self.weight = Parameter(rng.normal(0, std, size=(n_tokens, width)).astype(dtype))

        def checked(self, ids):
            ids = np.asarray(ids)
            if not np.issubdtype(ids.dtype, np.integer):
                raise ValueError("ids must be integers")
            if np.any(ids < 0) or np.any(ids >= len(self.weight.data)):
                raise ValueError("there is no such row")
            return ids.astype(np.int64)

        def forward(self, ids):
            ids, weight = self.checked(ids), self.weight

            def back(g):
                rows, columns = ids.reshape(-1), weight.shape[1]
                whole = np.zeros((len(weight.data), columns))
                for row, part in zip(rows, g.reshape(ids.size, columns), strict=True):
                    whole[row] += part
                return whole

            return record(weight.data[ids].copy(), (weight, back))

        def unembed(self, x):
            if x.ndim < 1 or x.shape[-1] != self.weight.shape[1]:
                raise ValueError("x must be as wide as the table")
            return x @ self.weight.transpose()

    for name, method in methods.items():
        setattr(Embedding, name, method)
    return Embedding


def _one_hot_forward(self, ids):
    """The product with vectors that are 1 at the id; in float16 the sums run in float32."""
    ids, weight = self.checked(ids), self.weight
    wide = np.result_type(weight.data, np.float32)
    hot = (ids.reshape(-1, 1) == np.arange(weight.shape[0])).astype(wide)

    def back(g):
        return hot.T @ g.reshape(ids.size, weight.shape[1]).astype(wide)

    return record(
        weight.data[ids.reshape(-1)].reshape(*ids.shape, -1 if ids.size else weight.shape[1]), (weight, back)
    )


def _counting_forward(self, ids):
    """`bincount` over the place of each number in the flat table."""
    ids, weight = self.checked(ids), self.weight
    rows, width = weight.shape

    def back(g):
        places = (ids.reshape(-1, 1) * width + np.arange(width)).ravel()
        return np.bincount(places, g.ravel().astype(np.float64), rows * width).reshape(rows, width)

    return record(np.take(weight.data, ids, axis=0), (weight, back))


def _sorted_forward(self, ids):
    """Places in the order of their ids: each row is the sum of one stretch."""
    ids, weight = self.checked(ids), self.weight

    def back(g):
        whole = np.zeros(weight.shape)
        order = np.argsort(ids, axis=None, kind="stable")
        sorted_ids = ids.reshape(-1)[order]
        starts = np.flatnonzero(np.diff(sorted_ids, prepend=-1))
        if len(starts):
            parts = g.reshape(ids.size, weight.shape[1])[order].astype(np.float64)
            whole[sorted_ids[starts]] = np.add.reduceat(parts, starts, axis=0)
        return whole

    return record(weight.data[ids].copy(), (weight, back))


def _by_rows_forward(self, ids):
    """A mask for each row of the table."""
    ids, weight = self.checked(ids), self.weight
    flat = ids.reshape(-1)

    def back(g):
        g = g.reshape(len(flat), weight.shape[1]).astype(np.float64)
        return np.stack([g[flat == row].sum(axis=0) for row in range(weight.shape[0])])

    value = np.empty((*ids.shape, weight.shape[1]), weight.dtype)
    value[...] = weight.data[ids]
    return record(value, (weight, back))


def _einsum_unembed(self, x):
    if x.ndim < 1 or x.shape[-1] != self.weight.shape[1]:
        raise ValueError("x must be as wide as the table")
    flat = x.reshape(x.data.size // x.shape[-1], x.shape[-1])
    return einsum("nw,vw->nv", flat, self.weight).reshape(*x.shape[:-1], self.weight.shape[0])


def _unembed_by_hand(self, x):
    weight = self.weight
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError("x must be as wide as the table")
    rows = x.data.reshape(x.data.size // x.shape[-1], x.shape[-1])
    value = (rows @ weight.data.T).reshape(*x.shape[:-1], len(weight.data))

    def flat(g):
        return g.reshape(len(rows), len(weight.data))

    return record(
        value, (x, lambda g: (flat(g) @ weight.data).reshape(x.shape)), (weight, lambda g: flat(g).T @ rows)
    )


_TABLES: dict = {}


def _shared_init(self, n_tokens, width, rng, std=0.02, dtype=np.float64):
    if min(n_tokens, width) < 1:
        raise ValueError("a table has rows and columns")
    drawn = Parameter(rng.normal(0, std, size=(n_tokens, width)).astype(dtype))
    self.weight = _TABLES.setdefault((n_tokens, width, np.dtype(dtype).name, std), drawn)


def _two_tables_init(self, n_tokens, width, rng, std=0.02, dtype=np.float64):
    if min(n_tokens, width) < 1:
        raise ValueError("a table has rows and columns")
    self.weight = Parameter(rng.normal(0, std, size=(n_tokens, width)).astype(dtype))
    self.head = Parameter(self.weight.data)


def _unembed_by_second_table(self, x):
    if x.ndim < 1 or x.shape[-1] != self.head.shape[1]:
        raise ValueError("x must be as wide as the table")
    return x @ self.head.swapaxes(0, 1)


MISTAKES = {
    "a row that was taken several times keeps the gradient of its last place": [(_ADD, "whole[places] = g")],
    "a row that was taken several times gets the average of its gradients": [
        (
            "            return whole\n",
            "            n = np.bincount(places.ravel(), minlength=len(whole))\n"
            "            return whole / np.maximum(n, 1)[:, None]\n",
        ),
    ],
    "a row that was taken several times keeps the gradient of its first place": [
        (_ADD, "whole[places.ravel()[::-1]] = g.reshape(places.size, weight.shape[1])[::-1]")
    ],
    "gradients are added up in the dtype of the table, and stop growing in float16": [
        (_WHOLE, "whole = np.zeros(weight.shape, g.dtype)")
    ],
    "no gradient reaches the table when it is looked up": [
        (_LOOK, "return record(weight.data.take(places, axis=0), (weight, lambda g: np.zeros(weight.shape)))")
    ],
    "the result of a look-up is a constant": [(_LOOK, "return Tensor(weight.data.take(places, axis=0))")],
    "every row gets the gradient of every place": [
        (_ADD, "whole += g.reshape(-1, weight.shape[1]).sum(axis=0)")
    ],
    "the gradient goes to the rows in the order of the places, not to those of the ids": [
        (_ADD, "np.add.at(whole, np.arange(places.size) % len(whole), g.reshape(places.size, -1))")
    ],
    "the gradient of a row is divided by the number of places": [
        ("            return whole\n", "            return whole / max(places.size, 1)\n")
    ],
    "id 0 is taken for padding, and its row gets no gradient": [
        ("            return whole\n", "            whole[0] = 0\n            return whole\n")
    ],
    "id 0 is taken for padding, and its row is 0": [
        (
            _LOOK,
            "return record(weight.data.take(places, axis=0) * (places != 0)[..., None], (weight, scatter_add))",
        )
    ],
    "ids are counted from 1": [
        (_PLACES, "places = (ids.astype(np.intp) - 1) % weight.shape[0]"),
    ],
    "rows are multiplied by the root of the width": [
        (
            _LOOK,
            "return record(weight.data.take(places, axis=0) * weight.shape[1] ** 0.5, (weight, scatter_add))",
        )
    ],
    "a negative id counts from the end": [
        (_CHECK, "if ids.size and (wrong := ids.max()) >= weight.shape[0]:")
    ],
    "an id that is too large takes the last row": [
        (_CHECK, "if ids.size and (wrong := ids.min()) < 0:"),
        (_PLACES, "places = np.minimum(ids, weight.shape[0] - 1).astype(np.intp)"),
    ],
    "an id that is too large starts from 0 again": [
        (_CHECK, "if ids.size and (wrong := ids.min()) < 0:"),
        (_PLACES, "places = (ids % weight.shape[0]).astype(np.intp)"),
    ],
    "n_tokens itself is accepted as an id": [
        (_CHECK, _CHECK.replace("< weight.shape[0]", "<= weight.shape[0]")),
        (_PLACES, "places = np.minimum(ids, weight.shape[0] - 1).astype(np.intp)"),
    ],
    "the last row cannot be asked for": [
        (_CHECK, _CHECK.replace("< weight.shape[0]", "< weight.shape[0] - 1"))
    ],
    "an id that does not exist is an IndexError": [
        ('raise ValueError(f"each id must', 'raise IndexError(f"each id must')
    ],
    "floats are rounded to ids": [(_DTYPE, 'if ids.dtype.kind not in "iuf":')],
    "booleans are taken for the ids 0 and 1": [(_DTYPE, 'if ids.dtype.kind not in "iub":')],
    "unsigned ids are refused": [(_DTYPE, 'if ids.dtype.kind not in "i":')],
    "ids without entries are refused": [(_DTYPE, 'if ids.dtype.kind not in "iu" or not ids.size:')],
    "a look-up in a narrow table is in float64": [
        (_LOOK, "return record(weight.data.take(places, axis=0).astype(np.float64), (weight, scatter_add))")
    ],
    "the table is (width, n_tokens)": [
        (
            _MADE + "(std * rng.normal(size=(n_tokens, width))",
            _MADE + "(std * rng.normal(size=(width, n_tokens))",
        ),
    ],
    "the table starts with the standard deviation 1": [("std: float = 0.02", "std: float = 1.0")],
    "std is taken for the variance": [(_DRAW, "abs(std) ** 0.5 * rng.normal(size=(n_tokens, width))")],
    "std is ignored": [(_DRAW, "0.02 * rng.normal(size=(n_tokens, width))")],
    "the table is uniform, of the right variance": [
        (_DRAW, "std * 3**0.5 * rng.uniform(-1, 1, size=(n_tokens, width))")
    ],
    "all rows start equal": [(_DRAW, "std * np.repeat(rng.normal(size=(1, width)), n_tokens, axis=0)")],
    "the table starts at 0": [(_DRAW, "0 * std * rng.normal(size=(n_tokens, width))")],
    "the table is drawn from a generator of its own": [
        (_DRAW, "std * np.random.default_rng(0).normal(size=(n_tokens, width))")
    ],
    "dtype is ignored": [(".astype(dtype))", ")")],
    "the table is a plain tensor, neither trained nor saved": [(_MADE, "self.weight = Tensor(")],
    "the table has another name": [
        (_MADE, "self.table = Parameter("),
        ("ids, weight = np.asarray(ids), self.weight", "ids, weight = np.asarray(ids), self.table"),
        ("width = self.weight.shape[1]", "width = self.table.shape[1]"),
        (_PRODUCT, "return x @ self.table.swapaxes(0, 1)"),
    ],
    "all tables of one size are one table": {"Embedding": _table(__init__=_shared_init)},
    "the head is a copy of the table": {
        "Embedding": _table(__init__=_two_tables_init, unembed=_unembed_by_second_table)
    },
    "unembed multiplies by the table as it is, which fits when it is square": [
        (_PRODUCT, "return x @ self.weight")
    ],
    "unembed gives the table no gradient": [(_PRODUCT, "return x @ self.weight.detach().swapaxes(0, 1)")],
    "unembed gives x no gradient": [(_PRODUCT, "return x.detach() @ self.weight.swapaxes(0, 1)")],
    "unembed divides by the root of the width": [
        (_PRODUCT, "return x @ self.weight.swapaxes(0, 1) / width**0.5")
    ],
    "unembed returns probabilities": [
        (
            _PRODUCT,
            "y = x @ self.weight.swapaxes(0, 1)\n        y = (y - y.data.max(axis=-1, keepdims=True)).exp()\n"
            "        return y / y.sum(axis=-1, keepdims=True)",
        )
    ],
    "unembed repeats a last axis of 1": [
        (_SHAPE, "if x.ndim == 0 or x.shape[-1] not in (1, width):"),
        (_PRODUCT, "return (x + np.zeros(width, x.dtype)) @ self.weight.swapaxes(0, 1)"),
    ],
    "unembed takes a vector only": [(_SHAPE, "if x.ndim != 1 or x.shape[-1] != width:")],
    "a table without rows or columns is accepted": [(_SIZES, "if n_tokens < 0 or width < 0:")],
}

EQUIVALENTS = {
    "row by row in a loop, in float64": {"Embedding": _table()},
    "a product with vectors that are 1 at the id": {"Embedding": _table(forward=_one_hot_forward)},
    "the gradient by counting": {"Embedding": _table(forward=_counting_forward)},
    "the gradient by sorting": {"Embedding": _table(forward=_sorted_forward, unembed=_einsum_unembed)},
    "a mask for each row; the scores as one operation": {
        "Embedding": _table(forward=_by_rows_forward, unembed=_unembed_by_hand)
    },
}

_UNFIT = "the product refuses the same shapes, in other words"
HARMLESS = {
    "if x.ndim == 0 or x.shape[-1] != width: => if False:": _UNFIT,
    "raise ValueError(f'x must have a last axis of {width}; got the shape {x.shape}') => pass": _UNFIT,
    "whole = np.zeros(weight.shape, np.result_type(g, np.float32)) => "
    "whole = np.zeros(weight.shape, np.result_type(np.float32, g))": "the larger of two dtypes has no order",
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    weight = rng.normal(size=(5, 3))
    square = rng.normal(size=(3, 3))
    ids = np.array([[2, 2, 4], [2, 1, 1]])
    g = rng.normal(size=(2, 3, 3))
    x = rng.normal(size=(2, 3))

    def table(impl, values=weight):
        found = impl.Embedding(*values.shape, np.random.default_rng(0))
        found.load_state_dict({"weight": values})
        return found

    def gradient(chosen, dtype=np.float64):
        def probe(impl):
            one = impl.Embedding(5, 3, np.random.default_rng(0), dtype=dtype)
            one.load_state_dict({"weight": weight})
            one(chosen).backward(g[: len(chosen)].astype(dtype))
            return np.zeros(1) if one.weight.grad is None else one.weight.grad

        return probe

    def many(impl):
        one = impl.Embedding(2, 1, np.random.default_rng(0), dtype=np.float16)
        one(np.ones(3000, int)).backward(np.ones((3000, 1), np.float16))
        return one.weight.grad.astype(np.float64)

    def scores(values):
        def probe(impl):
            one, leaf = table(impl, values), Tensor(x.copy(), requires_grad=True)
            y = one.unembed(leaf)
            y.backward(np.cos(np.arange(y.data.size)).reshape(y.shape))
            parts = [each for each in (one.weight.grad, leaf.grad) if each is not None]
            return [y.data, *parts]

        return probe

    def names(impl):
        one = impl.Embedding(4, 2, np.random.default_rng(0), dtype=np.float32)
        return str([(name, each.shape, str(each.dtype)) for name, each in one.named_parameters()])

    def start(n_tokens, width, **options):
        """Moments, rounded to what random numbers do not move."""

        def probe(impl):
            w = impl.Embedding(n_tokens, width, np.random.default_rng(0), **options).weight.data
            square = (w**2).mean()
            kind = round(float((w**4).mean() / max(square**2, 1e-300)) * 2)
            return [round(float(np.log10(max(square, 1e-30))) * 4), kind, len(np.unique(w)) == w.size]

        return probe

    def second_draw(impl):
        rng = np.random.default_rng(0)
        first, second = (impl.Embedding(4, 2, rng).weight.data for _ in range(2))
        return bool(np.array_equal(first, second))

    def shared(impl):
        one, two = (impl.Embedding(7, 2, np.random.default_rng(n)) for n in (0, 1))
        one.weight.data[...] = 1
        return bool((two.weight.data == 1).all())

    def answer_to(chosen):
        def probe(impl):
            return table(impl)(np.asarray(chosen)).data

        return probe

    def wants_gradient(impl):
        with no_grad():
            outside = table(impl)(ids).requires_grad
        return [outside, table(impl)(ids).requires_grad]

    return {
        "rows": answer_to([[1, 2], [3, 3]]),
        "row 0": answer_to([0, 1]),
        "the last row": answer_to([4]),
        "dtype of rows": lambda impl: (
            impl.Embedding(2, 2, np.random.default_rng(0), dtype=np.float32)(np.array([1])).data.dtype.name
        ),
        "gradient": gradient(ids),
        "gradient of different ids": gradient(np.array([[3, 1, 4]])),
        "gradient of id 0": gradient(np.array([[0, 1, 2]])),
        "three thousand times": many,
        "id -1": answer_to([-1]),
        "id n_tokens": answer_to([5]),
        "a larger id": answer_to([7]),
        "floats": answer_to([1.0, 2.0]),
        "booleans": answer_to([True, False]),
        "unsigned": lambda impl: table(impl)(np.array([1, 2], np.uint8)).data,
        "none": answer_to(np.zeros(0, int)),
        "scores": scores(weight),
        "scores of a square table": scores(square),
        "scores of one number": lambda impl: table(impl).unembed(Tensor([[2.0]])).data,
        "scores of a vector": lambda impl: table(impl).unembed(Tensor(x[0])).data,
        "names": names,
        "start": start(300, 40),
        "start with std": start(300, 40, std=0.5),
        "second draw": second_draw,
        "shared": shared,
        "wants a gradient": wants_gradient,
        "no rows": lambda impl: impl.Embedding(0, 2, np.random.default_rng(0)).weight.shape[0],
    }
