"""The learning rate's course over a run, and gradients cut to a largest norm."""

from .schedule_clip import clip_grad_norm, warmup_cosine, warmup_linear, warmup_stable_decay

__all__ = ["clip_grad_norm", "warmup_cosine", "warmup_linear", "warmup_stable_decay"]
