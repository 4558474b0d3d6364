"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import json
import math
import tempfile
from pathlib import Path

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.safetensors import load_file, save_file
from techtree.techs.autodiff.tensor_autodiff import Tensor, concatenate, einsum, where
from techtree.techs.training.activations import silu
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.embedding import Embedding
from techtree.techs.transformer.gqa import repeat_heads
from techtree.techs.transformer.mha import merge_heads, split_heads
from techtree.techs.transformer.rmsnorm import RMSNorm
from techtree.techs.transformer.rope import RopeScaling, frequencies
from techtree.techs.transformer.swiglu import SwiGLU

_ROTATION = "cos, sin = rotation(positions, q.shape[-1], config.base, config.scaling)"
_ROTATE = "q, k = rotate(q, cos, sin), rotate(k, cos, sin)"
_NORMS = """        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
"""
_NORMED = "q, k = self.query_norm(q), self.key_norm(k)"
_ATTEND = "return self.output(merge_heads(grouped_attention(q, k, v, mask)))"
_POSITIONS = "positions = np.arange(n_tokens) if positions is None else np.asarray(positions)"
_FIRST = "x = x + self.attention(self.attention_norm(x), mask, positions)"
_SECOND = "return x + self.feed_forward(self.feed_forward_norm(x))"
_OUTPUT = "self.output = Linear(wide, config.width, rng, False, gain, dtype)"
_LAST = "x = self.norm(x)\n"
_LOGITS = "return self.token_embedding.unembed(x) if self.head is None else self.head(x)"
_WINDOW = "mask &= ~np.tri(n_tokens, k=-window, dtype=bool)"
_BLOCKS = "[LlamaBlock(config, rng, make(layer), dtype) for layer in range(config.n_layers)]"
_FINAL = "self.norm = RMSNorm(config.width, config.eps, dtype)"
_HEAD_NORMS = "norms = [RMSNorm(config.head_width, config.eps, dtype) for _ in range(2)]"
_ROPE = 'rope = values.get("rope_scaling") or values.get("rope_parameters") or {}'
_BASE = 'rope.get("rope_theta", values.get("rope_theta", 10_000.0))'
_COPY = "parameter.data[...] = weights[name]"
_EXPECTED = (
    '    problems += [f"{name} is not expected" for name in weights'
    " if name not in places and name not in needless]\n"
)
_RESOLVED = 'object.__setattr__(self, "head_width", self.width // self.n_heads)'
_IMPORT = "import Tensor\n"

MISTAKES = {
    "values are rotated, too": [(_ROTATE, _ROTATE + "\n        v = rotate(v, cos, sin)")],
    "keys are not rotated": [(_ROTATE, "q = rotate(q, cos, sin)")],
    "neighbouring numbers are the pairs that are rotated": [
        (_ROTATE, "q, k = rotate(q, cos, sin, True), rotate(k, cos, sin, True)")
    ],
    "heads are normalized after they are rotated": [
        (_NORMS, ""),
        (_ROTATE, _ROTATE + "\n" + _NORMS.rstrip()),
    ],
    "heads are not normalized": [(_NORMED, "pass")],
    "the norms of heads have the usual eps, not the config's": [
        (_HEAD_NORMS, _HEAD_NORMS.replace("config.eps", "1e-6"))
    ],
    "head h of the queries uses the head h mod K of the keys": [
        (_IMPORT, "import Tensor, concatenate\n"),
        (
            _ATTEND,
            "k, v = (concatenate([each] * (config.n_heads // config.n_kv_heads), -3) for each in (k, v))\n"
            "        " + _ATTEND,
        ),
    ],
    "given positions are ignored": [(_POSITIONS, "positions = np.arange(n_tokens)")],
    "the base is always 10,000": [(_ROTATION, _ROTATION.replace("config.base", "10_000.0"))],
    "the scaling of angles is ignored": [(_ROTATION, _ROTATION.replace("config.scaling", "None"))],
    "the mask is ignored in the block": [(_FIRST, _FIRST.replace("mask", "None"))],
    "the block normalizes what comes out of its parts, not what goes in": [
        (_FIRST, "x = x + self.attention_norm(self.attention(x, mask, positions))"),
        (_SECOND, "return x + self.feed_forward_norm(self.feed_forward(x))"),
    ],
    "attention and feed-forward part read the same tokens": [
        (_FIRST, "y = x + self.attention(self.attention_norm(x), mask, positions)"),
        (_SECOND, "return y + self.feed_forward(self.feed_forward_norm(x))"),
    ],
    "the tokens are not added to what the attention answers": [(_FIRST, _FIRST.replace("x + ", ""))],
    "the last norm is left out": [(_LAST, "\n")],
    "tokens see later ones": [
        ("mask = causal_mask(n_tokens, n_tokens)", "mask = np.ones((n_tokens,) * 2, bool)")
    ],
    "the window is ignored": [(_WINDOW, "pass")],
    "the window does not count the token itself": [(_WINDOW, _WINDOW.replace("-window", "-window - 1"))],
    "the table makes the logits also where there is a head": [
        (_LOGITS, "return self.token_embedding.unembed(x)")
    ],
    "the output has a bias where queries have one": [(_OUTPUT, _OUTPUT.replace("False", "has_bias"))],
    "the gain of outputs counts all layers, not both parts of each": [
        (
            "has_bias, gain = config.has_qkv_bias, 1 / math.sqrt(2 * config.n_layers)",
            "has_bias, gain = config.has_qkv_bias, 1 / math.sqrt(config.n_layers)",
        )
    ],
    "the head starts as large as other layers": [("gain = 0.02 * math.sqrt(config.width)", "gain = 1.0")],
    "the feed-forward part is drawn before the attention": [
        (
            "        self.attention_norm = RMSNorm(config.width, config.eps, dtype)\n",
            "        if feed_forward is None:\n"
            "            feed_forward = SwiGLU(config.width, config.hidden, rng, False, gain, dtype)\n"
            "        self.attention_norm = RMSNorm(config.width, config.eps, dtype)\n",
        )
    ],
    "the number of layers, from 1, is what one's own feed-forward parts are made with": [
        (_BLOCKS, _BLOCKS.replace("make(layer)", "make(layer + 1)"))
    ],
    "the heads' width is always the width divided among the heads": [
        ("        if self.head_width is None:\n            " + _RESOLVED, "        " + _RESOLVED)
    ],
    "heads that the heads of keys do not divide are accepted": [
        ("if self.n_heads % self.n_kv_heads:", "if False:")
    ],
    "rope_parameters count more than rope_scaling": [
        (_ROPE, 'rope = values.get("rope_parameters") or values.get("rope_scaling") or {}')
    ],
    "the rope_theta beside the object counts more than the one in it": [
        (_BASE, 'values.get("rope_theta", rope.get("rope_theta", 10_000.0))')
    ],
    "the kind of scaling in old files is not read": [
        ('rope.get("rope_type", rope.get("type", "default"))', 'rope.get("rope_type", "default")')
    ],
    "an unknown kind of scaling counts as none": [
        ('if kind == "default":', 'if kind not in ("linear", "llama3"):')
    ],
    "models are tied unless they say otherwise": [
        ('values.get("tie_word_embeddings", False)', 'values.get("tie_word_embeddings", True)')
    ],
    "Qwen3 has no norms of heads": [('has_head_norms=kind.startswith("qwen3")', "has_head_norms=False")],
    "activations are not looked at": [('    "hidden_act": ("silu", "swish"),\n', "")],
    "the index counts more than model.safetensors": [
        (
            'if (folder / "model.safetensors").is_file():',
            'if (folder / "model.safetensors").is_file() and not (folder / "model.safetensors.index.json").is_file():',
        )
    ],
    "all tensors in the files come along": [
        (
            "return {tensor: files[name][tensor] for tensor, name in places.items()}",
            "return {tensor: each for file in files.values() for tensor, each in file.items()}",
        )
    ],
    "files outside of the folder are read": [("if Path(name).name != name or not", "if not")],
    "weights without a place are left out in silence": [(_EXPECTED, "")],
    "weights of another shape are reshaped": [
        ("if weights[name].shape != parameter.shape:", "if weights[name].size != parameter.data.size:"),
        (_COPY, "parameter.data[...] = weights[name].reshape(parameter.shape)"),
    ],
    "gate and up are exchanged": [
        ('"gate": "gate_proj"', '"gate": "up_proj"'),
        ('"up": "up_proj"', '"up": "gate_proj"'),
    ],
    "the two norms of a block are exchanged": [
        ('"attention_norm": "input_layernorm"', '"attention_norm": "post_attention_layernorm"'),
        ('"feed_forward_norm": "post_attention_layernorm"', '"feed_forward_norm": "input_layernorm"'),
    ],
    "weights are not copied": [(_COPY, "parameter.data = np.asarray(weights[name])")],
    "the lm_head of a tied model is not accepted": [('needless = {"lm_head.weight"} | ', "needless = ")],
    "further words are ignored": [("table = _THEIRS | dict(words or {})", "table = _THEIRS")],
    "the dtype of the parameters is ignored": [
        (
            "model = Llama(config, np.random.default_rng(0), dtype=dtype)",
            "model = Llama(config, np.random.default_rng(0))",
        )
    ],
}


class _Attention(Module):
    """The layers of ours; `mixed` makes the answers from queries, keys and values (..., heads, T, D)."""

    def __init__(self, config, rng, dtype=np.float64):
        d = config.head_width
        for name, n in [("query", config.n_heads), ("key", config.n_kv_heads), ("value", config.n_kv_heads)]:
            setattr(self, name, Linear(config.width, n * d, rng, config.has_qkv_bias, dtype=dtype))
        self.output = Linear(
            config.n_heads * d,
            config.width,
            rng,
            has_bias=False,
            gain=(2 * config.n_layers) ** -0.5,
            dtype=dtype,
        )
        self.query_norm = self.key_norm = None
        if config.has_head_norms:
            self.query_norm = RMSNorm(d, eps=config.eps, dtype=dtype)
            self.key_norm = RMSNorm(d, eps=config.eps, dtype=dtype)
        self.shape = config

    def forward(self, x, mask=None, positions=None):
        if x.ndim < 2:
            raise ValueError("x must have two axes")
        n = x.shape[-2]
        mask = np.ones((n, n), bool) if mask is None else mask
        if mask.dtype != bool or mask.shape[-2:] != (n, n):
            raise ValueError("a mask must be boolean, (..., T, T)")
        positions = np.arange(n) if positions is None else np.array(positions)
        if positions.shape != (n,):
            raise ValueError("each token needs a position")
        angles = np.outer(positions, frequencies(self.shape.head_width, self.shape.base, self.shape.scaling))
        return self.mixed(x, mask, angles)


def _rotated(x, angles):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    return concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _softmax(scores, mask):
    scores = where(mask, scores, -math.inf)
    largest = scores.data.max(axis=-1, keepdims=True)
    e = (scores - np.where(np.isfinite(largest), largest, 0).astype(scores.dtype)).exp()
    total = e.sum(axis=-1, keepdims=True)
    return e / where(total.data > 0, total, 1.0)


class _RepeatedKeys(_Attention):
    """Keys and values are repeated for each head, and the scores are an einsum."""

    def mixed(self, x, mask, angles):
        c = self.shape
        *leading, n, width = x.shape
        leading = np.broadcast_shapes(tuple(leading), mask.shape[:-2])
        x = (x + np.zeros((*leading, n, width), x.dtype)).reshape(-1 if 0 not in leading else 0, n, width)
        mask = np.broadcast_to(mask, (*leading, n, n)).reshape(len(x.data), 1, n, n)
        q = split_heads(self.query(x), c.n_heads)
        k, v = split_heads(self.key(x), c.n_kv_heads), split_heads(self.value(x), c.n_kv_heads)
        if c.has_head_norms:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k = _rotated(q, angles), repeat_heads(_rotated(k, angles), c.n_heads)
        weights = _softmax(einsum("bhqd,bhkd->bhqk", q, k) * c.head_width**-0.5, mask)
        answer = einsum("bhqk,bhkd->bhqd", weights, repeat_heads(v, c.n_heads))
        return self.output(merge_heads(answer)).reshape(*leading, n, width)


class _HeadByHead(_Attention):
    """A loop over slices of the width; each head's answer goes through its columns of the output layer."""

    def mixed(self, x, mask, angles):
        c, total = self.shape, None
        d = c.head_width
        q, k, v = self.query(x), self.key(x), self.value(x)
        for head in range(c.n_heads):
            place = head * c.n_kv_heads // c.n_heads
            one = q[..., head * d : (head + 1) * d]
            key, value = (each[..., place * d : (place + 1) * d] for each in (k, v))
            if self.query_norm is not None:
                one, key = self.query_norm(one), self.key_norm(key)
            scores = _rotated(one, angles) @ _rotated(key, angles).swapaxes(-1, -2)
            answer = _softmax(scores * (1 / math.sqrt(d)), mask) @ value
            part = answer @ self.output.weight[:, head * d : (head + 1) * d].swapaxes(0, 1)
            total = part if total is None else total + part
        return total


class _Block(Module):
    """The whole block written out, with the feed-forward part's formula only where it is the usual one."""

    def __init__(self, config, rng, feed_forward=None, dtype=np.float64):
        self.attention_norm = RMSNorm(config.width, config.eps, dtype)
        self.attention = _HeadByHead(config, rng, dtype)
        self.feed_forward_norm = RMSNorm(config.width, config.eps, dtype)
        gain = math.sqrt(0.5 / config.n_layers)
        if feed_forward is None:
            feed_forward = SwiGLU(config.width, config.hidden, rng, gain=gain, dtype=dtype)
        self.feed_forward = feed_forward

    def forward(self, x, mask=None, positions=None):
        y = self.attention.forward(self.attention_norm(x), positions=positions, mask=mask) + x
        part = self.feed_forward
        z = self.feed_forward_norm(y)
        if not isinstance(part, SwiGLU):
            return part(z) + y
        return part.down(part.up(z) * silu(part.gate(z))) + y


class _Model(Module):
    """One list of layers, and the mask from distances."""

    def __init__(self, config, rng, make_feed_forward=None, dtype=np.float64):
        self.token_embedding = Embedding(config.n_tokens, config.width, rng, dtype=dtype)
        self.blocks = []
        for layer in range(config.n_layers):
            part = None if make_feed_forward is None else make_feed_forward(layer)
            self.blocks.append(_Block(config, rng, part, dtype))
        self.norm = RMSNorm(config.width, config.eps, dtype)
        self.head = None
        if not config.is_tied:
            self.head = Linear(config.width, config.n_tokens, rng, False, 0.02 * config.width**0.5, dtype)
        self.config = config

    def forward(self, ids):
        if np.ndim(ids) < 1:
            raise ValueError("ids must have an axis of tokens")
        n = np.shape(ids)[-1]
        distance = np.subtract.outer(np.arange(n), np.arange(n))
        mask = (distance >= 0) & (distance < (self.config.window or math.inf))
        x = self.token_embedding(ids)
        for block in self.blocks:
            x = block.forward(x, mask=mask)
        x = self.norm(x)
        if self.head is None:
            return x @ self.token_embedding.weight.transpose(1, 0)
        return self.head(x)


def _read_by_hand(folder):
    """The index is looked for last, and the files are opened as they come."""
    folder = Path(folder)
    whole = folder / "model.safetensors"
    if whole.exists():
        return load_file(whole)
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        places = list(index["weight_map"].items())
        found = {}
        for tensor, name in places:
            if "/" in name or "\\" in name or name in ("..", "."):
                raise ValueError("files must lie in the folder")
            found[tensor] = load_file(folder / name)[tensor]
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no weights: {error!r}") from error
    return found


def _set_by_state(model, weights, words=None):
    """Their names are translated to ours, and the module loads the state."""
    ours = {}
    words = {} if words is None else words
    for name, parameter in model.named_parameters():
        path = []
        for word in name.split("."):
            path.append(words[word] if word in words else _WORDS.get(word, word))
        theirs = ".".join(path)
        theirs = theirs if name.startswith("head.") else "model." + theirs
        ours[theirs] = (name, parameter)
    problems = []
    for name, array in weights.items():
        if name in ours and (array.dtype.kind != "f" or array.shape != ours[name][1].shape):
            problems.append(name)
        if name not in ours and name != "lm_head.weight" and not name.endswith(".rotary_emb.inv_freq"):
            problems.append(name)
    problems += sorted(set(ours) - set(weights))
    if problems:
        raise ValueError(f"these do not fit: {problems}")
    model.load_state_dict({ours[name][0]: array for name, array in weights.items() if name in ours})


_WORDS = dict(
    pair.split(":")
    for pair in [
        "token_embedding:embed_tokens",
        "blocks:layers",
        "attention_norm:input_layernorm",
        "attention:self_attn",
        "query:q_proj",
        "key:k_proj",
        "value:v_proj",
        "output:o_proj",
        "query_norm:q_norm",
        "key_norm:k_norm",
        "feed_forward_norm:post_attention_layernorm",
        "feed_forward:mlp",
        "gate:gate_proj",
        "up:up_proj",
        "down:down_proj",
        "head:lm_head",
    ]
)

EQUIVALENTS = {
    "keys and values are repeated": {"LlamaAttention": _RepeatedKeys},
    "one head after the other": {"LlamaAttention": _HeadByHead},
    "the block and the model written out": {
        "LlamaAttention": _HeadByHead,
        "LlamaBlock": _Block,
        "Llama": _Model,
    },
    "weights are read tensor by tensor": {"read_weights": _read_by_hand},
    "weights are set by the module's own state": {"set_weights": _set_by_state},
}

_SAME_REFUSAL = "what is called next refuses the same, in other words"
_HANDED_ON = "what is no array is handed on as it is"
HARMLESS = {
    "if not path.is_file(): => if False:": _SAME_REFUSAL,
    "raise ValueError(f'{folder} must hold model.safetensors, or {path.name}; it has neither') => pass": (
        _SAME_REFUSAL
    ),
    "if kind not in ('linear', 'llama3'): => if False:": _SAME_REFUSAL,
    "raise ValueError(f'rope_type must be default, linear or llama3; got {kind!r}') => pass": _SAME_REFUSAL,
    "model = Llama(config, np.random.default_rng(0), dtype=dtype) => "
    "model = Llama(config, np.random.default_rng(1), dtype=dtype)": "all that is drawn is overwritten",
    "if self.query_norm is not None and self.key_norm is not None: => "
    "if self.query_norm is not None or self.key_norm is not None:": "there are both or none",
    "values = json.loads(path.read_text(encoding='utf-8')) => values = json.loads(path.read_text())": (
        "the machine's own encoding is UTF-8 here"
    ),
    "if said.get(key, fine[0]) not in fine: => if said.get(key, fine[-1]) not in fine:": "all of them are fine",
    **{
        f"{name}: right at the first call only": _HANDED_ON
        for name in ("read_config", "read_weights", "load_llama")
    },
    "read_weights: float32 becomes float64": _HANDED_ON,
    **{
        f"set_weights: {what}": _HANDED_ON
        for what in (
            "wrong beyond 128 on an axis",
            "wrong for an axis of length 1",
            "refuses arrays without entries",
            "wrong for more than two axes",
            "wrong for arrays that are not contiguous",
            "wrong for float32",
            "wrong for values beyond 1e4",
            "changes an argument",
            "remembers results by the shape of the arguments",
        )
    },
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    plain = {
        "n_tokens": 5,
        "width": 6,
        "hidden": 3,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_width": 4,
    }
    x, ids = rng.normal(size=(4, 6)), np.array([3, 1, 4, 1, 2])
    numbers = rng.normal(size=4000)

    def fill(module):
        start = 0
        for _, each in module.named_parameters():
            each.data[...] = numbers[start : start + each.data.size].reshape(each.shape)
            start += each.data.size
        return module

    def refused(call):
        try:
            call()
        except Exception as error:
            return "ValueError" if isinstance(error, ValueError) else type(error).__name__
        return "nothing"

    def attention(given=None, **changes):
        def probe(impl):
            module = fill(
                impl.LlamaAttention(impl.LlamaConfig(**(plain | changes)), np.random.default_rng(0))
            )
            return module(Tensor(x), None, given).data

        return probe

    def block(impl):
        module = fill(impl.LlamaBlock(impl.LlamaConfig(**plain), np.random.default_rng(0)))
        return module(Tensor(x), np.tri(4, dtype=bool), np.array([0, 3, 4, 9])).data

    def model(**changes):
        def probe(impl):
            made = fill(impl.Llama(impl.LlamaConfig(**(plain | changes)), np.random.default_rng(0)))
            return made(ids).data

        return probe

    def start(**changes):
        def probe(impl):
            made = impl.Llama(impl.LlamaConfig(**(plain | changes)), np.random.default_rng(0))
            return [
                [name, round(float(np.abs(each.data).sum()), 9)] for name, each in made.named_parameters()
            ]

        return probe

    def own_parts(impl):
        calls = []
        impl.Llama(impl.LlamaConfig(**plain), np.random.default_rng(0), calls.append)
        return calls

    def head_width(**changes):
        def probe(impl):
            try:
                return impl.LlamaConfig(**(plain | changes)).head_width
            except ValueError:
                return "ValueError"

        return probe

    said = {"vocab_size": 5, "hidden_size": 6, "intermediate_size": 3, "num_hidden_layers": 2}
    said |= {"num_attention_heads": 2, "num_key_value_heads": 1}

    def read(kind, **changes):
        def probe(impl):
            with tempfile.TemporaryDirectory() as folder:
                values = {"model_type": kind, **said, "head_dim": 4, **changes}
                Path(folder, "config.json").write_text(json.dumps(values))
                try:
                    config, _ = impl.read_config(folder)
                except ValueError:
                    return "ValueError"
                names = (
                    "head_width",
                    "base",
                    "is_tied",
                    "has_qkv_bias",
                    "has_head_norms",
                    "window",
                    "scaling",
                )
                return [str(getattr(config, name)) for name in names]

        return probe

    def weights(impl):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "inner")
            folder.mkdir()
            answers = []
            save_file({"a": np.ones(1), "b": np.ones(1)}, folder / "part")
            save_file({"a": np.ones(1)}, folder / ".." / "part")
            index = folder / "model.safetensors.index.json"
            for place in ("part", "../part"):
                index.write_text(json.dumps({"weight_map": {"a": place}}))
                try:
                    answers.append(sorted(impl.read_weights(folder)))
                except ValueError:
                    answers.append(["ValueError"])
            index.write_text(json.dumps({"weight_map": {"a": "part"}}))
            save_file({"c": np.ones(1)}, folder / "model.safetensors")
            return [*answers, sorted(impl.read_weights(folder))]

    class Small(Module):
        def __init__(self):
            self.norm = RMSNorm(1)
            self.token_embedding = Embedding(2, 3, np.random.default_rng(0))
            self.router = RMSNorm(1)

    def setting(change):
        def probe(impl):
            made = Small()
            given = {"model.norm.weight": np.array([2.0]), "model.embed_tokens.weight": np.ones((2, 3))}
            given |= {"model.router.weight": np.array([3.0])}
            words = change(given)
            outcome = refused(lambda: impl.set_weights(made, given, words))
            for each in given.values():
                each += 1
            return [outcome, *(each.data.ravel().tolist() for each in made.parameters())]

        return probe

    def places(impl):
        made = impl.Llama(impl.LlamaConfig(**plain), np.random.default_rng(0))
        names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
        given = {"model.embed_tokens.weight": 0, "model.norm.weight": 1}
        for i in range(2):
            layer = f"model.layers.{i}"
            given |= {f"{layer}.input_layernorm.weight": 2, f"{layer}.post_attention_layernorm.weight": 3}
            given |= {f"{layer}.self_attn.{each}_proj.weight": 4 + n for n, each in enumerate("qkvo")}
            given |= {f"{layer}.mlp.{each}.weight": 8 + n for n, each in enumerate(names.values())}
        shapes = [each.shape for each in made.parameters()]
        theirs = ["embed_tokens", *["input", "q", "k", "v", "o", "post", "gate", "up", "down"] * 2, "norm"]
        order = list(given)
        arrays = {}
        used = set()
        for shape, word in zip(shapes, theirs, strict=True):
            name = next(n for n in order if n not in used and _is_of(n, word))
            used.add(name)
            arrays[name] = np.full(shape, float(given[name]))
        impl.set_weights(made, arrays)
        return [float(each.data.mean()) for each in made.parameters()]

    def dtype(impl):
        with tempfile.TemporaryDirectory() as name:
            values = {"model_type": "llama", **said, "tie_word_embeddings": True, "head_dim": 4}
            Path(name, "config.json").write_text(json.dumps(values))
            config = impl.LlamaConfig(5, 6, 3, 2, 2, 1, 4)
            made = impl.Llama(config, np.random.default_rng(0))
            arrays = {}
            for own, each in made.named_parameters():
                word = [_WORDS.get(part, part) for part in own.split(".")]
                arrays[".".join(["model", *word])] = each.data
            save_file(arrays, Path(name, "model.safetensors"))
            return sorted({str(each.dtype) for each in impl.load_llama(name).parameters()})

    linear = {"rope_type": "linear", "factor": 2.0}
    return {
        "attention": attention(),
        "attention at positions": attention(np.array([2, 0, 7, 3])),
        "attention with norms": attention(has_head_norms=True),
        "attention with a large eps": attention(has_head_norms=True, eps=0.5),
        "attention with biases": attention(has_qkv_bias=True),
        "another base": attention(base=7.0),
        "scaled angles": attention(scaling=RopeScaling("linear", 3.0)),
        "a block": block,
        "a model": model(),
        "a model with a window": model(window=2),
        "an untied model": model(is_tied=False),
        "a model with a large eps": model(eps=0.5),
        "the start": start(),
        "the start of an untied model": start(is_tied=False, has_qkv_bias=True),
        "own parts": own_parts,
        "a head's width": head_width(),
        "a head's width left out": head_width(head_width=None, width=8),
        "an odd width of heads": head_width(head_width=3),
        "four heads of queries, three of keys": head_width(n_kv_heads=3),
        "a llama": read("llama"),
        "a llama without head_dim": read("llama", head_dim=None, hidden_size=8),
        "a qwen2": read("qwen2"),
        "a qwen3": read("qwen3"),
        "a mistral": read("mistral", sliding_window=7),
        "a qwen2 with a window that is not used": read("qwen2", sliding_window=7),
        "both objects of angles": read("llama", rope_scaling=linear, rope_parameters={"rope_theta": 3.0}),
        "rope_parameters": read("llama", rope_parameters={"rope_theta": 3.0}),
        "two bases": read("llama", rope_theta=5.0, rope_scaling={"rope_theta": 3.0, **linear}),
        "an old file": read("llama", rope_scaling={"type": "linear", "factor": 2.0}),
        "an unknown scaling": read("llama", rope_scaling={"rope_type": "yarn", "factor": 2.0}),
        "gelu": read("llama", hidden_act="gelu"),
        "biases that are not had": read("llama", attention_bias=True),
        "weights": weights,
        "weights that fit": setting(lambda given: None),
        "a weight too many": setting(lambda given: given.update({"model.x": np.ones(1)})),
        "a weight too few": setting(lambda given: given.__delitem__("model.norm.weight")),
        "a weight turned over": setting(
            lambda given: given.update({"model.embed_tokens.weight": np.arange(6.0).reshape(3, 2)})
        ),
        "a head that is not needed": setting(lambda given: given.update({"lm_head.weight": np.ones((2, 3))})),
        "another word": setting(
            lambda given: (
                given.update({"model.gate.weight": given.pop("model.router.weight")}) or {"router": "gate"}
            )
        ),
        "places": places,
        "the dtype of a loaded model": dtype,
    }


def _is_of(name, word):
    """Whether a name of theirs is meant by a word of the list of places."""
    parts = name.split(".")
    if word in ("embed_tokens", "norm"):
        return parts[1] == word
    return any(part == f"{word}_proj" or part.startswith(f"{word}_") for part in parts[3:])
