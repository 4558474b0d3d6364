"""Attention and what is built on it."""
