import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.huggingface.families import write_config
from techtree.lm.model import KVCache, LanguageModel

ODD = ModelConfig(
    vocab_size=61, d_model=40, n_layers=2, n_heads=6, n_kv_heads=2, head_dim=10, d_ff=56, rope_base=500.0
)
ONE_KV_HEAD = ModelConfig(
    vocab_size=33, d_model=24, n_layers=3, n_heads=3, n_kv_heads=1, head_dim=16, d_ff=20, norm_eps=1e-3
)
UNTIED = ModelConfig(
    vocab_size=47,
    d_model=32,
    n_layers=1,
    n_heads=2,
    n_kv_heads=2,
    head_dim=8,
    d_ff=64,
    tie_embeddings=False,
)
SHAPES = pytest.mark.parametrize("config", [ODD, ONE_KV_HEAD, UNTIED], ids=["odd", "one kv head", "untied"])


def random_model(config):
    """With gains other than 1 and no zero matrix, so that every weight matters."""
    torch.manual_seed(0)
    model = LanguageModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3) if parameter.ndim > 1 else parameter.uniform_(0.5, 2)
    return model


def twin(config):
    _, values = write_config(config, end_of_text_id=0, dtype="float32")
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**values)).eval()


def random_ids(config, *shape):
    return torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(1))


@SHAPES
@torch.no_grad()
def test_logits_are_those_of_transformers(config):
    # Float32 sums of at most 61 terms in other orders, through a few layers, at logits of size 10: 1e-5.
    model, theirs = random_model(config), twin(config)
    ids = random_ids(config, 2, 150)  # longer than a block of attention
    missing = theirs.load_state_dict(model.state_dict(), strict=False).missing_keys
    assert set(missing) <= {"lm_head.weight"}
    theirs.tie_weights()
    torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


@SHAPES
@torch.no_grad()
def test_transformers_weights_give_its_logits(config):
    theirs, model = twin(config), LanguageModel(config)
    weights = theirs.state_dict()
    if config.tie_embeddings:
        del weights["lm_head.weight"]
    model.load_state_dict(weights)
    ids = random_ids(config, 3, 20)
    torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


@SHAPES
def test_gradients_are_those_of_transformers(config):
    model, theirs = random_model(config), twin(config)
    theirs.load_state_dict(model.state_dict(), strict=False)
    theirs.tie_weights()
    ids = random_ids(config, 2, 150)
    targets = ids.roll(-1, dims=1)
    targets[:, -3:] = -100
    loss = model.loss(ids, targets)
    loss.backward()
    expected = F.cross_entropy(theirs(ids).logits.flatten(0, 1), targets.flatten())
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    gradients = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-5, rtol=1e-3, msg=name)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=12, deadline=None)
@torch.no_grad()
def test_cached_is_uncached_for_every_split(lengths):
    model = random_model(ODD)
    ids = random_ids(ODD, 2, sum(lengths))
    cache = KVCache(ODD, batch_size=2, max_len=60)
    pieces = [model(part, cache) for part in ids.split(lengths, dim=1)]
    assert cache.length == sum(lengths)
    # The same float32 sums by other kernels.
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_truncated_cache_goes_on_from_there():
    model = random_model(ONE_KV_HEAD)
    ids = random_ids(ONE_KV_HEAD, 1, 12)
    cache = KVCache(ONE_KV_HEAD, batch_size=1, max_len=12)
    model(random_ids(ONE_KV_HEAD, 1, 5).flip(1), cache)
    cache.truncate(0)
    model(ids[:, :9], cache)
    cache.truncate(4)
    again = model(ids[:, 4:], cache)
    torch.testing.assert_close(again, model(ids)[:, 4:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_full_cache_refuses_more_and_keeps_what_it_has():
    model = random_model(ODD)
    ids = random_ids(ODD, 1, 6)
    cache = KVCache(ODD, batch_size=1, max_len=5)
    model(ids[:, :4], cache)
    with pytest.raises(InputError, match="max_len=5 that holds 4 tokens has no room for 2 more"):
        model(ids[:, 4:], cache)
    torch.testing.assert_close(model(ids[:, 4:5], cache), model(ids)[:, 4:5], atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="cannot be truncated to 6"):
        cache.truncate(6)


@torch.no_grad()
def test_a_token_does_not_see_later_ones():
    model = random_model(ODD)
    ids = random_ids(ODD, 1, 20)
    other = ids.clone()
    other[:, 10:] = 0
    before, after = model(ids), model(other)
    torch.testing.assert_close(before[:, :10], after[:, :10], atol=1e-5, rtol=0)
    assert (before[:, 10:] - after[:, 10:]).abs().max() > 0.1


@torch.no_grad()
def test_a_batch_is_its_rows_alone():
    model = random_model(ODD)
    ids = random_ids(ODD, 4, 17)
    alone = torch.cat([model(row[None]) for row in ids])
    torch.testing.assert_close(model(ids), alone, atol=1e-4, rtol=1e-4)


def test_bfloat16_compute_keeps_weights_and_gradients_in_float32():
    model = random_model(ODD)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 0.3
    ids = random_ids(ODD, 2, 40)
    exact = model.loss(ids, ids.roll(-1, 1))
    exact.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.compute_dtype = torch.bfloat16
    rounded = model.loss(ids, ids.roll(-1, 1))
    rounded.backward()
    assert model.dtype == torch.bfloat16
    assert rounded.dtype == torch.float32
    # bfloat16 rounds to 1/256; errors of many roundings partly cancel.
    torch.testing.assert_close(rounded, exact, atol=0, rtol=0.01)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        error = (parameter.grad - gradients[name]).norm() / gradients[name].norm()
        assert error < 0.1, name


@torch.no_grad()
def test_a_model_of_bfloat16_weights_runs_with_a_cache():
    model = random_model(ODD).to(torch.bfloat16)
    cache = KVCache(ODD, batch_size=1, max_len=8, dtype=model.dtype)
    assert model(random_ids(ODD, 1, 8), cache).dtype == torch.float32
