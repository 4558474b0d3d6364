"""A program that nobody has read runs in a process that can hurt nobody, and what became of it is told."""

from techtree.techs.assistant.sandbox.sandbox import Limits, Outcome, means, read_capped, run

__all__ = ["Limits", "Outcome", "means", "read_capped", "run"]
