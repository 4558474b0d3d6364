"""Shuffled, resumable batches: the order of each epoch follows from the seed and the epoch's number."""

from .dataloader import BatchStream, DataLoader, shuffled

__all__ = ["BatchStream", "DataLoader", "shuffled"]
