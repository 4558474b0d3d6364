"""What we read of GGUF files: our own, quantized ones, and those of two published models."""

import dataclasses
import json
import os
import struct
from pathlib import Path

import gguf
import pytest
import torch

from lm.byte_level_tokenizers import train_library_tokenizer
from lm.gguf_models import SHAPES, peaked_model, quantize
from techtree.cli.main import main
from techtree.errors import InputError
from techtree.lm.config import RopeScaling
from techtree.lm.formats.gguf import load_gguf, save_gguf
from techtree.lm.formats.gguf.architecture import rope_factors, rope_scaling_of
from techtree.lm.formats.gguf.vocabulary import tokenizer_of, vocabulary_metadata
from techtree.lm.formats.gguf_reading import GgufFile
from techtree.lm.formats.huggingface import load_pretrained
from techtree.lm.tokenizer import Tokenizer
from techtree.lm.tokenizer_settings import TokenizerSettings

NOT_IN_A_FILE = {"sliding_window": None}
"""A window that never closes is not written, and says nothing."""


def as_read(architecture, config):
    """Return the config of a file: what no graph of llama.cpp needs is not in it."""
    if config.experts is not None:
        experts = dataclasses.replace(config.experts, balance_coef=0.001)
        d_ff = config.d_ff if architecture == "qwen3moe" else experts.d_expert
        config = dataclasses.replace(config, experts=experts, d_ff=d_ff)
    is_tied = config.tie_embeddings and architecture != "olmoe"
    return dataclasses.replace(config, tie_embeddings=is_tied, **NOT_IN_A_FILE)


@pytest.mark.parametrize("name", SHAPES)
def test_what_we_write_we_read(name, tiny_tokenizer, tmp_path):
    architecture, config = SHAPES[name]
    model = peaked_model(config)
    save_gguf(tmp_path / "model.gguf", model, tiny_tokenizer)
    read, tokenizer = load_gguf(tmp_path / "model.gguf")
    assert read.config == as_read(architecture, config)
    ids = torch.arange(2, 26).view(2, 12)
    with torch.no_grad():
        assert torch.equal(read(ids), model(ids))
    text = "def f(x):\n    return '\u00e9' + 1234  # ok\r\n"
    assert tokenizer.encode(text) == tiny_tokenizer.encode(text)
    assert tokenizer.end_ids == tiny_tokenizer.end_ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_precision_is_that_of_the_matrices(dtype, tiny_tokenizer, tmp_path):
    model = peaked_model(SHAPES["qwen3"][1])
    save_gguf(tmp_path / "model.gguf", model, tiny_tokenizer, dtype)
    read, _ = load_gguf(tmp_path / "model.gguf")
    wanted = dict(model.named_parameters())
    for name, parameter in read.named_parameters():
        assert torch.equal(parameter, wanted[name].to(dtype))
    wide, _ = load_gguf(tmp_path / "model.gguf", torch.float32)
    assert {parameter.dtype for parameter in wide.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ2_0", "BF16"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_quantized_tensors_are_what_the_package_makes_of_them(kind, name, tiny_tokenizer, tmp_path):
    config = dataclasses.replace(SHAPES[name][1], d_model=256, n_heads=4, n_kv_heads=4, head_dim=64, d_ff=256)
    save_gguf(tmp_path / "float.gguf", peaked_model(config), tiny_tokenizer)
    quantize(tmp_path / "float.gguf", tmp_path / "quantized.gguf", kind)
    file = GgufFile(tmp_path / "quantized.gguf")
    reader = gguf.GGUFReader(tmp_path / "quantized.gguf")
    assert [tensor.name for tensor in reader.tensors] == list(file.tensors)
    assert kind in {tensor.tensor_type.name for tensor in reader.tensors}
    for tensor in reader.tensors:
        expected = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        assert torch.equal(
            file.floats(tensor.name, torch.float32), expected.view(*tensor.shape[::-1].tolist())
        )
    read, _ = load_gguf(tmp_path / "quantized.gguf", torch.float32)
    found = read.model.embed_tokens.weight
    assert torch.equal(found, file.floats("token_embd.weight", torch.float32))


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling("llama3", 8.0),
        RopeScaling("llama3", 32.0),
        RopeScaling("llama3", 4.0, 1.0, 2.0, 4096),
        RopeScaling("llama3", 3.5, 2.0, 8.0, 500),
        RopeScaling("llama3", 8.0, 1.0, 4.0, 77),
        RopeScaling("llama3", 16.0, 0.3, 0.7, 10_000),
    ],
)
@pytest.mark.parametrize(("head_dim", "base"), [(64, 500_000.0), (128, 10_000.0), (8, 10_000.0), (2, 100.0)])
def test_the_scaling_is_found_from_its_factors(scaling, head_dim, base):
    config = dataclasses.replace(SHAPES["llama"][1], head_dim=head_dim, rope_base=base)
    factors = rope_factors(head_dim, base, scaling)
    if factors.max() == 1:  # nothing is scaled, which is no scaling of this kind
        with pytest.raises(InputError, match="must be the factors of Llama 3"):
            rope_scaling_of(factors, config)
        return
    found = rope_scaling_of(factors, config)
    torch.testing.assert_close(rope_factors(head_dim, base, found), factors, rtol=1e-4, atol=0)
    if (head_dim, scaling.low_freq_factor, scaling.high_freq_factor) == (64, 1.0, 4.0):
        assert found == scaling


@pytest.mark.parametrize(
    "factors", [[], [1.0], [2.0, 1.0, 3.0, 1.0], [0.0] * 4, [float("nan")] * 4, [1.0] * 4]
)
def test_other_factors_are_refused(factors):
    config = dataclasses.replace(SHAPES["llama"][1], head_dim=8)
    with pytest.raises(InputError, match="must be the factors of Llama 3"):
        rope_scaling_of(torch.tensor(factors), config)


# Tokenizers ----------------------------------------------------------------------------------------------


def test_the_tokenizer_comes_back(tiny_tokenizer):
    read = tokenizer_of(vocabulary_metadata(tiny_tokenizer, tiny_tokenizer.vocab_size + 3))
    assert read.vocab_size == tiny_tokenizer.vocab_size  # fillers are no tokens
    assert (
        json.loads(read.to_json())["model"]["merges"]
        == json.loads(tiny_tokenizer.to_json())["model"]["merges"]
    )
    assert read.encode("<|endoftext|>", parse_special=True) == [tiny_tokenizer.end_of_text_id]
    assert tiny_tokenizer.end_of_text_id not in read.encode("<|endoftext|>")


@pytest.mark.parametrize("kind", ["qwen2", "gpt-2", "smollm", "llama-bpe", "dbrx"])
def test_each_way_to_split_comes_back(kind, tiny_texts):
    names = ("<|endoftext|>", "<|im_end|>")
    library = train_library_tokenizer(tiny_texts, kind, vocab_size=400, special=names, bos=names[0])
    tokenizer = Tokenizer(library, TokenizerSettings("{{ messages }}", ("<|im_end|>",)))
    read = tokenizer_of(vocabulary_metadata(tokenizer, tokenizer.vocab_size))
    assert read.chat_template == "{{ messages }}"
    assert read.end_ids == tokenizer.end_ids
    text = "x  = 12345\n\n\tif we'll  \u00e9\u4f60: pass \n"
    assert read.encode(text) == tokenizer.encode(text)
    ours, theirs = json.loads(read.to_json()), json.loads(tokenizer.to_json())
    assert ours["model"]["ignore_merges"] == theirs["model"]["ignore_merges"]
    assert (ours["post_processor"]["type"] == "TemplateProcessing") == (
        theirs["post_processor"] is not None and theirs["post_processor"]["type"] != "ByteLevel"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "llama"}, "must be gpt2, which is byte-level BPE; got 'llama'"),
        ({"pre": "qwen3"}, "must be one of qwen2,"),
        ({"pre": None}, "must be one of qwen2,"),
        ({"add_space_prefix": True}, "add_space_prefix must be false"),
        ({"tokens": ["a"]}, "as many numbers"),
        ({"tokens": 3}, "must be texts"),
        ({"merges": ["a"]}, "a merge must be a pair"),
        ({"merges": [1]}, "must be a list of texts"),
        ({"bos_token_id": 10**9, "add_bos_token": True}, "must be the id of a token"),
    ],
)
def test_a_tokenizer_that_is_refused(change, told, tiny_tokenizer):
    metadata = vocabulary_metadata(tiny_tokenizer, tiny_tokenizer.vocab_size)
    metadata |= {f"tokenizer.ggml.{name}": value for name, value in change.items()}
    with pytest.raises(InputError, match=told):
        tokenizer_of(metadata)


def test_a_byte_without_a_token_is_no_reason_to_refuse_a_model(tiny_tokenizer):
    metadata = vocabulary_metadata(tiny_tokenizer, tiny_tokenizer.vocab_size)
    types, tokens = metadata["tokenizer.ggml.token_type"], metadata["tokenizer.ggml.tokens"]
    types[tokens.index("\u0104")] = 5  # the byte 0x04: "unused", as SmolLM2 has no such token
    read = tokenizer_of(metadata)
    assert read.decode(read.encode("plain text")) == "plain text"
    for encode in (read.encode, read.encode_with_starts, lambda text: read.encode(text, parse_special=True)):
        with pytest.raises(InputError, match="holds the byte 0x04, for which this tokenizer has no token"):
            encode("a\x04b")


# Files that are refused ----------------------------------------------------------------------------------


def header(*parts: bytes, n_tensors=0, n_metadata=0, version=3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_metadata) + b"".join(parts)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "must begin with GGUF"),
        (b"GGUX" + bytes(40), "must begin with GGUF"),
        (b"GGUF\3", "its header ends too early"),
        (header(version=1), "must be GGUF of version 2 or 3; got 1"),
        (header(n_metadata=2**60), "claims to have .* metadata"),
        (header(n_tensors=2**60), "claims to have .* tensors"),
        (header(text(b"a"), struct.pack("<I", 99), bytes(9), n_metadata=1), "of the unknown type 99"),
        (header(text(b"a"), struct.pack("<IIQ", 9, 8, 2**60), n_metadata=1), "no room"),
        (header(text(b"a"), struct.pack("<IIQ", 9, 4, 2**60), n_metadata=1), "ends too early"),
        (header(text(b"a"), struct.pack("<IIQ", 9, 9, 1), bytes(20), n_metadata=1), "unknown type 9"),
        (header(text(b"\xff"), bytes(20), n_metadata=1), "is no UTF-8"),
        (header(*[text(b"a"), struct.pack("<IB", 0, 1)] * 2, n_metadata=2), "'a' twice"),
        (header(text(b"t"), struct.pack("<I5QIQ", 5, 1, 1, 1, 1, 1, 0, 0), n_tensors=1), "has 5 axes"),
        (header(text(b"t"), struct.pack("<IQIQ", 1, 4, 0, 0), n_tensors=1), "t ends behind the end"),
        (header(text(b"t"), struct.pack("<IQIQ", 1, 2**62, 0, 0), n_tensors=1), "t ends behind the end"),
        (header(text(b"t"), struct.pack("<IQIQ", 1, 4, 77, 0), n_tensors=1), "gguf package knows; got 77"),
        (header(text(b"t"), struct.pack("<IQIQ", 1, 33, 2, 0), n_tensors=1), "33 numbers, in blocks of 32"),
        (header(), "general.architecture must be one of qwen2, llama"),
    ],
)
def test_a_damaged_file_is_refused(data, told, tmp_path):
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(InputError, match=told):
        load_gguf(tmp_path / "x.gguf")


def test_what_the_command_does(tiny_tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = peaked_model(SHAPES["llama"][1])
    save_gguf(tmp_path / "tiny-f32.gguf", model, tiny_tokenizer)
    assert main(["import", "tiny-f32.gguf"]) == 0
    out, _ = capsys.readouterr()
    assert "imported  runs/tiny-f32/model\n" in out
    read, _ = load_pretrained(tmp_path / "runs" / "tiny-f32" / "model")
    assert all(torch.equal(a, b) for a, b in zip(read.parameters(), model.parameters(), strict=True))
    assert main(["import", "tiny-f32.gguf"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["import", "tiny-f32.gguf", "--out", "half", "--dtype", "bfloat16"]) == 0
    halved, _ = load_pretrained(tmp_path / "half", dtype=None)
    assert {parameter.dtype for parameter in halved.parameters()} == {torch.bfloat16}


# Published models ----------------------------------------------------------------------------------------

REAL = Path(os.environ.get("TECHTREE_REAL_MODELS", "real-models"))
PUBLISHED = {
    "smollm2-135m-instruct-q4_1.gguf": ("llama", 134_515_008, " max", 2e-4),
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf": ("qwen2", 630_167_424, " fibonacci", 2e-4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_compute_what_transformers_computes(name, tmp_path):
    """Logits of ours and of transformers on the folder that we make; ids of a hundred files."""
    if not (REAL / name).is_file():
        pytest.skip(f"needs {name} in the folder that TECHTREE_REAL_MODELS names")
    transformers = pytest.importorskip("transformers")
    family, n_parameters, follows, tolerance = PUBLISHED[name]
    assert main(["import", str(REAL / name), "--out", str(tmp_path / "model")]) == 0
    model, tokenizer = load_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == family
    assert model.config.n_parameters == n_parameters
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    prompt = "def fibonacci(n):\n    if n < 2:\n        return n\n    return"
    ids = torch.tensor([tokenizer.encode(prompt)])
    with torch.no_grad():
        ours, expected = model(ids), theirs(ids).logits
    assert (ours - expected).abs().max() < tolerance
    assert tokenizer.decode([int(ours[0, -1].argmax())]) == follows
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for special in their_tokenizer.all_special_tokens:
        i = their_tokenizer.convert_tokens_to_ids(special)
        assert tokenizer.encode(special, parse_special=True) == [i]
        assert GgufFile(REAL / name).metadata["tokenizer.ggml.tokens"][i] == special
    sources = sorted(Path(json.__file__).parents[1].glob("*.py"))[:100]
    assert len(sources) == 100
    for path in sources:
        source = path.read_text(encoding="utf-8", errors="replace")
        assert tokenizer.encode(source) == their_tokenizer.encode(source, add_special_tokens=False), path.name
