"""Softmax and log-sum-exp that do not overflow, random streams that repeat, honest errors."""

from .numerics import log_softmax, logsumexp, random_stream, relative_error, softmax

__all__ = ["log_softmax", "logsumexp", "random_stream", "relative_error", "softmax"]
