"""Training through the rounding that is exported: fake quantization with the straight-through gradient."""

from techtree.techs.inference.qat.qat import QATLinear, convert, fake_quantize, prepare

__all__ = ["QATLinear", "convert", "fake_quantize", "prepare"]
