import pytest
import torch
import torch.nn.functional as F

from techtree.lm.model.causal_attention import BLOCK, attention_in_blocks, causal_attention


def tensors(n_queries, n_keys, n_heads=4, n_kv_heads=2, head_dim=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, n_heads, n_queries, head_dim), *[(2, n_kv_heads, n_keys, head_dim)] * 2]
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


def slow_attention(queries, keys, values):
    """One query at a time, by the definition."""
    group, offset = queries.shape[1] // keys.shape[1], keys.shape[2] - queries.shape[2]
    out = torch.empty_like(queries)
    for head in range(queries.shape[1]):
        for i in range(queries.shape[2]):
            seen = slice(0, offset + i + 1)
            k, v = keys[:, head // group, seen], values[:, head // group, seen]
            weights = (k @ queries[:, head, i, :, None] / queries.shape[3] ** 0.5).softmax(dim=1)
            out[:, head, i] = (weights * v).sum(dim=1)
    return out


@pytest.mark.parametrize(("n_queries", "n_keys"), [(9, 9), (1, 7), (4, 7), (1, 1), (BLOCK + 3, BLOCK + 3)])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_it_is_the_definition(n_queries, n_keys, n_kv_heads):
    inputs = tensors(n_queries, n_keys, n_kv_heads=n_kv_heads)
    with torch.no_grad():
        expected = slow_attention(*inputs)
        torch.testing.assert_close(causal_attention(*inputs), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(causal_attention(*inputs).detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_tokens", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.04)])
def test_blocks_give_the_gradients_of_the_fused_kernel(n_tokens, dtype, tolerance):
    inputs = tensors(n_tokens, n_tokens, dtype=dtype)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    blocks = attention_in_blocks(*inputs)
    fused = F.scaled_dot_product_attention(*exact, is_causal=True, enable_gqa=True)
    upstream = torch.randn(blocks.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(blocks, inputs, upstream.to(dtype))
    expected = torch.autograd.grad(fused, exact, upstream)
    torch.testing.assert_close(blocks.float(), fused, atol=tolerance, rtol=tolerance)
    for a, b in zip(found, expected, strict=True):
        # A key's gradient sums those of up to 2 * 384 queries. A single token's query and key have none, and
        # on some processors the fused kernel gives them what rounding leaves: up to 4e-7 was seen.
        assert (a.float() - b).abs().max() <= tolerance * b.abs().max().clamp(min=0.1)
