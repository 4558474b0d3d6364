"""`pretrain` takes the steps that PyTorch and `transformers` take with the same rows, rates and clipping."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from techtree.techs.text.causal_lm import next_token_pairs, pack
from techtree.techs.training.dataloader import BatchStream, DataLoader
from techtree.techs.transformer.gpt import load_gpt2
from techtree.techs.transformer.pretrain import Recipe, pretrain

N_STEPS, N_WARMUP, VOCAB_SIZE = 8, 3, 30


@pytest.mark.parametrize("max_norm", [0.3, 100.0])
def test_losses_are_those_of_a_gpt2_in_pytorch(tmp_path, max_norm):
    """Tables, gains and biases learn; the matrices inside, which GPT-2 holds transposed and joined, rest."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=12, n_embd=16, n_layer=2, n_head=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config)
    theirs.save_pretrained(tmp_path)
    ours = load_gpt2(tmp_path, np.float64)
    rng = np.random.default_rng(0)
    rows = pack([rng.integers(1, VOCAB_SIZE, size=n) for n in (9, 20, 5, 31, 14)], 12, 0)
    recipe = Recipe(N_STEPS, batch_size=2, n_warmup=N_WARMUP, matrix_rate=0.0, rate=0.02, max_norm=max_norm)
    losses = pretrain(ours, rows, recipe)

    learning = [
        each
        for name, each in theirs.named_parameters()
        if each.ndim < 2 or name.split(".")[1] in ("wte", "wpe")
    ]
    optimizer = torch.optim.AdamW(learning, lr=0.02, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (step + 1) / N_WARMUP if step < N_WARMUP else (N_STEPS - step) / (N_STEPS - N_WARMUP),
    )
    stream = BatchStream(DataLoader(len(rows), 2, 0))
    expected = []
    for _ in range(N_STEPS):
        inputs, targets = next_token_pairs(rows[stream.next_batch()], 0)
        logits = theirs(torch.tensor(inputs)).logits
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, VOCAB_SIZE), torch.tensor(targets).reshape(-1)
        )
        theirs.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        optimizer.step()
        schedule.step()
        expected.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert losses == pytest.approx(expected, rel=1e-3)  # float32 there, and steps that divide by a size
