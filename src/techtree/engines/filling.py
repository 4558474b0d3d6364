"""What the engines share: waiting for the turn, and from a request over a decoder to the result."""

import time
from collections.abc import Callable

from techtree.engines.engine import InfillRequest, InfillResult
from techtree.engines.turns import Turns
from techtree.lm.infer import fim_prompt
from techtree.lm.infer.infill import Decode, infill
from techtree.lm.infer.limits import Limits
from techtree.lm.infer.shown_text import Place
from techtree.lm.tokenizer import Tokenizer

MAX_WAITING = 63
"""Requests that wait while one is answered; how many of them make sense, `Turns` knows."""


class Filling:
    """Answers requests one at a time.

    Parameters
    ----------
    tokenizer
        The model's.
    context_length
        The number of tokens that the model sees at once.
    order
        Of prefix and suffix in its prompts.
    """

    def __init__(self, tokenizer: Tokenizer, context_length: int, order: fim_prompt.Order = "spm"):
        self.tokenizer = tokenizer
        self.context_length = context_length
        self._order: fim_prompt.Order = order
        self._turns = Turns(MAX_WAITING)

    def answer(
        self,
        request: InfillRequest,
        decode: Decode,
        cancelled: Callable[[], bool],
        on_text: Callable[[str], None] | None,
    ) -> InfillResult:
        """Answer a question by a decoder, when its turn has come; see `Engine.infill`."""
        deadline = time.monotonic() + request.timeout_s
        with self._turns.take(request.slot, cancelled, deadline) as turn:
            if turn is None:
                return InfillResult("", "deadline" if time.monotonic() >= deadline else "cancelled")
            done = infill(
                self.tokenizer,
                decode,
                self.context_length,
                _text(request),
                Place(request.prefix, request.suffix, request.n_indent, request.stop, is_raw=request.is_raw),
                Limits(request.max_tokens, deadline, turn.is_void),
                order=self._order,
                max_line_s=None if request.max_line_ms is None else request.max_line_ms / 1000,
                on_text=on_text,
            )
        return InfillResult(
            text=done.text,
            stop=done.stop,
            stopping_word=done.stopping_word,
            is_truncated=done.is_truncated,
            n_prompt=done.progress.n_prompt,
            n_reused=done.progress.n_reused,
            prompt_ms=1000 * done.progress.prompt_s,
            n_predicted=done.progress.n_predicted,
            predicted_ms=1000 * done.progress.predicted_s,
        )


def _text(request: InfillRequest) -> fim_prompt.FimText:
    extra = tuple(fim_prompt.Chunk(chunk.filename, chunk.text) for chunk in request.extra)
    fills_in = not request.is_raw or bool(request.suffix)
    return fim_prompt.FimText(request.prefix, request.suffix, extra, fills_in)
