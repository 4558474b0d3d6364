"""Blocks against the reference of the gguf package and against the product, byte for byte."""

import gguf
import numpy as np
import pytest
import torch

from techtree.lm.quant.blocks import Blocks
from techtree.lm.quant.blocks import quantize as quantize_of_the_product
from techtree.techs.inference.quantization import dequantize, quantize, quantized_matmul

TYPES = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}


def drawn(rng, kind):
    """Rows of many sizes and tails; halves of steps; the largest with both signs; zeros."""
    x = rng.normal(size=(2000, 64)) * np.exp(rng.uniform(-12, 9, size=(2000, 1)))
    x[:400] *= np.exp(rng.normal(size=(400, 64)))
    most = 127 if kind == "q8_0" else 8
    steps = np.exp(rng.uniform(-5, 5, size=(400, 1)))
    x[400:800] = steps * (rng.integers(-most, most, size=(400, 64)) + 0.5)
    x[400:800, ::32] = steps * most
    x[800:900] = rng.integers(-3, 4, size=(100, 64))
    x[900], x[901], x[902, 0] = 0.0, -0.0, -0.0
    x[903:1003] = rng.integers(-1, 2, size=(100, 64)) * 1e-7
    return x.astype(np.float32)


@pytest.mark.parametrize("kind", TYPES)
def test_the_bytes_are_those_of_gguf(kind):
    x = drawn(np.random.default_rng(0), kind)
    theirs = gguf.quants.quantize(x, TYPES[kind])
    assert np.array_equal(quantize(x, kind), theirs)
    assert np.array_equal(dequantize(theirs, kind), gguf.quants.dequantize(theirs, TYPES[kind]))


@pytest.mark.parametrize("kind", TYPES)
def test_any_bytes_are_worth_what_gguf_says(kind):
    n_bytes = gguf.GGML_QUANT_SIZES[TYPES[kind]][1]
    blocks = np.random.default_rng(0).integers(256, size=(5000, n_bytes)).astype(np.uint8)
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(blocks, TYPES[kind])
        assert np.array_equal(dequantize(blocks, kind), theirs, equal_nan=True)


@pytest.mark.parametrize("kind", TYPES)
def test_the_product_makes_the_same_blocks(kind):
    x = drawn(np.random.default_rng(1), kind)
    blocks = quantize(x, kind)
    assert np.array_equal(quantize_of_the_product(torch.from_numpy(x), kind).data.numpy(), blocks)
    assert np.array_equal(Blocks(kind, torch.from_numpy(blocks)).floats().numpy(), dequantize(blocks, kind))


@pytest.mark.parametrize("kind", TYPES)
def test_products_are_those_of_torch_on_what_gguf_reads(kind):
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(5, 256)).astype(np.float32), rng.normal(size=(7, 256)).astype(np.float32)
    rounded = gguf.quants.dequantize(gguf.quants.quantize(x, TYPES["q8_0"]), TYPES["q8_0"])
    blocks = gguf.quants.quantize(w, TYPES[kind])
    worth = torch.from_numpy(gguf.quants.dequantize(blocks, TYPES[kind])).double()
    expected = torch.from_numpy(rounded).double() @ worth.T
    np.testing.assert_allclose(quantized_matmul(x, blocks, kind), expected.numpy(), rtol=1e-5, atol=1e-5)
