"""What makes a model another family, piece by piece; whole families are compared in tests/lm/formats."""

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from techtree.errors import InputError
from techtree.lm.config import ExpertsConfig, ModelConfig, RopeScaling, Speedrun
from techtree.lm.model import KVCache, LanguageModel
from techtree.lm.model.causal_attention import attention_in_blocks, causal_attention
from techtree.lm.model.feed_forward import gelu, squared_relu
from techtree.lm.model.layernorm import LayerNorm
from techtree.lm.model.rope import frequencies

QWEN3 = ModelConfig(
    vocab_size=31, d_model=12, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=6, d_ff=20, max_seq_len=24
)
CHOICES = {
    "gpt2": {
        "norm": "layernorm",
        "positions": "learned",
        "qk_norm": "none",
        "attention_bias": "all",
        "mlp": "gelu",
        "mlp_bias": True,
    },
    "llama with biases": {"qk_norm": "none", "attention_bias": "all", "mlp_bias": True},
    "llama3": {"qk_norm": "none", "rope_scaling": RopeScaling("llama3", 8.0, original_max_seq_len=10)},
    "qwen2": {"qk_norm": "none", "attention_bias": "qkv"},
    "mistral": {"qk_norm": "none", "sliding_window": 5},
    "qwen3_moe": {"experts": ExpertsConfig(4, 2, d_expert=8, dense_layers=(1,))},
    "olmoe": {
        "qk_norm": "full",
        "clip_qkv": 0.5,
        "tie_embeddings": False,
        "experts": ExpertsConfig(4, 2, d_expert=8, normalize_weights=False),
    },
    "relu2": {"mlp": "relu2"},
    "speedrun": {"speedrun": Speedrun(longest_ngram=4, ngram_rows=50)},
}


@pytest.fixture(params=CHOICES)
def model(request):
    torch.manual_seed(0)
    model = LanguageModel(dataclasses.replace(QWEN3, **CHOICES[request.param]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4) if parameter.ndim > 1 else parameter.uniform_(0.5, 1.5)
    return model.eval()


IDS = torch.randint(31, (2, 20), generator=torch.Generator().manual_seed(0))


def test_n_parameters_is_the_count_of_the_model(model):
    assert model.config.n_parameters == sum(p.numel() for p in model.parameters())


def test_active_parameters_leave_the_unused_experts_out():
    config = dataclasses.replace(QWEN3, **CHOICES["qwen3_moe"])
    unused = 1 * 2 * 3 * 12 * 8  # one layer, two experts not used, three matrices of 12 x 8
    assert config.n_parameters - config.n_active_parameters == unused
    assert QWEN3.n_parameters == QWEN3.n_active_parameters


def test_a_config_survives_its_dict(model):
    assert ModelConfig.from_dict(dataclasses.asdict(model.config)) == model.config


@torch.inference_mode()
@pytest.mark.parametrize("split", [(20,), (1,) * 20, (7, 1, 12), (4, 9, 7)])
def test_cached_is_uncached(model, split):
    expected = model(IDS)
    cache = KVCache(model.config, 2, 24, model.dtype)
    found = torch.cat([model(part, cache) for part in IDS.split(split, dim=1)], dim=1)
    # Matrix products of other shapes add in another order: float32's 1e-7 times some ten logits.
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_a_later_token_changes_nothing_before_it(model):
    changed = IDS.clone()
    changed[:, 13] = (changed[:, 13] + 1) % 31
    before, after = model(IDS), model(changed)
    # An expert that multiplies another number of rows may add up in another order.
    torch.testing.assert_close(before[:, :13], after[:, :13], atol=5e-6, rtol=1e-5)
    assert (before[:, 13:] - after[:, 13:]).abs().amax() > 1e-3


def test_training_and_inference_compute_the_same(model):
    with torch.inference_mode():
        expected = model(IDS)
    # Own kernels against PyTorch's.
    torch.testing.assert_close(model(IDS), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("n_tokens", "window"), [(9, 1), (9, 4), (9, 9), (9, 50), (300, 130), (300, 7), (257, 128)]
)
def test_a_window_is_a_mask(n_tokens, window):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(1, 4, n_tokens, 6, generator=generator)
    keys, values = torch.randn(2, 1, 2, n_tokens, 6, generator=generator)
    rows, columns = torch.arange(n_tokens)[:, None], torch.arange(n_tokens)
    scores = queries @ keys.repeat_interleave(2, 1).transpose(2, 3) / math.sqrt(6)
    scores = scores.masked_fill((columns > rows) | (columns <= rows - window), -torch.inf)
    expected = scores.softmax(-1) @ values.repeat_interleave(2, 1)
    found = attention_in_blocks(queries, keys, values, window)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        for last in {1, 2, n_tokens // 2, n_tokens}:  # the cache holds the keys of the others
            found = causal_attention(queries[:, :, -last:], keys, values, window)
            torch.testing.assert_close(found, expected[:, :, -last:], atol=1e-5, rtol=1e-5)


def test_linear_scaling_reads_every_second_position():
    plain, slowed = frequencies(8, 100.0, None), frequencies(8, 100.0, RopeScaling("linear", 2.0))
    torch.testing.assert_close(slowed * 2, plain)


def test_llama3_scaling_by_hand():
    """With base 100 four pairs turn 100 / (2 pi) * (1, 0.316, 0.1, 0.0316) = 15.9, 5.03, 1.59, 0.503 times.

    Above 4 turns nothing changes, below 1 the frequency is divided by 8, and 1.59 turns lie 0.1972 of the way
    from 1 to 4: 0.1 * (0.1972 + 0.8028 / 8) = 0.029755.
    """
    scaling = RopeScaling("llama3", 8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=100)
    found = frequencies(8, 100.0, scaling)
    expected = torch.tensor([1.0, 0.316228, 0.029755, 0.0316228 / 8])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_small_pieces_equal_the_library():
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)) * 3
    torch.testing.assert_close(gelu(x), F.gelu(x, approximate="tanh"))
    assert squared_relu(torch.tensor([-2.0, 0.0, 3.0])).tolist() == [0.0, 0.0, 9.0]
    norm = LayerNorm(12, 1e-3)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    expected = F.layer_norm(x + 5, (12,), norm.weight, norm.bias, 1e-3)
    torch.testing.assert_close(norm(x + 5), expected, atol=1e-5, rtol=1e-5)


def test_learned_positions_end():
    model = LanguageModel(dataclasses.replace(QWEN3, **CHOICES["gpt2"]))
    with pytest.raises(InputError, match="sees at most max_seq_len=24 tokens; got 25"):
        model(torch.zeros(1, 25, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp": "silu"}, "mlp must be one of swiglu, gelu, relu2; got 'silu'"),
        ({"rope_scaling": {"kind": "yarn", "factor": 2.0}}, "kind must be one of linear, llama3; got 'yarn'"),
        ({"rope_scaling": {"kind": "linear"}}, "rope_scaling needs the field 'factor'"),
        ({"rope_scaling": {"kind": "linear", "factor": 0.0}}, "factor must be above 0"),
        ({"rope_scaling": 2.0}, "rope_scaling must be an object with its fields; got 2.0"),
        ({"experts": {"n_experts": 4, "n_active": 2, "d_expert": 8, "k": 1}}, "experts has no field 'k'"),
        (
            {"experts": {"n_experts": 4, "n_active": 2, "d_expert": 8}, "mlp": "gelu"},
            "experts are SwiGLU layers",
        ),
        ({"sliding_window": 0}, "sliding_window must be above 0"),
        ({"sliding_window": 2.5}, "sliding_window must be a whole number"),
        (
            {"positions": "learned", "rope_scaling": {"kind": "linear", "factor": 2.0}},
            "needs positions='rope'",
        ),
        ({"speedrun": {"longest_ngram": 1}}, "longest_ngram must be at least 2; got 1"),
        ({"speedrun": {"longest_ngram": 6}}, "longest_ngram - 1 must divide d_model; got longest_ngram=6"),
        ({"speedrun": {"ngram_rows": 62}}, "no common divisor.*got ngram_rows=62, vocab_size=31"),
    ],
)
def test_choices_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        ModelConfig.from_dict(dataclasses.asdict(QWEN3) | change)


def test_every_pair_of_families_differs():
    """A choice that the model ignored would leave the logits as they are."""
    found = {}
    for name, choice in {"qwen3": {}, **CHOICES}.items():
        torch.manual_seed(0)
        model = LanguageModel(dataclasses.replace(QWEN3, **choice))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.3) if parameter.ndim == 1 else parameter.normal_(std=0.4)
            found[name] = model(IDS)
    for one, other in itertools.combinations(found, 2):
        assert (found[one] - found[other]).abs().max() > 1e-3, (one, other)
