"""The table that turns ids into vectors, and vectors into the scores of ids."""

from .embedding import Embedding

__all__ = ["Embedding"]
