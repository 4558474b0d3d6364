"""Muon: momentum whose matrices are orthogonalized before they are applied."""

from .muon import Muon, orthogonalize, split_parameters

__all__ = ["Muon", "orthogonalize", "split_parameters"]
