"""Weights in 8 or 4 bits: blocks of 32 numbers that share a scale, as GGUF files hold them."""

from techtree.techs.inference.quantization.quantization import (
    QuantizedLinear,
    choose_kinds,
    dequantize,
    dequantize_state,
    quantize,
    quantize_state,
    quantized_matmul,
)

__all__ = [
    "QuantizedLinear",
    "choose_kinds",
    "dequantize",
    "dequantize_state",
    "quantize",
    "quantize_state",
    "quantized_matmul",
]
