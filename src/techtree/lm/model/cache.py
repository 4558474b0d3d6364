"""What is kept of the tokens that were read, so that the next token costs one token.

B batch, T new tokens, S all tokens so far, G n_kv_heads, d head_dim.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from techtree.errors import InputError
from techtree.lm.config import ModelConfig


class KVCache:
    """Room for ``max_len`` tokens of a batch, allocated once. For inference: no gradient flows through it.

    Parameters
    ----------
    config
        The shape of the model that fills it.
    batch_size
        How many sequences; they are all equally long.
    max_len
        How many tokens fit.
    dtype
        The precision of the model's activations (`LanguageModel.dtype`).
    device
        Where the model is.
    """

    length: int
    """How many tokens it holds."""

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        max_len: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.n_layers, batch_size, config.n_kv_heads, max_len, config.head_dim)
        self.length = 0
        self.max_len = max_len
        self._keys = torch.empty(shape, dtype=dtype, device=device)
        self._values = torch.empty(shape, dtype=dtype, device=device)
        self._ids = torch.empty(batch_size, max_len, dtype=torch.int64, device=device)

    def reserve(self, n_tokens: int) -> None:
        """Make sure that ``n_tokens`` more tokens fit.

        Raises
        ------
        InputError
            When they do not.
        """
        if self.length + n_tokens > self.max_len:
            raise InputError(
                f"a cache of max_len={self.max_len} that holds {self.length} tokens has no room for "
                f"{n_tokens} more: make a longer one, or truncate it"
            )

    def write_ids(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B S"]:
        """Put the new tokens themselves behind the old ones, and return all of them; `length` stays."""
        end = self.length + ids.shape[1]
        self._ids[:, self.length : end] = ids
        return self._ids[:, :end]

    def write(
        self, layer: int, keys: Float[Tensor, "B G T d"], values: Float[Tensor, "B G T d"]
    ) -> tuple[Float[Tensor, "B G S d"], Float[Tensor, "B G S d"]]:
        """Put a layer's new keys and values behind the old ones, and return all of that layer's.

        `length` stays: the model moves it once every layer has written.
        """
        end = self.length + keys.shape[2]
        self._keys[layer, :, :, self.length : end] = keys.detach()
        self._values[layer, :, :, self.length : end] = values.detach()
        return self._keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def truncate(self, length: int) -> None:
        """Forget every token but the first ``length``.

        Raises
        ------
        InputError
            When it holds fewer.
        """
        if not 0 <= length <= self.length:
            raise InputError(f"a cache of {self.length} tokens cannot be truncated to {length}")
        self.length = length
