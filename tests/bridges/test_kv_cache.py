"""The lesson's cache is the product's and that of transformers: logits, what is kept, and the text."""

import itertools

import numpy as np
import pytest
import torch

from bridges.test_llama_block import FOLDERS, OURS, saved
from lm.gguf_models import peaked_model
from techtree.lm.formats.huggingface import save_pretrained
from techtree.lm.infer.generate import PrefixCache, decode_one_token, generate, prefill
from techtree.lm.infer.limits import Limits
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.model.cache import KVCache as ProductCache
from techtree.techs.inference.kv_cache import KVCache, extend, generate_cached
from techtree.techs.inference.sampling import Sampling
from techtree.techs.transformer.llama_block import load_llama

transformers = pytest.importorskip("transformers")

CUTS = [0, 7, 8, 9, 14]
"""A prompt, two tokens one by one, and five at once."""


@pytest.mark.parametrize("name", OURS)
def test_logits_and_what_is_kept_are_the_products(name, tiny_tokenizer, tmp_path):
    model = peaked_model(OURS[name]).eval()
    save_pretrained(tmp_path, model, tiny_tokenizer)
    lesson = load_llama(tmp_path)
    ids = np.random.default_rng(0).integers(OURS[name].vocab_size, size=CUTS[-1])
    ours, theirs = KVCache(lesson.config, 20, np.float32), ProductCache(model.config, 1, 20)
    for start, end in itertools.pairwise(CUTS):
        got = extend(lesson, ours, ids[start:end])
        with torch.no_grad():
            expected = model(torch.tensor(ids[None, start:end]), theirs)[0].numpy()
        assert np.abs(got - expected).max() < 1e-4
        assert ours.length == theirs.length == end
    # What the product keeps is private to it; here the two are laid side by side.
    for mine, other in ((ours.keys, theirs._keys), (ours.values, theirs._values)):
        assert np.abs(mine[:, :, : CUTS[-1]] - other[:, 0, :, : CUTS[-1]].numpy()).max() < 1e-4
    for cache in (ours, theirs):
        cache.truncate(5)
    with torch.no_grad():
        expected = prefill(model, torch.tensor(ids[:3]), theirs)
        after = decode_one_token(model, int(ids[3]), theirs)
    assert expected is not None
    assert np.abs(extend(lesson, ours, ids[:3])[-1] - expected.numpy()).max() < 1e-4
    assert np.abs(extend(lesson, ours, ids[3:4])[-1] - after.numpy()).max() < 1e-4


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_and_what_is_kept_are_those_of_transformers(name, tmp_path):
    family, changes = FOLDERS[name]
    model = saved(tmp_path, family, changes)
    lesson = load_llama(tmp_path)
    ids = np.random.default_rng(0).integers(37, size=CUTS[-1])
    ours, theirs = KVCache(lesson.config, 20, np.float32), transformers.DynamicCache(config=model.config)
    for start, end in itertools.pairwise(CUTS):
        got = extend(lesson, ours, ids[start:end])
        with torch.no_grad():
            expected = model(torch.tensor(ids[None, start:end]), past_key_values=theirs).logits[0].numpy()
        assert np.abs(got - expected).max() < 1e-4
        assert theirs.get_seq_length() == ours.length == end
    for layer, each in enumerate(theirs.layers):
        n_kept = each.keys.shape[2]  # what has left a window is forgotten there
        for mine, other in ((ours.keys, each.keys), (ours.values, each.values)):
            kept = mine[layer, :, ours.length - n_kept : ours.length]
            assert np.abs(kept - other[0].numpy()).max() < 1e-4


def test_a_text_is_the_products(tiny_tokenizer, tmp_path):
    config = OURS["qwen2"]
    model = peaked_model(config).eval()
    save_pretrained(tmp_path, model, tiny_tokenizer)
    ids = np.random.default_rng(3).integers(config.vocab_size, size=9).tolist()
    got = list(generate_cached(load_llama(tmp_path), ids, 12, Sampling(0.0), np.random.default_rng(0)))
    told = {"sampling": SamplingParams(temperature=0.0), "stop_ids": ()}
    assert got == list(generate(PrefixCache(model, 40), ids, Limits(12), **told))
