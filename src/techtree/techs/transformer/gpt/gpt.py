"""A table, a stack of blocks and the same table again: a model that scores every next token of a text.

Claim: with blocks at hand a language model is a few lines. And a published one is the same few lines: its
weights, under other names and partly transposed, give the logits that its makers saw.

Idea: each id becomes a row, plus a row for its position. The blocks let tokens look at earlier ones only, so
each of the T places predicts its next token without seeing it, and one pass trains T predictions. The head
asks how well the last vector agrees with the row of each token.

Legend: ``ids`` (..., T) token numbers; ``T`` how many, at most ``n_positions``; logits (..., T, n_tokens).

Left out: dropout; keys and values kept between the steps of `greedy` (`kv_cache`); drawing at random
(`sampling`).

Paper: Radford et al. (2019),
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.safetensors import load_file
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.attention import causal_mask
from techtree.techs.transformer.embedding import Embedding
from techtree.techs.transformer.layernorm import LayerNorm
from techtree.techs.transformer.positions import LearnedPositions
from techtree.techs.transformer.transformer_block import TransformerBlock

STD = 0.02


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model.

    Parameters
    ----------
    n_tokens
        The size of the vocabulary.
    n_positions
        The longest text that the model reads, in tokens.
    width, n_layers, n_heads
        Of the blocks, and how many there are.
    hidden
        The number of hidden units in each block; None for ``4 * width``.
    has_bias
        Whether blocks and norms have biases.
    is_tied
        Whether the table of tokens serves as the head, too.
    eps
        Of all norms.

    Raises
    ------
    ValueError
        When one of the numbers is less than 1, n_heads does not divide the width, or eps is not above 0.
    """

    n_tokens: int
    n_positions: int
    width: int
    n_layers: int
    n_heads: int
    hidden: int | None = None
    has_bias: bool = True
    is_tied: bool = True
    eps: float = 1e-5

    def __post_init__(self):
        for name in ("n_tokens", "n_positions", "width", "n_layers", "n_heads", "hidden"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if self.width % self.n_heads:
            raise ValueError(f"n_heads must divide width; got {self.n_heads} heads of {self.width}")
        if not self.eps > 0:
            raise ValueError(f"eps must be above 0; got {self.eps}")


class GPT(Module):
    """A decoder: tokens and positions, blocks, a last norm, a head.

    Parameters
    ----------
    config
        The shape.
    rng
        Draws all weights, in the order of the attributes; the only source of randomness.
    dtype
        Of all parameters.

    Attributes
    ----------
    token_embedding, position_embedding
        `Embedding` and `LearnedPositions`, both of std 0.02.
    blocks
        A list of `TransformerBlock`, whose gain is ``1 / sqrt(2 * n_layers)``.
    norm
        `LayerNorm`, after the last block.
    head
        `Linear` from width to n_tokens without bias, of std 0.02; None if the model is tied. These five are
        the module's first, in this order.
    config
        As given.

    Examples
    --------
    >>> config = GPTConfig(n_tokens=11, n_positions=8, width=4, n_layers=1, n_heads=2)
    >>> model = GPT(config, np.random.default_rng(0))
    >>> model(np.array([[3, 1, 4], [1, 5, 9]])).shape
    (2, 3, 11)
    """

    def __init__(self, config: GPTConfig, rng: np.random.Generator, dtype: type = np.float64):
        width, n_tokens = config.width, config.n_tokens
        self.token_embedding = Embedding(n_tokens, width, rng, STD, dtype)
        self.position_embedding = LearnedPositions(config.n_positions, width, rng, STD, dtype)
        gain = 1 / math.sqrt(2 * config.n_layers)
        self.blocks = [
            TransformerBlock(
                *(width, config.n_heads, rng, config.hidden, config.has_bias, gain, config.eps, dtype)
            )
            for _ in range(config.n_layers)
        ]
        self.norm = LayerNorm(width, config.eps, config.has_bias, dtype)
        self.head = None
        if not config.is_tied:
            self.head = Linear(width, n_tokens, rng, False, STD * math.sqrt(width), dtype)
        self.config = config

    def forward(self, ids: np.ndarray) -> Tensor:
        """Score, at each place of a text, every token as the next one.

        Parameters
        ----------
        ids
            Integers of shape (..., T), with any leading axes or none: texts that do not see each other, all
            beginning at position 0. T is from 1 to n_positions. Not changed.

        Returns
        -------
        Tensor
            Logits, (..., T, n_tokens): of the place t from the ids up to t alone. They come from the head, or
            from ``token_embedding.unembed`` where ``head`` is None. All parts are read anew at each call.
            Gradients flow to all parameters.

        Raises
        ------
        ValueError
            When ids have no axis, T is 0 or above n_positions, an id is negative or not below n_tokens, or
            the dtype is not one of integers.
        """
        ids = np.asarray(ids)
        if ids.ndim == 0 or ids.shape[-1] == 0:
            raise ValueError(f"ids must have the shape (..., T), T at least 1; got {ids.shape}")
        n = ids.shape[-1]
        x = self.token_embedding(ids) + self.position_embedding(n)  # (..., T, width)
        mask = causal_mask(n, n)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        return self.token_embedding.unembed(x) if self.head is None else self.head(x)


def greedy(
    model: Callable[[np.ndarray], Tensor], ids: Sequence[int], n_new: int, stop: Collection[int] = ()
) -> list[int]:
    """Continue a text by the likeliest token, again and again.

    Parameters
    ----------
    model
        Maps ids (T,) to logits (T, n_tokens), like `GPT`. Called without recording gradients, once for each
        new token, with the whole text so far.
    ids
        At least one. Not changed.
    n_new
        How many tokens to add at most; may be 0.
    stop
        Tokens at which the text ends.

    Returns
    -------
    list[int]
        The new tokens alone. Where the next one would be among ``stop``, the list ends before it. Of tokens
        with equal logits the one with the smallest id is taken.

    Raises
    ------
    ValueError
        When ids is empty or n_new negative; and what the model raises, when the text becomes too long for it.

    Examples
    --------
    >>> def count_on(ids):  # the likeliest token is the last one plus 1
    ...     return Tensor(np.eye(9)[(ids + 1) % 9])
    >>> greedy(count_on, [5, 2], 3), greedy(count_on, [5, 2], 3, stop={4})
    ([3, 4, 5], [3])
    """
    if not len(ids) or n_new < 0:
        raise ValueError(f"ids must not be empty, n_new not negative; got {len(ids)} ids, n_new={n_new}")
    text = [int(each) for each in ids]
    with no_grad():
        for _ in range(n_new):
            best = int(model(np.array(text)).data[-1].argmax())
            if best in stop:
                break
            text.append(best)
    return text[len(ids) :]


def load_gpt2(folder: str | Path, dtype: type = np.float32) -> GPT:
    """Read a GPT-2 as `transformers` saves it: ``config.json`` and ``model.safetensors``.

    Parameters
    ----------
    folder
        Of a GPT2LMHeadModel or a GPT2Model: the names of the latter's tensors lack ``transformer.``.
    dtype
        Of the model's parameters, to which the file's numbers are converted.

    Returns
    -------
    GPT
        With biases, and of the shape that the file says; its logits are those of the GPT2LMHeadModel.

    Raises
    ------
    ValueError
        When the folder says what this model would compute otherwise: a ``model_type`` that is not "gpt2"; an
        ``activation_function`` other than "gelu_new" and "gelu_pytorch_tanh", which are the same;
        ``scale_attn_weights`` that is false; ``scale_attn_by_inverse_layer_idx`` or ``add_cross_attention``
        that is true; one of ``vocab_size, n_positions, n_embd, n_layer, n_head`` missing. The message names
        the key. Likewise when a tensor is missing, has another shape, or is not known.

    Notes
    -----
    Keys that may be missing, and what they are then: those that may raise an error, as it must be;
    ``n_inner`` null, which stands for 4 times ``n_embd``; ``layer_norm_epsilon`` 1e-5;
    ``tie_word_embeddings`` true. Other keys do not matter.

    Tensors, for each block ``h.N``: ``ln_1``, ``attn.c_attn``, ``attn.c_proj``, ``ln_2``, ``mlp.c_fc``,
    ``mlp.c_proj``, each with ``.weight`` and ``.bias``. Those of ``c_attn``, ``c_proj`` and ``c_fc`` hold
    their weights as (n_in, n_out); ``c_attn`` has the outputs of query, key, value, in this order. Besides:
    ``wte.weight``, ``wpe.weight``, ``ln_f``, and ``lm_head.weight``, which has no ``transformer.`` before it.
    A tied model may have the latter, too, if it equals ``wte.weight``. ``h.N.attn.bias`` and
    ``h.N.attn.masked_bias`` are no weights but the causal mask and its number; they may be there.
    """
    folder = Path(folder)
    config = _read_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    state = {}
    for name, array in load_file(folder / "model.safetensors").items():
        state |= _translated(name.removeprefix("transformer."), array)
    if config.is_tied:
        head = state.pop("head.weight", None)
        if head is not None and not np.array_equal(head, state.get("token_embedding.weight", ())):
            raise ValueError("lm_head.weight of a tied model must equal wte.weight")
    model = GPT(config, np.random.default_rng(0), dtype)
    model.load_state_dict(state)
    return model


_NAMES = {"wte": "token_embedding", "wpe": "position_embedding", "ln_f": "norm", "lm_head": "head"}
_NAMES_IN_BLOCK = {
    "ln_1": "attention_norm",
    "attn.c_attn": "attention",
    "attn.c_proj": "attention.output",
    "ln_2": "feed_forward_norm",
    "mlp.c_fc": "feed_forward.up",
    "mlp.c_proj": "feed_forward.down",
}


def _translated(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a tensor of GPT-2 is in ours: none, one or three; under its own name if it is not known."""
    path, _, kind = name.rpartition(".")
    if path in _NAMES:
        return {f"{_NAMES[path]}.{kind}": array}
    match path.split(".", 2):
        case ["h", number, "attn"] if kind in ("bias", "masked_bias"):
            return {}
        case ["h", number, part] if part in _NAMES_IN_BLOCK:
            ours = f"blocks.{number}.{_NAMES_IN_BLOCK[part]}"
        case _:
            return {name: array}
    rows = array if part.startswith("ln") else array.T
    if part != "attn.c_attn":
        return {f"{ours}.{kind}": rows}
    thirds = np.split(rows, 3)
    return {f"{ours}.{each}.{kind}": third for each, third in zip(_QKV, thirds, strict=True)}


_QKV = ("query", "key", "value")
_KNOWN = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
_SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")


def _read_config(given: Mapping) -> GPTConfig:
    for key, known in _KNOWN.items():
        if (value := given.get(key, known[0])) not in known:
            raise ValueError(f"{key} must be {' or '.join(map(repr, known))}; got {value!r}")
    if missing := [key for key in _SIZES if key not in given]:
        raise ValueError(f"config.json must have {', '.join(missing)}")
    return GPTConfig(
        *(given[key] for key in _SIZES),
        hidden=given.get("n_inner"),
        is_tied=given.get("tie_word_embeddings", True),
        eps=given.get("layer_norm_epsilon", 1e-5),
    )
