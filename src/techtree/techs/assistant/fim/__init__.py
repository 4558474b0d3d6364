"""Fill-in-the-middle: a text is cut and arranged anew, so that a causal model writes what stands between."""

from techtree.techs.assistant.fim.fim import Sentinels, arrange, cut, example, prompt, restore, trim

__all__ = ["Sentinels", "arrange", "cut", "example", "prompt", "restore", "trim"]
