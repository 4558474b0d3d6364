"""What the engines share: waiting for the turn, and from a request over a decoder to the result."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from techtree.engines.engine import ChatRequest, InfillRequest, InfillResult, Message, WrittenToken
from techtree.engines.likelihood import written_token
from techtree.engines.turns import Turns
from techtree.errors import InputError
from techtree.lm.infer import fim_prompt
from techtree.lm.infer.chat_prompt import ChatPrompts, Messages
from techtree.lm.infer.constraint import Constraint, Grammars
from techtree.lm.infer.infill import Decode, Infilling, Listener, go_on, infill
from techtree.lm.infer.limits import Limits
from techtree.lm.infer.shown_text import Place
from techtree.lm.tokenizer import Tokenizer

MAX_WAITING = 63
"""Requests that wait while one is answered; how many of them make sense, `Turns` knows."""


class Filling:
    """An engine but for its decoder. It answers requests one at a time.

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
        request: InfillRequest | ChatRequest,
        decode: Decode,
        cancelled: Callable[[], bool],
        on_text: Callable[[str], None] | None = None,
        on_token: Callable[[WrittenToken], None] | None = None,
    ) -> InfillResult:
        """Answer a question by a decoder, when its turn has come; see `Engine.infill` and `Engine.chat`."""
        deadline = time.monotonic() + request.timeout_s
        prompt = self._given_prompt(request)

        def on_scores(token: int, start: int, scores: Any) -> None:
            if on_token is not None:
                on_token(written_token(self.tokenizer, token, start, scores, request.n_top))

        listener = Listener(on_text, None if on_token is None else on_scores)
        with self._turns.take(request.slot, cancelled, deadline) as turn:
            if turn is None:
                return InfillResult("", "deadline" if time.monotonic() >= deadline else "cancelled")
            limits = Limits(request.max_tokens, deadline, turn.is_void)
            if prompt is not None:
                place = Place("", "", stop=request.stop, is_raw=True)
                done = go_on(self.tokenizer, decode, prompt, place, limits, listener=listener)
            else:
                assert isinstance(request, InfillRequest)
                done = self._filled(request, decode, limits, listener)
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

    def constraint(self, request: InfillRequest | ChatRequest) -> Constraint | None:
        """Return what a request's answer must keep to, compiled; it is for this answer only.

        Raises
        ------
        InputError
            When the form makes no sense, or cannot be kept to.
        """
        form = request.form
        return None if form is None else self._grammars.constraint(form.kind, form.text)

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(self.tokenizer)

    def _filled(
        self, request: InfillRequest, decode: Decode, limits: Limits, listener: Listener
    ) -> Infilling:
        # What must keep to a form is not cut: half of it would not.
        is_raw = request.is_raw or request.form is not None
        return infill(
            self.tokenizer,
            decode,
            self.context_length,
            _text(request),
            Place(request.prefix, request.suffix, request.n_indent, request.stop, is_raw=is_raw),
            limits,
            order=self._order,
            max_line_s=None if request.max_line_ms is None else request.max_line_ms / 1000,
            listener=listener,
        )

    def _given_prompt(self, request: InfillRequest | ChatRequest) -> list[int] | None:
        """Return the prompt where it is given as it is: to leave out a part would change its sense."""
        if isinstance(request, ChatRequest):
            ids, what = self._chats.ids(_as_mappings(request.messages)), "a chat"
        elif request.is_raw and not request.suffix:
            ids, what = self.tokenizer.encode(request.prefix, parse_special=True), "a prompt"
        else:
            return None
        if len(ids) >= self.context_length:
            raise InputError(
                f"{what} must have fewer than {self.context_length} tokens, which is what the model sees at "
                f"once; got {len(ids)}: shorten it"
            )
        # Before the first token of a text stands the end of another.
        return ids or [self.tokenizer.end_of_text_id]

    @cached_property
    def _chats(self) -> ChatPrompts:
        return ChatPrompts(self.tokenizer)

    @property
    def can_fill_in(self) -> bool:
        """Whether the model has learned to see what stands after the cursor."""
        return self.tokenizer.can_fill_in

    @property
    def can_chat(self) -> bool:
        """Whether the model has a chat template."""
        return self.tokenizer.chat_template is not None

    def chat_text(self, messages: Sequence[Message]) -> str:
        """Return a chat as the template has it; see `Engine.chat_text`."""
        return self._chats.text(_as_mappings(messages))

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Return the ids of a text; see `Engine.tokenize`."""
        return self.tokenizer.encode(text, parse_special=parse_special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of ids; see `Engine.detokenize`."""
        return self.tokenizer.decode(ids)


def _as_mappings(messages: Sequence[Message]) -> Messages:
    return [{"role": message.role, "content": message.content} for message in messages]


def _text(request: InfillRequest) -> fim_prompt.FimText:
    extra = tuple(fim_prompt.Chunk(chunk.filename, chunk.text) for chunk in request.extra)
    return fim_prompt.FimText(request.prefix, request.suffix, extra)
