"""Rounding to bfloat16 and float16, master weights in float32, and a scale for the loss."""

from .mixed_precision import LossScaler, MasterWeights, cast, round_to

__all__ = ["LossScaler", "MasterWeights", "cast", "round_to"]
