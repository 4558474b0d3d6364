"""The block that today's open models share, and a reader for their weights."""

from techtree.techs.transformer.llama_block.llama_block import (
    Llama,
    LlamaAttention,
    LlamaBlock,
    LlamaConfig,
    load_llama,
    read_config,
    read_weights,
    set_weights,
)

__all__ = [
    "Llama",
    "LlamaAttention",
    "LlamaBlock",
    "LlamaConfig",
    "load_llama",
    "read_config",
    "read_weights",
    "set_weights",
]
