"""The engine of the product: a trained model in PyTorch."""

from collections.abc import Callable
from pathlib import Path

import torch

from techtree.engines.engine import InfillRequest, InfillResult
from techtree.engines.filling import Filling
from techtree.engines.model_folder import model_name
from techtree.lm.formats.huggingface import load_pretrained
from techtree.lm.infer import fim_prompt
from techtree.lm.infer.generate import PrefixCache, decoder
from techtree.lm.infer.limits import never
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.infer.threads import threads_for
from techtree.lm.model.language_model import LanguageModel
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
        In evaluation mode.
    tokenizer
        Its own.
    name
        What to call it.
    order
        Of prefix and suffix in its prompts.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, name: str, order: fim_prompt.Order = "spm"
    ):
        self.name = name
        self.context_length = min(model.config.max_seq_len, MAX_CONTEXT_LENGTH)
        self._cache = PrefixCache(model, self.context_length)
        self._filling = Filling(tokenizer, self.context_length, order)

    @classmethod
    def load(cls, folder: Path) -> "TorchEngine":
        """Load the model in a folder.

        Raises
        ------
        InputError
            When the folder holds no model, or a damaged one.
        """
        return cls(*load_to_decode(folder), model_name(folder))

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
        decode = decoder(self._cache, sampling, self._filling.tokenizer.stop_ids)
        return self._filling.answer(request, decode, cancelled, on_text)


def load_to_decode(folder: Path) -> tuple[LanguageModel, Tokenizer]:
    """Load a model in its stored precision where this machine multiplies in that, else in float32.

    To decode takes as long as to read the weights: half as many bytes, half the time.
    """
    with threads_for(0):  # it multiplies nothing
        model, tokenizer = load_pretrained(folder, dtype=None)
        if model.dtype not in (torch.float32, compute_dtype(torch.device("cpu"))):
            model, tokenizer = load_pretrained(folder)
    return model, tokenizer
