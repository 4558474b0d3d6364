"""Vectors for the n-grams that end with a token, of a model with `Speedrun` parts.

B batch, T new tokens, S all tokens so far, n lengths, D d_model.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from techtree.lm.config import Speedrun


class NGramEmbedding(nn.Module):
    """A table for each n of 2, ..., longest_ngram, one below the other; their vectors stand side by side.

    The row of an n-gram is the number that has the tokens as digits in base vocab_size, the oldest one first,
    modulo the number of rows. Before the first token of a text there are tokens 0.
    """

    def __init__(self, vocab_size: int, d_model: int, config: Speedrun) -> None:
        super().__init__()
        self.config = config
        n_lengths = config.longest_ngram - 1
        self.weight = nn.Parameter(torch.zeros(n_lengths * config.ngram_rows, d_model // n_lengths))
        self.digit_weights = [pow(vocab_size, k, config.ngram_rows) for k in range(config.longest_ngram)]

    def forward(self, ids: Int[Tensor, "B S"], n_tokens: int) -> Float[Tensor, "B T D"]:
        """Return the vectors of the last ``n_tokens`` of the tokens so far."""
        return torch.embedding(self.weight, self.rows(ids, n_tokens)).flatten(-2)

    def rows(self, ids: Int[Tensor, "B S"], n_tokens: int) -> Int[Tensor, "B T n"]:
        """Return where in the weight the n-grams are, the bigrams first."""
        n_earlier = self.config.longest_ngram - 1
        ids = torch.cat((ids.new_zeros(len(ids), n_earlier), ids), dim=1)[:, -n_tokens - n_earlier :]
        number = ids[:, n_earlier:]
        rows = []
        for k in range(1, self.config.longest_ngram):
            number = number + ids[:, n_earlier - k : -k] * self.digit_weights[k]
            rows.append(number % self.config.ngram_rows + (k - 1) * self.config.ngram_rows)
        return torch.stack(rows, dim=-1)
