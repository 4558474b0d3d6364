"""The engine of the product: a trained model in PyTorch."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from techtree.engines.engine import InfillRequest, InfillResult
from techtree.engines.filling import Filling
from techtree.engines.model_folder import model_name
from techtree.lm.config import ModelConfig
from techtree.lm.formats.gguf import load_gguf, open_gguf
from techtree.lm.formats.huggingface import load_pretrained
from techtree.lm.infer import fim_prompt
from techtree.lm.infer.generate import PrefixCache
from techtree.lm.infer.generate import decoder as decode_with
from techtree.lm.infer.limits import never
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.infer.threads import threads_for
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.native.decoder import Decoder, unsupported
from techtree.lm.native.library import NoCompilerError
from techtree.lm.native.portable import portable
from techtree.lm.quant.blocks import Blocks
from techtree.lm.tokenizer import Tokenizer
from techtree.lm.train.precision import compute_dtype

MAX_CONTEXT_LENGTH = 2048
"""Of a model that could see more: on a CPU, reading it would take longer than anybody waits."""

MIN_TEMPERATURE = 1e-5
"""Below, only tokens whose scores are equal up to rounding share the probability: it is greedy."""


class TorchEngine:
    """A model and its cache. One request decodes at a time.

    Parameters
    ----------
    model
        In evaluation mode, or the decoder in C.
    tokenizer
        Its own.
    name
        What to call it.
    order
        Of prefix and suffix in its prompts.
    """

    def __init__(
        self, model: LanguageModel | Decoder, tokenizer: Tokenizer, name: str, order: fim_prompt.Order = "spm"
    ):
        self.name = name
        self.context_length = min(model.config.max_seq_len, MAX_CONTEXT_LENGTH)
        self._cache = PrefixCache(model, self.context_length)
        self._filling = Filling(tokenizer, self.context_length, order)

    @classmethod
    def load(cls, path: Path) -> "TorchEngine":
        """Load the model in a folder or a GGUF file.

        Raises
        ------
        InputError
            When there is no model, or a damaged one.
        """
        return cls(*load_to_decode(path), model_name(path))

    def infill(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool] = never,
        on_text: Callable[[str], None] | None = None,
    ) -> InfillResult:
        """Answer a question, when its turn has come; see `Engine.infill`."""
        sampling = SamplingParams(
            0.0 if 0 < request.temperature < MIN_TEMPERATURE else request.temperature,
            request.top_k,
            request.top_p,
            request.min_p,
            request.seed,
        )
        decode = decode_with(self._cache, sampling, self._filling.tokenizer.stop_ids)
        return self._filling.answer(request, decode, cancelled, on_text)


def load_to_decode(path: Path) -> tuple[LanguageModel | Decoder, Tokenizer]:
    """Load a model as this machine decodes it fastest: from a folder, or from a GGUF file.

    The decoder in C takes what it can compute, where a compiler is. Otherwise PyTorch does: a folder's model
    in its stored precision where this machine multiplies in that, else in float32; to decode takes as long as
    to read the weights, so half as many bytes take half the time.

    Raises
    ------
    InputError
        When there is no model, or a damaged one.
    """
    if path.suffix == ".gguf":
        config, weights, tokenizer = open_gguf(path)
        if unsupported(config):
            return load_gguf(path, torch.float32)
        return decoder(config, weights) or portable(config, weights), tokenizer
    with threads_for(0):  # it multiplies nothing
        model, tokenizer = load_pretrained(path, dtype=None)
    if made := decoder(model.config, dict(model.named_parameters())):
        return made, tokenizer
    if model.dtype not in (torch.float32, compute_dtype(torch.device("cpu"))):
        with threads_for(0):
            model, tokenizer = load_pretrained(path)
    return model, tokenizer


def decoder(config: ModelConfig, weights: Mapping[str, Tensor | Blocks]) -> Decoder | None:
    """Return the decoder in C, or None where it cannot compute the model, or not be compiled."""
    if unsupported(config):
        return None
    try:
        return Decoder(config, weights, min(config.max_seq_len, MAX_CONTEXT_LENGTH))
    except NoCompilerError:
        return None
