"""Which tensors a file has: the names of transformers, and the parameters behind each.

There are GPT-2's names, and those of Llama, which all later families share and which are ours too.
"""

import re
from collections.abc import Collection

import torch

from techtree.lm.config import ModelConfig
from techtree.lm.formats.huggingface.stored import Stored
from techtree.lm.model.language_model import LanguageModel

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"

_NO_WEIGHT = re.compile(
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"  # the angles, which follow from the config
    r"|(transformer\.)?h\.\d+\.attn\.(masked_)?bias"  # the causal mask
)


def is_weight(name: str) -> bool:
    """Whether a tensor says something; old files hold some that do not."""
    return _NO_WEIGHT.fullmatch(name) is None


def meta_model(config: ModelConfig) -> LanguageModel:
    """Return a model whose tensors have shapes and no memory."""
    with torch.device("meta"):
        return LanguageModel(config)


def own_layout(
    config: ModelConfig, parameters: Collection[str], found: Collection[str] = ()
) -> dict[str, Stored]:
    """Return the tensors of a file that only this program reads: the model's own, as they are."""
    return {name: Stored((name,)) for name in parameters}


def llama_layout(
    config: ModelConfig, parameters: Collection[str], found: Collection[str] = ()
) -> dict[str, Stored]:
    """Return the tensors of a file of any family but GPT-2, given the names of the model's parameters.

    Experts are stored one by one. Given the names found in a file whose experts are fused, as version 5 of
    transformers holds them in memory, the layout is that of the file.
    """
    is_fused = any(name.endswith(".mlp.experts.gate_up_proj") for name in found)
    layout: dict[str, Stored] = {}
    for name in parameters:
        prefix, is_expert, matrix = name.partition(".mlp.experts.")
        experts = f"{prefix}.mlp.experts"
        if not is_expert:
            layout[name] = Stored((name,))
        elif not is_fused:
            assert config.experts is not None
            for e in range(config.experts.n_experts):
                layout[f"{experts}.{e}.{matrix}.weight"] = Stored((name,), index=e)
        elif matrix == "down_proj":
            layout[name] = Stored((name,))
        else:
            both = (f"{experts}.gate_proj", f"{experts}.up_proj")
            layout[f"{experts}.gate_up_proj"] = Stored(both, axis=1)
    return layout


def gpt2_layout(
    config: ModelConfig, parameters: Collection[str], found: Collection[str] = ()
) -> dict[str, Stored]:
    """Return the tensors of a GPT-2 file: matrices are (in, out), and one holds queries, keys and values.

    Given the names found in a file that lack the prefix "transformer.", as OpenAI's do, so does the layout.
    """
    layout = {
        "wte.weight": Stored((EMBEDDING,)),
        "wpe.weight": Stored(("model.embed_positions.weight",)),
        "ln_f.weight": Stored(("model.norm.weight",)),
        "ln_f.bias": Stored(("model.norm.bias",)),
    }
    for i in range(config.n_layers):
        layout |= {f"h.{i}.{name}": stored for name, stored in _gpt2_layer(f"model.layers.{i}").items()}
    prefix = "" if found and not any(name.startswith("transformer.") for name in found) else "transformer."
    layout = {prefix + name: stored for name, stored in layout.items()}
    return layout if config.tie_embeddings else layout | {HEAD: Stored((HEAD,))}


def _gpt2_layer(ours: str) -> dict[str, Stored]:
    q, k, v, o = (f"{ours}.self_attn.{letter}_proj" for letter in "qkvo")
    up, down = f"{ours}.mlp.up_proj", f"{ours}.mlp.down_proj"
    layout = {}
    for theirs, norm in {"ln_1": "input_layernorm", "ln_2": "post_attention_layernorm"}.items():
        layout[f"{theirs}.weight"] = Stored((f"{ours}.{norm}.weight",))
        layout[f"{theirs}.bias"] = Stored((f"{ours}.{norm}.bias",))
    products = {"attn.c_attn": (q, k, v), "attn.c_proj": (o,), "mlp.c_fc": (up,), "mlp.c_proj": (down,)}
    for theirs, linears in products.items():
        weights = tuple(f"{linear}.weight" for linear in linears)
        layout[f"{theirs}.weight"] = Stored(weights, is_transposed=True, axis=1)
        layout[f"{theirs}.bias"] = Stored(tuple(f"{linear}.bias" for linear in linears))
    return layout
