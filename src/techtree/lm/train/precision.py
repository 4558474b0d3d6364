"""In which precision this machine multiplies fastest."""

import torch

_BF16_UNITS = ("avx512_bf16", "amx_bf16", "sve_bf16")
"""The processors' names for bfloat16 matrix instructions."""


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device has instructions for it, and float32 elsewhere.

    Zen 4 multiplies bfloat16 at 430 GFLOP/s on two cores, float32 at 200. Without the
    instructions bfloat16 is emulated, slower than float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        return torch.bfloat16 if any(has.get(unit) for unit in _BF16_UNITS) else torch.float32
    return torch.float32


def chosen_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return what a recipe's ``precision`` comes to on a device: float32, bfloat16, or the faster one."""
    return compute_dtype(device) if precision == "auto" else getattr(torch, precision)
