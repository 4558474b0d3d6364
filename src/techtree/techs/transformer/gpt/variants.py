"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.safetensors import load_file
from techtree.techs.autodiff.tensor_autodiff import Tensor, concatenate, einsum, no_grad
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.attention import causal_mask
from techtree.techs.transformer.embedding import Embedding
from techtree.techs.transformer.layernorm import LayerNorm
from techtree.techs.transformer.positions import LearnedPositions
from techtree.techs.transformer.transformer_block import TransformerBlock
from techtree.tree.answers import told

_SUM = "x = self.token_embedding(ids) + self.position_embedding(n)"
_MASK = "mask = causal_mask(n, n)"
_LOOP = "for block in self.blocks:"
_NORM = "x = self.norm(x)"
_OUT = "return self.token_embedding.unembed(x) if self.head is None else self.head(x)"
_GAIN = "gain = 1 / math.sqrt(2 * config.n_layers)"
_TABLE = "self.token_embedding = Embedding(n_tokens, width, rng, STD, dtype)"
_PLACES = "self.position_embedding = LearnedPositions(config.n_positions, width, rng, STD, dtype)"
_LAST = "self.norm = LayerNorm(width, config.eps, config.has_bias, dtype)"
_HEAD = "self.head = Linear(width, n_tokens, rng, False, STD * math.sqrt(width), dtype)"
_BLOCK = "*(width, config.n_heads, rng, config.hidden, config.has_bias, gain, config.eps, dtype)"
_BEST = "best = int(model(np.array(text)).data[-1].argmax())"
_STOP = "if best in stop:\n                break\n            text.append(best)"
_ANSWER = "return text[len(ids) :]"
_GIVEN = "if not len(ids) or n_new < 0:"
_THIRDS = "thirds = np.split(rows, 3)"
_ROWS = 'rows = array if part.startswith("ln") else array.T'
_LOADED = "model.load_state_dict(state)"
_TIED = "if head is not None and not np.array_equal("


def _state(*lines):
    return [(_LOADED, "\n    ".join((*lines, _LOADED)))]


MISTAKES = {
    "positions are left out": [(_SUM, "x = self.token_embedding(ids) + 0 * self.position_embedding(n)")],
    "positions are counted from 1": [(_SUM, _SUM.replace("embedding(n)", "embedding(n, first=1)"))],
    "positions are those of the end of the table": [
        (_SUM, _SUM.replace("embedding(n)", "embedding(n, self.config.n_positions - n)"))
    ],
    "rows are multiplied by the root of the width": [
        (_SUM, _SUM.replace("(ids) +", "(ids) * self.config.width**0.5 +"))
    ],
    "each token sees the whole text": [(_MASK, "mask = None")],
    "each token sees itself and later ones": [(_MASK, _MASK + ".T")],
    "no token but the first sees itself": [
        (_MASK, _MASK + " & ~np.eye(n, dtype=bool)\n        mask[0, 0] = True")
    ],
    "each token sees itself and the one before": [(_MASK, _MASK + " & ~causal_mask(n + 2, n + 2)[2:, :n]")],
    "the last norm is left out": [(_NORM, "x = x + 0 * self.norm(x)")],
    "the norm comes before the blocks": [
        (_LOOP, f"{_NORM}\n        {_LOOP}"),
        (f"    {_NORM}\n        return", "    return"),
    ],
    "the last block is left out": [(_LOOP, "for block in self.blocks[:-1]:")],
    "the last block comes first": [(_LOOP, "for block in self.blocks[::-1]:")],
    "the first block is used again and again": [(_LOOP, "for block in [self.blocks[0]] * len(self.blocks):")],
    "all blocks are one": [(_LAST, f"self.blocks = [self.blocks[0]] * config.n_layers\n        {_LAST}")],
    "an untied model scores with the table all the same": [
        (_OUT, "return self.token_embedding.unembed(x) + (0 if self.head is None else 0 * self.head(x))")
    ],
    "a tied model has a head that starts as a copy of the table": [
        (
            "if not config.is_tied:",
            "if config.is_tied:\n            self.head = Linear(width, n_tokens, rng, False, dtype=dtype)\n"
            "            self.head.weight.data[...] = self.token_embedding.weight.data\n        else:",
        )
    ],
    "every model is tied": [("if not config.is_tied:", "if False:")],
    "the head gives no gradient to the table": [
        (_OUT, _OUT.replace("self.token_embedding.unembed(x)", "x @ self.token_embedding.weight.data.T"))
    ],
    "logarithms of probabilities take the place of logits": [
        (
            _OUT,
            _OUT.replace("return ", "x = ")
            + "\n        return x - x.exp().sum(axis=-1, keepdims=True).log()",
        )
    ],
    "only the last place is scored": [(_OUT, "x = x[..., -1:, :]\n        " + _OUT)],
    "ids count modulo the vocabulary": [
        (_SUM, _SUM.replace("(ids)", "(ids % self.config.n_tokens if ids.dtype.kind in 'iu' else ids)"))
    ],
    "of a text that is too long the end is read": [
        ("n = ids.shape[-1]\n", "ids = ids[..., -self.config.n_positions :]\n        n = ids.shape[-1]\n")
    ],
    "numbers that are no integers are cut": [
        ("ids = np.asarray(ids)\n", "ids = np.asarray(ids).astype(int)\n")
    ],
    "the layers that write have a gain of 1": [(_GAIN, "gain = 1.0")],
    "the gain counts one sum for each block": [(_GAIN, _GAIN.replace("2 * ", ""))],
    "the gain is not a root": [(_GAIN, "gain = 1 / (2 * config.n_layers)")],
    "the table of tokens has a standard deviation of 1": [(_TABLE, _TABLE.replace("STD", "1.0"))],
    "the table of positions has a standard deviation of 0.01": [(_PLACES, _PLACES.replace("STD", "STD / 2"))],
    "the head has the standard deviation of any linear layer": [
        (_HEAD, _HEAD.replace("STD * math.sqrt(width)", "1.0"))
    ],
    "the head has a bias": [(_HEAD, _HEAD.replace("False", "True"))],
    "positions are drawn and named first": [(f"{_TABLE}\n        {_PLACES}", f"{_PLACES}\n        {_TABLE}")],
    "blocks take no number of hidden units": [(_BLOCK, _BLOCK.replace("config.hidden", "None"))],
    "blocks have biases, whatever is asked for": [(_BLOCK, _BLOCK.replace("config.has_bias", "True"))],
    "the last norm has a bias, whatever is asked for": [(_LAST, _LAST.replace("config.has_bias", "True"))],
    "the blocks' eps is 1e-5": [(_BLOCK, _BLOCK.replace("config.eps", "1e-5"))],
    "the last norm's eps is 1e-5": [(_LAST, _LAST.replace("config.eps", "1e-5"))],
    "the last norm ignores the dtype": [(_LAST, _LAST.replace(", dtype)", ")"))],
    "the tables ignore the dtype": [(each, each.replace(", dtype)", ")")) for each in (_TABLE, _PLACES)],
    "the config's numbers are not checked": [("if value is not None and value < 1:", "if False:")],
    "no hidden units stand for four times the width": [
        ("if value is not None and value < 1:", "if name != 'hidden' and value < 1:"),
        (_BLOCK, _BLOCK.replace("config.hidden", "config.hidden or None")),
    ],
    "the config can be changed": [("@dataclass(frozen=True)", "@dataclass")],
    "greedy returns the whole text": [(_ANSWER, "return text")],
    "greedy takes the last of equal tokens": [
        (
            _BEST,
            "row = model(np.array(text)).data[-1]\n            best = len(row) - 1 - int(row[::-1].argmax())",
        )
    ],
    "greedy returns the token that stops it, too": [
        (_STOP, "text.append(best)\n            if best in stop:\n                break")
    ],
    "greedy leaves the tokens out that should stop it, and goes on": [
        (_STOP, "if best not in stop:\n                text.append(best)")
    ],
    "greedy does not stop": [(_STOP, "text.append(best)")],
    "greedy takes the best of all places": [
        (_BEST, "best = int(model(np.array(text)).data.max(axis=0).argmax())")
    ],
    "greedy shows the model its last token alone": [(_BEST, _BEST.replace("(text)", "(text[-1:])"))],
    "greedy records gradients": [("with no_grad():", "if True:")],
    "greedy takes a negative number of tokens for none": [(_GIVEN, "if not len(ids):")],
    "greedy takes an empty text": [(_GIVEN, "if n_new < 0:")],
    "the thirds of c_attn are key, query, value": [
        (_THIRDS, _THIRDS + "\n    thirds = [thirds[n] for n in (1, 0, 2)]")
    ],
    "c_attn is cut head by head": [(_THIRDS, "thirds = [rows[n::3] for n in range(3)]")],
    "square weights are not transposed": [
        (_ROWS, _ROWS + '\n    rows = array if part == "attn.c_proj" else rows')
    ],
    "tensors that a GPT-2 has not are left out": _state(
        "own = dict(model.named_parameters())",
        "state = {name: each for name, each in state.items() if name in own}",
    ),
    "tensors that are missing stay random": _state("state = model.state_dict() | state"),
    "names with transformer. before them are not known": [('name.removeprefix("transformer.")', "name")],
    "the causal masks of old files are not known": [('if kind in ("bias", "masked_bias"):', "if False:")],
    "any lm_head of a tied model is left out": [(_TIED, "if False and not np.array_equal(")],
    "a tied model may not bring its head": [(_TIED, "if head is not None and (True or ")],
    "a file's eps is ignored": [('eps=given.get("layer_norm_epsilon", 1e-5),', "")],
    "a file's number of hidden units is ignored": [('hidden=given.get("n_inner"),', "")],
    "a file is always tied": [('is_tied=given.get("tie_word_embeddings", True),', "")],
    "a file that does not say so is not tied": [
        ('given.get("tie_word_embeddings", True)', 'given.get("tie_word_embeddings", False)')
    ],
    "another activation is read as GPT-2's": [
        ('"gelu_new", "gelu_pytorch_tanh"', '"gelu_new", "gelu_pytorch_tanh", "gelu"')
    ],
    "the second name of the activation is not known": [('"gelu_new", "gelu_pytorch_tanh"', '"gelu_new",')],
    "scores that are not scaled are read as if they were": [('    "scale_attn_weights": (True,),\n', "")],
    "scores that are scaled by the layer, too, are read as if they were not": [
        ('    "scale_attn_by_inverse_layer_idx": (False,),\n', "")
    ],
    "other models are read as GPT-2": [('    "model_type": ("gpt2",),\n', "")],
    "weights become float64": [("dtype: type = np.float32", "dtype: type = np.float64")],
    "the dtype that is asked for is ignored": [
        ("GPT(config, np.random.default_rng(0), dtype)", "GPT(config, np.random.default_rng(0), np.float32)")
    ],
}


@dataclass(frozen=True)
class _Config:
    """Each condition by itself."""

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
        if min(self.n_tokens, self.n_positions, self.width, self.n_layers, self.n_heads) <= 0:
            raise ValueError("sizes must be at least 1")
        if self.hidden is not None and self.hidden <= 0:
            raise ValueError("hidden must be at least 1")
        if self.width / self.n_heads != self.width // self.n_heads or not self.eps > 0:
            raise ValueError("heads must divide the width, and eps be above 0")


class _Parts(Module):
    """The parts of ours, made one by one; `forward` in smaller steps, samples in one axis."""

    def __init__(self, config, rng, dtype=np.float64):
        self.token_embedding = Embedding(config.n_tokens, config.width, rng, dtype=dtype)
        self.position_embedding = LearnedPositions(config.n_positions, config.width, rng, dtype=dtype)
        self.blocks = []
        for _ in range(config.n_layers):
            block = TransformerBlock(
                config.width,
                config.n_heads,
                rng,
                hidden=config.hidden,
                has_bias=config.has_bias,
                gain=(2 * config.n_layers) ** -0.5,
                eps=config.eps,
                dtype=dtype,
            )
            self.blocks.append(block)
        self.norm = LayerNorm(config.width, eps=config.eps, has_bias=config.has_bias, dtype=dtype)
        self.head = None
        self.config = config
        if not config.is_tied:
            self.head = Linear(config.width, config.n_tokens, rng, has_bias=False, dtype=dtype)
            self.head.weight.data[...] = (self.head.weight.data * (0.02 * config.width**0.5)).astype(dtype)

    def checked(self, ids):
        ids = np.asarray(ids)
        if not ids.ndim or not ids.shape[-1]:
            raise ValueError("ids must have at least one token")
        return ids

    def forward(self, ids):
        ids = self.checked(ids)
        n = ids.shape[-1]
        flat = ids.reshape(-1, n) if ids.size else ids.reshape(0, n)
        places = self.position_embedding(n)
        x = places + self.token_embedding(flat)
        for block in self.blocks:
            x = block(x, mask=np.tri(n, dtype=bool))
        logits = self.scores(self.norm(x))
        return logits.reshape(*ids.shape, logits.shape[-1])

    def scores(self, x):
        if self.head is not None:
            return self.head(x)
        return einsum("btw,vw->btv", x, self.token_embedding.weight)


class _SampleBySample(_Parts):
    """One text after the other."""

    def forward(self, ids):
        ids = self.checked(ids)
        if ids.ndim > 1 and len(ids):
            rows = [self.forward(each) for each in ids]
            return concatenate([each.reshape(1, *each.shape) for each in rows])
        n = ids.shape[-1]
        x = self.token_embedding(ids) + self.position_embedding(n, 0)
        for block in list(self.blocks):
            x = block(x, causal_mask(n, n))
        x = self.norm(x)
        return self.token_embedding.unembed(x) if self.head is None else self.head(x)


def _greedy_by_sorting(model, ids, n_new, stop=()):
    new, start = [], [int(each) for each in ids]
    if n_new < 0 or start == []:
        raise ValueError("a text, and a number of tokens that is not negative")
    while len(new) < n_new:
        with no_grad():
            row = model(np.asarray(start + new)).data[-1]
        best = int(np.lexsort((np.arange(len(row)), -row.astype(float)))[0])
        if any(best == each for each in stop):
            return new
        new.append(best)
    return new


def _make_loader(gpt, config_class):
    def load(folder, dtype=np.float32):
        """Go through our parameters, and look for each in the file."""
        said = json.loads((Path(folder) / "config.json").read_text())
        _require(said)
        n_layers = said["n_layer"]
        config = config_class(
            n_tokens=said["vocab_size"],
            n_positions=said["n_positions"],
            width=said["n_embd"],
            n_layers=n_layers,
            n_heads=said["n_head"],
            hidden=said.get("n_inner"),
            is_tied=said.get("tie_word_embeddings", True),
            eps=said.get("layer_norm_epsilon", 1e-5),
        )
        left = load_file(Path(folder) / "model.safetensors")
        left = {name.removeprefix("transformer."): each for name, each in left.items()}
        for n in range(n_layers):
            left.pop(f"h.{n}.attn.bias", None)
            left.pop(f"h.{n}.attn.masked_bias", None)
        model = gpt(config, np.random.default_rng(1), dtype)

        def put(parameter, array):
            if parameter.shape != array.shape:
                raise ValueError(f"a tensor must have the shape {parameter.shape}; got {array.shape}")
            parameter.data[...] = array

        def both(ours, theirs, turn=False):
            put(ours.weight, left.pop(f"{theirs}.weight").T if turn else left.pop(f"{theirs}.weight"))
            put(ours.bias, left.pop(f"{theirs}.bias"))

        try:
            if config.is_tied and "lm_head.weight" in left:
                head = left.pop("lm_head.weight")
                if head.shape != left["wte.weight"].shape or (head != left["wte.weight"]).any():
                    raise ValueError("the head of a tied model must be its table")
            put(model.token_embedding.weight, left.pop("wte.weight"))
            put(model.position_embedding.weight, left.pop("wpe.weight"))
            for n, block in enumerate(model.blocks):
                both(block.attention_norm, f"h.{n}.ln_1")
                both(block.feed_forward_norm, f"h.{n}.ln_2")
                both(block.attention.output, f"h.{n}.attn.c_proj", True)
                both(block.feed_forward.up, f"h.{n}.mlp.c_fc", True)
                both(block.feed_forward.down, f"h.{n}.mlp.c_proj", True)
                weight, bias = left.pop(f"h.{n}.attn.c_attn.weight"), left.pop(f"h.{n}.attn.c_attn.bias")
                width = config.width
                if weight.shape != (width, 3 * width) or bias.shape != (3 * width,):
                    raise ValueError("c_attn must have three parts")
                layers = (block.attention.query, block.attention.key, block.attention.value)
                for place, layer in enumerate(layers):
                    part = slice(place * width, (place + 1) * width)
                    put(layer.weight, weight[:, part].T)
                    put(layer.bias, bias[part])
            both(model.norm, "ln_f")
            if model.head is not None:
                put(model.head.weight, left.pop("lm_head.weight"))
        except KeyError as error:
            raise ValueError(f"the tensor {error} is missing") from error
        if left:
            raise ValueError(f"unknown tensors: {sorted(left)}")
        return model

    return load


def _require(said):
    for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
        if key not in said:
            raise ValueError(f"{key} is missing")
    if said.get("model_type", "gpt2") != "gpt2":
        raise ValueError("model_type must be gpt2")
    if said.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh"):
        raise ValueError("activation_function must be gelu_new")
    if not said.get("scale_attn_weights", True):
        raise ValueError("scale_attn_weights must be true")
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if said.get(key):
            raise ValueError(f"{key} must be false")


EQUIVALENTS = {
    "scores by einsum, samples in one axis": {"GPT": _Parts, "load_gpt2": None},
    "text by text": {"GPT": _SampleBySample},
    "greedy sorts": {"greedy": _greedy_by_sorting},
    "the loader looks for each parameter in the file": {
        "GPT": _Parts,
        "GPTConfig": _Config,
        "load_gpt2": _make_loader(_Parts, _Config),
    },
}
EQUIVALENTS["scores by einsum, samples in one axis"].pop("load_gpt2")

HARMLESS = {
    "config = _read_config(json.loads((folder / 'config.json').read_text(encoding='utf-8'))) => "
    "config = _read_config(json.loads((folder / 'config.json').read_text()))": "UTF-8 is the default here",
    "model = GPT(config, np.random.default_rng(0), dtype) => "
    "model = GPT(config, np.random.default_rng(1), dtype)": "all that is drawn is overwritten",
    "rows = array if part.startswith('ln') else array.T => "
    "rows = array if False else array.T": "a vector is its own transpose",
    "if ids.ndim == 0 or ids.shape[-1] == 0: => "
    "if ids.ndim == 0 or ids.shape[-1] == -1:": "attention among no tokens is refused, too",
    "if head is not None and (not np.array_equal(head, state.get('token_embedding.weight', ()))): => "
    "if head is not None and (not np.array_equal(state.get('token_embedding.weight', ()), head)):": "symmetric",
    "if (value := given.get(key, known[0])) not in known: => "
    "if (value := given.get(key, known[-1])) not in known:": "each of the known values is accepted",
    "greedy: wrong for more than two axes": "a text has one axis",
    "greedy: wrong for float32": "ids are integers",
    "greedy: wrong for values beyond 1e4": "of floats only, and ids are integers",
    "load_gpt2: right at the first call only": "a model is none of the results that this mutant can change",
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    sizes = {"n_tokens": 7, "n_positions": 6, "width": 4, "n_layers": 3, "n_heads": 2}
    ids = np.array([[3, 1, 4, 1], [5, 0, 2, 6]])
    source = np.random.default_rng(int(rng.integers(2**32)))
    values = {}

    def filled(module):
        for name, each in module.named_parameters():
            if (name, each.shape) not in values:
                values[name, each.shape] = source.normal(size=each.shape)
            each.data[...] = values[name, each.shape]
        return module

    def model(impl, **options):
        return filled(impl.GPT(impl.GPTConfig(**(sizes | options)), np.random.default_rng(0)))

    def answer(ids=ids, **options):
        return lambda impl: model(impl, **options)(ids).data

    def gradient(impl):
        one = model(impl)
        one(ids).backward(np.cos(np.arange(56.0)).reshape(2, 4, 7))
        return one.token_embedding.weight.grad

    def fresh(dtype=np.float64, **options):
        def probe(impl):
            one = impl.GPT(impl.GPTConfig(**(sizes | options)), np.random.default_rng(0), dtype)
            return [
                f"{name} {each.dtype} {float(np.abs(each.data).sum()):.6g}"
                for name, each in one.named_parameters()
            ]

        return probe

    steps = np.array([[0, 1, 0, 0], [0, 0, 5, 0], [-9, -8, -9, -7], [3, 3, 3, 2]], float)

    def greedy(impl, ids, n, stop=()):
        asked = []

        def table(ids):
            asked.append(f"{ids.tolist()} {(Tensor([1.0], requires_grad=True) * 2).requires_grad}")
            return Tensor(steps[ids])

        return [impl.greedy(table, ids, n, stop), asked]

    def changed_config(impl):
        config = impl.GPTConfig(**sizes)
        try:
            config.width = 8
        except AttributeError:
            return "AttributeError"
        return "nothing"

    said = {"vocab_size": 3, "n_positions": 2, "n_embd": 2, "n_layer": 1, "n_head": 1, "n_inner": 3}
    shapes = {"wte.weight": (3, 2), "wpe.weight": (2, 2), "ln_f.weight": (2,), "ln_f.bias": (2,)}
    shapes |= {f"h.0.ln_{n}.{kind}": (2,) for n in (1, 2) for kind in ("weight", "bias")}
    for name, n_in, n_out in (
        ("attn.c_attn", 2, 6),
        ("attn.c_proj", 2, 2),
        ("mlp.c_fc", 2, 3),
        ("mlp.c_proj", 3, 2),
    ):
        shapes |= {f"h.0.{name}.weight": (n_in, n_out), f"h.0.{name}.bias": (n_out,)}
    tensors = {name: source.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    table = tensors["wte.weight"]

    def loaded(changes=(), more=(), less="", before="", **options):
        def probe(impl):
            own = {before + name: each for name, each in tensors.items() if name != less} | dict(more)
            header, data = {}, b""
            for name, each in own.items():
                header[name] = {
                    "dtype": "F32",
                    "shape": each.shape,
                    "data_offsets": [len(data), len(data) + each.nbytes],
                }
                data += each.tobytes()
            text = json.dumps(header).encode()
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / "config.json").write_text(json.dumps(said | dict(changes)))
                (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
                found = impl.load_gpt2(folder, **options)
            return [str(found.norm.weight.dtype), found(np.array([2, 1])).data.astype(np.float64)]

        return told(probe)

    return {
        "tied": answer(),
        "untied": answer(is_tied=False),
        "eps": answer(eps=0.5),
        "gradient": gradient,
        "too large": told(lambda impl: model(impl)(np.array([7])).data),
        "too long": told(lambda impl: model(impl)(np.zeros(7, int)).data),
        "no integers": told(lambda impl: model(impl)(np.array([1.5])).data),
        "fresh": told(fresh()),
        "fresh, untied": told(fresh(is_tied=False)),
        "fresh, no biases": told(fresh(has_bias=False)),
        "fresh, float32": told(fresh(np.float32)),
        "fresh, hidden": told(fresh(hidden=3)),
        "no hidden units": told(fresh(hidden=0)),
        "no positions": told(lambda impl: str(impl.GPTConfig(**(sizes | {"n_positions": 0})).n_positions)),
        "a config": changed_config,
        "greedy": told(lambda impl: greedy(impl, [2, 0], 4)),
        "greedy, stopped": told(lambda impl: greedy(impl, [2, 0], 4, {2})),
        "greedy, a negative number": told(lambda impl: greedy(impl, [2], -1)),
        "greedy, no text": told(lambda impl: greedy(impl, [], 0)),
        "a folder": loaded(),
        "a folder of names with a prefix": loaded(before="transformer."),
        "a folder with eps": loaded({"layer_norm_epsilon": 0.5}),
        "an untied folder": loaded({"tie_word_embeddings": False}, {"lm_head.weight": -table}),
        "a tied folder with its head": loaded({}, {"lm_head.weight": table}),
        "a tied folder with another head": loaded({}, {"lm_head.weight": -table}),
        "a folder with masks": loaded({}, {"h.0.attn.bias": np.ones((1, 1, 2, 2), np.float32)}),
        "a folder with more": loaded({}, {"score.weight": table}),
        "a folder with less": loaded(less="ln_f.bias"),
        "a folder in float16": loaded(dtype=np.float16),
        **{
            f"{key} {value}": loaded({key: value})
            for key, value in [
                ("activation_function", "gelu"),
                ("activation_function", "gelu_pytorch_tanh"),
                ("scale_attn_weights", False),
                ("scale_attn_by_inverse_layer_idx", True),
                ("model_type", "gpt_neo"),
            ]
        },
    }
