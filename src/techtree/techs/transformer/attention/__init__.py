"""Each token takes a weighted average of the tokens before it."""

from .attention import attention, attention_weights, causal_mask

__all__ = ["attention", "attention_weights", "causal_mask"]
