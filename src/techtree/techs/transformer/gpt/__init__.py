"""A language model: ids in, scores of the next id out."""

from techtree.techs.transformer.gpt.gpt import GPT, GPTConfig, greedy, load_gpt2

__all__ = ["GPT", "GPTConfig", "greedy", "load_gpt2"]
