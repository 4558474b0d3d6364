"""What a config must be for a format to carry it, where several formats ask for the same."""

from collections.abc import Iterator

from techtree.lm.config import ModelConfig


def heads_as_wide_as_the_model(config: ModelConfig) -> Iterator[str]:
    """Yield what is wrong where the format has no place for the width of a head."""
    if config.n_heads * config.head_dim != config.d_model:
        yield f"n_heads * head_dim = d_model (got {config.n_heads} * {config.head_dim}, {config.d_model})"
