"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import functools
import math

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.activations import relu
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.linear import Linear, gain_of
from techtree.techs.training.sgd import SGD

HIDDEN = "self.layers = [Linear(*shape, rng, gain=gain, dtype=dtype) for shape in hidden]"
LAST = "self.layers.append(Linear(*last, rng, dtype=dtype))"
FORWARD = """        for layer in hidden:
            x = self.activation(layer(x))
        return last(x)
"""
ZERO = "            optimizer.zero_grad()\n"
LOSS = "loss = cross_entropy(model(Tensor(x[batch])), y[batch])\n"
STEP = "            loss.backward()\n            optimizer.step()\n"
TOTAL = "total, n_examples = total + float(loss.data) * len(batch), n_examples + len(batch)"
MEAN = "losses.append(total / n_examples)"
BACK = """        if was_training:
            model.train()
"""
SHARE = "return float((logits.argmax(axis=-1) == y).mean())"
TRAIN = "    model.train()\n    losses = []"

MISTAKES = {
    "MLP has no activation: all layers together are one": [("x = self.activation(layer(x))", "x = layer(x)")],
    "MLP bends the outputs, too": [("return last(x)", "return self.activation(last(x))")],
    "MLP bends the inputs as well": [
        (
            "        *hidden, last = self.layers\n",
            "        *hidden, last = self.layers\n        x = self.activation(x)\n",
        )
    ],
    "MLP puts the activation before each layer instead of after it": [
        ("x = self.activation(layer(x))", "x = layer(self.activation(x))")
    ],
    "MLP bends after the first layer only": [
        (
            "x = self.activation(layer(x))",
            "x = self.activation(layer(x)) if layer is self.layers[0] else layer(x)",
        )
    ],
    "MLP takes relu whatever it is given": [("self.activation = activation", "self.activation = relu")],
    "MLP starts all layers with the gain 1": [("gain = gain_of(activation)", "gain = 1.0")],
    "MLP starts all layers with the gain of relu": [("gain = gain_of(activation)", "gain = gain_of(relu)")],
    "MLP gives the last layer the gain, too": [
        (LAST, "self.layers.append(Linear(*last, rng, gain=gain, dtype=dtype))")
    ],
    "MLP divides by the gain": [("gain = gain_of(activation)", "gain = 1 / gain_of(activation)")],
    "MLP draws the last layer first": [
        (HIDDEN, f"final = Linear(*last, rng, dtype=dtype)\n        {HIDDEN}"),
        (LAST, "self.layers.append(final)"),
    ],
    "MLP draws the same weights each time": [(HIDDEN, f"rng = np.random.default_rng(0)\n        {HIDDEN}")],
    "MLP has no biases in its hidden layers": [
        (HIDDEN, HIDDEN.replace("gain=gain", "has_bias=False, gain=gain"))
    ],
    "MLP has no bias at the end": [(LAST, LAST.replace("rng,", "rng, has_bias=False,"))],
    "MLP is float64 whatever it is given": [
        (HIDDEN, HIDDEN.replace(", dtype=dtype", "")),
        (LAST, LAST.replace(", dtype=dtype", "")),
    ],
    "MLP is float64 in the last layer": [(LAST, LAST.replace(", dtype=dtype", ""))],
    "MLP takes a single width, for no layers": [
        ("if len(widths) < 2:", "if len(widths) < 1:"),
        (
            "*hidden, last = pairwise(widths)",
            "*hidden, last = [*pairwise(widths), (1, 1)][:max(len(widths) - 1, 1)]",
        ),
    ],
    "MLP has one layer for all hidden layers of one shape": [
        (
            HIDDEN,
            f"made = {{}}\n        {HIDDEN}".replace("[Linear(", "[made.setdefault(shape, Linear(").replace(
                ") for", ")) for"
            ),
        )
    ],
    "fit adds up the gradients of all batches": [(ZERO, "")],
    "fit drops the gradients once in each epoch": [
        (ZERO, ""),
        (
            "        total, n_examples = 0.0, 0\n",
            "        total, n_examples = 0.0, 0\n        optimizer.zero_grad()\n",
        ),
    ],
    "fit drops the gradients after each step, and so begins with old ones": [
        (ZERO, ""),
        (STEP, STEP + "            optimizer.zero_grad()\n"),
    ],
    "fit drops the gradients before it steps": [
        (
            STEP,
            "            loss.backward()\n            optimizer.zero_grad()\n            optimizer.step()\n",
        )
    ],
    "fit steps twice for each batch": [(STEP, STEP + "            optimizer.step()\n")],
    "fit steps with the sum over the batch": [
        (STEP, STEP.replace("loss.", "(loss * float(len(batch))).", 1))
    ],
    "fit steps once for each epoch": [
        (STEP, "            (loss * 1.0).backward()\n"),
        (ZERO, ""),
        (MEAN, MEAN + "\n        optimizer.step()\n        optimizer.zero_grad()"),
    ],
    "fit averages the losses of batches of different sizes": [
        (TOTAL, "total, n_examples = total + float(loss.data), n_examples + 1")
    ],
    "fit returns the sum of the losses of an epoch": [(MEAN, "losses.append(total)")],
    "fit returns the loss of the last batch": [(MEAN, "losses.append(float(loss.data))")],
    "fit returns the mean loss of all epochs so far": [
        ("    losses = []\n", "    losses = []\n    total, n_examples = 0.0, 0\n"),
        ("        total, n_examples = 0.0, 0\n        for batch", "        for batch"),
    ],
    "fit measures the loss after the step": [
        (TOTAL, f"loss = cross_entropy(model(Tensor(x[batch])), y[batch])\n            {TOTAL}")
    ],
    "fit returns the losses as arrays": [(MEAN, "losses.append(np.array(total / n_examples))")],
    "fit returns the loss of each batch": [(TOTAL, "losses.append(float(loss.data))"), (MEAN, "pass")],
    "fit takes the labels in order, not those of the batch": [
        (LOSS, LOSS.replace("y[batch]", "y[: len(batch)]"))
    ],
    "fit takes the examples in order, not those of the batch": [
        (LOSS, LOSS.replace("x[batch]", "x[np.sort(batch)]"))
    ],
    "fit converts the examples to float64": [(LOSS, LOSS.replace("x[batch]", "x[batch].astype(float)"))],
    "fit trains with epoch 0 again and again": [("loader.epoch(number)", "loader.epoch(0)")],
    "fit counts epochs from 1": [("loader.epoch(number)", "loader.epoch(number + 1)")],
    "fit trains one epoch too many": [("range(n_epochs)", "range(n_epochs + 1)")],
    "fit leaves out the last batch": [
        ("in loader.epoch(number)", "in list(loader.epoch(number))[:-1] or loader.epoch(number)")
    ],
    "fit leaves out batches that are smaller than the first": [
        (
            ZERO,
            "            if len(batch) < len(next(iter(loader.epoch(number)))):\n                continue\n"
            + ZERO,
        )
    ],
    "fit leaves the model in the mode in which it was": [
        (TRAIN, "    was_training = model.is_training\n" + TRAIN),
        ("    return losses\n", "    model.train() if was_training else model.eval()\n    return losses\n"),
    ],
    "fit trains in the mode of use": [
        (TRAIN, "    model.eval()\n    losses = []"),
        ("    return losses\n", "    model.train()\n    return losses\n"),
    ],
    "fit does not care about the mode": [(TRAIN, "    losses = []")],
    "fit sets the mode of the outer module only": [(TRAIN, "    model.is_training = True\n    losses = []")],
    "accuracy measures in the mode of training": [
        ("    model.eval()\n", "    model.train()\n"),
        (
            BACK,
            "        model.train() if was_training else model.eval()\n",
        ),
    ],
    "accuracy does not care about the mode": [("    model.eval()\n", "")],
    "accuracy sets the mode of the outer module only": [
        ("    model.eval()\n", "    model.is_training = False\n"),
        (BACK, "        model.is_training = was_training\n"),
    ],
    "accuracy leaves the model in the mode of use": [(BACK, "        pass\n")],
    "accuracy puts the model into the mode of training": [(BACK, "        model.train()\n")],
    "accuracy does not put the mode back after an error": [
        (
            "    try:\n        with no_grad():\n            logits = model(Tensor(x)).data\n    finally:\n",
            "    with no_grad():\n        logits = model(Tensor(x)).data\n    if True:\n",
        )
    ],
    "accuracy records what the model computes": [("with no_grad():", "if True:")],
    "accuracy drops the gradients": [
        (SHARE, f"for parameter in model.parameters():\n        parameter.grad = None\n    {SHARE}")
    ],
    "accuracy takes the smallest logit": [(SHARE, SHARE.replace("argmax", "argmin"))],
    "accuracy looks along the examples": [
        (
            SHARE,
            "return float((logits.argmax(axis=0) == y[: logits.shape[1]]).mean())",
        )
    ],
    "accuracy returns the share of errors": [(SHARE, SHARE.replace("==", "!="))],
    "accuracy returns the number of right answers": [(SHARE, SHARE.replace("mean", "sum"))],
    "accuracy returns percent": [(SHARE, SHARE.replace("return float(", "return 100 * float("))],
    "accuracy is the mean probability of the label": [
        (
            SHARE,
            "p = np.exp(logits - logits.max(axis=1, keepdims=True))\n"
            "    return float((p / p.sum(axis=1, keepdims=True))[np.arange(len(y)), y].mean())",
        )
    ],
    "accuracy rounds to two digits": [
        (SHARE, "return round(float((logits.argmax(axis=-1) == y).mean()), 2)")
    ],
    "accuracy looks at a hundred examples only": [
        (SHARE, "return float((logits.argmax(axis=-1) == y)[:100].mean())")
    ],
    "accuracy converts the examples to float64": [
        ("logits = model(Tensor(x)).data", "logits = model(Tensor(x.astype(float))).data")
    ],
}


class _FoldedMLP(Module):
    """Affine maps and curves in one list of functions, folded over the input."""

    def __init__(self, widths, rng, activation=relu, dtype=np.float64):
        if len(widths) <= 1:
            raise ValueError("too few widths")
        n = len(widths) - 1
        gains = [gain_of(activation) if i < n - 1 else 1.0 for i in range(n)]
        self.layers = tuple(Linear(widths[i], widths[i + 1], rng, True, gains[i], dtype) for i in range(n))
        self.steps = lambda: [f for layer in self.layers for f in (layer, activation)][:-1]

    def forward(self, x):
        return functools.reduce(lambda value, f: f(value), self.steps(), x)


class _RecursiveMLP(Module):
    """Draws with gain 1 and scales afterwards; a network is a layer and a network."""

    def __init__(self, widths, rng, activation=relu, dtype=np.float64):
        if len(widths) in (0, 1):
            raise ValueError("too few widths")
        self.curve, self.layers = activation, []
        for number in range(1, len(widths)):
            layer = Linear(widths[number - 1], widths[number], rng, dtype=dtype)
            if number + 1 < len(widths):
                layer.weight.data *= math.sqrt(2) if activation is relu else gain_of(activation)
            self.layers.append(layer)

    def forward(self, x, first=0):
        y = self.layers[first](x)
        return y if first + 1 == len(self.layers) else self.forward(self.curve(y), first + 1)


def _fit_with_sums(model, x, y, optimizer, loader, n_epochs):
    """Sums of losses, divided by the sizes before the gradient."""
    means = []
    for number in range(n_epochs):
        each_loss = []
        for batch in loader.epoch(number):
            model.train()
            for parameter in model.parameters():
                parameter.grad = None
            losses = cross_entropy(model(Tensor(x[batch])), y[batch], reduction="none")
            (losses.sum() / len(batch)).backward()
            each_loss.extend(losses.data.tolist())
            optimizer.step()
        means.append(math.fsum(each_loss) / len(each_loss))
    model.train()
    return means


def _fit_batch_by_batch(model, x, y, optimizer, loader, n_epochs):
    """Lists of losses and sizes, averaged with weights; the gradient is handed to backward."""
    losses, number = [], 0
    model = model.train()
    while number < n_epochs:
        found, sizes = [], []
        for batch in list(loader.epoch(number)):
            total = cross_entropy(
                model(Tensor(np.take(x, batch, axis=0))), np.take(y, batch), reduction="sum"
            )
            optimizer.zero_grad()
            total.backward(np.array(1 / len(batch)))
            optimizer.step()
            found.append(float(total.data) / len(batch))
            sizes.append(len(batch))
        losses.append(float(np.average(found, weights=sizes)))
        number += 1
    return losses


def _accuracy_one_by_one(model, x, y):
    """One example after the other."""
    before = model.is_training
    try:
        model.eval()
        n_right = 0
        for row, label in zip(x, y, strict=True):
            with no_grad():
                (logits,) = model(Tensor(row[None])).data.tolist()
            n_right += logits.index(max(logits)) == label
    finally:
        (model.train if before else model.eval)()
    return n_right / len(y)


def _accuracy_by_comparison(model, x, y):
    """The label's logit against the largest."""
    before = model.is_training
    model.eval()
    try:
        with no_grad():
            logits = model(Tensor(np.array(x))).data
    finally:
        model.train() if before else model.eval()
    chosen = np.take_along_axis(logits, np.asarray(y, int)[:, None], axis=1)[:, 0]
    return np.count_nonzero(chosen >= logits.max(axis=1)) / len(logits)


EQUIVALENTS = {
    "MLP as a fold over functions": {"MLP": _FoldedMLP},
    "MLP as a recursion": {"MLP": _RecursiveMLP},
    "fit with the losses of all examples": {"fit": _fit_with_sums},
    "fit with sums, and weighted means": {"fit": _fit_batch_by_batch},
    "accuracy of one example after the other": {"accuracy": _accuracy_one_by_one},
    "accuracy by comparing the label's logit with the largest": {"accuracy": _accuracy_by_comparison},
}


HARMLESS = {
    "if len(widths) < 2: => if False:": "to unpack nothing is a ValueError, too",
    "if len(widths) < 2: => if len(widths) < 1:": "to unpack no pairs is a ValueError, too",
    "raise ValueError(f'an MLP needs a width of inputs and one of outputs at least; got {list(widths)}') => pass": (
        "to unpack no pairs is a ValueError, too"
    ),
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    x = rng.normal(size=(7, 3))
    y = np.array([0, 1, 1, 0, 1, 0, 0])
    fixed = [rng.normal(size=(width, n)) for n, width in ((3, 4), (4, 4), (4, 4), (4, 2))]

    def tanh(tensor):
        return tensor.tanh()

    def network(impl, activation=tanh, n_hidden=3):
        """Weights that do not depend on what was drawn."""
        model = impl.MLP([3, *[4] * n_hidden, 2], np.random.default_rng(0), activation)
        for layer, weight in zip(model.layers, [*fixed[:n_hidden], fixed[3]], strict=True):
            layer.weight.data[...] = weight[:, : layer.weight.shape[1]]
        return model

    def outputs(activation=tanh, n_hidden=3):
        return lambda impl: network(impl, activation, n_hidden)(Tensor(x)).data

    def sizes(activation, layer):
        """The root mean square of the initial weights, and how many there are."""

        def probe(impl):
            model = impl.MLP([3, 40, 30, 2], np.random.default_rng(0), activation)
            return round(float(np.sqrt((model.layers[layer].weight.data ** 2).mean())), 2)

        return probe

    def initial(impl):
        """The first weight of each layer, relative to that of `Linear`."""
        model, rng = impl.MLP([3, 5, 4, 2], np.random.default_rng(3), tanh), np.random.default_rng(3)
        plain = [Linear(*shape, rng).weight.data[0, 0] for shape in ((3, 5), (5, 4), (4, 2))]
        return [
            round(float(layer.weight.data[0, 0] / first), 2)
            for layer, first in zip(model.layers, plain, strict=True)
        ]

    def again(impl):
        rng = np.random.default_rng(0)
        first, second = (impl.MLP([3, 4, 2], rng).layers[0].weight.data for _ in range(2))
        return bool((first == second).any())

    def names(impl):
        return [name for name, _ in impl.MLP([3, 4, 4, 2], np.random.default_rng(0)).named_parameters()]

    def dtypes(impl):
        model = impl.MLP([3, 4, 2], np.random.default_rng(0), tanh, np.float32)
        return [str(each.dtype) for each in model.parameters()]

    def shared_layers(impl):
        model = impl.MLP([3, 4, 4, 4, 2], np.random.default_rng(0))
        return len({id(layer) for layer in model.layers})

    def one_width(impl):
        try:
            return f"{len(impl.MLP([3], np.random.default_rng(0)).layers)} layers"
        except ValueError:
            return "ValueError"

    def trained(*epochs, lr=0.5, old=None, answer="weights"):
        """A model of one factor: what is left in it, and the losses."""

        def probe(impl):
            model = _Factor()
            model.factor.grad = old
            losses = impl.fit(
                model,
                x[:, :2] + np.arange(7)[:, None],
                y,
                SGD([model.factor], lr),
                _Batches(*epochs),
                len(epochs),
            )
            if answer == "kind":
                return [isinstance(each, float) for each in losses]
            return float(model.factor.data) if answer == "weights" else [float(each) for each in losses]

        return probe

    def modes_of_fit(impl):
        model = _Factor().eval()
        impl.fit(model, x[:, :2], y, SGD([model.factor], 0.1), _Batches([[0]]), 1)
        return [*model.modes, model.is_training, model.inner[0].is_training]

    def dtype_of_fit(impl):
        model = _Factor()
        impl.fit(model, x[:, :2].astype(np.float32), y, SGD([model.factor], 0.1), _Batches([[0]]), 1)
        return model.dtypes

    def measured(impl):
        return float(impl.accuracy(_Factor(), x * 3, np.array([0, 1, 2, 2, 1, 0, 0])))

    def modes_of_accuracy(is_training):
        def probe(impl):
            model = _Factor()
            model = model.train() if is_training else model.eval()
            model.factor.grad = np.array(1.0)
            impl.accuracy(model, x[:, :2].astype(np.float32), y)
            kept = "dropped" if model.factor.grad is None else "kept"
            return [
                *model.modes[:2],
                model.is_training,
                model.inner[0].is_training,
                kept,
                *model.dtypes[:1],
                model.is_recorded,
            ]

        return probe

    def of_failing(impl):
        model = _Failing()
        try:
            impl.accuracy(model, np.ones((2, 2)), y[:2])
        except ArithmeticError:
            return model.is_training
        return "no error"

    many = rng.normal(size=(300, 2))
    labels = (many[:, 1] > many[:, 0]).astype(int)
    labels[100:] = 0
    return {
        "a network with tanh": outputs(),
        "a network with relu": outputs(relu),
        "one hidden layer": outputs(n_hidden=1),
        "no hidden layer": outputs(n_hidden=0),
        "size of the first weights, tanh": sizes(tanh, 0),
        "size of the first weights, relu": sizes(relu, 0),
        "size of the last weights": sizes(tanh, 2),
        "initial weights": initial,
        "two networks of one generator": again,
        "names": names,
        "dtypes": dtypes,
        "layers": shared_layers,
        "a single width": one_width,
        "weights after one batch": trained([[0, 1, 2]]),
        "weights after two batches": trained([[0, 1], [2, 3, 4]]),
        "weights after two epochs": trained([[0, 1], [2, 3]], [[4, 5], [6, 0]]),
        "weights after batches of two sizes": trained([[0, 1], [2]]),
        "weights after a batch out of order": trained([[4, 3, 0]]),
        "weights with old gradients": trained([[0, 1]], old=np.array(1.0)),
        "losses of two epochs": trained([[0, 1], [2, 3]], [[4, 5], [6, 0]], answer="losses"),
        "losses of batches of two sizes": trained([[0, 1, 2], [3]], lr=0.0, answer="losses"),
        "loss of a batch out of order": trained([[4, 3, 0]], answer="losses"),
        "kind of losses": trained([[0, 1]], answer="kind"),
        "modes in fit": modes_of_fit,
        "dtype in fit": dtype_of_fit,
        "accuracy": measured,
        "accuracy of many": lambda impl: float(impl.accuracy(_Factor(), many, labels)),
        "modes in accuracy, training before": modes_of_accuracy(True),
        "modes in accuracy, in use before": modes_of_accuracy(False),
        "mode after an error": of_failing,
    }


class _Factor(Module):
    """Multiplies its inputs by one number, and notes the modes, dtypes and whether it is recorded."""

    def __init__(self):
        self.factor, self.inner = Parameter(np.array(0.7)), [Module()]
        self.modes, self.dtypes, self.is_recorded = [], [], False

    def forward(self, x):
        self.modes += [self.is_training, self.inner[0].is_training]
        self.dtypes.append(str(x.dtype))
        y = x * self.factor
        self.is_recorded = y.requires_grad
        return y


class _Failing(Module):
    def forward(self, x):
        raise ArithmeticError("fails")


class _Batches:
    """Epochs that a probe chose; beyond the last, the last again."""

    def __init__(self, *epochs):
        self.epochs = epochs

    def epoch(self, number):
        return iter([np.array(batch) for batch in self.epochs[min(number, len(self.epochs) - 1)]])
