"""What a model costs is a sum that can be written down, and its loss a line that can be extended.

Claim: the number of a model's parameters, the arithmetic of a token and the memory of a training step follow
from its shape exactly, before anything runs. Its loss does not; but the losses of a few small runs lie on a
curve that tells that of a larger one.

Idea: nearly all arithmetic of a transformer is in its matrix products, and each weight is multiplied once for
each token: one multiplication and one addition forward, two of each backward. That is 6 operations for each
weight and token. The loss falls like a power of the arithmetic that went in, down to a floor that no
model gets below, because text is not predictable.

Legend: ``P`` parameters, ``W`` width, ``L`` layers, ``T`` tokens in a text, ``H`` heads, ``V`` vocabulary.

Left out: what elementwise operations cost; the time that a machine takes.

Papers: Kaplan et al. (2020), https://arxiv.org/abs/2001.08361; Hoffmann et al. (2022),
https://arxiv.org/abs/2203.15556
"""

from dataclasses import dataclass

import numpy as np

from techtree.techs.transformer.gpt import GPTConfig


def count_parameters(config: GPTConfig, has_embeddings: bool = True) -> int:
    """Count the parameters of a `GPT` of this shape, without making one.

    Parameters
    ----------
    config
        The shape; hidden None stands for ``4 * width``.
    has_embeddings
        False leaves out the tables of tokens and of positions, and the head of a model that is not tied:
        what is left are the blocks and the last norm.

    Examples
    --------
    >>> count_parameters(GPTConfig(n_tokens=50257, n_positions=1024, width=768, n_layers=12, n_heads=12))
    124439808
    """
    w, hidden = config.width, _hidden(config)
    block = 4 * w * w + 2 * w * hidden + 2 * w  # four matrices, two matrices, two norms
    if config.has_bias:
        block += 4 * w + hidden + w + 2 * w
    total = config.n_layers * block + w * (1 + config.has_bias)
    if has_embeddings:
        total += (config.n_tokens * (1 if config.is_tied else 2) + config.n_positions) * w
    return total


def flops_per_token(
    config: GPTConfig, n_tokens: int | None = None, is_training: bool = True, is_causal: bool = False
) -> int:
    """Count the operations of all matrix products, for one token of a text, on average.

    Parameters
    ----------
    config
        The shape.
    n_tokens
        The length of the text; None for ``config.n_positions``.
    is_training
        Whether to count the backward pass, too, with two products for each one of the forward pass.
    is_causal
        Whether to count only the pairs of tokens that the causal mask lets see each other, a token and itself
        included; otherwise all ``n_tokens**2``, which is what `attention` computes.

    Returns
    -------
    int
        Multiplications and additions, one each for a pair of numbers that a product multiplies. Products are
        those with the weights of the blocks' linear layers and of the head (of the table of tokens, if the
        model is tied), the scores, and the weighted averages of the values.

    Raises
    ------
    ValueError
        When n_tokens is less than 1 or more than ``config.n_positions``.

    Examples
    --------
    >>> config = GPTConfig(n_tokens=10, n_positions=5, width=4, n_layers=1, n_heads=1)
    >>> flops_per_token(config, is_training=False)  # 2 * (12 * 4 * 4 + 10 * 4) and 2 * 2 * 5 * 4
    544
    """
    n = _length(config, n_tokens)
    w = config.width
    weights = config.n_layers * (4 * w * w + 2 * w * _hidden(config)) + config.n_tokens * w
    per_layer = w * (n + 1) if is_causal else 2 * w * n  # keys seen on average, for scores and for averages
    return (2 * weights + 2 * config.n_layers * per_layer) * (3 if is_training else 1)


def memory(
    config: GPTConfig,
    batch_size: int,
    n_tokens: int | None = None,
    n_states: int = 2,
    bytes_per_number: int = 4,
) -> dict[str, int]:
    """Count the bytes that a training step cannot do without.

    Parameters
    ----------
    config
        The shape.
    batch_size
        How many texts there are in a step, at least 1.
    n_tokens
        The length of each; None for ``config.n_positions``.
    n_states
        How many numbers the optimizer remembers for each parameter, at least 0: 2 for Adam, 1 for momentum.
    bytes_per_number
        At least 1: 4 for float32. The same for everything.

    Returns
    -------
    dict[str, int]
        ``"parameters"``, ``"gradients"``, ``"optimizer"`` and ``"activations"``, in this order. The last are
        the results of all products that `flops_per_token` counts, in a forward pass that keeps each of them
        whole, for all pairs of tokens.

    Raises
    ------
    ValueError
        When a number is less than it may be, or n_tokens is as `flops_per_token` refuses it.
    """
    n = _length(config, n_tokens)
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("n_states", n_states, 0),
        ("bytes_per_number", bytes_per_number, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}")
    held = count_parameters(config) * bytes_per_number
    # Query, key, value, averages, output, down; up; the scores of each head.
    layer = 6 * config.width + _hidden(config) + config.n_heads * n
    activations = batch_size * n * (config.n_layers * layer + config.n_tokens)
    return {
        "parameters": held,
        "gradients": held,
        "optimizer": n_states * held,
        "activations": activations * bytes_per_number,
    }


@dataclass(frozen=True)
class PowerLaw:
    """A curve that falls to a floor: ``floor + coefficient * x ** -exponent``.

    Parameters
    ----------
    coefficient, exponent, floor
        Numbers.

    Examples
    --------
    >>> PowerLaw(coefficient=4.0, exponent=0.5, floor=1.0)(np.array([4.0, 16.0])).tolist()
    [3.0, 2.0]
    """

    coefficient: float
    exponent: float
    floor: float

    def __call__(self, x):
        """Return y for an x above 0, a number or an array; where x is an array, one of float64."""
        return self.floor + self.coefficient * np.asarray(x, np.float64) ** -self.exponent


EXPONENTS = 0.01, 4.0


def fit_power_law(x: np.ndarray, y: np.ndarray) -> PowerLaw:
    """Find the curve that lies closest to measured points, relative to their height.

    Parameters
    ----------
    x, y
        (n,), numbers above 0, of any dtype, or lists of them; at least three different x. In any order.

    Returns
    -------
    PowerLaw
        The sum of ``(law(x) / y - 1)**2`` is the smallest possible, up to rounding, with an exponent from
        0.01 to 4, and coefficient and floor not below 0. Where the points lie on such a curve, it is the one.
        The floor is the *irreducible loss*. The numbers may be as large and small as 1e30 and 1e-30.

    Raises
    ------
    ValueError
        When the shapes differ or are not (n,), when a number is not above 0 or not finite, or when there are
        fewer than three different x.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"x and y must have the same shape (n,); got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all() and (y > 0).all()):
        raise ValueError("x and y must be finite and above 0")
    if len(np.unique(x)) < 3:
        raise ValueError(f"three numbers need three different x at least; got {len(np.unique(x))}")
    middle = np.exp(np.log(x).mean())

    one = 1 / y

    def best(exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For a given exponent the curve is linear in the two others: return the error and both."""
        u = (x / middle) ** -exponents[:, None] / y  # coefficient * u + floor * one should be 1
        rest = u - (u @ one / (one @ one))[:, None] * one  # what the floor cannot do
        a = rest.sum(axis=1) / (rest * u).sum(axis=1)
        c = (one.sum() - a * (u @ one)) / (one @ one)
        alone = u.sum(axis=1) / (u * u).sum(axis=1)
        flat = np.full(len(u), one.sum() / (one @ one))
        coefficients, floors = np.array([a, alone, 0 * a]), np.array([c, 0 * a, flat])
        errors = ((coefficients[..., None] * u + floors[..., None] * one - 1) ** 2).sum(axis=-1)
        errors[~((coefficients >= 0) & (floors >= 0))] = np.inf
        which = errors.argmin(axis=0), np.arange(len(u))
        return errors[which], coefficients[which], floors[which]

    exponents = np.geomspace(*EXPONENTS, 400)
    for _ in range(12):  # a grid around the best of the grid before
        place = int(best(exponents)[0].argmin())
        ends = exponents[max(place - 1, 0)], exponents[min(place + 1, len(exponents) - 1)]
        exponents = np.geomspace(*ends, 12)
    errors, coefficients, floors = best(exponents)
    place = int(errors.argmin())
    exponent = float(exponents[place])
    return PowerLaw(float(coefficients[place] * middle**exponent), exponent, float(floors[place]))


def best_shape(
    budget: float,
    n_tokens: int,
    n_positions: int,
    tokens_per_parameter: float = 20.0,
    head_width: int = 64,
    aspect: int = 64,
) -> tuple[GPTConfig, int]:
    """Choose the largest model that a budget of arithmetic can train long enough.

    Parameters
    ----------
    budget
        Operations, as `flops_per_token` counts them, for training on texts of n_positions tokens.
    n_tokens, n_positions
        Of the model.
    tokens_per_parameter
        How many tokens the model has to be trained on, at least, for each of its parameters (all of them).
    head_width
        The width of a head. Models of 1, 2, 3, ... heads are considered, of the width that this makes.
    aspect
        How many times as wide as deep a model is: it has ``width // aspect`` layers, and at least 2.

    Returns
    -------
    GPTConfig
        With the largest number of heads that is possible; what is not given here is as `GPTConfig` has it.
    int
        How many tokens the budget allows to train it on, rounded down.

    Raises
    ------
    ValueError
        When an argument is not above 0, or the budget does not even allow one head.
    """
    given = (budget, n_tokens, n_positions, tokens_per_parameter, head_width, aspect)
    if not all(each > 0 for each in given):
        raise ValueError(f"all arguments must be above 0; got {given}")

    def shape(n_heads: int) -> tuple[GPTConfig, int]:
        width = n_heads * head_width
        config = GPTConfig(n_tokens, n_positions, width, max(2, width // aspect), n_heads)
        return config, int(budget // flops_per_token(config))

    def is_possible(n_heads: int) -> bool:
        config, n_trained = shape(n_heads)
        return n_trained >= tokens_per_parameter * count_parameters(config)

    if not is_possible(1):
        raise ValueError(f"a budget of {budget:g} operations is too small for one head of {head_width}")
    n_heads = 1
    while is_possible(n_heads + 1):  # more heads have more parameters and get fewer tokens
        n_heads += 1
    return shape(n_heads)


def _hidden(config: GPTConfig) -> int:
    return 4 * config.width if config.hidden is None else config.hidden


def _length(config: GPTConfig, n_tokens: int | None) -> int:
    n = config.n_positions if n_tokens is None else n_tokens
    if not 1 <= n <= config.n_positions:
        raise ValueError(f"n_tokens must be from 1 to n_positions, {config.n_positions}; got {n}")
    return n
