"""Oracles: the model in PyTorch, which for quantized weights rounds the activations as the decoder does."""

import contextlib
import ctypes

import pytest
import torch

from lm.decoder_in_c import needs_decoder
from techtree.errors import InputError
from techtree.lm.config import ExpertsConfig, ModelConfig, RopeScaling
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.native import library
from techtree.lm.native.decoder import PREFILL_CHUNK, Decoder, NativeText, unsupported
from techtree.lm.native.portable import portable
from techtree.lm.quant.blocks import Blocks, quantize

pytestmark = needs_decoder

MAX_LEN = 160
BASE = {
    "vocab_size": 203,
    "d_model": 64,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 16,
    "d_ff": 96,
    "max_seq_len": 128,
}
SHAPES = {
    "qwen3": {},
    "llama": {"qk_norm": "none", "tie_embeddings": False},
    "qwen2": {"qk_norm": "none", "attention_bias": "qkv", "d_model": 96, "d_ff": 160},
    "all biases": {"attention_bias": "all"},
    "widths that fill no block": {"head_dim": 20, "d_ff": 70, "d_model": 50, "vocab_size": 17},
    "a window": {"sliding_window": 5},
    "one wide key head": {"n_kv_heads": 1, "head_dim": 128},
    "as many key heads as heads": {"n_kv_heads": 4, "head_dim": 6},
    "a slowed rotation": {"rope_base": 500_000.0, "rope_scaling": RopeScaling("llama3", 8.0)},
}
FLOATS = ("float32", "bfloat16", "float16")
KINDS = (*FLOATS, "q8_0", "q4_0", "q4_1")


def weights_of(shape, kind, seed=0):
    """Return a shape and random weights, whose logits are a few units large."""
    config = ModelConfig(**{**BASE, **SHAPES[shape]})
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in LanguageModel(config).named_parameters():
        scale = 1.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.5
        x = torch.randn(parameter.shape, generator=generator) * scale + (parameter.ndim == 1)
        if parameter.ndim > 1:
            x = in_kind(x, kind)
        weights[name] = x
    return config, weights


def in_kind(x, kind):
    if kind in FLOATS:
        return x.to(getattr(torch, kind))
    if x.shape[1] % 32:
        return x
    if kind == "q4_1":  # nobody here makes them: any bytes are blocks, with small scales
        data = quantize(x, "q4_0").data.view(len(x), -1, 18)
        return Blocks("q4_1", torch.cat((data[..., :2], data[..., :2], data[..., 2:]), -1).flatten(1))
    return quantize(x, kind)


def tokens(config, n, seed=0):
    return torch.randint(config.vocab_size, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_those_of_pytorch(shape, kind):
    config, weights = weights_of(shape, kind)
    ids = tokens(config, PREFILL_CHUNK + 9)
    with torch.inference_mode():
        expected = portable(config, weights)(torch.tensor([ids]))[0]
    logits = NativeText(Decoder(config, weights, MAX_LEN), MAX_LEN).extend_all(ids, len(ids))
    # Sums in another order, errors of 1e-6; where that carries an activation over the middle between two
    # steps of its block, it is off by a step of 1/127, and so one of the some hundred terms of each logit.
    off = (logits - expected).abs()
    if kind in FLOATS or shape == "widths that fill no block":
        assert off.max() < 1e-4
    else:
        assert off.median() < 1e-4
        assert off.max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_neither_the_pieces_nor_the_threads_change_a_bit(shape, kind):
    config, weights = weights_of(shape, kind)
    decoder = Decoder(config, weights, MAX_LEN, n_threads=3)
    ids = tokens(config, 90)
    whole = NativeText(decoder, MAX_LEN).extend_all(ids, 90)
    assert whole.std() > 0.1
    pieces, left = [], list(ids)
    text = NativeText(decoder, MAX_LEN)
    for i, n in enumerate((1, 2, 5, 13, 1, 40, 28)):
        decoder.threads = AlwaysSo(1 + i % 3)
        pieces.append(text.extend_all(left[:n], n))
        del left[:n]
    assert torch.equal(torch.cat(pieces), whole)
    text.truncate(17)
    assert torch.equal(text.extend_all(ids[17:], 3), whole[-3:])


class AlwaysSo:
    """A number of threads that nothing changes."""

    def __init__(self, n):
        self.n = n

    def timed(self, n_tokens):
        return contextlib.nullcontext(self.n)


@pytest.mark.parametrize("kind", ["float32", "q4_0"])
def test_texts_that_run_together_do_not_see_each_other(kind):
    config, weights = weights_of("qwen3", kind)
    decoder = Decoder(config, weights, MAX_LEN)
    texts = [tokens(config, n, seed=n) for n in (3, 50, 21)]
    alone = [NativeText(decoder, MAX_LEN).extend_all(ids, len(ids)) for ids in texts]
    together = [NativeText(decoder, MAX_LEN) for _ in texts]
    for text, ids in zip(together, texts, strict=True):
        text.extend(ids[:-2])
    for step in (-2, -1):
        last = [ids[step] for ids in texts]
        positions = [len(ids) + step for ids in texts]
        logits = decoder.run(last, positions, together, [0, 1, 2], [0, 1, 2])
        for found, expected in zip(logits, alone, strict=True):
            assert torch.equal(found, expected[step])


def test_each_processor_gives_the_same_whole_numbers(tmp_path, monkeypatch):
    """The plain C, which every processor has, and what is written for this one."""
    monkeypatch.setattr(library, "cache_folder", lambda: tmp_path)
    config, weights = weights_of("qwen3", "q8_0")
    ids = tokens(config, 20)
    found = {}
    for name, flags in {"plain": ("-O1",), "avx2": ("-O1", "-mavx2", "-mfma")}.items():
        try:
            path = library.compiled((*flags, "-ffp-contract=off", "-Wno-psabi", "-shared", "-fPIC"))
        except library.NoCompilerError:
            continue  # not an x86
        made = ctypes.CDLL(str(path))
        made.techtree_new_pool.restype = ctypes.c_void_p
        made.techtree_packed_bytes.restype = ctypes.c_size_t
        monkeypatch.setattr("techtree.lm.native.decoder.library", lambda made=made: made)
        for kind in ("q8_0", "q4_0", "q4_1"):
            weights = weights_of("qwen3", kind)[1]
            found[name, kind] = NativeText(Decoder(config, weights, MAX_LEN), MAX_LEN).extend_all(ids, 20)
    monkeypatch.undo()
    for (_, kind), logits in found.items():
        own = NativeText(Decoder(config, weights_of("qwen3", kind)[1], MAX_LEN), MAX_LEN).extend_all(ids, 20)
        assert (logits - own).abs().median() < 1e-4
    assert ("plain", "q8_0") in found


def test_stopping_midway_keeps_what_was_read():
    config, weights = weights_of("llama", "q8_0")
    decoder = Decoder(config, weights, MAX_LEN)
    ids = tokens(config, PREFILL_CHUNK + 20)
    text, asked = NativeText(decoder, MAX_LEN), iter([False, True])
    assert text.extend(ids, lambda: next(asked)) is None
    assert text.length == PREFILL_CHUNK
    rest = text.extend(ids[PREFILL_CHUNK:])
    assert torch.equal(rest, NativeText(decoder, MAX_LEN).extend(ids))


def test_what_does_not_fit_is_refused_and_changes_nothing():
    config, weights = weights_of("qwen3", "float32")
    decoder = Decoder(config, weights, MAX_LEN)
    text = NativeText(decoder, 32)
    text.extend([1, 2, 3])
    for ids, wanted in (([1] * 30, "cannot take 30"), ([5, 203], "0 to 202"), ([-1], "0 to 202")):
        with pytest.raises(InputError, match=wanted):
            text.extend(ids)
        assert text.length == 3
    with pytest.raises(InputError, match="160 tokens"):
        NativeText(decoder, MAX_LEN + 1)


def test_what_the_decoder_does_not_compute():
    assert unsupported(ModelConfig(**BASE)) == ""
    config = ModelConfig(**BASE, norm="layernorm", mlp="gelu", positions="learned")
    assert unsupported(config) == "norm, positions, mlp"
    experts = ModelConfig(**BASE, experts=ExpertsConfig(4, 2, 32))
    assert unsupported(experts) == "experts"


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(library.NoCompilerError, match="no C compiler"):
        library.compiled(library.FLAGS)


def test_a_compiler_that_fails_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "cache_folder", lambda: tmp_path)
    with pytest.raises(library.NoCompilerError, match="cannot compile"):
        library.compiled((*library.FLAGS, "--no-such-flag"))
    assert not list(tmp_path.glob("*.so"))
