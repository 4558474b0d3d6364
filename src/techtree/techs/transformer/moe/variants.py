"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import json
import math
import tempfile
from pathlib import Path

import numpy as np

from techtree.techs.autodiff.modules import Module
from techtree.techs.autodiff.safetensors import save_file
from techtree.techs.autodiff.tensor_autodiff import Tensor, concatenate, einsum
from techtree.techs.training.linear import Linear
from techtree.techs.transformer.llama_block import Llama, LlamaConfig
from techtree.techs.transformer.swiglu import SwiGLU

_CHOICE = 'experts = np.argsort(-logits.data, axis=-1, kind="stable")[:, :n_chosen]'
_TAKEN = "weights = _softmax(logits)[np.arange(len(experts))[:, None], experts]"
_DIVIDED = "return experts, weights / weights.sum(axis=-1, keepdims=True) if is_renormalized else weights"
_SHARES = "shares = np.bincount(experts.ravel(), minlength=n_experts) / experts.size"
_LOSS = "return (_softmax(logits).mean(axis=0) * shares.astype(logits.dtype)).sum() * n_experts"
_EXPERTS = "self.experts = [SwiGLU(width, hidden, rng, False, gain, dtype) for _ in range(n_experts)]"
_ROUTER = "self.router = Linear(width, n_experts, rng, False, dtype=dtype)"
_ROUTE = "self.chosen, weights = route(logits, self.n_chosen, self.is_renormalized)"
_ORDER = 'order = np.argsort(self.chosen, axis=None, kind="stable")'
_ROOM = "room = math.ceil(self.capacity * self.chosen.size / len(self.experts))"
_PARTS = "parts = [order[a:b][:room] for a, b in pairwise(cut)]"
_WEIGHTED = "weighted = concatenate(answers) * weights.reshape(-1, 1)[order]"
_SUM = "np.add.at(whole, rows, values.data)"
_BACK = "return record(whole, (values, lambda g: g[rows]))"
_FEED = "return MoE(config.width, hidden, n_experts, n_chosen, rng, is_renormalized, dtype=dtype)"
_TOTAL = 'total = "num_experts" if "num_experts" in values else "num_local_experts"'

MISTAKES = {
    "the lowest logits are chosen": [(_CHOICE, _CHOICE.replace("-logits", "logits"))],
    "the chosen experts come in the order of their numbers": [
        (_CHOICE, _CHOICE + "\n    experts = np.sort(experts, axis=-1)")
    ],
    "of equal logits the higher number comes first": [
        (
            _CHOICE,
            'experts = (logits.shape[1] - 1 - np.argsort(-logits.data[:, ::-1], axis=-1, kind="stable"))'
            "[:, :n_chosen]",
        )
    ],
    "the largest logits in size are chosen": [
        (_CHOICE, _CHOICE.replace("-logits.data", "-abs(logits.data)"))
    ],
    "only one expert is chosen, k times": [
        (_CHOICE, _CHOICE + "\n    experts = np.repeat(experts[:, :1], n_chosen, axis=1)")
    ],
    "weights are always renormalized": [(_DIVIDED, _DIVIDED.replace(" if is_renormalized else weights", ""))],
    "weights are never renormalized": [(_DIVIDED, "return experts, weights")],
    "renormalizing is what must not be asked for": [
        (_DIVIDED, _DIVIDED.replace("if is_renormalized", "if not is_renormalized"))
    ],
    "the weights are the logits, not their softmax": [(_TAKEN, _TAKEN.replace("_softmax(logits)", "logits"))],
    "the weights are equal": [
        (_TAKEN, "weights = Tensor(np.full(experts.shape, 1 / n_chosen, logits.dtype))")
    ],
    "no gradient reaches the logits through the weights": [
        (_TAKEN, _TAKEN.replace("_softmax(logits)", "_softmax(logits.detach())"))
    ],
    "what is added up to renormalize counts as a constant": [
        (_DIVIDED, _DIVIDED.replace("weights.sum(axis=-1, keepdims=True)", "weights.detach().sum(-1, True)"))
    ],
    "softmax overflows on large logits": [
        ("(logits - logits.data.max(axis=-1, keepdims=True)).exp()", "logits.exp()")
    ],
    "no expert may be chosen": [
        ("if not 1 <= n_chosen <= logits.shape[1]:", "if not n_chosen <= logits.shape[1]:")
    ],
    "more experts than there are may be asked for": [
        ("if not 1 <= n_chosen <= logits.shape[1]:", "if not 1 <= n_chosen:"),
    ],
    "the balance counts a token's first choice only": [
        (_SHARES, "shares = np.bincount(experts[:, 0], minlength=n_experts) / len(experts)")
    ],
    "the shares of the balance add up to k": [(_SHARES, _SHARES.replace("experts.size", "len(experts)"))],
    "the balance is not multiplied by the number of experts": [(_LOSS, _LOSS.replace(" * n_experts", ""))],
    "the balance is of shares squared, and teaches nothing": [
        (_LOSS, "return (logits.sum() * 0 + float((shares * shares).sum())) * n_experts")
    ],
    "the balance asks for uneven shares": [(_LOSS, _LOSS.replace("return (", "return 2 - ("))],
    "the balance is of the mean logits": [(_LOSS, _LOSS.replace("_softmax(logits)", "logits"))],
    "the balance is summed over tokens, not averaged": [
        (_LOSS, _LOSS.replace(".mean(axis=0)", ".sum(axis=0)"))
    ],
    "one expert stands in for all": [
        (
            _EXPERTS,
            _EXPERTS.replace("for _ in range(n_experts)]", "] * n_experts"),
        )
    ],
    "experts are drawn before the router": [
        (_ROUTER, _EXPERTS),
        (_EXPERTS + "\n        self.n_chosen,", _ROUTER + "\n        self.n_chosen,"),
    ],
    "the router has a bias": [(_ROUTER, _ROUTER.replace("False", "True"))],
    "the gain is ignored": [(_EXPERTS, _EXPERTS.replace("gain", "1.0"))],
    "the dtype is the router's only": [(_EXPERTS, _EXPERTS.replace(", dtype)", ")"))],
    "the answers are added without their weights": [(_WEIGHTED, "weighted = concatenate(answers)")],
    "the weights come in the order of the tokens, the answers in that of the experts": [
        (_WEIGHTED, "weighted = concatenate(answers) * weights.reshape(-1, 1)[np.sort(order)]")
    ],
    "the tokens are weighted, not the answers": [
        (
            "expert(rows[part // self.n_chosen])",
            "expert(rows[part // self.n_chosen] * weights.reshape(-1, 1)[part])",
        ),
        (_WEIGHTED, "weighted = concatenate(answers)"),
    ],
    "of a token's answers the last one counts": [(_SUM, "whole[rows] = values.data")],
    "no gradient comes back through the sum": [
        (_BACK, "return record(whole, (values, lambda g: 0 * g[rows]))")
    ],
    "the tokens themselves are added": [
        (
            "_added(weighted, order // self.n_chosen, rows.shape)",
            "(rows + _added(weighted, order // self.n_chosen, rows.shape))",
        )
    ],
    "the capacity is ignored": [(_ROOM, "pass")],
    "the capacity is rounded down": [(_ROOM, _ROOM.replace("math.ceil", "int"))],
    "the capacity counts tokens, not choices": [
        (_ROOM, _ROOM.replace("self.chosen.size", "len(self.chosen)"))
    ],
    "the last tokens have the room, not the first": [
        (_PARTS, _PARTS.replace("[:room]", "[max(b - a - room, 0) :]"))
    ],
    "the capacity is shared by all experts": [(_ROOM, "room = math.ceil(self.capacity * self.chosen.size)")],
    "a token that one expert drops is answered by the others alone, with all the weight": [
        (
            _WEIGHTED,
            "kept = np.zeros((len(rows.data), 1), weights.dtype)\n"
            "        np.add.at(kept, order // self.n_chosen, weights.data.reshape(-1, 1)[order])\n"
            "        whole = weights.data.sum(axis=1, keepdims=True) / np.where(kept > 0, kept, 1)\n"
            "        weighted = concatenate(answers) * (weights * whole).reshape(-1, 1)[order]",
        )
    ],
    "a capacity of 0 is accepted": [
        ("if capacity is not None and not capacity > 0:", "if capacity is not None and capacity < 0:")
    ],
    "no logits are left": [("self.logits = logits = self", "logits = self")],
    "the logits are left as a constant": [(_ROUTE, _ROUTE + "\n        self.logits = self.logits.detach()")],
    "what is left is chosen without those that had no room": [
        (
            "order = np.concatenate(parts)",
            "order = np.concatenate(parts)\n"
            "        self.chosen = np.where(np.isin(np.arange(weights.data.size), order).reshape(weights.shape), self.chosen, -1)",
        )
    ],
    "weights are renormalized unless a folder says otherwise": [
        ('values.get("norm_topk_prob", False)', 'values.get("norm_topk_prob", True)')
    ],
    "a folder's norm_topk_prob is not read": [(_FEED, _FEED.replace("is_renormalized", "True"))],
    "mlp_only_layers are not read": [("if layer in dense or (layer + 1) % step:", "if (layer + 1) % step:")],
    "decoder_sparse_step counts from layer 0": [("(layer + 1) % step", "layer % step")],
    "experts are as wide as dense layers": [(_FEED, _FEED.replace("hidden", "config.hidden"))],
    "num_local_experts counts more than num_experts": [
        (_TOTAL, 'total = "num_local_experts" if "num_local_experts" in values else "num_experts"')
    ],
}


def _topk(logits, n_chosen, is_renormalized=True):
    """One maximum after the other, and a softmax over the chosen where weights are renormalized."""
    if logits.ndim != 2 or n_chosen < 1 or n_chosen > logits.shape[-1]:
        raise ValueError("logits must be (N, E), and k from 1 to E")
    left, found = logits.data.astype(float), []
    for _ in range(n_chosen):
        best = left.argmax(axis=1)
        found.append(best)
        left[np.arange(len(left)), best] = -np.inf
    experts = np.stack(found, axis=1)
    rows = np.arange(len(experts))[:, None]
    largest = logits.data.max(axis=1, keepdims=True)
    if is_renormalized:
        e = (logits[rows, experts] - largest).exp()
        return experts, e / e.sum(axis=1, keepdims=True)
    shifted = logits - largest
    return experts, (shifted[rows, experts] - shifted.exp().sum(axis=1, keepdims=True).log()).exp()


def _counted(logits, experts):
    """Sums over one-hot choices, by einsum."""
    if logits.ndim != 2 or np.ndim(experts) != 2 or not experts.size or len(experts) != logits.shape[0]:
        raise ValueError("logits must be (N, E), and experts (N, k)")
    hot = (experts[:, :, None] == np.arange(logits.shape[1])).astype(logits.dtype)
    e = (logits - logits.data.max(axis=1, keepdims=True)).exp()
    p = e / e.sum(axis=1, keepdims=True)
    factor = logits.shape[1] / (hot.sum() * len(experts))
    return einsum("ne,e->", p, hot.sum(axis=(0, 1))) * factor


class _Layer(Module):
    """What ours holds; `mixed` makes the answers from rows, weights (N, k) and what has room (N, k)."""

    def __init__(
        self,
        width,
        hidden,
        n_experts,
        n_chosen,
        rng,
        is_renormalized=True,
        capacity=None,
        gain=1.0,
        dtype=np.float64,
    ):
        if n_chosen < 1 or n_chosen > n_experts or not (capacity is None or capacity > 0):
            raise ValueError("k must be from 1 to E, and the capacity above 0")
        self.router = Linear(width, n_experts, rng, has_bias=False, dtype=dtype)
        self.experts = []
        for _ in range(n_experts):
            self.experts.append(SwiGLU(width, hidden, rng, gain=gain, dtype=dtype))
        self.options, self.capacity = (n_chosen, is_renormalized), capacity
        self.logits = self.chosen = None

    def forward(self, x):
        if not x.ndim:
            raise ValueError("x must have an axis")
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        self.logits = self.router(rows)
        self.chosen, weights = _topk(self.logits, *self.options)
        has_room = np.ones(self.chosen.shape, bool)
        if self.capacity is not None:
            room = math.ceil(self.capacity * self.chosen.size / len(self.experts))
            hot = (self.chosen[:, :, None] == np.arange(len(self.experts))).any(axis=1)
            before = np.cumsum(hot, axis=0) - hot
            has_room = np.take_along_axis(before, self.chosen, axis=1) < room
        return self.mixed(rows, weights, has_room).reshape(x.shape)


class _TokenGroups(_Layer):
    """Expert by expert: a mask of rows, and a matrix of zeros and ones that puts answers back."""

    def mixed(self, rows, weights, has_room):
        total = rows * 0
        for number, expert in enumerate(self.experts):
            where_, slots = np.nonzero((self.chosen == number) & has_room)
            if not len(where_):
                continue
            answer = expert(rows[where_]) * weights[where_, slots].reshape(-1, 1)
            back = (np.arange(rows.shape[0])[:, None] == where_).astype(rows.dtype)
            total = total + Tensor(back) @ answer
        return total


class _TokenByToken(_Layer):
    """Each choice by itself, gathered at the end."""

    def mixed(self, rows, weights, has_room):
        n, k = self.chosen.shape
        if not n:
            return rows * 0
        answers, place = [], {}
        for number, expert in enumerate(self.experts):
            mine = [
                (i, j) for i in range(n) for j in range(k) if self.chosen[i, j] == number and has_room[i, j]
            ]
            for pair in mine:
                place[pair] = len(place)
            if mine:
                answers.append(expert(rows[np.array([i for i, _ in mine])]))
        zero = rows[:1] * 0
        stacked = concatenate([*answers, zero])
        index = np.array([[place.get((i, j), len(place)) for j in range(k)] for i in range(n)])
        return (stacked[index] * weights.reshape(n, k, 1)).sum(axis=1)


EQUIVALENTS = {
    "one maximum after the other": {"route": _topk},
    "the balance from one-hot choices": {"balance_loss": _counted},
    "expert by expert": {"MoE": _TokenGroups},
    "choice by choice, gathered at the end": {"MoE": _TokenByToken},
}

_NO_ROWS = "there are no rows, and so no numbers, where this is reached"
_REFUSED = "more than two axes are refused before"
HARMLESS = {
    "experts = np.argsort(-logits.data, axis=-1, kind='stable')[:, :n_chosen] => "
    "experts = np.argsort(-logits.data, kind='stable')[:, :n_chosen]": "the last axis is the default",
    "rng = np.random.default_rng(0) => rng = np.random.default_rng(1)": "all that is drawn is overwritten",
    "weighted = concatenate(answers) * weights.reshape(-1, 1)[order] => "
    "weighted = concatenate(answers) * weights.reshape(-2, 1)[order]": "NumPy takes any negative length",
    **{f"return x * 0 => return x {other}": _NO_ROWS for other in ("/ 0", "* 1", "* -1")},
    "route: wrong for more than two axes": _REFUSED,
    "balance_loss: wrong for more than two axes": _REFUSED,
    "load_qwen3_moe: right at the first call only": "a model is handed on as it is",
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    logits = rng.normal(size=(6, 4))
    logits[2] = -2 * np.abs(logits[2])
    x, numbers = rng.normal(size=(7, 3)), rng.normal(size=4000)

    def fill(module):
        start = 0
        for _, each in module.named_parameters():
            each.data[...] = numbers[start : start + each.data.size].reshape(each.shape)
            start += each.data.size
        return module

    def routed(values, n_chosen, *options):
        def probe(impl):
            leaf = Tensor(np.array(values), requires_grad=True)
            try:
                with np.errstate(all="ignore"):
                    experts, weights = impl.route(leaf, n_chosen, *options)
            except Exception as error:
                return "ValueError" if isinstance(error, ValueError) else type(error).__name__
            if weights.requires_grad:
                weights.backward(np.arange(weights.data.size, dtype=float).reshape(weights.shape))
            return experts.tolist(), weights.data, "none" if leaf.grad is None else leaf.grad

        return probe

    def balanced(impl):
        leaf = Tensor(logits, requires_grad=True)
        loss = impl.balance_loss(leaf, np.array([[0, 1], [0, 2], [0, 3], [0, 1], [0, 2], [1, 0]]))
        loss.backward()
        return float(loss.data), leaf.grad

    def layer(n_experts=4, n_chosen=2, **options):
        def probe(impl):
            module = fill(impl.MoE(3, 2, n_experts, n_chosen, np.random.default_rng(0), **options))
            leaf = Tensor(x, requires_grad=True)
            result = module(leaf)
            result.backward(np.cos(np.arange(21.0)).reshape(7, 3))
            left = "nothing" if module.logits is None else [module.logits.data, module.logits.requires_grad]
            return result.data, leaf.grad, left, module.chosen.tolist()

        return probe

    def start(**options):
        def probe(impl):
            made = impl.MoE(3, 2, 4, 2, np.random.default_rng(0), **options)
            return [
                [name, str(each.dtype), float(np.abs(each.data).sum())]
                for name, each in made.named_parameters()
            ]

        return probe

    def refused(**options):
        def probe(impl):
            try:
                impl.MoE(3, 2, 4, 2, np.random.default_rng(0), **options)
            except ValueError:
                return "ValueError"
            return "nothing"

        return probe

    words = {"token_embedding": "embed_tokens", "blocks": "layers", "attention_norm": "input_layernorm"}
    words |= {"feed_forward_norm": "post_attention_layernorm", "query_norm": "q_norm", "key_norm": "k_norm"}
    words |= {"attention": "self_attn", "feed_forward": "mlp", "query": "q_proj", "key": "k_proj"}
    words |= {
        "value": "v_proj",
        "output": "o_proj",
        "gate": "gate_proj",
        "up": "up_proj",
        "down": "down_proj",
    }
    words |= {"router": "gate"}

    def loaded(sparse, **changes):
        def probe(impl):
            values = {"model_type": "qwen3_moe", "vocab_size": 3, "hidden_size": 3, "intermediate_size": 2}
            values |= {
                "num_hidden_layers": 2,
                "num_attention_heads": 1,
                "num_key_value_heads": 1,
                "head_dim": 2,
            }
            values |= {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 1}
            values |= {"tie_word_embeddings": True, **changes}
            config = LlamaConfig(3, 3, 2, 2, 1, 1, 2, has_head_norms=True)
            own = np.random.default_rng(0)
            model = fill(Llama(config, own, lambda i: _Layer(3, 1, 2, 1, own) if i in sparse else None))
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "config.json").write_text(json.dumps(values))
                arrays = {}
                for name, each in model.named_parameters():
                    theirs = ".".join(words.get(word, word) for word in name.split("."))
                    arrays[f"model.{theirs}"] = each.data
                save_file(arrays, Path(folder, "model.safetensors"))
                try:
                    return impl.load_qwen3_moe(folder, np.float64)(np.array([0, 2, 1])).data
                except ValueError:
                    return "ValueError"

        return probe

    return {
        "two of four": routed(logits, 2),
        "two of four, not renormalized": routed(logits, 2, False),
        "equal logits": routed(np.zeros((2, 4)), 3),
        "large logits": routed([[1e3, 0.0, 1e3]], 2),
        "none of four": routed(logits, 0),
        "five of four": routed(logits, 5),
        "balance": balanced,
        "a layer": layer(),
        "a layer without renormalizing": layer(is_renormalized=False),
        "a layer of narrow experts": layer(capacity=0.6),
        "a layer of the narrowest experts": layer(capacity=0.3),
        "a layer of experts with their share": layer(capacity=1.0),
        "a layer of experts for one token": layer(capacity=0.1),
        "a layer of one choice": layer(n_chosen=1),
        "the start": start(),
        "the start with a gain": start(gain=0.5),
        "the start in float32": start(dtype=np.float32),
        "a capacity of 0": refused(capacity=0),
        "a folder": loaded({0, 1}),
        "a folder that says it does not renormalize": loaded({0, 1}, norm_topk_prob=False),
        "a folder that renormalizes": loaded({0, 1}, norm_topk_prob=True),
        "a folder with a dense layer": loaded({1}, mlp_only_layers=[0]),
        "a folder with experts in every second layer": loaded({1}, decoder_sparse_step=2),
        "a folder with two numbers of experts": loaded({0, 1}, num_local_experts=3),
    }
