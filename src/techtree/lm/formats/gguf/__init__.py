"""A model and its tokenizer in one GGUF file, for llama.cpp and the programs around it.

`architecture` says which of llama.cpp's graphs computes what a model does, and refuses what none does;
`layout` which tensor becomes which; `vocabulary` what llama.cpp needs to know of the tokenizer.
"""

from techtree.lm.formats.gguf.loading import load_gguf, open_gguf
from techtree.lm.formats.gguf.saving import save_gguf

__all__ = ["load_gguf", "open_gguf", "save_gguf"]
