"""The fastest way to a good loss on a small text: a model and a recipe made for nothing else.

On the characters of Shakespeare one layer beats four of the same size together, once tables of n-grams know
what attention would have to find out. results/LOG.md says what each part is worth.
"""

from techtree.lm.config import ModelConfig, Speedrun
from techtree.lm.train.config import TrainConfig

BATCH_TOKENS = 1024
"""How many tokens a step should have: with them the rates were tuned."""


def speedrun_model(vocab_size: int, max_seq_len: int) -> ModelConfig:
    """Return a model of 0.8M parameters for a vocabulary of characters. It cannot be exported."""
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=128,
        n_layers=1,
        n_heads=2,
        n_kv_heads=2,
        head_dim=32,
        d_ff=168,
        max_seq_len=max_seq_len,
        tie_embeddings=False,
        qk_norm="none",
        speedrun=Speedrun(),
    )


def speedrun_training(n_steps: int, seed: int = 0) -> TrainConfig:
    """Return the recipe for it."""
    return TrainConfig(
        n_steps=n_steps,
        scale_rates=False,
        muon_lr=0.03,
        embedding_lr=0.1,
        head_lr=0.01,
        gain_lr=0.03,
        warmup_steps=2,
        seed=seed,
    )
