"""The engine of the product: a trained model in PyTorch."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from techtree.atomic import cache_folder
from techtree.engines.engine import ChatRequest, InfillRequest, InfillResult, WrittenToken
from techtree.engines.filling import Filling
from techtree.engines.model_folder import model_name
from techtree.lm.config import ModelConfig
from techtree.lm.formats.gguf import load_gguf, open_gguf
from techtree.lm.formats.huggingface import load_pretrained
from techtree.lm.infer import fim_prompt
from techtree.lm.infer.generate import PrefixCache
from techtree.lm.infer.generate import decoder as decode_with
from techtree.lm.infer.infill import Decode
from techtree.lm.infer.limits import Limits, Progress, never
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.infer.threads import threads_for
from techtree.lm.memory.memory import Memory
from techtree.lm.memory.repository import Repository
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


class TorchEngine(Filling):
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
    memory
        What its scores are mixed with where it fills in; nothing when left out.
    """

    def __init__(
        self,
        model: LanguageModel | Decoder,
        tokenizer: Tokenizer,
        name: str,
        order: fim_prompt.Order = "spm",
        memory: Memory | None = None,
    ):
        super().__init__(tokenizer, min(model.config.max_seq_len, MAX_CONTEXT_LENGTH), order)
        self.name = name
        self._cache = PrefixCache(model, self.context_length)
        self.memory = memory

    @classmethod
    def load(cls, path: Path, *, remembers: bool = False, repository: Path | None = None) -> "TorchEngine":
        """Load the model in a folder or a GGUF file.

        Parameters
        ----------
        path
            The model.
        remembers
            Whether what stood in the text at hand before is mixed in.
        repository
            A folder whose files are then remembered, too.

        Raises
        ------
        InputError
            When there is no model, or a damaged one.
        """
        model, tokenizer = load_to_decode(path)
        memory = None
        if remembers:
            files = repository and Repository(repository, tokenizer, cache_folder() / "memory")
            memory = Memory(tokenizer, files)
        return cls(model, tokenizer, model_name(path), memory=memory)

    def infill(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool] = never,
        on_text: Callable[[str], None] | None = None,
        on_token: Callable[[WrittenToken], None] | None = None,
    ) -> InfillResult:
        """Answer a question, when its turn has come; see `Engine.infill`."""
        memory = None if request.is_raw else self.memory
        generate = self._decoder(request, memory)

        def decode(prompt: list[int], limits: Limits, progress: Progress) -> Iterator[int]:
            if memory is not None:  # now that it is this request's turn
                memory.begin(request.prefix, request.suffix, [chunk.text for chunk in request.extra])
            return generate(prompt, limits, progress)

        return self.answer(request, decode, cancelled, on_text, on_token)

    def chat(
        self,
        request: ChatRequest,
        cancelled: Callable[[], bool] = never,
        on_text: Callable[[str], None] | None = None,
        on_token: Callable[[WrittenToken], None] | None = None,
    ) -> InfillResult:
        """Say what comes next in a chat; see `Engine.chat`."""
        return self.answer(request, self._decoder(request, None), cancelled, on_text, on_token)

    def _decoder(self, request: InfillRequest | ChatRequest, memory: Memory | None) -> Decode:
        sampling = SamplingParams(
            0.0 if 0 < request.temperature < MIN_TEMPERATURE else request.temperature,
            request.top_k,
            request.top_p,
            request.min_p,
            request.seed,
        )
        return decode_with(self._cache, sampling, self.tokenizer.stop_ids, memory, self.constraint(request))


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
