"""Oracle: the `gguf` package's reference, byte for byte."""

import itertools

import gguf.quants
import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from lm.decoder_in_c import needs_decoder
from techtree.errors import InputError
from techtree.lm.native import blocks as native
from techtree.lm.native.blocks import to_q8_0
from techtree.lm.quant.blocks import BLOCK, Blocks, grid, quantize

KINDS = {"q8_0": GGMLQuantizationType.Q8_0, "q4_0": GGMLQuantizationType.Q4_0}


def matrices(n=40):
    """Return matrices of many sizes of numbers, with ties, zeros of both signs and blocks of one value."""
    generator = torch.Generator().manual_seed(0)
    for i in range(n):
        x = torch.randn(48, 96, generator=generator) * 10.0 ** (i % 11 - 6)
        if i % 3 == 0:
            x = (x * 4).round() / 4
        x[3], x[5, 32:64], x[7] = 0, -0.0, x[7, 0]
        x[9, 4], x[9, 20] = 2.5, -2.5  # the first of two largest gives Q4_0's sign
        yield x


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_equal_the_reference(kind):
    for x in matrices():
        expected = gguf.quants.quantize(x.numpy(), KINDS[kind])
        blocks = quantize(x, kind)
        np.testing.assert_array_equal(blocks.data.numpy(), expected)
        floats = gguf.quants.dequantize(expected, KINDS[kind])
        np.testing.assert_array_equal(blocks.floats().numpy(), floats)
        assert blocks.shape == x.shape
        assert torch.equal(grid(x.view(-1, BLOCK), kind).view(x.shape), blocks.floats())


@needs_decoder
@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_way_rounds_alike(kind):
    for x in matrices():
        assert torch.equal(native.rounded(x, kind), quantize(x, kind).floats())


@needs_decoder
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_number_stays_none(kind):
    for x in (torch.nan, torch.inf, -torch.inf, 3e38):
        weights = torch.ones(2, 64)
        weights[0, 40] = x
        found = native.rounded(weights, kind)
        assert not found[0, 32:].isfinite().any()
        assert found[1].isfinite().all()
        assert found[0, :32].isfinite().all()


def test_q4_1_is_read_as_the_reference_reads_it():
    for x in matrices():
        data = gguf.quants.quantize(x.numpy(), GGMLQuantizationType.Q4_1)
        blocks = Blocks("q4_1", torch.from_numpy(data))
        expected = gguf.quants.dequantize(data, GGMLQuantizationType.Q4_1)
        np.testing.assert_array_equal(blocks.floats().numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_rounded_from_float32(dtype):
    x = torch.randn(4, 64).to(dtype)
    assert torch.equal(quantize(x, "q8_0").data, quantize(x.float(), "q8_0").data)


@pytest.mark.parametrize(
    ("x", "wanted"),
    [
        (torch.zeros(2, 33), "33 columns"),
        (torch.full((1, 32), torch.nan), "must be numbers"),
        (torch.full((1, 32), torch.inf), "must be numbers"),
        (torch.full((1, 32), 1e7), "half-precision"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_blocks(x, wanted, kind):
    with pytest.raises(InputError, match=wanted):
        quantize(x, kind)


@needs_decoder
@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"])
def test_other_kinds_become_q8_0_as_by_way_of_floats(kind):
    kind = GGMLQuantizationType[kind]
    n_weights, n_bytes = GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (64, 4, n_bytes), dtype=np.uint8)
    halves = rng.uniform(-0.02, 0.02, (64, 4, 2)).astype(np.float16).view(np.uint8)  # random bytes may be NaN
    places = {"Q5_0": slice(0, 2), "Q6_K": slice(208, 210)}
    place = places.get(kind.name, slice(0, 4))
    data[..., place] = halves[..., : place.stop - place.start]
    data = data.reshape(64, -1)
    floats = torch.from_numpy(gguf.quants.dequantize(data, kind))
    blocks = to_q8_0(int(kind), torch.from_numpy(data), 4 * n_weights)
    assert blocks is not None
    assert torch.equal(blocks.data, quantize(floats, "q8_0").data)
    data[5, place] = np.array([np.nan, np.nan], np.float16).view(np.uint8)[: place.stop - place.start]
    with pytest.raises(ValueError, match="not finite"):
        to_q8_0(int(kind), torch.from_numpy(data), 4 * n_weights)


@needs_decoder
def test_an_unknown_kind():
    assert to_q8_0(99, torch.zeros(1, 256, dtype=torch.uint8), 256) is None


@needs_decoder
@pytest.mark.parametrize("n_rows", [1, 255, 256, 257, 1000, 1024])
@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_parts_are_all_rows_once(n_rows, n_threads, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: n_threads)
    parts = []
    native.in_parts(n_rows, lambda start, end: parts.append((start, end)) or 0)
    parts.sort()
    assert parts[0][0] == 0
    assert parts[-1][1] == n_rows
    assert all(a[1] == b[0] and b[0] % 16 == 0 for a, b in itertools.pairwise(parts))
    assert len(parts) <= n_threads
