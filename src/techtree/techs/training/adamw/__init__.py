"""AdamW: steps of equal size in every coordinate, and weight decay that stands beside them."""

from .adamw import AdamW, decay_groups

__all__ = ["AdamW", "decay_groups"]
