"""What to insert at a cursor: the prompt, the decoding, and the rules for what is shown, in one piece."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from techtree.lm.infer.fim_prompt import FimPrompt, FimText, Order, fim_prompt
from techtree.lm.infer.limits import Limits, Progress, StopReason
from techtree.lm.infer.shown_text import Place, Shown, shown_text
from techtree.lm.infer.text_stream import TextStream
from techtree.lm.tokenizer import Tokenizer

ANSWER_SHARE = 1 / 8
"""Of the context: so much at most does the prompt leave free for the answer. A shorter prompt leaves more."""

Decode = Callable[[list[int], Limits, Progress], Iterator[int]]
"""Yields the tokens that follow a prompt, each as soon as it is known, and none that ends the text; it keeps
the progress up to date."""

Stop = StopReason | Literal["stop_string", "rule", "slow"]
"""Also: a stop string came; a rule ended the text; the time was up after a whole line."""


@dataclass(frozen=True)
class Listener:
    """Who wants to know at once what is written."""

    on_text: Callable[[str], None] | None = None
    """Called with each new piece of text as soon as it is certain."""
    on_token: Callable[[int, int, Any], None] | None = None
    """Called with each token, the character at which it begins, and the scores that it was chosen from;
    before its text, and also where that is not shown in the end."""


@dataclass
class Infilling:
    """What to insert, and what it took; both grow while tokens come."""

    text: str = ""
    stop: Stop = "end_of_text"
    stopping_word: str = ""
    is_truncated: bool = False
    """Whether the prompt had to leave something out."""
    progress: Progress = field(default_factory=Progress)


def infill(
    tokenizer: Tokenizer,
    decode: Decode,
    max_len: int,
    text: FimText,
    place: Place,
    limits: Limits,
    *,
    order: Order = "spm",
    max_line_s: float | None = None,
    listener: Listener = Listener(),
) -> Infilling:
    """Generate what stands between a prefix and a suffix.

    Parameters
    ----------
    tokenizer
        The model's own.
    decode
        The model.
    max_len
        The most tokens that prompt and answer may have together.
    text
        What the model is to see.
    place
        What the rules for the shown text are to see.
    limits
        When to stop at the latest.
    order
        Of prefix and suffix in the prompt.
    max_line_s
        Stop so long after the first token, once there is a whole line.
    listener
        Who wants to know at once what is written.

    Returns
    -------
    Infilling
        Its text is all the pieces together.

    Raises
    ------
    InputError
        When the context is too short for any prompt, or the model's scores are no numbers.
    """
    prompt = FimPrompt([], False)
    if limits.max_tokens > 0:
        n_answer = min(limits.max_tokens, max(1, int(max_len * ANSWER_SHARE)))
        prompt = fim_prompt(tokenizer, text, max_len - n_answer, order)
    result = go_on(tokenizer, decode, prompt.ids, place, limits, max_line_s=max_line_s, listener=listener)
    result.is_truncated = prompt.is_truncated
    return result


def go_on(
    tokenizer: Tokenizer,
    decode: Decode,
    prompt: list[int],
    place: Place,
    limits: Limits,
    *,
    max_line_s: float | None = None,
    listener: Listener = Listener(),
) -> Infilling:
    """Generate what follows a prompt; see `infill`."""
    result = Infilling()
    tokens = decode(prompt, limits, result.progress) if limits.max_tokens > 0 else iter(())
    stream = TextStream(tokenizer)
    if listener.on_token is not None:
        tokens = _told(tokens, stream, result.progress, listener.on_token)
    for shown in _shown(tokens, stream, place, result, max_line_s):
        if listener.on_text and len(shown.text) > len(result.text):
            listener.on_text(shown.text[len(result.text) :])
        result.text, result.stopping_word = shown.text, shown.stopping_word
    return result


def _told(
    tokens: Iterator[int], stream: TextStream, progress: Progress, on_token: Callable[[int, int, Any], None]
) -> Iterator[int]:
    """Yield the tokens, and tell of each before it becomes text."""
    for token in tokens:
        on_token(token, len(stream.text), progress.scores)
        yield token


def _shown(
    tokens: Iterator[int], stream: TextStream, place: Place, result: Infilling, max_line_s: float | None
) -> Iterator[Shown]:
    """Yield what may be shown after each token, and at the end; note in the result why it ends."""
    line_deadline = None
    for token in tokens:
        if line_deadline is None and max_line_s is not None:
            line_deadline = time.monotonic() + max_line_s
        stream.push(token)
        shown = shown_text(stream.text, place)
        yield shown
        if shown.is_over or stream.is_broken:
            result.stop = "stop_string" if shown.stopping_word else "rule"
            break
        if line_deadline is not None and "\n" in stream.text and time.monotonic() >= line_deadline:
            result.stop = "slow"
            break
    else:
        result.stop = result.progress.stop or "end_of_text"
    yield shown_text(stream.text, place, "complete" if result.stop == "end_of_text" else "cut")
