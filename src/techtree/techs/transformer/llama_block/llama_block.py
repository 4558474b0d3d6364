"""The block that today's open models share, and a reader for their weights: a published model on NumPy.

Claim: four changes lead from GPT-2's block to that of Llama, Mistral, Qwen and SmolLM: norms without mean and
bias, rotated queries and keys instead of added positions, fewer heads of keys than of queries, and a gated
feed-forward part. The families differ in a few switches, so one class computes them all.

Idea: each part is written already; here they are put together in the order that the weights were trained
in. Whoever swaps two steps gets a model that runs and answers nonsense.

Legend: ``ids`` (..., T) whole numbers; ``x`` (..., T, W) tokens; ``H`` heads of queries, ``K`` of keys and
values, each of width ``D``. *Their* names are those in a folder in Hugging Face's format.

Left out: remembering keys and values (`kv_cache`), long texts that are packed together, dropout.

Paper: Touvron et al. (2023), https://arxiv.org/abs/2302.13971
"""

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.safetensors import load_file
from techtree.techs.autodiff.tensor_autodiff import Tensor
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.attention import causal_mask
from techtree.techs.transformer.embedding import Embedding
from techtree.techs.transformer.gqa import grouped_attention
from techtree.techs.transformer.mha import merge_heads, split_heads
from techtree.techs.transformer.rmsnorm import RMSNorm
from techtree.techs.transformer.rope import RopeScaling, rotate, rotation
from techtree.techs.transformer.swiglu import SwiGLU


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a model; ``ValueError`` if its numbers do not fit.

    Attributes
    ----------
    n_tokens, width, hidden, n_layers, n_heads, n_kv_heads
        Whole numbers (``int``, no booleans) of at least 1; `n_kv_heads` divides `n_heads`. `hidden` is the
        inner width of the feed-forward part.
    head_width
        D, a whole number, even, of at least 2. ``width // n_heads`` takes the place of None at once.
    base, scaling
        Of the rotary angles, as `rotation` takes them; `base` is finite and above 0.
    eps
        Of all norms, finite and above 0.
    is_tied
        Whether the table of the token embedding also makes the logits.
    has_qkv_bias
        Whether queries, keys and values have biases (Qwen2); the output never has.
    has_head_norms
        Whether each head of queries and keys is normalized before it is rotated (Qwen3).
    window
        How many tokens each token sees at most, itself included (Mistral), a whole number of at least 1; None
        for all up to itself.

    Examples
    --------
    >>> LlamaConfig(n_tokens=49_152, width=576, hidden=1536, n_layers=30, n_heads=9, n_kv_heads=3).head_width
    64
    """

    n_tokens: int
    width: int
    hidden: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_width: int | None = None
    base: float = 10_000.0
    scaling: RopeScaling | None = None
    eps: float = 1e-6
    is_tied: bool = True
    has_qkv_bias: bool = False
    has_head_norms: bool = False
    window: int | None = None

    def __post_init__(self):
        counts = ["n_tokens", "width", "hidden", "n_layers", "n_heads", "n_kv_heads"]
        counts += ["head_width"] * (self.head_width is not None) + ["window"] * (self.window is not None)
        for name in counts:
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {getattr(self, name)!r}")
        if self.head_width is None:
            object.__setattr__(self, "head_width", self.width // self.n_heads)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads must divide n_heads; got {self.n_kv_heads} of {self.n_heads}")
        if not self.head_width or self.head_width % 2:
            raise ValueError(f"head_width must be even, as pairs are rotated; got {self.head_width}")
        for name in ("base", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and above 0; got {getattr(self, name)!r}")


class LlamaAttention(Module):
    """Self-attention with rotated queries and keys, and fewer heads of keys and values than of queries.

    Parameters
    ----------
    config
        The shape.
    rng
        Draws the four weights in the order of the attributes; the only source of randomness.
    dtype
        Of all parameters.

    Attributes
    ----------
    query, key, value, output
        `Linear` layers, in this order: from W to H * D, K * D and K * D, and from H * D to W. The output's
        gain is ``1 / sqrt(2 * n_layers)``, that of the others 1.
    query_norm, key_norm
        `RMSNorm` of width D, the next; None without `has_head_norms`.
    """

    def __init__(self, config: LlamaConfig, rng: np.random.Generator, dtype: type = np.float64):
        assert config.head_width is not None
        wide, narrow = config.n_heads * config.head_width, config.n_kv_heads * config.head_width
        has_bias, gain = config.has_qkv_bias, 1 / math.sqrt(2 * config.n_layers)
        self.query = Linear(config.width, wide, rng, has_bias, dtype=dtype)
        self.key = Linear(config.width, narrow, rng, has_bias, dtype=dtype)
        self.value = Linear(config.width, narrow, rng, has_bias, dtype=dtype)
        self.output = Linear(wide, config.width, rng, False, gain, dtype)
        norms = [RMSNorm(config.head_width, config.eps, dtype) for _ in range(2)]
        self.query_norm, self.key_norm = norms if config.has_head_norms else (None, None)
        self.config = config

    def forward(
        self, x: Tensor, mask: np.ndarray | None = None, positions: np.ndarray | None = None
    ) -> Tensor:
        """Let every token look at the tokens that it may see.

        Parameters
        ----------
        x
            (..., T, W), T at least 1, with any leading axes or none.
        mask
            Boolean, True where the token of the row may see that of the column: (T, T), or with leading axes
            that broadcast against those of x. The same for all heads. None if every token sees all.
        positions
            (T,) whole numbers, by which queries and keys are rotated; 0 to T - 1 when left out.

        Returns
        -------
        Tensor
            (..., T, W). Queries and keys are cut into heads, normalized if there are norms, rotated
            (pairs i and i + D / 2); each head of keys and values serves H / K neighbouring heads of
            queries. Gradients flow to x and the parameters.

        Raises
        ------
        ValueError
            When x has fewer than two axes, or its last is not W long; when the mask is not boolean or does
            not fit; when there are not T positions.
        """
        config = self.config
        q = split_heads(self.query(x), config.n_heads)
        k, v = (split_heads(layer(x), config.n_kv_heads) for layer in (self.key, self.value))
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        n_tokens = x.shape[-2]
        positions = np.arange(n_tokens) if positions is None else np.asarray(positions)
        if positions.shape != (n_tokens,):
            raise ValueError(f"each of {n_tokens} tokens needs a position; got the shape {positions.shape}")
        cos, sin = rotation(positions, q.shape[-1], config.base, config.scaling)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return self.output(merge_heads(grouped_attention(q, k, v, mask)))


class LlamaBlock(Module):
    """Attention and a feed-forward part, each on normalized tokens and added to them.

    Parameters
    ----------
    config
        The shape.
    rng
        Draws the attention, then the feed-forward part; the only source of randomness.
    feed_forward
        A module from (..., T, W) to the same, taken as it is; a `SwiGLU` when left out, without biases, of
        inner width `hidden` and with the gain ``1 / sqrt(2 * n_layers)``.
    dtype
        Of all parameters that are made here.

    Attributes
    ----------
    attention_norm, attention, feed_forward_norm, feed_forward
        `RMSNorm`, `LlamaAttention`, `RMSNorm`, and the feed-forward part, in this order.
    """

    def __init__(
        self,
        config: LlamaConfig,
        rng: np.random.Generator,
        feed_forward: Module | None = None,
        dtype: type = np.float64,
    ):
        gain = 1 / math.sqrt(2 * config.n_layers)
        self.attention_norm = RMSNorm(config.width, config.eps, dtype)
        self.attention = LlamaAttention(config, rng, dtype)
        self.feed_forward_norm = RMSNorm(config.width, config.eps, dtype)
        if feed_forward is None:
            feed_forward = SwiGLU(config.width, config.hidden, rng, False, gain, dtype)
        self.feed_forward = feed_forward

    def forward(
        self, x: Tensor, mask: np.ndarray | None = None, positions: np.ndarray | None = None
    ) -> Tensor:
        """Return ``x + attention(norm(x))``, and to that its own normalized feed-forward answer added.

        Arguments, shapes, gradients and errors are those of `LlamaAttention.forward`.
        """
        x = x + self.attention(self.attention_norm(x), mask, positions)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Llama(Module):
    """A language model of such blocks.

    Parameters
    ----------
    config
        The shape.
    rng
        Draws the embedding, the blocks and the head, in this order; the only source of randomness.
    make_feed_forward
        Called with the number of each layer, from 0, before that layer's block is drawn: returns its
        feed-forward part, or None for the usual one.
    dtype
        Of all parameters that are made here.

    Attributes
    ----------
    token_embedding
        `Embedding`, with its default standard deviation.
    blocks
        List of `LlamaBlock`.
    norm
        `RMSNorm`.
    head
        `Linear` without bias from W to n_tokens, with the gain ``0.02 * sqrt(W)``; None if tied.
    config
        The config.
    """

    def __init__(
        self,
        config: LlamaConfig,
        rng: np.random.Generator,
        make_feed_forward: Callable[[int], Module | None] | None = None,
        dtype: type = np.float64,
    ):
        make = make_feed_forward or (lambda layer: None)
        self.token_embedding = Embedding(config.n_tokens, config.width, rng, dtype=dtype)
        self.blocks = [LlamaBlock(config, rng, make(layer), dtype) for layer in range(config.n_layers)]
        self.norm = RMSNorm(config.width, config.eps, dtype)
        gain = 0.02 * math.sqrt(config.width)
        self.head = None if config.is_tied else Linear(config.width, config.n_tokens, rng, False, gain, dtype)
        self.config = config

    def forward(self, ids: np.ndarray) -> Tensor:
        """Return the logits of the next token at each place.

        Parameters
        ----------
        ids
            (..., T) whole numbers, T at least 1, as `Embedding` takes them.

        Returns
        -------
        Tensor
            (..., T, n_tokens): embedding, blocks, norm, and the head, or the embedding's table where there is
            none. Each token sees itself and those before it, the last `window` of these alone if there is
            a window. Gradients flow to all parameters.

        Raises
        ------
        ValueError
            As `Embedding` does; also when ids have no axis.
        """
        x = self.token_embedding(ids)
        if x.ndim < 2:
            raise ValueError("ids must have an axis of tokens; got a single number")
        n_tokens, window = x.shape[-2], self.config.window
        mask = causal_mask(n_tokens, n_tokens)
        if window is not None:
            mask &= ~np.tri(n_tokens, k=-window, dtype=bool)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        return self.token_embedding.unembed(x) if self.head is None else self.head(x)


_OURS = {
    "n_tokens": "vocab_size",
    "width": "hidden_size",
    "hidden": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
}
_ONLY = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "quantization_config": (None,),
    "partial_rotary_factor": (None, 1),
}
"""What no switch here says: what is fine, the first when nothing is said."""
_SCALING = {"factor": "factor", "low_freq_factor": "low_freq_factor", "high_freq_factor": "high_freq_factor"}
_SCALING |= {"original_max_position_embeddings": "original_max_seq_len"}


def read_config(
    folder: str | Path, model_types: Collection[str] = ("llama", "mistral", "qwen2", "qwen3")
) -> tuple[LlamaConfig, dict[str, Any]]:
    """Read the shape of a model from ``config.json``.

    Parameters
    ----------
    folder
        Of the model.
    model_types
        Which values of ``model_type`` are accepted. Those that begin with qwen2 have biases, those that begin
        with qwen3 have norms of heads, mistral has a window.

    Returns
    -------
    config, values
        The shape, and the whole object as it is in the file.

    Raises
    ------
    ValueError
        In a sentence that names the key: when the file is missing or not a JSON object; when `model_type`
        is not accepted; when a key that is needed is missing; when a value is none that `LlamaConfig`
        accepts, or asks for what the model here cannot do.

    Notes
    -----
    Needed are ``vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads``, for qwen3 also ``head_dim``, for mistral also ``sliding_window`` (null is none).
    Where they are missing, ``head_dim`` (or null) is ``hidden_size // num_attention_heads``,
    ``rms_norm_eps`` 1e-6, ``tie_word_embeddings`` false, ``rope_theta`` 10000.

    The angles are scaled as ``rope_scaling`` says, or, where that is missing, null or empty,
    ``rope_parameters``: its ``rope_type`` (or, in old files, ``type``) is "default", like no object at all,
    or "linear" with a ``factor``, or "llama3" with ``factor low_freq_factor high_freq_factor
    original_max_position_embeddings``, all needed. A ``rope_theta`` in that object counts more than the one
    beside it.

    Fine are only: ``hidden_act`` "silu" or "swish"; ``attention_bias``, ``mlp_bias`` and
    ``use_sliding_window`` false; ``quantization_config`` null; ``partial_rotary_factor`` 1 or null, in the
    file and in the object of the angles; ``layer_types`` null or a list of "full_attention" alone; each
    also missing. All other keys are of no interest.
    """
    path = Path(folder, "config.json")
    values = _json_object(path)
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in model_types:
        raise ValueError(f"{path}: model_type must be one of {', '.join(model_types)}; got {kind!r}")
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise ValueError(f"{path}: rope_scaling and rope_parameters must be objects; got {rope!r}")
    needed = [*_OURS.values(), *{"qwen3": ["head_dim"], "mistral": ["sliding_window"]}.get(kind, [])]
    for key in needed:
        if key not in values:
            raise ValueError(f"{path}: {key} is missing")
    for said in (values, {"partial_rotary_factor": rope.get("partial_rotary_factor")}):
        for key, fine in _ONLY.items():
            if said.get(key, fine[0]) not in fine:
                raise ValueError(f"{path}: {key} must be {fine[0]!r} or missing; got {said[key]!r}")
    layers = values.get("layer_types")
    if layers is not None and (not isinstance(layers, list) or set(map(str, layers)) - {"full_attention"}):
        raise ValueError(f"{path}: layer_types must all be 'full_attention'; got {layers!r}")
    try:
        config = LlamaConfig(
            **{ours: values[theirs] for ours, theirs in _OURS.items()},
            head_width=values.get("head_dim"),
            base=_number("rope_theta", rope.get("rope_theta", values.get("rope_theta", 10_000.0))),
            scaling=_scaling(rope),
            eps=_number("rms_norm_eps", values.get("rms_norm_eps", 1e-6)),
            is_tied=_flag("tie_word_embeddings", values.get("tie_word_embeddings", False)),
            has_qkv_bias=kind.startswith("qwen2"),
            has_head_norms=kind.startswith("qwen3"),
            window=values["sliding_window"] if kind == "mistral" else None,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config, values


def read_weights(folder: str | Path) -> dict[str, np.ndarray]:
    """Return the tensors of a model by their names, as `load_file` does.

    They are in ``model.safetensors``; where there is no such file, in those that
    ``model.safetensors.index.json`` names: an object with a ``weight_map`` from each tensor's name to the
    name of its file, in the same folder. Tensors that are in a file and not in the map are left out.

    Raises
    ------
    ValueError
        When neither file is there; when the index is not such an object, names a file that is not
        there or not directly in the folder, or a tensor that is not in its file; as `load_file` does.
    """
    folder = Path(folder)
    if (folder / "model.safetensors").is_file():
        return load_file(folder / "model.safetensors")
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        raise ValueError(f"{folder} must hold model.safetensors, or {path.name}; it has neither")
    places = _json_object(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{path}: weight_map must be an object from tensors to files")
    files = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{path}: each file must be there, in the same folder; got {name!r}")
        files[name] = load_file(folder / name)
    for tensor, name in places.items():
        if tensor not in files[name]:
            raise ValueError(f"{path}: {tensor} is not in {name}")
    return {tensor: files[name][tensor] for tensor, name in places.items()}


_THEIRS = {
    "token_embedding": "embed_tokens",
    "blocks": "layers",
    "attention_norm": "input_layernorm",
    "attention": "self_attn",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "output": "o_proj",
    "query_norm": "q_norm",
    "key_norm": "k_norm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward": "mlp",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
    "head": "lm_head",
}


def set_weights(
    model: Module, weights: Mapping[str, np.ndarray], words: Mapping[str, str] | None = None
) -> None:
    """Write weights under their names into the parameters of a model.

    Parameters
    ----------
    model
        A `Llama`, or another module whose parameters are named in the same words.
    weights
        Arrays of floats, of the shapes of the parameters; converted to their dtypes. Not changed. Two kinds
        may be there without a place: ``lm_head.weight`` for a tied model, and names that end
        with ``.rotary_emb.inv_freq`` (old files).
    words
        Further pairs of a word in our names and the one in theirs, which count more than those in the notes.

    Raises
    ------
    ValueError
        When weights are missing, not expected, of other shapes or no floats; the message has all of their
        names. Nothing is changed then.

    Notes
    -----
    A name of theirs is ours with each word between dots replaced: ``token_embedding`` embed_tokens,
    ``blocks`` layers, ``attention_norm`` input_layernorm, ``attention`` self_attn, ``query`` q_proj,
    ``key`` k_proj, ``value`` v_proj, ``output`` o_proj, ``query_norm`` q_norm, ``key_norm`` k_norm,
    ``feed_forward_norm`` post_attention_layernorm, ``feed_forward`` mlp, ``gate`` gate_proj, ``up``
    up_proj, ``down`` down_proj, ``head`` lm_head; others stay. In front of all but the head's comes
    ``model.``.
    """
    table = _THEIRS | dict(words or {})
    places = {}
    for name, parameter in model.named_parameters():
        theirs = ".".join(table.get(word, word) for word in name.split("."))
        places[theirs if name.startswith("head.") else f"model.{theirs}"] = parameter
    needless = {"lm_head.weight"} | {name for name in weights if name.endswith(".rotary_emb.inv_freq")}
    problems = [f"{name} is missing" for name in places if name not in weights]
    problems += [f"{name} is not expected" for name in weights if name not in places and name not in needless]
    for name, parameter in places.items():
        if name not in weights:
            continue
        if weights[name].shape != parameter.shape:
            problems.append(f"{name} must have the shape {parameter.shape}, got {weights[name].shape}")
        if weights[name].dtype.kind != "f":
            problems.append(f"{name} must be of floats, got {weights[name].dtype}")
    if problems:
        raise ValueError(f"the weights must fit the model: {'; '.join(problems)}")
    for name, parameter in places.items():
        parameter.data[...] = weights[name]


def load_llama(folder: str | Path, dtype: type = np.float32) -> Llama:
    """Load a model of the families llama, mistral, qwen2 and qwen3 (SmolLM2 is a llama).

    Parameters
    ----------
    folder
        With ``config.json`` and the weights, in Hugging Face's format.
    dtype
        Of all parameters.

    Raises
    ------
    ValueError
        As `read_config`, `read_weights` and `set_weights`.
    """
    config, _ = read_config(folder)
    weights = read_weights(folder)
    model = Llama(config, np.random.default_rng(0), dtype=dtype)
    set_weights(model, weights)
    return model


def _json_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a file with a JSON object: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object; got {type(values).__name__}")
    return values


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number; got {value!r}")
    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false; got {value!r}")
    return value


def _scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind not in ("linear", "llama3"):
        raise ValueError(f"rope_type must be default, linear or llama3; got {kind!r}")
    names = _SCALING if kind == "llama3" else {"factor": "factor"}
    for name in names:
        if name not in rope:
            raise ValueError(f"{name} is missing, which rope_type {kind!r} needs")
    numbers: dict[str, Any] = {ours: _number(name, rope[name]) for name, ours in names.items()}
    return RopeScaling(kind, **numbers)
