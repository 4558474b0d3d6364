"""llama.cpp loads what we export and computes the same; and what we refuse to export, it gets wrong.

All random models are small, and likely tokens stand out by as much as in trained ones. Differences of logits
are measured in standard deviations of the logits.
"""

import dataclasses
from pathlib import Path

import pytest
import torch

from lm.families import FAMILIES, random_model
from lm.gguf_models import SHAPES, peaked_model
from lm.llama_cpp_peer import MARKS, LlamaCpp
from techtree.lm.config import ModelConfig, RopeScaling
from techtree.lm.formats.gguf import save_gguf
from techtree.lm.formats.gguf.architecture import shape_metadata
from techtree.lm.formats.gguf.layout import tensor_sources
from techtree.lm.formats.gguf.vocabulary import vocabulary_metadata
from techtree.lm.formats.gguf_file import write_gguf
from techtree.lm.infer.generate import PrefixCache, generate
from techtree.lm.infer.limits import Limits
from techtree.lm.infer.sampling import SamplingParams

pytestmark = MARKS

N_TOKENS = 16
PROMPTS = ("def f(x):\n    return", "# é 🙂\r\n\tif ", "")
"""After the last, empty one there is only the token that stands before a text."""

EXACT = 1e-4
"""Both compute in float32, in another order: a few of its 6e-8, times sums over layers; 3e-5 was seen."""
TOLERANCES = {torch.float32: EXACT, torch.float16: 0.05, torch.bfloat16: 0.3}
"""Before a product with a matrix in a shorter type, llama.cpp rounds the activations to that type, by up to
5e-4 (float16) and 4e-3 (bfloat16) of each. That adds up over a model's fifteen products, and of 500 logits
the worst counts: 0.03 and 0.15 were seen. Unrelated logits differ by 5."""
TABLE = 0.01
"""llama.cpp reads GELU from a table in float16, whatever the types are: 4e-3 was seen."""


@pytest.fixture(scope="module")
def llama_cpp():
    process = LlamaCpp()
    yield process
    process.close()


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer):
    return [[tiny_tokenizer.end_of_text_id, *tiny_tokenizer.encode(text)] for text in PROMPTS]


def greedy(model, prompt) -> list[int]:
    """Return what our engine generates."""
    cache = PrefixCache(model, 64)
    return list(generate(cache, prompt, Limits(N_TOKENS), sampling=SamplingParams(), stop_ids=()))


def our_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]))[0]


def distances(ours, theirs):
    """Return by how much the worst logit differs, for each token."""
    return (torch.tensor(theirs) - ours).abs().amax(dim=-1) / ours.std()


def margins(logits):
    """Return by how much the best logit leads, for each token."""
    best = logits.topk(2).values
    return (best[:, 0] - best[:, 1]) / logits.std()


# ---- what is exported


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_logits_and_the_same_greedy_tokens(llama_cpp, tiny_tokenizer, prompts, tmp_path, name):
    architecture, config = SHAPES[name]
    model = peaked_model(config)
    save_gguf(tmp_path / "model.gguf", model, tiny_tokenizer, torch.float32)
    llama_cpp.load(tmp_path / "model.gguf", n_ctx=64)
    n_different = 0
    for prompt in prompts:
        tokens = greedy(model, prompt)
        logits = our_logits(model, prompt + tokens)
        worst = distances(logits, llama_cpp.logits(prompt + tokens)).max()
        assert worst < (TABLE if architecture == "gpt2" else EXACT)
        # No choice was so close that the difference could have turned it.
        assert margins(logits[len(prompt) - 1 : -1]).min() > 2 * worst, "choose another seed"
        assert llama_cpp.greedy(prompt, N_TOKENS) == tokens
        n_different += len(set(tokens))
    assert n_different >= 6  # the models do not only repeat themselves


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted({architecture for architecture, _ in SHAPES.values()}))
def test_shorter_types_are_as_close_as_their_precision(
    llama_cpp, tiny_tokenizer, prompts, tmp_path, name, dtype
):
    model = peaked_model(SHAPES[name][1])
    save_gguf(tmp_path / "model.gguf", model, tiny_tokenizer, dtype)
    llama_cpp.load(tmp_path / "model.gguf", n_ctx=64)
    with torch.no_grad():
        for part, parameter in model.named_parameters():
            if parameter.ndim > 1 and not part.endswith(("mlp.gate.weight", "embed_positions.weight")):
                parameter.copy_(parameter.to(dtype))
    far, n_decided = [], 0
    for prompt in prompts:
        tokens = greedy(model, prompt)
        logits = our_logits(model, prompt + tokens)
        far.append(distances(logits, llama_cpp.logits(prompt + tokens)))
        choices = slice(len(prompt) - 1, -1)
        theirs = llama_cpp.greedy(prompt, N_TOKENS)
        # The same tokens, up to a choice that the precision leaves open.
        for ours, their, lead, distance in zip(
            tokens, theirs, margins(logits[choices]), far[-1][choices], strict=True
        ):
            if ours != their:
                assert lead < 2 * max(TOLERANCES[dtype], distance)
                break
            n_decided += 1
    assert n_decided > N_TOKENS  # of 3 * N_TOKENS
    # A router that hesitates between two experts may choose the other one: that token, and a little those
    # after it, are then far off.
    share = 0.5 if SHAPES[name][1].experts else 1.0
    assert torch.cat(far).quantile(share) < TOLERANCES[dtype]


def test_ids_that_the_tokenizer_lacks_are_there_and_unused(llama_cpp, tiny_tokenizer, tmp_path):
    save_gguf(tmp_path / "model.gguf", peaked_model(SHAPES["qwen3"][1]), tiny_tokenizer)
    llama_cpp.load(tmp_path / "model.gguf")
    found = llama_cpp.properties()
    assert found["n_tokens"] == 525
    assert llama_cpp.pieces(range(512, 525)) == [b""] * 13
    (ids,) = llama_cpp.encode(["[PAD512]"], parse_special=True)
    assert max(ids) < 512


# ---- what is refused: llama.cpp would load it and compute something else, or not load it


def write_anyway(path: Path, architecture: str, model, tokenizer, extra=None, without=()) -> None:
    """Export a model to an architecture that does not fit."""
    metadata = {
        "general.architecture": architecture,
        **shape_metadata(architecture, model.config),
        **(extra or {}),
        **vocabulary_metadata(tokenizer, model.config.vocab_size),
    }
    sources = tensor_sources(architecture, model, torch.float32)
    write_gguf(path, metadata, {name: one for name, one in sources.items() if name not in without})


def twin(model, config: ModelConfig):
    """Return another reading of the same weights."""
    other = type(model)(config)
    other.load_state_dict(model.state_dict())
    return other.eval()


IGNORED = {
    "a sliding window": (
        "llama",
        dataclasses.replace(FAMILIES["mistral"], sliding_window=5),
        {"sliding_window": None},
        {"llama.attention.sliding_window": 5},
    ),
    "a sliding window in a qwen3": (
        "qwen3",
        dataclasses.replace(FAMILIES["qwen3"], sliding_window=5),
        {"sliding_window": None},
        {"qwen3.attention.sliding_window": 5},
    ),
    "the clamp of an olmoe": (
        "olmoe",
        dataclasses.replace(SHAPES["olmoe"][1], clip_qkv=0.3),
        {"clip_qkv": None},
        {"olmoe.attention.clamp_kqv": 0.3},
    ),
    "the clamp in a llama": (
        "llama",
        dataclasses.replace(SHAPES["llama"][1], clip_qkv=0.3),
        {"clip_qkv": None},
        {"llama.attention.clamp_kqv": 0.3},
    ),
    "weights as they are in a qwen3moe": (
        "qwen3moe",
        dataclasses.replace(
            SHAPES["qwen3moe"][1],
            experts=dataclasses.replace(SHAPES["qwen3moe"][1].experts, normalize_weights=False),
        ),
        {"experts": SHAPES["qwen3moe"][1].experts},
        {"qwen3moe.expert_weights_norm": False},
    ),
    "normalized weights in an olmoe": (
        "olmoe",
        dataclasses.replace(
            SHAPES["olmoe"][1],
            experts=dataclasses.replace(SHAPES["olmoe"][1].experts, normalize_weights=True),
        ),
        {"experts": SHAPES["olmoe"][1].experts},
        {"olmoe.expert_weights_norm": True},
    ),
}


@pytest.mark.parametrize("name", IGNORED)
def test_llama_cpp_ignores_what_its_graph_does_not_ask_for(llama_cpp, tiny_tokenizer, tmp_path, name):
    architecture, config, without, extra = IGNORED[name]
    model = random_model(config)
    write_anyway(tmp_path / "model.gguf", architecture, model, tiny_tokenizer, extra)
    llama_cpp.load(tmp_path / "model.gguf")
    ids = [3 * i + 5 for i in range(30)]
    theirs = llama_cpp.logits(ids)
    assert distances(our_logits(model, ids), theirs).max() > 0.1
    assert (
        distances(our_logits(twin(model, dataclasses.replace(config, **without)), ids), theirs).max() < EXACT
    )


UNLOADABLE = {
    "dense layers among experts": ("qwen3moe", FAMILIES["qwen3_moe"], ()),
    "a bias of the output in a qwen3": (
        "qwen3",
        dataclasses.replace(FAMILIES["qwen3"], attention_bias="all"),
        (),
    ),
    "a bias of the output in an olmoe": (
        "olmoe",
        dataclasses.replace(SHAPES["olmoe"][1], attention_bias="all"),
        (),
    ),
    "wide heads in a qwen2": ("qwen2", dataclasses.replace(FAMILIES["qwen2"], head_dim=12), ()),
    "wide heads in an olmoe": ("olmoe", dataclasses.replace(SHAPES["olmoe"][1], head_dim=12), ()),
    "wide heads in a gpt2": ("gpt2", dataclasses.replace(FAMILIES["gpt2"], head_dim=12), ()),
    "shared key heads in an olmoe": ("olmoe", dataclasses.replace(SHAPES["olmoe"][1], n_kv_heads=3), ()),
    "an olmoe without a head": ("olmoe", SHAPES["olmoe"][1], ("output.weight",)),
    "Llama 3's scaling in a qwen3": (
        "qwen3",
        dataclasses.replace(FAMILIES["qwen3"], rope_scaling=RopeScaling("llama3", 8.0)),
        (),
    ),
    "biases of the feed-forward layer in a qwen3": (
        "qwen3",
        dataclasses.replace(FAMILIES["qwen3"], mlp_bias=True),
        (),
    ),
}


@pytest.mark.parametrize("name", UNLOADABLE)
def test_llama_cpp_does_not_load_what_its_graph_does_not_have(llama_cpp, tiny_tokenizer, tmp_path, name):
    architecture, config, without = UNLOADABLE[name]
    write_anyway(tmp_path / "m.gguf", architecture, random_model(config), tiny_tokenizer, None, without)
    with pytest.raises(RuntimeError, match="Failed to load model"):
        llama_cpp.load(tmp_path / "m.gguf")
