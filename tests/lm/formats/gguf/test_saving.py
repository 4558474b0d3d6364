"""A saved model, read back by the format's own package: names, metadata, numbers, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader

from lm.gguf_models import SHAPES, peaked_model
from techtree.errors import InputError
from techtree.lm.formats.gguf import save_gguf
from techtree.lm.formats.gguf_file import TENSOR_TYPES
from techtree.lm.model.language_model import LanguageModel

FILE_TYPES = {
    torch.float32: gguf.LlamaFileType.ALL_F32,
    torch.float16: gguf.LlamaFileType.MOSTLY_F16,
    torch.bfloat16: gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}
PLAIN_TYPES = [dtype for dtype in TENSOR_TYPES if isinstance(dtype, torch.dtype)]
KEYS = gguf.Keys
EVERY_SHAPE = pytest.mark.parametrize("name", SHAPES)
EVERY_ARCHITECTURE = pytest.mark.parametrize(
    "name", sorted({architecture for architecture, _ in SHAPES.values()})
)


class Read(NamedTuple):
    """What the package finds in a file."""

    metadata: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    types: dict[str, GGMLQuantizationType]


def read(path):
    reader = GGUFReader(path)
    tensors = {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in reader.tensors}
    return Read(
        {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")},
        {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()},
        {one.name: one.tensor_type for one in reader.tensors},
    )


class Saved(NamedTuple):
    """A model and its file in float32."""

    model: LanguageModel
    path: Path
    read: Read


@pytest.fixture(scope="module")
def files(tiny_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    found = {}
    for i, (name, (_, config)) in enumerate(SHAPES.items()):
        model, path = peaked_model(config), folder / f"{i}.gguf"
        save_gguf(path, model, tiny_tokenizer, torch.float32)
        found[name] = Saved(model, path, read(path))
    return found


def their_name(architecture, n_layers, parameter):
    """Return what the package, which has the names of every family's checkpoints, calls a parameter."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], n_layers)
    stem, _, kind = parameter.rpartition(".")
    if "mlp.experts" in parameter:
        stem, kind = parameter, "weight"
    found = names.get_name(stem)
    return None if found is None else f"{found}.{kind}"


# ---- tensors


@EVERY_SHAPE
def test_names_are_those_of_the_package(files, name):
    architecture, config = SHAPES[name]
    wanted = {
        their_name(architecture, config.n_layers, one) for one, _ in files[name].model.named_parameters()
    }
    if architecture == "gpt2":  # whose checkpoints have other names than ours, and one matrix for three
        wanted.discard(None)
        layers = range(config.n_layers)
        wanted = {
            one for one in wanted if not any(part in one for part in (".attn_q.", ".attn_k.", ".attn_v."))
        }
        wanted |= {f"blk.{i}.{part}" for i in layers for part in ("attn_qkv.weight", "attn_qkv.bias")}
        wanted |= {"position_embd.weight"}
    if architecture == "olmoe":
        wanted |= {"output.weight"}
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        wanted |= {"rope_freqs.weight"}
    assert files[name].read.tensors.keys() == wanted


def put_back(architecture, config, tensors):
    """Return a model from a file's tensors, by the definitions of the format."""
    model = LanguageModel(config)
    back = {}
    for ours, parameter in model.named_parameters():
        theirs = their_name(architecture, config.n_layers, ours)
        layer = ours.split(".")[2] if ".layers." in ours else None
        if architecture == "gpt2" and "embed_positions" in ours:
            theirs = "position_embd.weight"
        if architecture == "gpt2" and (part := ours.split(".")[-2][0]) in "qkv" and "self_attn" in ours:
            rows = tensors[f"blk.{layer}.attn_qkv.{ours.rpartition('.')[2]}"]
            n_queries, n_keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
            back[ours] = rows.split((n_queries, n_keys, n_keys))["qkv".index(part)]
            continue
        tensor = tensors[theirs]
        if architecture == "llama" and (".q_proj." in ours or ".k_proj." in ours):
            # Row 2j + s of a head there is row j + s * head_dim / 2 here.
            heads = tensor.view(-1, config.head_dim // 2, 2, *tensor.shape[1:])
            tensor = heads.swapaxes(1, 2).reshape(tensor.shape)
        back[ours] = tensor.view(parameter.shape)
    model.load_state_dict(back)
    return model.eval()


@EVERY_SHAPE
def test_a_model_put_back_from_its_file_is_the_same_to_the_bit(files, name):
    model = files[name].model
    again = put_back(*SHAPES[name], files[name].read.tensors)
    for (ours, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), ours
    ids = torch.arange(40)[None] * 7 % model.config.vocab_size
    with torch.no_grad():
        assert torch.equal(model(ids), again(ids))


@EVERY_ARCHITECTURE
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_matrices_are_rounded_and_vectors_are_not(files, tiny_tokenizer, tmp_path, name, dtype):
    save_gguf(tmp_path / "m.gguf", files[name].model, tiny_tokenizer, dtype)
    found = read(tmp_path / "m.gguf")
    assert found.tensors.keys() == files[name].read.tensors.keys()
    for one, exact in files[name].read.tensors.items():
        is_kept = exact.ndim == 1 or "ffn_gate_inp" in one or "position_embd" in one
        assert torch.equal(found.tensors[one], exact if is_kept else exact.to(dtype).float()), one
        assert (found.types[one] == GGMLQuantizationType.F32) == is_kept, one


@EVERY_ARCHITECTURE
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_matrices_become_the_blocks_of_the_reference(files, tiny_tokenizer, tmp_path, name, kind):
    config = files[name].model.config  # with rows that fill blocks
    config = dataclasses.replace(config, d_model=32 * config.n_heads, head_dim=32, d_ff=96)
    if config.experts:
        config = dataclasses.replace(config, experts=dataclasses.replace(config.experts, d_expert=32))
    model = peaked_model(config)
    save_gguf(tmp_path / "exact.gguf", model, tiny_tokenizer, torch.float32)
    save_gguf(tmp_path / "m.gguf", model, tiny_tokenizer, kind)
    stored = {one.name: one for one in GGUFReader(tmp_path / "m.gguf").tensors}
    exact_tensors = read(tmp_path / "exact.gguf").tensors
    assert stored.keys() == exact_tensors.keys()
    n_blocks = 0
    for one, exact in exact_tensors.items():
        is_kept = exact.ndim == 1 or "ffn_gate_inp" in one or "position_embd" in one or exact.shape[-1] % 32
        is_table = one in ("token_embd.weight", "output.weight")
        wanted = GGMLQuantizationType["F32" if is_kept else "Q8_0" if is_table else kind.upper()]
        assert stored[one].tensor_type == wanted, one
        if not is_kept:
            n_blocks += 1
            assert (stored[one].data == gguf.quants.quantize(exact.numpy(), wanted)).all(), one
    assert n_blocks > 1


def test_a_tied_head_is_written_only_where_it_must_be(files):
    for name, (architecture, config) in SHAPES.items():
        tensors = files[name].read.tensors
        assert ("output.weight" in tensors) == (not config.tie_embeddings or architecture == "olmoe")
        if config.tie_embeddings and architecture == "olmoe":
            assert torch.equal(tensors["output.weight"], tensors["token_embd.weight"])


def test_llama_3s_scaling_is_a_factor_for_each_pair(files):
    factors = files["llama, scaled as Llama 3"].read.tensors["rope_freqs.weight"]
    # By hand, for base 5e5, 8 dimensions and a context of 16: wavelengths 2 pi * 5e5^(i / 4) are 6.3, 167,
    # 4443, ... The first is between 16 / 4 and 16 / 1: it turns 2.546 times, kept (2.546 - 1) / 3 = 0.5155,
    # and the factor is 1 / (0.5155 + 0.4845 / 8) = 1.7361. The others are beyond 16: factor 8.
    assert factors.tolist() == pytest.approx([1.7361, 8, 8, 8], rel=1e-4)


# ---- metadata


@EVERY_SHAPE
def test_metadata_say_what_the_config_says(files, name):
    architecture, config = SHAPES[name]
    metadata = files[name].read.metadata
    llm = {
        KEYS.LLM.VOCAB_SIZE: config.vocab_size,
        KEYS.LLM.CONTEXT_LENGTH: config.max_seq_len,
        KEYS.LLM.EMBEDDING_LENGTH: config.d_model,
        KEYS.LLM.BLOCK_COUNT: config.n_layers,
        KEYS.LLM.FEED_FORWARD_LENGTH: config.d_ff,
        KEYS.Attention.HEAD_COUNT: config.n_heads,
        KEYS.Attention.HEAD_COUNT_KV: config.n_kv_heads,
        KEYS.Attention.KEY_LENGTH: config.head_dim,
        KEYS.Attention.VALUE_LENGTH: config.head_dim,
    }
    if architecture == "gpt2":
        llm[KEYS.Attention.LAYERNORM_EPS] = pytest.approx(config.norm_eps)
    else:
        llm[KEYS.Attention.LAYERNORM_RMS_EPS] = pytest.approx(config.norm_eps)
        llm |= {KEYS.Rope.DIMENSION_COUNT: config.head_dim, KEYS.Rope.FREQ_BASE: config.rope_base}
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        llm |= {KEYS.Rope.SCALING_TYPE: "linear", KEYS.Rope.SCALING_FACTOR: config.rope_scaling.factor}
    if config.experts is not None:
        llm |= {
            KEYS.LLM.EXPERT_COUNT: 5,
            KEYS.LLM.EXPERT_USED_COUNT: 2,
            KEYS.LLM.EXPERT_FEED_FORWARD_LENGTH: 24,
        }
        if architecture != "qwen3moe":  # whose d_ff no layer uses
            llm[KEYS.LLM.FEED_FORWARD_LENGTH] = 24
    wanted = {key.format(arch=architecture): value for key, value in llm.items()} | {
        KEYS.General.ARCHITECTURE: architecture,
        KEYS.General.TYPE: gguf.GGUFType.MODEL,
        KEYS.General.FILE_TYPE: gguf.LlamaFileType.ALL_F32,
        KEYS.General.QUANTIZATION_VERSION: gguf.GGML_QUANT_VERSION,
    }
    assert {key: value for key, value in metadata.items() if not key.startswith("tokenizer.")} == wanted
    assert next(iter(metadata)) == KEYS.General.ARCHITECTURE  # as the format demands


@pytest.mark.parametrize("dtype", TENSOR_TYPES)
def test_the_file_type_is_that_of_the_matrices(files, tiny_tokenizer, tmp_path, dtype):
    save_gguf(tmp_path / "m.gguf", files["qwen3"].model, tiny_tokenizer, dtype)
    assert read(tmp_path / "m.gguf").metadata[KEYS.General.FILE_TYPE] == FILE_TYPES[dtype]


def test_the_same_model_gives_the_same_bytes(files, tiny_tokenizer, tmp_path):
    for name in ("llama, scaled as Llama 3", "gpt2", "olmoe"):
        save_gguf(tmp_path / "again.gguf", files[name].model, tiny_tokenizer, torch.float32)
        assert (tmp_path / "again.gguf").read_bytes() == files[name].path.read_bytes()


def test_a_model_in_bfloat16_is_written_in_any_type(files, tiny_tokenizer, tmp_path):
    model = peaked_model(SHAPES["llama"][1]).bfloat16()
    for dtype in PLAIN_TYPES:
        save_gguf(tmp_path / "m.gguf", model, tiny_tokenizer, dtype)
        tensors = read(tmp_path / "m.gguf").tensors
        assert torch.equal(tensors["output_norm.weight"], model.model.norm.weight.float())
        assert torch.equal(tensors["token_embd.weight"], model.model.embed_tokens.weight.to(dtype).float())


# ---- what is refused


def test_other_types_are_refused(files, tiny_tokenizer, tmp_path):
    for dtype in (torch.float64, torch.int8):
        with pytest.raises(InputError, match=rf"must be one of torch.float32, .* got {dtype}"):
            save_gguf(tmp_path / "m.gguf", files["qwen3"].model, tiny_tokenizer, dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_too_few_ids_is_refused(tiny_tokenizer, tmp_path):
    config = dataclasses.replace(SHAPES["qwen3"][1], vocab_size=511)
    with pytest.raises(InputError, match="no more ids than the model; got 512 and 511"):
        save_gguf(tmp_path / "m.gguf", LanguageModel(config), tiny_tokenizer)


def test_a_folder_that_cannot_be_written_is_one_clear_error(files, tiny_tokenizer, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"could not be written to .*m\.gguf"):
        save_gguf(tmp_path / "file" / "m.gguf", files["qwen3"].model, tiny_tokenizer)
