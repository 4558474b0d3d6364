"""The engine of the lessons: a trained model on NumPy, run by the technologies of the tree.

It is there to be understood, and to be exchanged part by part (`techtree.learn.mine`). Each token costs a run
over the whole text before it, as there is no cache of keys and values in it, and it takes the likeliest token
always. The tokenizer is the product's.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from techtree.engines.engine import ChatRequest, InfillRequest, InfillResult, WrittenToken
from techtree.engines.filling import Filling
from techtree.engines.model_folder import model_name
from techtree.errors import InputError
from techtree.lm.infer.constraint import Constraint
from techtree.lm.infer.limits import Limits, Progress, never
from techtree.lm.tokenizer import Tokenizer
from techtree.reading import read_object

Logits = Callable[[Sequence[int]], np.ndarray]
"""From the ids of a text to the scores of all tokens after each of them."""

MAX_CONTEXT_LENGTH = 512
"""Of a model that could see more: every token costs a run over all of it."""

MAX_CONFIG_BYTES = 1 << 20


class NumpyEngine(Filling):
    """A model as a function from ids to scores. One request decodes at a time.

    Parameters
    ----------
    logits
        The model.
    tokenizer
        Its own.
    name
        What to call it.
    context_length
        The number of tokens that it sees at once.
    """

    def __init__(self, logits: Logits, tokenizer: Tokenizer, name: str, context_length: int):
        super().__init__(tokenizer, min(context_length, MAX_CONTEXT_LENGTH))
        self.name = name
        self._logits = logits

    @classmethod
    def load(cls, folder: Path) -> "NumpyEngine":
        """Load the model in a folder.

        Raises
        ------
        InputError
            When the folder holds no model, a damaged one, or one of a kind that no technology can run.
        """
        logits, context_length = load_logits(folder)
        return cls(logits, Tokenizer.load(folder), model_name(folder), context_length)

    def infill(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool] = never,
        on_text: Callable[[str], None] | None = None,
        on_token: Callable[[WrittenToken], None] | None = None,
    ) -> InfillResult:
        """Answer a question, when its turn has come; see `Engine.infill`."""
        return self._answer(request, cancelled, on_text, on_token)

    def chat(
        self,
        request: ChatRequest,
        cancelled: Callable[[], bool] = never,
        on_text: Callable[[str], None] | None = None,
        on_token: Callable[[WrittenToken], None] | None = None,
    ) -> InfillResult:
        """Say what comes next in a chat; see `Engine.chat`."""
        return self._answer(request, cancelled, on_text, on_token)

    def _answer(
        self,
        request: InfillRequest | ChatRequest,
        cancelled: Callable[[], bool],
        on_text: Callable[[str], None] | None,
        on_token: Callable[[WrittenToken], None] | None,
    ) -> InfillResult:
        if request.temperature:
            raise InputError(
                "the NumPy engine always takes the likeliest token; got the temperature "
                f"{request.temperature}: leave it out, or use the PyTorch engine"
            )
        constraint = self.constraint(request)

        def generate(prompt: list[int], limits: Limits, progress: Progress) -> Iterator[int]:
            ends, max_len = self.tokenizer.stop_ids, self.context_length
            return decode(self._logits, prompt, limits, ends, max_len, progress, constraint)

        return self.answer(request, generate, cancelled, on_text, on_token)


def decode(
    logits: Logits,
    prompt: Sequence[int],
    limits: Limits,
    stop_ids: Collection[int],
    max_len: int,
    progress: Progress,
    constraint: Constraint | None = None,
) -> Iterator[int]:
    """Yield the likeliest tokens after a prompt, one by one, as `techtree.lm.infer.infill.Decode` says.

    With a constraint, they are the likeliest that it allows, and it ends the text where nothing can follow.

    Raises
    ------
    InputError
        When the model's scores are no numbers, or the constraint allows no token.
    """
    ids = list(prompt)
    progress.n_prompt = len(ids)
    progress.stop = limits.reached(0)
    start = time.perf_counter()
    while progress.stop is None:
        scores = logits(ids)[-1]
        if not np.isfinite(scores).all():
            raise InputError("the model's scores must be numbers; got others: its weights are damaged")
        token = int((scores if constraint is None else constraint.masked(scores)).argmax())
        if progress.n_predicted == 0:
            progress.prompt_s, start = time.perf_counter() - start, time.perf_counter()
        progress.predicted_s = time.perf_counter() - start
        if token in stop_ids:
            progress.stop = "end_of_text"
            return
        progress.n_predicted, progress.scores = progress.n_predicted + 1, scores
        yield token
        ids.append(token)
        progress.stop = limits.reached(progress.n_predicted)
        if len(ids) >= max_len:
            progress.stop = "context"
        if constraint is not None and constraint.ends_after(token):
            progress.stop = "end_of_text"


def load_logits(folder: Path) -> tuple[Logits, int]:
    """Load the model in a folder as the tree's technologies have it, in float32, and its context's length.

    Raises
    ------
    InputError
        When it cannot be read, or is of a kind that no technology can run.
    """
    config = read_object(folder / "config.json", MAX_CONFIG_BYTES, "copy the model's folder again")
    kind = config.get("model_type")
    # Only what the model needs is imported: whose code ran is told from it.
    if kind == "gpt2":
        from techtree.techs.transformer.gpt import load_gpt2 as load
    elif kind == "qwen3_moe":
        from techtree.techs.transformer.moe import load_qwen3_moe as load
    else:
        from techtree.techs.transformer.llama_block import load_llama as load
    from techtree.techs.autodiff.tensor_autodiff import no_grad

    try:
        model = load(folder)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"{folder} must hold a model that the NumPy engine can run; {error}") from error

    def logits(ids: Sequence[int]) -> np.ndarray:
        with no_grad():
            return model(np.array(ids)).data

    length = config.get("max_position_embeddings", config.get("n_positions"))
    if not isinstance(length, int) or length < 1:
        raise InputError(f"config.json must say how many positions the model has; got {length!r}")
    return logits, length
