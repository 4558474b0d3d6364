"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import dataclasses

import numpy as np

from techtree.techs.transformer.gpt import GPT, GPTConfig
from techtree.tree.answers import told

_BLOCK = "block = 4 * w * w + 2 * w * hidden + 2 * w  # four matrices, two matrices, two norms"
_BIASES = "block += 4 * w + hidden + w + 2 * w"
_TOTAL = "total = config.n_layers * block + w * (1 + config.has_bias)"
_TABLES = "total += (config.n_tokens * (1 if config.is_tied else 2) + config.n_positions) * w"
_HIDDEN = "return 4 * config.width if config.hidden is None else config.hidden"
_LENGTH = "n = config.n_positions if n_tokens is None else n_tokens"
_LENGTH_FITS = "if not 1 <= n <= config.n_positions:"
_WEIGHTS = "weights = config.n_layers * (4 * w * w + 2 * w * _hidden(config)) + config.n_tokens * w"
_PAIRS = (
    "per_layer = w * (n + 1) if is_causal else 2 * w * n  # keys seen on average, for scores and for averages"
)
_FLOPS = "return (2 * weights + 2 * config.n_layers * per_layer) * (3 if is_training else 1)"
_LEAST = "if value < least:"
_HELD = "held = count_parameters(config) * bytes_per_number"
_LAYER = "layer = 6 * config.width + _hidden(config) + config.n_heads * n"
_ACTIVATIONS = "activations = batch_size * n * (config.n_layers * layer + config.n_tokens)"
_STATES = '"optimizer": n_states * held,'
_GRADIENTS = '"gradients": held,'
_BYTES = '"activations": activations * bytes_per_number,'
_CALL = "return self.floor + self.coefficient * np.asarray(x, np.float64) ** -self.exponent"
_SHAPES = "if x.ndim != 1 or x.shape != y.shape:"
_ABOVE = "if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all() and (y > 0).all()):"
_THREE = "if len(np.unique(x)) < 3:"
_MIDDLE = "middle = np.exp(np.log(x).mean())"
_U = "u = (x / middle) ** -exponents[:, None] / y  # coefficient * u + floor * one should be 1"
_ONE = "one = 1 / y"
_POSITIVE = "errors[~((coefficients >= 0) & (floors >= 0))] = np.inf"
_ROUNDS = "for _ in range(12):  # a grid around the best of the grid before"
_RETURN = "return PowerLaw(float(coefficients[place] * middle**exponent), exponent, float(floors[place]))"
_EXPONENTS = "EXPONENTS = 0.01, 4.0"
_GIVEN = "if not all(each > 0 for each in given):"
_WIDTH = "width = n_heads * head_width"
_CONFIG = "config = GPTConfig(n_tokens, n_positions, width, max(2, width // aspect), n_heads)"
_TRAINED = "return config, int(budget // flops_per_token(config))"
_POSSIBLE = "return n_trained >= tokens_per_parameter * count_parameters(config)"
_FIRST = "if not is_possible(1):"
_MORE = "while is_possible(n_heads + 1):  # more heads have more parameters and get fewer tokens"


MISTAKES = {
    "parameters: three of the four matrices of attention are counted": [
        (_BLOCK, _BLOCK.replace("4 * w * w", "3 * w * w"))
    ],
    "parameters: hidden is always four widths": [(_HIDDEN, "return 4 * config.width")],
    "parameters: a model without biases still has those of its norms": [
        (_BLOCK, _BLOCK.replace("+ 2 * w ", "+ 4 * w ")),
        (_BIASES, "block += 4 * w + hidden + w"),
        (_TOTAL, "total = config.n_layers * block + 2 * w"),
    ],
    "parameters: has_bias is ignored": [
        ("    if config.has_bias:\n", "    if True:\n"),
        (_TOTAL, "total = config.n_layers * block + 2 * w"),
    ],
    "parameters: the norms are forgotten": [
        (_BLOCK, _BLOCK.replace(" + 2 * w ", " ")),
        (_BIASES, "block += 4 * w + hidden + w"),
        (_TOTAL, "total = config.n_layers * block"),
    ],
    "parameters: the last norm is forgotten": [(_TOTAL, "total = config.n_layers * block")],
    "parameters: the last norm has a bias always": [(_TOTAL, "total = config.n_layers * block + 2 * w")],
    "parameters: the hidden layer's bias is as wide as the model": [
        (_BIASES, "block += 4 * w + w + w + 2 * w")
    ],
    "parameters: linear layers have no biases": [(_BIASES, "block += 2 * w")],
    "parameters: a tied model has its head once more": [
        (_TABLES, _TABLES.replace("(1 if config.is_tied else 2)", "2"))
    ],
    "parameters: a model that is not tied has no head": [
        (_TABLES, _TABLES.replace("(1 if config.is_tied else 2)", "1"))
    ],
    "parameters: the head has a bias": [
        (_TABLES, _TABLES + "\n        total += 0 if config.is_tied else config.n_tokens")
    ],
    "parameters: positions have no table": [(_TABLES, _TABLES.replace(" + config.n_positions", ""))],
    "parameters: without embeddings the positions stay": [
        (_TABLES, _TABLES + "\n    else:\n        total += config.n_positions * w")
    ],
    "parameters: without embeddings the head of a model that is not tied stays": [
        (_TABLES, _TABLES + "\n    elif not config.is_tied:\n        total += config.n_tokens * w")
    ],
    "parameters: without embeddings the last norm is left out": [
        (_TABLES, _TABLES + "\n    else:\n        total -= w * (1 + config.has_bias)")
    ],
    "parameters: has_embeddings is ignored": [("    if has_embeddings:\n", "    if True:\n")],
    "parameters: 12 L W^2 is near enough": [(_TOTAL, "total = 12 * config.n_layers * w * w")],
    "parameters: the number is a float": [(_TOTAL, _TOTAL + "\n    total = float(total)")],
    "operations: a multiplication and an addition count as one": [
        (_FLOPS, _FLOPS.replace("2 * weights", "weights").replace("2 * config", "config"))
    ],
    "operations: 6 for each parameter, of whatever kind": [
        (_FLOPS, "return 2 * count_parameters(config) * (3 if is_training else 1)")
    ],
    "operations: attention is forgotten": [
        (_FLOPS, _FLOPS.replace(" + 2 * config.n_layers * per_layer", ""))
    ],
    "operations: the head is forgotten": [(_WEIGHTS, _WEIGHTS.replace(" + config.n_tokens * w", ""))],
    "operations: a tied head costs nothing": [
        (_WEIGHTS, _WEIGHTS.replace("config.n_tokens * w", "(0 if config.is_tied else config.n_tokens * w)"))
    ],
    "operations: only the scores are counted, not the averages": [
        (_FLOPS, _FLOPS.replace("2 * config.n_layers", "config.n_layers"))
    ],
    "operations: attention is counted for each head": [
        (_FLOPS, _FLOPS.replace("2 * config.n_layers", "2 * config.n_heads * config.n_layers"))
    ],
    "operations: the backward pass costs as much as the forward pass": [
        (_FLOPS, _FLOPS.replace("3 if", "2 if"))
    ],
    "operations: is_training is ignored": [(_FLOPS, _FLOPS.replace("(3 if is_training else 1)", "3"))],
    "operations: is_causal is ignored": [(_PAIRS, "per_layer = 2 * w * n")],
    "operations: a causal mask halves the pairs exactly": [
        (_PAIRS, "per_layer = w * n if is_causal else 2 * w * n")
    ],
    "operations: a token does not see itself": [
        (_PAIRS, "per_layer = w * (n - 1) if is_causal else 2 * w * n")
    ],
    "operations: the text always has n_positions tokens": [(_LENGTH, "n = config.n_positions")],
    "operations: they are those of the whole text": [(_FLOPS, _FLOPS + " * n")],
    "operations: looking up a row of the table is a product": [
        (_FLOPS, _FLOPS.replace("2 * weights", "2 * (weights + config.n_tokens * w)"))
    ],
    "lengths: a longer text than the positions is counted": [(_LENGTH_FITS, "if n < 1:")],
    "lengths: an empty text is counted": [(_LENGTH_FITS, "if not 0 <= n <= config.n_positions:")],
    "lengths: 0 stands for all positions": [(_LENGTH, "n = n_tokens or config.n_positions")],
    "memory: the optimizer always remembers two numbers": [(_STATES, '"optimizer": 2 * held,')],
    "memory: the optimizer remembers in float32 whatever the weights are": [
        (_STATES, '"optimizer": n_states * count_parameters(config) * 4,')
    ],
    "memory: gradients are counted for each text": [(_GRADIENTS, '"gradients": held * batch_size,')],
    "memory: activations are those of one text": [(_ACTIVATIONS, _ACTIVATIONS.replace("batch_size * ", ""))],
    "memory: activations are numbers, not bytes": [(_BYTES, '"activations": activations,')],
    "memory: activations are in float32 always": [(_BYTES, '"activations": activations * 4,')],
    "memory: one matrix of scores serves all heads": [(_LAYER, _LAYER.replace("config.n_heads * n", "n"))],
    "memory: scores are forgotten": [(_LAYER, _LAYER.replace(" + config.n_heads * n", ""))],
    "memory: the hidden layer is forgotten": [(_LAYER, _LAYER.replace(" + _hidden(config)", ""))],
    "memory: the averages of the values are forgotten": [(_LAYER, _LAYER.replace("6 *", "5 *"))],
    "memory: logits are forgotten": [(_ACTIVATIONS, _ACTIVATIONS.replace(" + config.n_tokens", ""))],
    "memory: logits are counted in each layer": [
        (
            _ACTIVATIONS,
            _ACTIVATIONS.replace(
                "(config.n_layers * layer + config.n_tokens)", "config.n_layers * (layer + config.n_tokens)"
            ),
        )
    ],
    "memory: activations are those of one layer": [
        (_ACTIVATIONS, _ACTIVATIONS.replace("config.n_layers * ", ""))
    ],
    "memory: parameters are counted without the tables": [
        (_HELD, _HELD.replace("(config)", "(config, False)"))
    ],
    "memory: a batch of none is counted": [(_LEAST, 'if value < least and name != "batch_size":')],
    "memory: an optimizer that remembers nothing is refused": [
        ('("n_states", n_states, 0)', '("n_states", n_states, 1)')
    ],
    "memory: only the batch size is looked at": [(_LEAST, 'if value < least and name == "batch_size":')],
    "the curve rises: the exponent lacks its sign": [(_CALL, _CALL.replace("-self", "self"))],
    "the curve lacks its floor": [(_CALL, _CALL.replace("self.floor + ", ""))],
    "the floor is inside: (coefficient + floor) * x ** -exponent": [
        (_CALL, "return (self.floor + self.coefficient) * np.asarray(x, np.float64) ** -self.exponent")
    ],
    "the coefficient is inside: floor + (x / coefficient) ** -exponent": [
        (_CALL, "return self.floor + (np.asarray(x, np.float64) / self.coefficient) ** -self.exponent")
    ],
    "the curve of float32 is float32": [
        (
            _CALL,
            _CALL.replace(
                "np.asarray(x, np.float64)",
                "np.asarray(x, None if getattr(x, 'dtype', None) == np.float32 else np.float64)",
            ),
        )
    ],
    "the fit has no floor: a straight line in logarithms": [(_POSITIVE, "errors[[0, 2]] = np.inf")],
    "the floor may be negative": [(_POSITIVE, "errors[~(coefficients >= 0)] = np.inf")],
    "the coefficient may be negative: the curve rises": [(_POSITIVE, "errors[~(floors >= 0)] = np.inf")],
    "a negative floor becomes 0, and the coefficient stays": [
        (
            _POSITIVE,
            "floors[0] = np.maximum(floors[0], 0)\n        coefficients[0] = np.maximum(coefficients[0], 0)\n        errors[1:] = np.inf",
        )
    ],
    "the error counts in absolute, not relative to the height": [
        (_U, _U.replace(" / y ", " ")),
        (_ONE, "one = np.ones_like(y)"),
        ("a = rest.sum(axis=1)", "a = (rest @ y)"),
        ("c = (one.sum() - ", "c = (y.sum() - "),
        ("alone = u.sum(axis=1)", "alone = (u @ y)"),
        ("flat = np.full(len(u), one.sum()", "flat = np.full(len(u), y.sum()"),
        ("one - 1) ** 2)", "one - y) ** 2)"),
    ],
    "the floor is the smallest loss, a bit lowered": [
        (
            _MIDDLE,
            "floor = 0.99 * y.min()\n    b, log_a = np.polyfit(np.log(x), np.log(y - floor), 1)\n    return PowerLaw(float(np.exp(log_a)), float(-b), float(floor))\n    "
            + _MIDDLE,
        )
    ],
    "the coefficient is that of x in units of its mean": [
        (_RETURN, _RETURN.replace(" * middle**exponent", ""))
    ],
    "the exponent is one of the first grid": [(_ROUNDS, "for _ in range(0):")],
    "the exponent is at most 1": [(_EXPONENTS, "EXPONENTS = 0.01, 1.0")],
    "the exponent is at least 0.1": [(_EXPONENTS, "EXPONENTS = 0.1, 4.0")],
    "two different x are enough": [(_THREE, "if len(np.unique(x)) < 2:")],
    "three points are enough, even if x occurs twice": [(_THREE, "if len(x) < 3:")],
    "numbers below 0 are fitted": [
        (_ABOVE, "if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all()):")
    ],
    "x of 0 are left out": [(_ABOVE, "x, y = x[x != 0], y[x != 0]\n    " + _ABOVE)],
    "matrices are fitted, too": [
        (_SHAPES, "x, y = x.reshape(-1), y.reshape(-1)\n    if x.shape != y.shape:")
    ],
    "of unequal many the rest is left out": [(_SHAPES, "x, y = x[: len(y)], y[: len(x)]\n    " + _SHAPES)],
    "shape: the budget counts forward passes only": [
        (_TRAINED, _TRAINED.replace("(config))", "(config, is_training=False))"))
    ],
    "shape: the budget counts 6 for each parameter": [
        (_TRAINED, "return config, int(budget // (6 * count_parameters(config)))")
    ],
    "shape: the tables do not count for the tokens that are needed": [
        (_POSSIBLE, _POSSIBLE.replace("(config)", "(config, False)"))
    ],
    "shape: tokens_per_parameter is 20 always": [
        (_POSSIBLE, _POSSIBLE.replace("tokens_per_parameter", "20"))
    ],
    "shape: the tokens are those that are needed, not those that can be had": [
        (
            "    return shape(n_heads)\n\n\ndef _hidden",
            "    config, _ = shape(n_heads)\n    return config, int(tokens_per_parameter * count_parameters(config))\n\n\ndef _hidden",
        )
    ],
    "shape: the first that is too large": [
        ("    return shape(n_heads)\n\n\ndef _hidden", "    return shape(n_heads + 1)\n\n\ndef _hidden")
    ],
    "shape: exactly enough is too little": [(_POSSIBLE, _POSSIBLE.replace(">=", ">"))],
    "shape: one head, whatever the budget": [(_FIRST, "if False:")],
    "shape: one layer where aspect says so": [(_CONFIG, _CONFIG.replace("max(2", "max(1"))],
    "shape: depth is rounded up": [(_CONFIG, _CONFIG.replace("width // aspect", "-(-width // aspect)"))],
    "shape: a head is 64 wide always": [(_WIDTH, "width = n_heads * 64")],
    "shape: a single head, only wider": [(_CONFIG, _CONFIG.replace(", n_heads)", ", 1)"))],
    "shape: the number of heads doubles": [
        (_MORE, "while is_possible(2 * n_heads):"),
        ("        n_heads += 1\n", "        n_heads *= 2\n"),
    ],
    "shape: the head is a matrix of its own": [
        (_CONFIG, _CONFIG.replace(", n_heads)", ", n_heads, is_tied=False)"))
    ],
    "shape: the number of tokens is a float": [
        (
            _TRAINED,
            _TRAINED.replace(
                "int(budget // flops_per_token(config))", "budget // float(flops_per_token(config))"
            ),
        )
    ],
    "shape: arguments of 0 and below are no ValueError": [(_GIVEN, "assert min(given) > 0\n    if False:")],
}


def _of_real_models(config, has_embeddings=True):
    """Make a model one layer deep and one deep with twice as many; the rest is proportion."""
    if config.width * max(config.width, config.n_tokens, config.n_positions, config.hidden or 0) > 400:
        return _by_lists(config, has_embeddings)
    sizes = []
    for n_layers in (1, 2):
        model = GPT(dataclasses.replace(config, n_layers=n_layers), np.random.default_rng(0), np.float32)
        inside = [p for name, p in model.named_parameters() if name.startswith(("blocks", "norm"))]
        sizes.append(sum(p.data.size for p in (model.parameters() if has_embeddings else inside)))
    return sizes[0] + (config.n_layers - 1) * (sizes[1] - sizes[0])


def _by_lists(config, has_embeddings=True):
    w, b = config.width, 1 if config.has_bias else 0
    hidden = config.hidden or 4 * w
    attention = 4 * (w + b) * w
    feed_forward = (w + b) * hidden + (hidden + b) * w
    norms = (2 * config.n_layers + 1) * (w + b * w)
    tables = [config.n_tokens * w] * (2 - config.is_tied) + [config.n_positions * w]
    return config.n_layers * (attention + feed_forward) + norms + (sum(tables) if has_embeddings else 0)


def _by_texts(config, n_tokens=None, is_training=True, is_causal=False):
    """The operations of a whole text, each product by its three sizes."""
    n = config.n_positions if n_tokens is None else n_tokens
    if n < 1 or n > config.n_positions:
        raise ValueError("no such text")
    w = config.width
    hidden = config.hidden or 4 * w
    products = config.n_layers * [(n, w, w)] * 4 if config.n_layers < 3 else [(n, w, 4 * w * config.n_layers)]
    products += [(n, w, hidden * config.n_layers), (n, hidden, w * config.n_layers), (n, w, config.n_tokens)]
    total = sum(a * b * c for a, b, c in products)
    pairs = n * (n + 1) // 2 if is_causal else n**2
    total += 2 * pairs * w * config.n_layers
    return 2 * total * (1 + 2 * is_training) // n


def _doubling(budget, n_tokens, n_positions, tokens_per_parameter=20.0, head_width=64, aspect=64):
    """Double the number of heads until it is too many, then halve the interval."""
    for each in (budget, n_tokens, n_positions, tokens_per_parameter, head_width, aspect):
        if not each > 0:
            raise ValueError("not above 0")

    def made(n):
        depth = max(2, n * head_width // aspect)
        config = GPTConfig(n_tokens, n_positions, n * head_width, depth, n)
        trained = int(budget // _by_texts(config))
        return config, trained, trained >= tokens_per_parameter * _by_lists(config)

    low, high = 0, 1
    while made(high)[2]:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if made(middle)[2] else (low, middle)
    if not low:
        raise ValueError("too small")
    return made(low)[:2]


def _memory_in_parts(config, batch_size, n_tokens=None, n_states=2, bytes_per_number=4):
    if batch_size < 1 or n_states < 0 or bytes_per_number < 1:
        raise ValueError("numbers")
    n = config.n_positions if n_tokens is None else n_tokens
    if not 0 < n <= config.n_positions:
        raise ValueError("length")
    width, hidden = config.width, config.hidden or 4 * config.width
    results = np.array([width] * 4 + [config.n_heads * n, width, hidden, width], dtype=object)
    results = config.n_layers * int(results.sum()) + config.n_tokens
    parts = [_by_lists(config)] * 2 + [_by_lists(config) * n_states, results * n * batch_size]
    return dict(
        zip(
            ("parameters", "gradients", "optimizer", "activations"),
            (part * bytes_per_number for part in parts),
            strict=True,
        )
    )


EQUIVALENTS = {
    "parameters of small models are counted in real ones": {"count_parameters": _of_real_models},
    "parameters by inputs with a 1 for the bias": {"count_parameters": _by_lists},
    "operations of a whole text, divided": {"flops_per_token": _by_texts},
    "memory by a list of results": {"memory": _memory_in_parts},
    "the shape by doubling and halving": {"best_shape": _doubling},
    "the curve by logarithm and exponential": [
        (
            _CALL,
            "return self.floor + self.coefficient * np.exp(-self.exponent * np.log(np.asarray(x, np.float64)))",
        )
    ],
    "the fit with a finer first grid and fewer steps": [
        ("np.geomspace(*EXPONENTS, 400)", "np.geomspace(*EXPONENTS, 3000)"),
        ("for _ in range(12):", "for _ in range(10):"),
    ],
}

_NUMPY = "NumPy refuses these shapes, in other words"
_GRID = "any grid that closes in on the best exponent finds it"
_LAW = "a law is handed on as it is"
_ENDS = "ends = (exponents[max(place - {}, 0)], exponents[min(place + {}, len(exponents) - 1)])"
_PAIRS_OF = "coefficients, floors = (np.array([a, alone, {}]), np.array([c, {}, flat]))"
_ERRORS = "errors = ((coefficients[..., None] * u + floors[..., None] * one - {}) ** 2).sum(axis=-1)"
_SPOILT = (
    "wrong beyond 128 on an axis",
    "wrong for an axis of length 1",
    "wrong for more than two axes",
    "wrong for arrays that are not contiguous",
    "wrong for float32",
    "wrong for values beyond 1e4",
)
HARMLESS = {
    f"{_SHAPES} => if False:": _NUMPY,
    f"{_SHAPES} => {_SHAPES.replace(' or ', ' and ')}": _NUMPY,
    "raise ValueError(f'x and y must have the same shape (n,); got {x.shape} and {y.shape}') => pass": _NUMPY,
    **{
        f"exponents = np.geomspace({given}, {n}) => exponents = np.geomspace({given}, {n + more})": _GRID
        for given, n in (("*EXPONENTS", 400), ("*ends", 12))
        for more in (1, -1)
    },
    **{f"for _ in range(12): => for _ in range({n}):": _GRID for n in (11, 13)},
    f"{_ENDS.format(1, 1)} => {_ENDS.format(2, 1)}": _GRID,
    f"{_ENDS.format(1, 1)} => {_ENDS.format(1, 2)}": _GRID,
    "n_heads = 1 => n_heads = 0": "the loop begins with one head, which is possible",
    f"{_PAIRS_OF.format('0 * a', '0 * a')} => {_PAIRS_OF.format('0 / a', '0 * a')}": "0 either way",
    f"{_PAIRS_OF.format('0 * a', '0 * a')} => {_PAIRS_OF.format('0 * a', '0 / a')}": "0 either way",
    f"{_ERRORS.format(1)} => {_ERRORS.format(2)}": (
        "for each exponent the sum of the residuals is minus that of their squares, so the order is the same"
    ),
    "return (config, int(budget // flops_per_token(config))) => "
    "return (config, int(budget / flops_per_token(config)))": "the same for all numbers of tokens below 2**53",
    "memory: right at the first call only": "a dictionary is handed on as it is",
    **{f"fit_power_law: {each}": _LAW for each in _SPOILT},
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    plain = GPTConfig(11, 9, 8, 3, 4)
    odd = GPTConfig(7, 5, 6, 2, 3, hidden=10, has_bias=False, is_tied=False)
    biased = GPTConfig(7, 5, 6, 2, 3, hidden=10, is_tied=False)
    bare = GPTConfig(7, 5, 6, 2, 1, has_bias=False)
    configs = {"plain": plain, "odd": odd, "biased": biased, "bare": bare}
    x = np.geomspace(1, 500, 7)
    noise = np.exp(0.02 * rng.normal(size=7))

    def fit(x, y):
        def probe(impl):
            try:
                law = impl.fit_power_law(x, y)
            except Exception as error:
                return "ValueError" if isinstance(error, ValueError) else type(error).__name__
            found = [law.coefficient, law.exponent, law.floor]
            return [round(float(each), 5) for each in found]

        return probe

    def law(impl):
        found = impl.PowerLaw(3.0, 0.5, 2.0)
        return [float(found(4.0)), float(found(np.array([9.0]))[0])]

    def shape(*arguments, **options):
        def probe(impl):
            try:
                config, n = impl.best_shape(*arguments, **options)
            except Exception as error:
                return "ValueError" if isinstance(error, ValueError) else type(error).__name__
            return [config.width, config.n_layers, config.n_heads, config.is_tied, n]

        return probe

    small = {"tokens_per_parameter": 10, "head_width": 8, "aspect": 12}
    one = GPTConfig(96, 64, 8, 2, 1)
    enough = 10 * 3040 * 72576  # the parameters of one head, and its operations for a token
    return {
        **{f"parameters, {name}": lambda impl, c=c: impl.count_parameters(c) for name, c in configs.items()},
        **{
            f"parameters without tables, {name}": lambda impl, c=c: impl.count_parameters(
                c, has_embeddings=False
            )
            for name, c in configs.items()
        },
        **{f"operations, {name}": lambda impl, c=c: impl.flops_per_token(c) for name, c in configs.items()},
        "operations, forward": lambda impl: impl.flops_per_token(plain, is_training=False),
        "operations, causal": lambda impl: impl.flops_per_token(plain, is_causal=True),
        "operations of 4": lambda impl: impl.flops_per_token(plain, 4),
        "operations of 100": told(lambda impl: impl.flops_per_token(plain, 100)),
        "operations of 0": told(lambda impl: impl.flops_per_token(plain, 0)),
        "memory": lambda impl: impl.memory(plain, 1),
        "memory, odd": lambda impl: impl.memory(odd, 2, 3, 1, 2),
        "memory, one state of 8 bytes": lambda impl: impl.memory(plain, 3, None, 1, 8),
        "memory without states": told(lambda impl: impl.memory(plain, 1, n_states=0)),
        "memory of no text": told(lambda impl: impl.memory(plain, 0)),
        "memory of -1 states": told(lambda impl: impl.memory(plain, 1, n_states=-1)),
        "the curve": law,
        "the curve's dtype": lambda impl: str(impl.PowerLaw(3.0, 0.5, 2.0)(np.ones(2, np.float32)).dtype),
        "a fit": fit(x, 1.5 + 4 * x**-0.4),
        "a fit without floor": fit(x, 4 * x**-0.4),
        "a steep fit": fit(x, 1.5 + 4 * x**-2.5),
        "a flat fit": fit(x, 4 * x**-0.05),
        "a fit with noise": fit(x, (1.5 + 4 * x**-0.4) * noise),
        "a fit that bends down": fit(x, 2 * x**-0.3 - 0.2),
        "a fit that rises": fit(x, 1 + x**0.3),
        "two different x": fit([1.0, 2, 1, 2], [4.0, 2, 3, 2.5]),
        "two points": fit([1.0, 2], [4.0, 2]),
        "y below 0": fit(x, 1 - 0.5 * np.log(x)),
        "x of 0": fit([0.0, 1, 2, 3], [9.0, 4, 3, 2]),
        "matrices": fit(x.reshape(1, 7), (1.5 + 4 * x**-0.4).reshape(1, 7)),
        "unequal": fit(x, (1.5 + 4 * x**-0.4)[:5]),
        "a shape": shape(1e11, 96, 64, **small),
        "a larger shape": shape(3e12, 96, 64, **small),
        "a shape of defaults": shape(3e14, 1000, 128),
        "too small a budget": shape(1e6, 96, 64, **small),
        "no budget": shape(0, 96, 64, **small),
        "no aspect": shape(1e11, 96, 64, head_width=8, aspect=0),
        "exactly enough": lambda impl: shape(10 * 3040 * impl.flops_per_token(one), 96, 64, **small)(impl),
        "exactly enough operations": shape(enough, 96, 64, **small),
    }
