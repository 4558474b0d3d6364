"""How often a model's programs are right: drawn, run against tests, counted without bias."""

from techtree.techs.assistant.pass_at_k.pass_at_k import Problem, estimate, evaluate, passes, truncate

__all__ = ["Problem", "estimate", "evaluate", "passes", "truncate"]
