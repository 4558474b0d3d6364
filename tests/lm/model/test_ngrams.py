import dataclasses

import torch

from techtree.lm.config import Speedrun
from techtree.lm.model import LanguageModel
from techtree.lm.model.ngrams import NGramEmbedding
from techtree.lm.speedrun import speedrun_model
from techtree.lm.train.config import TrainConfig
from techtree.lm.train.optimization import optimizers
from techtree.lm.train.ranks import Ranks
from techtree.lm.train.replicated import Replicated
from techtree.lm.train.scaling import scaled_rates


def rows_by_hand(ids, vocab_size, config):
    """The number whose digits are the tokens, token by token; 0 stands before the first."""
    found = []
    for end in range(len(ids)):
        number, row = ids[end], []
        for k in range(1, config.longest_ngram):
            number += (ids[end - k] if end >= k else 0) * vocab_size**k
            row.append(number % config.ngram_rows + (k - 1) * config.ngram_rows)
        found.append(row)
    return found


def test_rows_are_the_digits_modulo_the_rows():
    config = Speedrun(longest_ngram=4, ngram_rows=53)
    embedding = NGramEmbedding(10, 12, config)
    assert embedding.rows(torch.tensor([[1, 2, 3]]), 1).tolist() == [[[23, 53 + 123 % 53, 2 * 53 + 123 % 53]]]
    # So large a vocabulary that the number itself does not fit into 64 bits.
    config, vocab_size = Speedrun(longest_ngram=5, ngram_rows=1009), 200_000
    embedding = NGramEmbedding(vocab_size, 12, config)
    ids = torch.randint(vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    expected = [rows_by_hand(row, vocab_size, config) for row in ids.tolist()]
    assert embedding.rows(ids, 9).tolist() == expected
    assert embedding.rows(ids, 2).tolist() == [row[-2:] for row in expected]


def test_vectors_stand_side_by_side():
    embedding = NGramEmbedding(10, 4, Speedrun(longest_ngram=3, ngram_rows=101))
    with torch.no_grad():
        embedding.weight[45] = torch.tensor([1.0, 2.0])  # the bigram 4 5
        embedding.weight[101 + 345 % 101] = torch.tensor([3.0, 4.0])  # the trigram 3 4 5
    assert embedding(torch.tensor([[3, 4, 5]]), 1).tolist() == [[[1, 2, 3, 4]]]


def test_a_row_rests_when_its_ngram_is_gone():
    config = dataclasses.replace(speedrun_model(65, 64), d_model=16, d_ff=16)
    model = LanguageModel(config)
    recipe = TrainConfig(n_steps=2)
    made = optimizers(Replicated(model, Ranks()), scaled_rates(recipe, 16, 64), torch.float32)
    weight = model.model.embed_ngrams.weight
    gradients = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    gradients["model.embed_ngrams.weight"][7] = 1.0
    made["ngrams"].update(gradients, 1, 1.0)
    moved = weight.detach().clone()
    assert (moved[7] < 0).all()
    assert moved[:7].eq(0).all()
    gradients["model.embed_ngrams.weight"][7] = 0.0
    made["ngrams"].update(gradients, 2, 1.0)
    assert torch.equal(weight, moved)
