"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import gc
import math
import operator
import threading
import weakref

import numpy as np

PASS_ON = "                gradients[each] = gradients[each] + part if each in gradients else part\n"
KEEP = "                node.grad = np.array(g) if node.grad is None else np.asarray(node.grad + g)\n"
LOOP = (
    "        for node in reversed("
    "topological_order(self, lambda tensor: [each for each, _ in tensor.edges])):\n"
)
SUM = "    return gradient.sum(axis=tuple(axes), keepdims=True).reshape(tensor.shape)\n"
EDGES = "        result.edges = tuple((each, pull_back) for each, pull_back in edges if each.requires_grad)\n"
FLAT = "        if a.ndim > 2 and b.ndim == 2:"
CONSTANT = 'return Tensor(x if x.ndim and x.dtype.kind == "f" else x.astype(dtype))'
FLOATS = 'self.data = data if data.dtype.kind == "f" else data.astype(np.float64)'
SUMMED = "        value = self.data.sum(axis=axis, keepdims=True)\n"
NEGATIVE = "    def __neg__(self):\n"
TOKEN = (
    "    token = _is_recording.set(False)\n"
    "    try:\n        yield\n    finally:\n        _is_recording.reset(token)\n"
)


MISTAKES = {
    "what was broadcast along a new axis is not summed: the gradient has the shape of the result": [
        ("    n_new = gradient.ndim - tensor.ndim\n", "    return gradient\n    n_new = 0\n")
    ],
    "what was broadcast from length 1 is not summed, only new axes are": [
        (" or size != tensor.shape[n - n_new]]", "]"),
        (SUM, "    return gradient.sum(axis=tuple(axes))\n"),
    ],
    "what was broadcast is averaged instead of summed": [(SUM, SUM.replace("gradient.sum", "gradient.mean"))],
    "axes are matched from the left instead of from the right": [
        (
            "axes = [n for n, size in enumerate(gradient.shape) if n < n_new or size != tensor.shape[n - "
            "n_new]]",
            "shape = tensor.shape + (1,) * n_new\n"
            "    axes = [n for n, size in enumerate(gradient.shape) if size != shape[n]]",
        )
    ],
    "the gradient of an input is set, not added to: of two uses only the last one counts": [
        (PASS_ON, "                gradients[each] = part\n")
    ],
    "gradients are added in place, into an array that another tensor or the caller holds": [
        (
            PASS_ON,
            "                if each in gradients and gradients[each].flags.writeable:\n"
            "                    gradients[each] += part\n"
            "                else:\n"
            "                    gradients[each] = gradients[each] + part if each in gradients else part\n",
        )
    ],
    "grad is the array that came along, not a copy of its own": [(KEEP, KEEP.replace("np.array(g)", "g"))],
    "a grad of shape () becomes a NumPy number in a second backward": [
        (KEEP, KEEP.replace("np.asarray(node.grad + g)", "node.grad + g"))
    ],
    "a second backward replaces the gradient of the first": [
        (KEEP, "                node.grad = np.array(g)\n")
    ],
    "every result keeps its gradient, too": [
        ("            if not node.edges:\n" + KEEP, KEEP.replace("    " * 4, "    " * 3, 1))
    ],
    "the tensor that backward is called on keeps its gradient": [
        ("            if not node.edges:\n", "            if not node.edges or node is self:\n")
    ],
    "the gradients of results are kept until the end": [("gradients.pop(node)", "gradients[node]")],
    "a gradient of zeros is not passed on, so that grad stays None": [
        ("for each, pull_back in node.edges:", "for each, pull_back in node.edges if g.any() else ():")
    ],
    "every edge is walked as often as there are paths": [
        (
            LOOP,
            "        waiting = [(self, gradients[self])]\n"
            "        for n, (node, g) in enumerate(waiting):\n"
            "            if n > 20_000:\n"
            "                raise RecursionError('too many paths')\n"
            "            for each, pull_back in node.edges:\n"
            "                waiting.append((each, _unbroadcast(pull_back(g), each)))\n"
            "            if not node.edges:\n"
            "                node.grad = np.array(g) if node.grad is None else np.asarray(node.grad + g)\n"
            "        for node in ():\n",
        )
    ],
    "backward walks breadth first, and passes on gradients that are not complete": [
        (
            LOOP,
            "        order = [self]\n"
            "        for node in order:\n"
            "            order += [each for each, _ in node.edges if each not in order]\n"
            "        for node in order:\n",
        )
    ],
    "backward calls itself, and Python stops it after about a thousand operations": [
        (
            LOOP,
            "        order, seen = [], set()\n"
            "        def visit(node):\n"
            "            if node not in seen:\n"
            "                seen.add(node)\n"
            "                for each, _ in node.edges:\n"
            "                    visit(each)\n"
            "                order.append(node)\n"
            "        visit(self)\n"
            "        for node in reversed(order):\n",
        )
    ],
    "the graph is taken apart by the first backward": [
        (PASS_ON, PASS_ON + "            node.edges, node.requires_grad = (), not node.edges\n")
    ],
    "backward of many entries starts from ones, as if they had been summed": [
        ("if gradient is None and self.data.size != 1:", "if False:")
    ],
    "a gradient of another shape is broadcast": [
        (
            "        gradients = {self: np.asarray(np.ones(self.shape) if gradient is None else gradient, "
            "self.dtype)}\n",
            "        gradient = np.broadcast_to(1.0 if gradient is None else gradient, self.shape)\n"
            "        gradients = {self: gradient.astype(self.dtype)}\n",
        ),
        ("if gradient is not None and np.shape(gradient) != self.shape:", "if False:"),
    ],
    "a gradient with as many entries is taken in any shape": [
        ("np.shape(gradient) != self.shape:", "np.size(gradient) != self.data.size:"),
        ("else gradient, self.dtype)}", "else gradient, self.dtype).reshape(self.shape)}"),
    ],
    "a gradient must be an array": [
        (
            "        if gradient is not None and np.shape",
            "        if isinstance(gradient, list | float):\n            raise ValueError\n"
            "        if gradient is not None and np.shape",
        )
    ],
    "backward of a constant does nothing, silently": [
        (
            "        if not self.requires_grad:\n            raise",
            "        if not self.requires_grad:\n            return\n            raise",
        )
    ],
    "gradients are float64, whatever the data": [
        (
            "gradient = np.asarray(gradient, dtype=tensor.dtype)",
            "gradient = np.asarray(gradient, dtype=np.float64)",
        )
    ],
    "a Python number makes float32 float64": [(CONSTANT, "return Tensor(x)")],
    "a number makes a float32 tensor without axes float64": [
        (
            "(each.dtype for each in operands if isinstance(each, Tensor))",
            "(each.dtype for each in operands if isinstance(each, Tensor) and each.ndim)",
        )
    ],
    "an array of integers makes float32 float64": [
        (CONSTANT, "return Tensor(x if x.ndim else x.astype(dtype))")
    ],
    "a NumPy number of float64 makes float32 float64": [
        (
            "        x = np.asarray(x)\n",
            "        if isinstance(x, np.generic):\n            return Tensor(x)\n        x = np.asarray(x)\n",
        )
    ],
    "arrays of float64 take the dtype of the tensor": [(CONSTANT, "return Tensor(x.astype(dtype))")],
    "float16 becomes float32": [
        (
            FLOATS,
            f"{FLOATS}\n        if data.dtype == np.float16:\n            self.data = data.astype(np.float32)",
        )
    ],
    "complex numbers are taken": [('not in "biuf"', 'not in "biufc"')],
    "what is no number is a ValueError": [('raise TypeError(f"a tensor', 'raise ValueError(f"a tensor')],
    "tensors that are made inside no_grad need no gradient": [
        (
            "        self.requires_grad = requires_grad\n",
            "        self.requires_grad = requires_grad and _is_recording.get()\n",
        )
    ],
    "every tensor is kept on a list for ever": [
        ("class Tensor:", "tape = []\n\n\nclass Tensor:"),
        (
            "        self.requires_grad = requires_grad\n",
            "        self.requires_grad = requires_grad\n        tape.append(self)\n",
        ),
    ],
    "0 + tensor is the tensor itself": [
        (
            "        return _tensors(other, self)[0] + self\n",
            "        return self if isinstance(other, int) and other == 0 else _tensors(other, self)[0] + self\n",
        )
    ],
    "a reshape to the same shape is the tensor itself": [
        (
            "        return record(self.data.reshape(*shape)",
            "        if shape in (self.shape, (self.shape,)):\n            return self\n        return record(self.data.reshape(*shape)",
        )
    ],
    "in-place addition changes the operand": [
        (
            NEGATIVE,
            "    def __iadd__(self, other):\n        self.data += _tensors(self, other)[1].data\n"
            "        return self\n\n" + NEGATIVE,
        )
    ],
    "in-place multiplication changes the operand": [
        (
            NEGATIVE,
            "    def __imul__(self, other):\n        self.data *= _tensors(self, other)[1].data\n"
            "        return self\n\n" + NEGATIVE,
        )
    ],
    "integers stay integers": [(FLOATS, "self.data = data")],
    "the data is copied": [
        ("        data = np.asarray(data)\n        if", "        data = np.array(data)\n        if")
    ],
    "everything is float64": [(FLOATS, "self.data = np.asarray(data, dtype=np.float64)")],
    "array + tensor is left to NumPy, which makes an array of tensors": [
        ("    __array_ufunc__ = None", "    _unused = None")
    ],
    "number - tensor is tensor - number": [("return _tensors(other, self)[0] - self", "return self - other")],
    "array @ tensor is tensor @ array": [("return _tensors(other, self)[0] @ self", "return self @ other")],
    "a constant gets a gradient, too": [
        (EDGES, "        result.edges = edges\n"),
        ("bool(result.edges)", "any(each.requires_grad for each, _ in edges)"),
    ],
    "an input that comes twice in record counts once": [
        (
            EDGES,
            "        result.edges = tuple({each: (each, f) for each, f in edges if each.requires_grad}.values())\n",
        )
    ],
    "the functions of constants are called, and their answers thrown away": [
        (EDGES, "        result.edges = edges if any(each.requires_grad for each, _ in edges) else ()\n"),
        ("            if not node.edges:\n", "            if not node.edges and node.requires_grad:\n"),
    ],
    "the gradient of a matrix product is not transposed": [
        (
            "(b, lambda g: a.data.swapaxes(-1, -2) @ g)",
            "(b, lambda g: (g.swapaxes(-1, -2) @ a.data).reshape(np.broadcast_shapes(g.shape[:-2], "
            "b.shape[:-2]) + b.shape[-2:]))",
        )
    ],
    "matrices are transposed by reversing all axes, which confuses stacks": [
        ("(a, lambda g: g @ b.data.swapaxes(-1, -2))", "(a, lambda g: g @ b.data.T)")
    ],
    "a @ b of a number is a product": [
        (
            "    def __matmul__(self, other):\n        a, b = _tensors(self, other)\n",
            "    def __matmul__(self, other):\n        a, b = _tensors(self, other)\n"
            "        if not a.ndim or not b.ndim:\n            return a * b\n",
        )
    ],
    "a @ b has the dtype of a": [
        ("            a.data @ b.data,\n", "            (a.data @ b.data).astype(a.dtype),\n")
    ],
    "a @ b is an elementwise product": [("            a.data @ b.data,\n", "            a.data * b.data,\n")],
    "the gradient of a quotient lacks the minus sign": [
        ("lambda g: -g * value / b.data", "lambda g: g * value / b.data")
    ],
    "the gradient of a power takes the log of the base, also for a constant exponent": [
        (
            "(a, lambda g: g * power * a.data**lowered)",
            "(a, lambda g: g * power * np.exp(lowered * np.log(a.data)))",
        )
    ],
    "x ** 0 has a gradient of NaN at 0": [("lowered = power - (power != 0)", "lowered = power - 1")],
    "exp keeps its input below 500": [("np.exp(self.data)", "np.exp(np.minimum(self.data, 500))")],
    "log adds 1e-12 to its input": [("record(np.log(self.data)", "record(np.log(self.data + 1e-12)")],
    "the gradient of log keeps away from 0": [("g / self.data)", "g / np.maximum(self.data, 1e-6))")],
    "the gradient of sqrt keeps away from 0": [("g / (2 * value)", "g / (2 * value + 1e-6)")],
    "tanh is 1 - 2 / (exp(2 x) + 1), which loses small numbers": [
        ("np.tanh(self.data)", "1 - 2 / (np.exp(2 * np.minimum(self.data, 300)) + 1)")
    ],
    "the gradient of sqrt is that of the square": [("g / (2 * value)", "g * 2 * value")],
    "the gradient of tanh takes the input for the result": [
        ("g * (1 - value * value)", "g * (1 - self.data * self.data)")
    ],
    "axes that do not exist are counted round and round": [
        (
            SUMMED,
            "        if axis is not None and self.ndim:\n"
            "            axis = tuple(n % self.ndim for n in (axis if isinstance(axis, tuple) else (axis,)))\n"
            + SUMMED,
        )
    ],
    "an axis that is named twice counts once": [
        (
            SUMMED,
            "        if isinstance(axis, tuple):\n"
            "            axis = tuple({n if n >= 0 or n < -self.ndim else n + self.ndim for n in axis})\n"
            + SUMMED,
        )
    ],
    "sum along no axis is the sum along all": [
        (SUMMED, "        axis = axis if axis != () else None\n" + SUMMED)
    ],
    "sum without keepdims passes its gradient on without putting the axis back": [
        ("np.broadcast_to(g.reshape(value.shape), self.shape)", "np.broadcast_to(g, self.shape)")
    ],
    "mean passes the gradient of the sum on": [
        (
            "return total / (self.data.size // max(total.data.size, 1))",
            "return record(total.data / (self.data.size // max(total.data.size, 1)), (total, lambda g: g))",
        )
    ],
    "mean divides by the size of the whole array, whatever the axis": [
        ("(self.data.size // max(total.data.size, 1))", "max(self.data.size, 1)")
    ],
    "a tie gives the whole gradient to each of the largest": [
        (" / is_largest.sum(axis=axis, keepdims=True)", "")
    ],
    "a tie is shared among all ties of the array, not of the axis": [
        ("is_largest.sum(axis=axis, keepdims=True)", "is_largest.sum()")
    ],
    "what is nearly the largest shares the gradient of max": [
        ("is_largest = self.data == value", "is_largest = np.isclose(self.data, value)")
    ],
    "swapaxes hands its gradient on as it is where the lengths agree": [
        (
            "lambda g: g.swapaxes(first, second)",
            "lambda g: g if g.shape == self.shape else g.swapaxes(first, second)",
        )
    ],
    "transpose passes its gradient on by the same order, not by the inverse one": [
        ("np.moveaxis(g, range(self.ndim), order)", "g.transpose(order)")
    ],
    "the gradient of a reshape is transposed": [
        ("lambda g: g.reshape(self.shape)", "lambda g: g.T.reshape(self.shape)")
    ],
    "a repeated index receives one of its gradients instead of their sum": [
        ("np.add.at(whole, index, g)", "whole[index] += g")
    ],
    "an index beyond the end begins again": [
        (
            "        value = self.data[index]\n",
            "        index = index % len(self.data) if type(index) is int else index\n        value = self.data[index]\n",
        )
    ],
    "where makes numbers float64": [
        (
            "    a, b = _tensors(a, b)\n    return record(\n        np.where",
            "    (a,), (b,) = _tensors(a), _tensors(b)\n    return record(\n        np.where",
        )
    ],
    "where multiplies the gradient by the mask, and 0 times infinity is NaN": [
        ("(a, lambda g: np.where(mask, g, 0))", "(a, lambda g: g * np.asarray(mask))")
    ],
    "where gives both sides the whole gradient": [
        ("(b, lambda g: np.where(mask, 0, g))", "(b, lambda g: g)")
    ],
    "concatenate cuts its gradient into equal parts": [
        (
            "cut(end - each.shape[axis], end)",
            "cut(end * 0 + tensors.index(each) * (ends[-1] // len(tensors)), (tensors.index(each) + 1) * "
            "(ends[-1] // len(tensors)))",
        )
    ],
    "concatenate takes the tensor itself if it is alone": [
        (
            "    tensors = _tensors(*tensors)\n    value",
            "    tensors = _tensors(*tensors)\n    if len(tensors) == 1:\n        return tensors[0]\n    value",
        )
    ],
    "concatenate cuts its gradient along the first axis": [
        ("g.swapaxes(0, axis)[start:end].swapaxes(0, axis)", "g[start:end]")
    ],
    "einsum takes a letter twice in a term, whose gradient it does not know": [
        ("    if not arrow or any(len(set(term)) < len(term) for term in terms):", "    if not arrow:")
    ],
    "einsum takes a spec without ->": [("    if not arrow or any(", "    if any(")],
    "einsum stretches axes of length 1": [
        ("    value = contract(spec, *(", "    value = np.einsum(spec, *(")
    ],
    "the gradient of einsum forgets the axes that only one operand has": [
        (
            "np.broadcast_to(np.expand_dims(part, summed), tensors[n].shape)",
            "np.broadcast_to(part, tensors[n].shape)",
        )
    ],
    "the gradient of einsum leaves the other operands out": [
        ('names = ",".join([output, *(terms[m] for m in others)])', "names = output"),
        (
            'contract(f"{names}->{shared}", g, *(tensors[m].data for m in others))',
            'contract(f"{names}->{shared}", g)',
        ),
    ],
    "detach makes the tensor itself a constant": [
        (
            "        return Tensor(self.data)\n",
            "        self.requires_grad, self.edges = False, ()\n        return self\n",
        )
    ],
    "detach copies": [("return Tensor(self.data)\n", "return Tensor(self.data.copy())\n")],
    "detach stays in the graph": [
        ("return Tensor(self.data)\n", "return record(self.data, (self, lambda g: g))\n")
    ],
    "no_grad is not ended by an error": [
        (TOKEN, "    token = _is_recording.set(False)\n    yield\n    _is_recording.reset(token)\n")
    ],
    "the end of an inner no_grad ends the outer one": [
        (TOKEN, TOKEN.replace("_is_recording.reset(token)", "_is_recording.set(True)"))
    ],
    "no_grad switches all threads": [
        (
            '_is_recording = ContextVar("_is_recording", default=True)',
            "_is_recording = type('Switch', (), {'value': True})",
        ),
        ("if _is_recording.get():", "if _is_recording.value:"),
        (
            TOKEN,
            "    before, _is_recording.value = _is_recording.value, False\n    try:\n        yield\n"
            "    finally:\n        _is_recording.value = before\n",
        ),
    ],
    "no_grad marks the results as constants and keeps their history": [
        (
            "    if _is_recording.get():\n" + EDGES + "        result.requires_grad = bool(result.edges)\n",
            EDGES[4:] + "    result.requires_grad = bool(result.edges) and _is_recording.get()\n",
        )
    ],
}


def _one_axis_at_a_time(gradient, tensor):
    gradient = np.array(gradient, dtype=tensor.dtype)
    while gradient.ndim > tensor.ndim:
        gradient = gradient.sum(axis=0)
    for axis, size in enumerate(tensor.shape):
        if size == 1:
            gradient = gradient.sum(axis=axis, keepdims=True)
    return np.asarray(gradient)


EQUIVALENTS = {
    "broadcast axes are summed one after the other": {"_unbroadcast": _one_axis_at_a_time},
    "nodes in the order of their creation, latest first": [
        (
            "        self.edges: tuple",
            "        Tensor.n_made = self.number = getattr(Tensor, 'n_made', 0) + 1\n"
            "        self.edges: tuple",
        ),
        (
            LOOP,
            "        found, waiting = {self}, [self]\n"
            "        while waiting:\n"
            "            new = {each for each, _ in waiting.pop().edges} - found\n"
            "            found |= new\n"
            "            waiting += new\n"
            "        for node in sorted(found, key=lambda each: -each.number):\n",
        ),
    ],
    "differences and quotients from negatives and powers": [
        ("return record(a.data - b.data, (a, lambda g: g), (b, lambda g: -g))", "return a + -b"),
        (
            "        value = a.data / b.data\n"
            "        return record(value, (a, lambda g: g / b.data), (b, lambda g: -g * value / b.data))",
            "        return a * b**-1",
        ),
    ],
    "matrix products by einsum, vectors as matrices of one row or column": [
        ("            return column.reshape(column.shape[:-1])", "            return column.sum(-1)"),
        ("            return row.reshape(row.shape[:-2] + row.shape[-1:])", "            return row.sum(-2)"),
        (FLAT, "        if False:"),
        (
            "(a, lambda g: g @ b.data.swapaxes(-1, -2))",
            "(a, lambda g: np.einsum('...ik,...jk->...ij', g, b.data))",
        ),
        (
            "(b, lambda g: a.data.swapaxes(-1, -2) @ g)",
            "(b, lambda g: np.einsum('...ki,...kj->...ij', a.data, g))",
        ),
    ],
    "selection by the number of each entry, scattered by counting": [
        (
            "            if np.may_share_memory(value, self.data):  # a slice has each entry once\n"
            "                whole[index] = g\n"
            "            else:\n"
            "                np.add.at(whole, index, g)\n"
            "            return whole\n",
            "            places = np.arange(self.data.size).reshape(self.shape)[index]\n"
            "            whole = np.bincount(np.ravel(places), np.ravel(g), minlength=self.data.size)\n"
            "            return whole.reshape(self.shape)\n",
        )
    ],
    "sums and maxima by multiplication with ones and shares": [
        (
            "np.broadcast_to(g.reshape(value.shape), self.shape)",
            "g.reshape(value.shape) * np.ones_like(self.data)",
        ),
        (
            "            is_largest = self.data == value\n"
            "            return g.reshape(value.shape) * is_largest / is_largest.sum(axis=axis, "
            "keepdims=True)\n",
            "            shares = (self.data >= value).astype(float)\n"
            "            shares /= shares.sum(axis=axis, keepdims=True)\n"
            "            return np.reshape(g, value.shape) * shares\n",
        ),
    ],
    "einsum with ones for the axes that only one operand has": [
        (
            '            part = contract(f"{names}->{shared}", g, *(tensors[m].data for m in others))\n'
            "            return np.broadcast_to(np.expand_dims(part, summed), tensors[n].shape)\n",
            "            alone = ''.join(terms[n][axis] for axis in summed)\n"
            "            ones = np.ones([tensors[n].shape[axis] for axis in summed])\n"
            "            return np.einsum(f'{names},{alone}->{terms[n]}', g, *(tensors[m].data for m in "
            "others), ones)\n",
        )
    ],
    "a switch in threading.local": [
        ("    if _is_recording.get():\n", "    if getattr(_is_recording, 'value', True):\n"),
        (
            '_is_recording = ContextVar("_is_recording", default=True)',
            "import threading\n_is_recording = threading.local()",
        ),
        (
            TOKEN,
            "    before, _is_recording.value = getattr(_is_recording, 'value', True), False\n    try:\n"
            "        yield\n    finally:\n        _is_recording.value = before\n",
        ),
    ],
}

_BOTH = "a, b = _tensors(self, other) => a, b = _tensors(other, self)"
_SUMMED = "return gradient.sum(axis=tuple(axes), keepdims=True).reshape(tensor.shape) => return gradient.sum(axis=tuple(axes)"
_ORDER = (
    "order = axes[0] if len(axes) == 1 and np.ndim(axes[0]) else axes or range(self.ndim)[::-1] => order = "
)
_STACK = "if a.ndim > 2 and b.ndim == 2: => if "
_SHARED = "if np.may_share_memory(value, self.data): => if "

HARMLESS = {
    "if gradient.shape == tensor.shape: => if False:": "a sum over no axes",
    **{
        f"{_SUMMED}{end}).reshape(tensor.shape)": "reshape puts the axes back"
        for end in ("", ", keepdims=False")
    },
    **{f"{_BOTH}{number}": "a sum or product in the other order" for number in ("", " #3")},
    "power = other if type(other) in (int, float) else b.data => power = other if False else b.data": "only slower",
    **{
        f"{_STACK}{condition}:": "a stack times one matrix is only slower"
        for condition in ("False", "a.ndim > 3 and b.ndim == 2", "a.ndim > 2 and b.ndim == 1")
    },
    "return total / (self.data.size // max(total.data.size, 1)) => "
    "return total / (self.data.size / max(total.data.size, 1))": "it divides without a rest",
    **{
        f"{_ORDER}{what} else axes or range(self.ndim)[::-1]": "the first of one is the last"
        for what in (
            "axes[0] if len(axes) == 1 and np.ndim(axes[-1])",
            "axes[-1] if len(axes) == 1 and np.ndim(axes[0])",
        )
    },
    "column = a @ b.reshape(-1, 1) => column = a @ b.reshape(-2, 1)": "NumPy takes any negative length",
    "row = a.reshape(1, -1) @ b => row = a.reshape(1, -2) @ b": "NumPy takes any negative length",
    f"{_SHARED}False:": "adding is only slower where each entry is selected once",
    f"{_SHARED}np.may_share_memory(self.data, value):": "it is symmetric",
    **{
        f"einsum: wrong for {text}": "einsum refuses it"
        for text in ("text with a byte order mark", "text with NUL", "text with CRLF", "empty text")
    },
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x = rng.uniform(0.5, 2, size=(2, 3))
    stack = rng.normal(size=(2, 3, 3))
    ids = np.array([[0, 1, 1], [1, 1, 0]])

    def gradients(operation, *arrays):
        """The result and the gradients of all inputs, in one flat list with their dtypes and shapes."""

        def probe(impl):
            tensors = [impl.Tensor(array, requires_grad=True) for array in arrays]
            result = operation(impl, *tensors)
            shape = result.shape
            result.backward(np.cos(np.arange(result.data.size) + 1.0).reshape(shape))
            found = [result.data, *(tensor.grad for tensor in tensors)]
            return np.concatenate([[array.ndim, *array.shape, *array.ravel()] for array in found])

        return probe

    def answer(operation):
        def probe(impl):
            try:
                return str(operation(impl))
            except (TypeError, ValueError, RecursionError) as error:
                return f"raises {type(error).__name__}"

        return probe

    def twice(impl):
        a = impl.Tensor(x, requires_grad=True)
        h = a * 2
        y = (h * h + h).sum()
        y.backward()
        first = a.grad.copy()
        y.backward()
        return np.concatenate([first.ravel(), a.grad.ravel(), [float(h.grad is None)]])

    def apart(impl):
        a, b = impl.Tensor(x, True), impl.Tensor(x, True)
        gradient = np.ones((2, 3))
        (a + b).backward(gradient)
        a.grad[...] += 100
        once = np.concatenate([gradient.ravel(), b.grad.ravel()])
        (a + a * 1 + a).backward(gradient)
        return np.concatenate([once, gradient.ravel(), a.grad.ravel()])

    def constants(impl):
        calls = []
        a, constant = impl.Tensor(x, True), impl.Tensor(x)
        y = impl.record(x * 2, (a, lambda g: g), (constant, lambda g: calls.append(1) or g))
        y.sum().backward()
        return [len(calls), float(constant.grad is None), float(y.requires_grad)]

    def chain(impl):
        a = b = impl.Tensor([1.0], requires_grad=True)
        for _ in range(3000):
            b = b + 1.0
        b.backward()
        return a.grad

    def switches(impl):
        a, seen = impl.Tensor(1.0, True), []

        def look():
            seen.append((a * 2).requires_grad)

        def failing():
            with impl.no_grad():
                raise KeyError

        with impl.no_grad():
            with impl.no_grad():
                look()
            look()
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        look()
        try:
            failing()
        except KeyError:
            look()
        return [float(each) for each in seen]

    def kept(impl):
        array = np.ones(3)
        reference, inputs = weakref.ref(array), [impl.Tensor(array, True)]
        del array
        with impl.no_grad():
            result = inputs.pop() * 2
        return [float(reference() is None), float(result.requires_grad)]

    def dtypes(impl):
        a = impl.Tensor(np.float32([1, 2]), True)
        y = a * 2.5
        y.backward(np.ones(2))
        return f"{y.dtype} {a.grad.dtype} {impl.Tensor([1, 2]).data.dtype}"

    def infinite(impl):
        a = impl.Tensor([1.0, 2.0], True)
        impl.where(np.array([False, True]), a, 0).backward([np.inf, 1.0])
        return a.grad

    def types(impl):
        a, found = impl.Tensor(2.0, True), []
        for _ in range(2):
            (a * 3 + a).backward()
            found.append(type(a.grad).__name__)
        return found

    def alive(impl):
        """Count the gradients of earlier results that are still in memory, at each of five results."""
        seen, n_alive = [], []

        def look(g):
            n_alive.append(sum(reference() is not None for reference in seen))
            seen.append(weakref.ref(passed := g * 2.0))
            return passed

        y = impl.Tensor(x, True)
        for _ in range(5):
            y = impl.record(y.data, (y, look))
        y.backward(x)
        return max(n_alive) > 2

    def zeros(impl):
        a, b = impl.Tensor(x, True), impl.Tensor(x, True)
        ((a * 0).sum() + (b * 0.0 * b).sum()).backward(0.0)
        return [a.grad is None, b.grad is None]

    def ends(impl):
        a = impl.Tensor(x, True)
        h = a * 2
        y = h.sum()
        y.backward()
        return [h.grad is None, y.grad is None]

    def paths(impl):
        n_calls = 0

        def halve(g):
            nonlocal n_calls
            n_calls += 1
            return g / 2

        y = impl.Tensor(x, True)
        for _ in range(9):
            y = impl.record(y.data, (y, halve), (y, halve))
        y.backward(x)
        return n_calls > 18

    def twice_in_record(impl):
        a = impl.Tensor(x, True)
        impl.record(x, (a, lambda g: g), (a, lambda g: g * 3)).backward(x)
        return a.grad

    def in_place(impl):
        found = []
        for operate in (operator.iadd, operator.imul):
            a = impl.Tensor(x.copy())
            operate(a, 2.0)
            found.append(a.data)
        return found

    def inside(impl):
        with impl.no_grad():
            return impl.Tensor(1.0, True).requires_grad

    def detached(impl):
        a = impl.Tensor(x, True)
        b = a.detach()
        return [a.requires_grad, b.requires_grad, b is a]

    def forgotten(impl):
        a = impl.Tensor(x.copy())
        reference = weakref.ref(a.data)
        del a
        gc.collect()
        return reference() is None

    def dtype(operation, kind=np.float32):
        return answer(lambda impl: operation(impl, impl.Tensor(x.astype(kind))).data.dtype)

    def is_new(operation):
        def probe(impl):
            a = impl.Tensor(x, True)
            return operation(impl, a) is not a

        return probe

    own = np.ones(2)
    small = np.array([1e-13, 1e-20])
    return {
        "types of a gradient of shape ()": types,
        "gradients alive": alive,
        "gradients of zeros": zeros,
        "what the end keeps": ends,
        "more paths than edges": paths,
        "one input twice": twice_in_record,
        "in-place operations": in_place,
        "a tensor made inside no_grad": inside,
        "the tensor after detach": detached,
        "what nobody needs": forgotten,
        "0 + tensor": is_new(lambda impl, a: 0 + a),
        "reshape to the same": is_new(lambda impl, a: a.reshape(2, 3)),
        "concatenate one": is_new(lambda impl, a: impl.concatenate([a])),
        "float16": dtype(lambda impl, a: a, np.float16),
        "float32 * number": dtype(lambda impl, a: a * 2.5),
        "float32 without axes * number": dtype(lambda impl, a: a.max() * 2.5),
        "float32 * float64 number": dtype(lambda impl, a: a * np.float64(2.5)),
        "float32 * integers": dtype(lambda impl, a: a * np.array([1, 2, 3])),
        "float32 * float64 array": dtype(lambda impl, a: a * x),
        "float32 @ float64 array": dtype(lambda impl, a: a @ x.T),
        "float32 and a number in where": dtype(lambda impl, a: impl.where(ids == 1, a, 0.0)),
        "complex numbers": answer(lambda impl: impl.Tensor(np.array([1j])).shape),
        "text": answer(lambda impl: impl.Tensor("ab").shape),
        "an axis too many": answer(lambda impl: impl.Tensor(x).sum(2).shape),
        "an axis twice": answer(lambda impl: impl.Tensor(x).sum((0, 0)).shape),
        "sum along no axis": answer(lambda impl: impl.Tensor(x).sum(()).shape),
        "an index too large": answer(lambda impl: impl.Tensor(x)[2].shape),
        "tensor @ number": answer(lambda impl: (impl.Tensor(x) @ 2.0).shape),
        "a gradient in another shape": answer(
            lambda impl: impl.Tensor(x, True).backward(x.reshape(3, 2)) or "taken"
        ),
        "a gradient as a list": answer(lambda impl: impl.Tensor(x, True).backward(x.tolist()) or "taken"),
        "einsum with a letter twice": answer(lambda impl: impl.einsum("ii->i", impl.Tensor(stack[0])).shape),
        "einsum without ->": answer(lambda impl: impl.einsum("ij,jk", stack[0], impl.Tensor(stack[0])).shape),
        "einsum of lengths 1 and 3": answer(
            lambda impl: impl.einsum("ij,jk->ik", impl.Tensor(x[:, :1]), stack[0]).shape
        ),
        "exp of 600": gradients(lambda impl, a: a.exp(), np.array([600.0])),
        "log of small numbers": lambda impl: impl.Tensor(small).log().data,
        "gradient of log at small numbers": gradients(lambda impl, a: a.log(), small),
        "gradient of sqrt at small numbers": gradients(lambda impl, a: a.sqrt(), small),
        "tanh of small numbers": lambda impl: impl.Tensor(small).tanh().data,
        "max of near numbers": gradients(lambda impl, a: a.max(), np.array([1.0, 1.0 + 1e-9])),
        "new axes": gradients(lambda impl, a, b: a * b, x, x[0]),
        "axes of length 1": gradients(lambda impl, a, b: a * b, x, x[:, :1]),
        "both": gradients(lambda impl, a, b: a + b, x[:, None], x[:1, :2, None]),
        "square broadcast": gradients(lambda impl, a, b: a * b, stack[0], stack[0, 0]),
        "quotient": gradients(lambda impl, a, b: a / b, x, x + 1),
        "number - tensor": gradients(lambda impl, a: 3 - a, x),
        "array + tensor": gradients(lambda impl, a: x + a, x),
        "array @ tensor": gradients(lambda impl, a: stack[0] @ a, stack[1]),
        "matrix product": gradients(lambda impl, a, b: a @ b, stack[0], stack[1]),
        "stack @ stack": gradients(lambda impl, a, b: a @ b, stack, stack + 1),
        "square of negatives": gradients(lambda impl, a: a**2, -x),
        "power 0 of 0": gradients(lambda impl, a: a**0, np.zeros(2)),
        "sqrt": gradients(lambda impl, a: a.sqrt(), x),
        "tanh": gradients(lambda impl, a: a.tanh(), x),
        "sum of rows": gradients(lambda impl, a: a.sum(1), stack[0]),
        "mean of rows": gradients(lambda impl, a: a.mean(1), x),
        "mean": gradients(lambda impl, a: a.mean(), x),
        "max of rows with ties": gradients(lambda impl, a: a.max(1), np.array([[1.0, 2, 2], [3, 3, 3]])),
        "transpose": gradients(lambda impl, a: a.transpose(1, 2, 0), rng.normal(size=(2, 2, 2))),
        "swapaxes": gradients(lambda impl, a: a.swapaxes(0, 1), stack[0]),
        "reshape": gradients(lambda impl, a: a.reshape(3, 2), x),
        "selection with repeats": gradients(lambda impl, a: a[ids], x),
        "where": gradients(lambda impl, a, b: impl.where(ids == 1, a, b), x, x + 1),
        "concatenate": gradients(lambda impl, a, b: impl.concatenate([a, b], 1), x, x[:, :1]),
        "concatenate equal parts": gradients(lambda impl, a, b: impl.concatenate([a, b], 1), x, x + 1),
        "einsum": gradients(lambda impl, a, b: impl.einsum("ij,jk->ik", a, b), x, stack[0]),
        "einsum that sums": gradients(lambda impl, a: impl.einsum("ij->i", a), stack[0]),
        "two uses": gradients(lambda impl, a: a * a + a, x),
        "paths of two lengths": gradients(lambda impl, a: (lambda h: h + h * h * 5)(a * 2), x),
        "two passes": twice,
        "gradients apart": apart,
        "constants": constants,
        "a chain": chain,
        "switches": switches,
        "what no_grad keeps": kept,
        "dtypes": dtypes,
        "many entries without a gradient": answer(lambda impl: impl.Tensor(x, True).backward()),
        "gradient of another shape": answer(lambda impl: impl.Tensor(x, True).backward(np.ones(3))),
        "backward of a constant": answer(lambda impl: impl.Tensor(1.0).backward()),
        "sharing": lambda impl: [
            float(np.shares_memory(impl.Tensor(own).data, own)),
            float(np.shares_memory(impl.Tensor(own).detach().data, own)),
            float(impl.Tensor(own, True).detach().requires_grad),
        ],
        "infinite gradient": infinite,
        "smooth maximum": gradients(lambda impl, a: ((a - a.max().detach()) * math.pi).exp().sum().log(), x),
    }
