"""Tokens one after the other: run the prompt, then decode until something says stop.

Shapes: ``T`` tokens of the prompt, ``V`` vocabulary.

A `PrefixCache` outlives a request. While somebody types, the next prompt begins with almost all tokens
of the last one, and their keys and values need not be computed again.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from techtree.errors import InputError
from techtree.lm.infer.constraint import Constraint
from techtree.lm.infer.drafts import N_DRAFT, Drafts
from techtree.lm.infer.limits import Limits, Progress, never
from techtree.lm.infer.sampling import SamplingParams, sample, seeded_generator
from techtree.lm.infer.threads import threads_for
from techtree.lm.memory.growing import GrowingText
from techtree.lm.memory.memory import Memory
from techtree.lm.model.cache import KVCache
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.native.decoder import Decoder, NativeText

PREFILL_CHUNK = 128
"""Tokens run at once: enough for full speed on a CPU, few enough to stop soon after a cancellation."""


def prefill(
    model: LanguageModel,
    ids: Int[Tensor, " T"],
    cache: KVCache,
    should_stop: Callable[[], bool] = never,
) -> Float[Tensor, " V"] | None:
    """Run tokens after those in the cache, and return the scores for the one that follows.

    Returns
    -------
    Tensor or None
        None when `should_stop` said so; the cache then holds a part of the tokens.
    """
    hidden = None
    for chunk in ids.split(PREFILL_CHUNK):
        if should_stop():
            return None
        hidden = model.hidden(chunk[None], cache)
    return None if hidden is None else model.logits(hidden[:, -1:])[0, 0]


def decode_one_token(model: LanguageModel, token: int, cache: KVCache) -> Float[Tensor, " V"]:
    """Append one token to the cache, and return the scores for the next."""
    return model(torch.tensor([[token]]), cache)[0, 0]


class Text(Protocol):
    """What a model keeps of one text: keys and values of its tokens."""

    @property
    def length(self) -> int:
        """How many tokens it holds."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether tokens that are appended together get the same scores, to the bit, as one by one."""
        ...

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first."""
        ...

    def extend_all(
        self, ids: Sequence[int], n_logits: int, should_stop: Callable[[], bool]
    ) -> Float[Tensor, "n_logits V"] | None:
        """Append tokens; return the scores after each of the last, or None when told to stop midway."""
        ...


class TorchText:
    """A text of a model in PyTorch.

    Parameters
    ----------
    model
        The model.
    max_len
        The most tokens of the text.
    """

    def __init__(self, model: LanguageModel, max_len: int):
        self._model = model
        self._kv = KVCache(model.config, 1, max_len, model.dtype)

    is_exact = False

    @property
    def length(self) -> int:
        """How many tokens it holds."""
        return self._kv.length

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first."""
        self._kv.truncate(length)

    @torch.inference_mode()
    def extend_all(
        self, ids: Sequence[int], n_logits: int, should_stop: Callable[[], bool] = never
    ) -> Float[Tensor, "n_logits V"] | None:
        """Append tokens; return the scores after the last one, or None when told to stop midway."""
        assert n_logits == 1, "tokens are guessed only where that is exact"
        with threads_for(len(ids) * self._model.config.n_parameters):
            if len(ids) == 1:
                return decode_one_token(self._model, ids[0], self._kv)[None]
            logits = prefill(self._model, torch.tensor(ids), self._kv, should_stop)
            return None if logits is None else logits[None]


class PrefixCache:
    """A text, together with the tokens that it holds.

    Parameters
    ----------
    model
        In PyTorch, or the decoder in C.
    max_len
        The most tokens that prompt and text may have together.
    """

    def __init__(self, model: LanguageModel | Decoder, max_len: int):
        self.max_len = max_len
        self._text: Text = (
            NativeText(model, max_len) if isinstance(model, Decoder) else TorchText(model, max_len)
        )
        self._ids: list[int] = []

    def __len__(self) -> int:
        """Return the number of tokens held."""
        return len(self._ids)

    def start(self, ids: Sequence[int]) -> int:
        """Keep what a prompt has in common with the tokens held, and return how many those are.

        At least one token of the prompt is left to run, since its scores are what is wanted.
        """
        n_common = 0
        for held, wanted in zip(self._ids, ids[:-1], strict=False):
            if held != wanted:
                break
            n_common += 1
        del self._ids[n_common:]
        return n_common

    @property
    def is_exact(self) -> bool:
        """Whether tokens that run together get the same scores as one by one."""
        return self._text.is_exact

    def run(
        self, ids: Sequence[int], should_stop: Callable[[], bool] = never, n_logits: int = 1
    ) -> Float[Tensor, "n_logits V"] | None:
        """Append tokens and return the scores after each of the last, or None when `should_stop` said so."""
        n_before = len(self._ids)
        # Also after an exception in the model, the keys are those of the known tokens.
        self._text.truncate(n_before)
        logits = self._text.extend_all(ids, n_logits, should_stop)
        self._ids += ids[: self._text.length - n_before]
        return logits

    def forget(self, n_tokens: int) -> None:
        """Forget the last tokens."""
        del self._ids[len(self._ids) - n_tokens :]


def generate(
    cache: PrefixCache,
    prompt: Sequence[int],
    limits: Limits,
    *,
    sampling: SamplingParams,
    stop_ids: Collection[int],
    progress: Progress | None = None,
    memory: Memory | None = None,
    constraint: Constraint | None = None,
) -> Iterator[int]:
    """Yield the tokens that follow a prompt, each as soon as it is known.

    Parameters
    ----------
    cache
        Of the model. What it shares with the prompt is not run again.
    prompt
        At least one token.
    limits
        When to stop; the end of the cache is one more limit.
    sampling
        How each token is chosen.
    stop_ids
        The tokens that end the text; none of them is ever yielded.
    progress
        Kept up to date: the counts, the times, and in the end the reason.
    memory
        What the model's scores are mixed with; it has begun with the text that the prompt is of.
    constraint
        What the text must keep to, at its start. It ends the text where nothing can follow.

    Raises
    ------
    InputError
        When the prompt is empty, or leaves no room in the context; or the constraint allows no token.
    """
    if not 0 < len(prompt) < cache.max_len:
        raise InputError(
            f"the prompt must have from 1 to {cache.max_len - 1} tokens, as the model sees {cache.max_len} "
            f"tokens at once; got {len(prompt)}: shorten it"
        )
    progress = progress if progress is not None else Progress()
    progress.n_prompt, progress.n_reused = len(prompt), cache.start(prompt)
    generator = seeded_generator(sampling)
    progress.stop = limits.reached(0)
    start, pending = time.perf_counter(), list(prompt[progress.n_reused :])
    text = GrowingText(prompt) if memory is None else memory.text
    drafts = Drafts(text) if cache.is_exact else None
    drafted: list[int] = []
    while progress.stop is None:
        logits = cache.run([*pending, *drafted], lambda: limits.reached(0) is not None, len(drafted) + 1)
        if progress.n_predicted == 0:
            progress.prompt_s, start = time.perf_counter() - start, time.perf_counter()
        if logits is None:
            progress.stop = limits.reached(0)
            return
        n_right, token = 0, pending[-1]
        for n_right, scores in enumerate(logits):
            mixed = scores if memory is None else memory.mixed(scores)
            token = sample(_constrained(mixed, constraint), sampling, generator)
            progress.predicted_s = time.perf_counter() - start
            if token in stop_ids:
                progress.stop = "end_of_text"
                return
            progress.n_predicted, progress.scores = progress.n_predicted + 1, scores
            yield token
            progress.stop = limits.reached(progress.n_predicted)
            if len(prompt) + progress.n_predicted >= cache.max_len:
                progress.stop = "context"
            if constraint is not None and constraint.ends_after(token):
                progress.stop = "end_of_text"
            (memory or text).append(token)
            if progress.stop is not None or drafted[n_right : n_right + 1] != [token]:
                break
        pending = [token]
        if drafts is not None:
            cache.forget(len(drafted) - n_right)
            drafts.judge(len(drafted), n_right)
            room = min(limits.max_tokens, cache.max_len - len(prompt)) - progress.n_predicted - 1
            drafted = drafts.propose(min(N_DRAFT, room))
            if constraint is not None:
                drafted = constraint.accepted(drafted)


def _constrained(scores: Float[Tensor, " V"], constraint: Constraint | None) -> Float[Tensor, " V"]:
    """Return the scores, with -inf for the tokens that may not come."""
    if constraint is None:
        return scores
    # By NumPy: PyTorch would take all its threads, which wait for each other where the machine is busy.
    return torch.from_numpy(constraint.masked(scores.float().numpy()))


def decoder(
    cache: PrefixCache,
    sampling: SamplingParams,
    stop_ids: Collection[int],
    memory: Memory | None = None,
    constraint: Constraint | None = None,
) -> Callable[[Sequence[int], Limits, Progress], Iterator[int]]:
    """Return `generate` with a model and a way to choose, as `infill` wants it."""

    def decode(prompt: Sequence[int], limits: Limits, progress: Progress) -> Iterator[int]:
        return generate(
            cache,
            prompt,
            limits,
            sampling=sampling,
            stop_ids=stop_ids,
            progress=progress,
            memory=memory,
            constraint=constraint,
        )

    return decode
