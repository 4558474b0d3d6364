"""Every family computes what transformers computes, whoever wrote the folder."""

import pytest
import torch
import transformers
from safetensors import safe_open

from lm.families import FAMILIES, random_model
from techtree.lm.formats.huggingface import load_model, save_pretrained
from techtree.lm.formats.huggingface.families import FAMILIES as TABLE
from techtree.lm.formats.huggingface.stored import StoredTensors
from techtree.lm.model.cache import KVCache

N_TOKENS = 40
TOLERANCE = {"atol": 1e-4, "rtol": 0}
"""The project's bar for float32. Logits are a few units large; sums in another order move them by 1e-6."""

BASE = {"vocab_size": 525, "hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 56}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2}
SHAPE = BASE | HEADS | {"max_position_embeddings": 64, "pad_token_id": None}
TIED = {"tie_word_embeddings": True}
GPT2 = {"vocab_size": 525, "n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 64}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
NORMALIZED = {"norm_topk_prob": True}
NINE_HEADS = {"num_attention_heads": 9, "num_key_value_heads": 3}
ONE_KV_HEAD = {"num_key_value_heads": 1}
LINEAR = {"rope_type": "linear", "factor": 2.5, "rope_theta": 5e3}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 5e5,
}
WINDOW = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0}

CASES = {
    "gpt2": ("gpt2", GPT2),
    "gpt2, odd": ("gpt2", GPT2 | {"n_head": 3, "n_inner": 50, "activation_function": "gelu_pytorch_tanh"}),
    "gpt2, untied": ("gpt2", GPT2 | {"tie_word_embeddings": False, "reorder_and_upcast_attn": True}),
    "llama": ("llama", SHAPE | {"rms_norm_eps": 1e-5}),
    "llama, nine heads": ("llama", SHAPE | TIED | NINE_HEADS | {"hidden_size": 72}),  # SmolLM2
    "llama, wide heads": ("llama", SHAPE | TIED | ONE_KV_HEAD | {"head_dim": 12}),
    "llama, biases": ("llama", SHAPE | {"attention_bias": True, "mlp_bias": True}),
    "llama, linear": ("llama", SHAPE | {"rope_parameters": LINEAR}),
    "llama, llama3": ("llama", SHAPE | TIED | {"rope_parameters": LLAMA3}),
    "qwen2": ("qwen2", SHAPE | TIED | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2, untied": ("qwen2", SHAPE | ONE_KV_HEAD | {"head_dim": 14, "rope_parameters": LLAMA3}),
    "qwen2, window": ("qwen2", SHAPE | WINDOW),
    "qwen3": ("qwen3", SHAPE | TIED | {"head_dim": 10}),
    "qwen3, biases": ("qwen3", SHAPE | ONE_KV_HEAD | {"head_dim": 8, "attention_bias": True}),
    "qwen3, window": ("qwen3", SHAPE | WINDOW | {"head_dim": 8, "rope_parameters": LINEAR}),
    "mistral": ("mistral", SHAPE | {"sliding_window": 7}),
    "mistral, no window": ("mistral", SHAPE | TIED | ONE_KV_HEAD | {"head_dim": 10, "sliding_window": None}),
    "mistral, default window": ("mistral", SHAPE | {"hidden_size": 50, "head_dim": 8}),
    "qwen3_moe": ("qwen3_moe", SHAPE | EXPERTS | NORMALIZED),
    "qwen3_moe, dense": ("qwen3_moe", SHAPE | EXPERTS | TIED | {"head_dim": 10, "mlp_only_layers": [1]}),
    "qwen3_moe, steps": ("qwen3_moe", SHAPE | EXPERTS | {"decoder_sparse_step": 2, "attention_bias": True}),
    "qwen3_moe, window": ("qwen3_moe", SHAPE | EXPERTS | WINDOW | ONE_KV_HEAD | {"head_dim": 12}),
    "olmoe": ("olmoe", SHAPE | EXPERTS),
    "olmoe, clipped": ("olmoe", SHAPE | EXPERTS | NORMALIZED | {"clip_qkv": 0.7, "rope_parameters": LINEAR}),
    "olmoe, one kv head": ("olmoe", SHAPE | EXPERTS | TIED | ONE_KV_HEAD | {"attention_bias": True}),
}


def ids_for(vocab_size, n_tokens=N_TOKENS):
    return torch.randint(vocab_size, (2, n_tokens), generator=torch.Generator().manual_seed(1))


def made_by_transformers(case):
    """A model of theirs, with every weight random."""
    model_type, values = CASES[case]
    config = transformers.AutoConfig.for_model(model_type, **values)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() or ".ln_" in name:
                parameter.uniform_(0.5, 2, generator=generator)
            else:
                parameter.normal_(std=0.15 if parameter.ndim > 1 else 0.3, generator=generator)
    return model


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_both_ways(case, tiny_tokenizer, tmp_path):
    theirs = made_by_transformers(case)
    ids = ids_for(525)
    expected = theirs(ids).logits
    assert expected.std() > 0.3  # the tolerance is small beside what is compared
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    torch.testing.assert_close(ours(ids), expected, **TOLERANCE)
    save_pretrained(tmp_path / "ours", ours, tiny_tokenizer)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert not ours.training
    torch.testing.assert_close(again(ids).logits, expected, **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_our_shapes_go_there(family, tiny_tokenizer, tmp_path):
    ours = random_model(FAMILIES[family])
    save_pretrained(tmp_path, ours, tiny_tokenizer, max_shard_bytes=50_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.config.model_type == family
    assert type(theirs).__name__ == TABLE[family].architecture
    assert theirs.config.pad_token_id is None
    ids = ids_for(ours.config.vocab_size)
    torch.testing.assert_close(theirs(ids).logits, ours(ids), **TOLERANCE)
    back = load_model(tmp_path)
    assert back.config == ours.config
    assert all(torch.equal(p, ours.state_dict()[name]) for name, p in back.state_dict().items())


@pytest.mark.parametrize("family", ["qwen3_moe", "olmoe"])
@torch.no_grad()
def test_fused_experts_are_read(family, tmp_path):
    theirs = made_by_transformers(family)
    theirs.save_pretrained(tmp_path, save_original_format=False)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert "model.layers.0.mlp.experts.gate_up_proj" in file.keys()  # noqa: SIM118
    ours = load_model(tmp_path)
    ids = ids_for(525)
    torch.testing.assert_close(ours(ids), theirs(ids).logits, **TOLERANCE)
    assert all(parameter.is_contiguous() for parameter in ours.parameters())


@pytest.mark.parametrize("case", ["gpt2", "llama, llama3", "qwen3_moe"])
def test_gradients_too(case, tmp_path):
    theirs = made_by_transformers(case)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    ids, targets = ids_for(525)[:, :-1], ids_for(525)[:, 1:]
    logits = theirs(ids).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    ours.loss(ids, targets.contiguous()).backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    layout = TABLE[case.partition(",")[0]].layout(ours.config, ours.state_dict().keys(), expected.keys())
    found = StoredTensors(layout, {name: parameter.grad for name, parameter in ours.named_parameters()})
    assert found.keys() == expected.keys()
    for name, grad in found.items():
        # Float32 keeps 1e-7 of each term; the sums here have some thousand terms, of either sign.
        scale = expected[name].abs().max().item()
        assert scale > 0
        torch.testing.assert_close(
            grad, expected[name], atol=2e-5 * scale, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_cached_is_uncached(family):
    model = random_model(FAMILIES[family])
    ids = ids_for(model.config.vocab_size)
    cache = KVCache(model.config, batch_size=2, max_len=N_TOKENS)
    pieces = [ids[:, :11], *ids[:, 11:20].split(1, dim=1), ids[:, 20:]]
    cached = torch.cat([model(piece, cache) for piece in pieces], dim=1)
    # The same sums in another order.
    torch.testing.assert_close(cached, model(ids), atol=2e-5, rtol=0)
