"""A shape for each thing that a GGUF file can say, with the architecture that has to carry it."""

from dataclasses import replace
from pathlib import Path

import gguf
import torch

from lm.families import FAMILIES, random_model
from techtree.lm.config import ExpertsConfig, ModelConfig, RopeScaling
from techtree.lm.model.language_model import LanguageModel

_LLAMA, _QWEN2, _QWEN3 = FAMILIES["llama"], FAMILIES["qwen2"], FAMILIES["qwen3"]
_EXPERTS = ExpertsConfig(n_experts=5, n_active=2, d_expert=24)
_OLMOE = FAMILIES["olmoe"]

SHAPES: dict[str, tuple[str, ModelConfig]] = {
    "llama": ("llama", replace(_LLAMA, rope_scaling=None)),
    "llama, scaled as Llama 3": ("llama", _LLAMA),
    "llama, scaled linearly": ("llama", replace(_LLAMA, rope_scaling=RopeScaling("linear", 4.0))),
    "llama, biases everywhere": ("llama", replace(_LLAMA, attention_bias="all", mlp_bias=True)),
    "llama, one key head, wide heads, untied": (
        "llama",
        replace(_LLAMA, n_kv_heads=1, head_dim=20, tie_embeddings=False),
    ),
    "llama, experts": ("llama", replace(_LLAMA, experts=_EXPERTS)),
    "mistral, a window that never closes": ("llama", replace(FAMILIES["mistral"], sliding_window=64)),
    "qwen2": ("qwen2", _QWEN2),
    "qwen2, scaled linearly, untied": (
        "qwen2",
        replace(_QWEN2, rope_scaling=RopeScaling("linear", 2.0), tie_embeddings=False),
    ),
    "qwen2, wide heads": ("llama", replace(_QWEN2, head_dim=12)),
    "qwen2, scaled as Llama 3": ("llama", replace(_QWEN2, rope_scaling=_LLAMA.rope_scaling)),
    "qwen3": ("qwen3", _QWEN3),
    "qwen3, one key head, biases, untied": (
        "qwen3",
        replace(_QWEN3, n_kv_heads=1, attention_bias="qkv", tie_embeddings=False),
    ),
    "qwen3, scaled linearly": ("qwen3", replace(_QWEN3, rope_scaling=RopeScaling("linear", 3.0))),
    "qwen3moe": ("qwen3moe", replace(FAMILIES["qwen3_moe"], experts=_EXPERTS)),
    "qwen3moe, biases, tied": (
        "qwen3moe",
        replace(FAMILIES["qwen3_moe"], experts=_EXPERTS, attention_bias="qkv", tie_embeddings=True),
    ),
    "olmoe": ("olmoe", replace(_OLMOE, n_kv_heads=6, clip_qkv=None)),
    "olmoe, biases, tied": (
        "olmoe",
        replace(_OLMOE, n_kv_heads=6, clip_qkv=None, attention_bias="qkv", tie_embeddings=True),
    ),
    "gpt2": ("gpt2", FAMILIES["gpt2"]),
    "gpt2, shared key heads, untied": (
        "gpt2",
        replace(FAMILIES["gpt2"], n_kv_heads=2, tie_embeddings=False),
    ),
}


def peaked_model(config: ModelConfig, seed: int = 2) -> LanguageModel:
    """A random model whose likeliest token stands out, as a trained model's does, and changes."""
    model = random_model(config, seed)
    with torch.no_grad():
        # A model with a tied head would only repeat a token that outweighs what the layers add to it.
        model.model.embed_tokens.weight.mul_(0.1)
        sizes = torch.empty(config.vocab_size, 1).normal_(generator=torch.Generator().manual_seed(seed))
        model.head.mul_((0.4 * sizes).exp())
    return model


def quantize(source: Path, target: Path, kind: str) -> None:
    """Copy a file with the format's own package, its matrices quantized where their rows are whole blocks."""
    reader = gguf.GGUFReader(source)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    writer = gguf.GGUFWriter(target, fields.pop("general.architecture").contents())
    for name, field in fields.items():
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    wanted = gguf.GGMLQuantizationType[kind]
    in_block, _ = gguf.GGML_QUANT_SIZES[wanted]
    for tensor in reader.tensors:
        values = tensor.data  # our own files hold floats
        if values.ndim > 1 and values.shape[-1] % in_block == 0:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, wanted), raw_dtype=wanted)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
