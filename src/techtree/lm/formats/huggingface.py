"""A model's folder as Hugging Face's tools write and read it.

`config.json`, `generation_config.json`, `model.safetensors` and the tokenizer's files;
`transformers.AutoModelForCausalLM.from_pretrained(folder)` reads it. Reading is strict: a file that
holds anything more, less or else than the model needs is refused.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from techtree.atomic import write_bytes, write_text
from techtree.errors import InputError
from techtree.lm.config import ModelConfig
from techtree.lm.formats.qwen3_config import from_qwen3, to_qwen3
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.tokenizer import Tokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_HEAD = "lm_head.weight"
_EMBEDDING = "model.embed_tokens.weight"


def save_pretrained(
    folder: Path, model: LanguageModel, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32
) -> None:
    """Write a model and its tokenizer to a folder.

    Parameters
    ----------
    folder
        Made where it is missing; files in it of the same names are replaced.
    model
        The model.
    tokenizer
        The tokenizer whose ids the model speaks.
    dtype
        The precision of the stored weights: float32 or bfloat16.

    Raises
    ------
    InputError
        When the folder cannot be written.
    """
    folder = Path(folder)
    end_of_text = tokenizer.end_of_text_id
    config = to_qwen3(model.config, end_of_text, str(dtype).removeprefix("torch."))
    generation = {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": end_of_text}
    weights = {name: p.detach().to("cpu", dtype).contiguous() for name, p in model.named_parameters()}
    try:
        tokenizer.save(folder)
        write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
        write_text(folder / "generation_config.json", json.dumps(generation, indent=2) + "\n")
        write_bytes(folder / WEIGHTS, safetensors.torch.save(weights, {"format": "pt"}))
    except OSError as error:
        raise InputError(
            f"the model could not be written to {folder} ({error.strerror or error}): "
            "make room or choose another folder"
        ) from error


def load_pretrained(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[LanguageModel, Tokenizer]:
    """Read a model and its tokenizer from a folder.

    Parameters
    ----------
    folder
        What `save_pretrained` wrote, or a dense Qwen3 model of others.
    dtype
        The precision that the weights get.

    Raises
    ------
    InputError
        When a file is missing or damaged, or the model is of another kind.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder of a model, with its {CONFIG}")
    config = _read_config(folder)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"the model in {folder} has a vocabulary of {config.vocab_size}, and its tokenizer has ids up to "
            f"{tokenizer.vocab_size - 1}: they do not belong together"
        )
    # On the "meta" device tensors have shapes and no memory, which the file's will bring.
    with torch.device("meta"):
        model = LanguageModel(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(_read_weights(folder, expected, dtype), assign=True)
    return model.eval(), tokenizer


def _read_config(folder: Path) -> ModelConfig:
    path = folder / CONFIG
    try:
        return from_qwen3(_read_json(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise InputError(f"{path.name} {why}: give a complete model folder") from error
    if not isinstance(values, dict):
        raise InputError(f"{path.name} must hold a JSON object; got {type(values).__name__}")
    return values


def _read_weights(
    folder: Path, expected: dict[str, tuple[int, ...]], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return exactly the expected tensors, each in memory of its own."""
    weights: dict[str, Tensor] = {}
    surplus: dict[str, Tensor] = {}
    for name, tensor in _tensors(folder):
        if name not in expected:
            surplus[name] = tensor
        elif tuple(tensor.shape) != expected[name]:
            raise InputError(
                f"{name} in {folder} must have the shape {expected[name]}, as {CONFIG} says; "
                f"got {tuple(tensor.shape)}"
            )
        elif not tensor.is_floating_point():
            raise InputError(f"{name} in {folder} must be of floating point; got {tensor.dtype}")
        else:
            weights[name] = tensor.to(dtype, copy=True)
    # Some publish a tied head all the same; it says nothing new if it is the embedding.
    if _HEAD in surplus and _EMBEDDING in weights:
        head = surplus[_HEAD].to(dtype)
        if torch.equal(head, weights[_EMBEDDING]):
            del surplus[_HEAD]
    for problem, names in (("lacks", expected.keys() - weights.keys()), ("has the unknown", surplus)):
        if names:
            raise InputError(f"the model in {folder} {problem} tensor {min(names)} ({len(names)} in all)")
    return weights


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the values, still in the file, of each tensor of each weight file."""
    paths = [folder / WEIGHTS]
    if not paths[0].exists() and (folder / INDEX).exists():
        paths = [folder / name for name in _shards(folder)]
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} is missing: give a complete model folder")
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged ({error}): copy it again") from error


def _shards(folder: Path) -> list[str]:
    """Return the names of the weight files that the index lists."""
    names = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(
        isinstance(n, str) and Path(n).name == n for n in names.values()
    ):
        raise InputError(f"the weight_map of {folder / INDEX} must name files of its own folder")
    return sorted(set(names.values()))
