"""Asking an engine the problems of an evaluation, as the product would ask."""

import re
from dataclasses import asdict, dataclass
from typing import Protocol

from techtree.engines.engine import ChatRequest, InfillRequest, InfillResult, Message
from techtree.lm.eval.infilling import Answer
from techtree.lm.eval.problems import Exercise, Hole

LINE_TOKENS, SPAN_TOKENS, FUNCTION_TOKENS = 64, 256, 512
TIMEOUT_S = 600.0

FUNCTION_ENDS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\nassert ", "\n@", "\n```")
"""Where a text is cut that goes on behind its function: the strings of Chen et al. 2021, and some more."""

QUESTION = (
    "Complete this Python function. Answer with the whole function, in one block of code.\n\n"
    "```python\n{}\n```"
)

_BLOCK = re.compile(r"```[a-zA-Z]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


class Examinee(Protocol):
    """What an evaluation asks: an `Engine`, or something that can do as much of what one can."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    @property
    def can_fill_in(self) -> bool:
        """See `Engine.can_fill_in`."""
        ...

    @property
    def can_chat(self) -> bool:
        """See `Engine.can_chat`."""
        ...

    def infill(self, request: InfillRequest) -> InfillResult:
        """Answer a question; see `Engine.infill`."""
        ...

    def chat(self, request: ChatRequest) -> InfillResult:
        """Say what comes next in a chat; see `Engine.chat`."""
        ...


@dataclass(frozen=True)
class Drawing:
    """How an answer is drawn."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


def fill(engine: Examinee, hole: Hole) -> Answer:
    """Ask what stands in a hole, greedily; the rules for what an editor shows hold."""
    n_tokens = LINE_TOKENS if hole.is_line else SPAN_TOKENS
    request = InfillRequest(hole.prefix, hole.suffix, max_tokens=n_tokens, timeout_s=TIMEOUT_S)
    result = engine.infill(request)
    return Answer(result.text, result.stop not in ("max_tokens", "context"))


def write(engine: Examinee, exercise: Exercise, drawing: Drawing, *, chats: bool) -> str:
    """Have a function written, and return the program with it, without its tests.

    Parameters
    ----------
    engine
        Who is asked.
    exercise
        What to write.
    drawing
        How.
    chats
        Whether to ask in a chat, or to go on with the text.
    """
    shared = asdict(drawing)
    if chats:
        messages = (Message("user", QUESTION.format(exercise.prompt.rstrip())),)
        said = engine.chat(ChatRequest(messages, FUNCTION_TOKENS, timeout_s=TIMEOUT_S, **shared)).text
        return from_chat(exercise.prompt, said)
    request = InfillRequest(
        exercise.prompt,
        max_tokens=FUNCTION_TOKENS,
        stop=FUNCTION_ENDS,
        is_raw=True,
        timeout_s=TIMEOUT_S,
        **shared,
    )
    return exercise.prompt + engine.infill(request).text + "\n"


def from_chat(prompt: str, said: str) -> str:
    """Return the program in what a chat model said: its first block of code, after what the prompt imports.

    A block without a function is what stands in it.
    """
    block = _BLOCK.search(said)
    code = block[1] if block else said
    if not re.search(r"^def ", code, re.MULTILINE):
        return f"{prompt}{code}\n"
    before = re.split(r"^def ", prompt, maxsplit=1, flags=re.MULTILINE)[0]
    helpers = re.findall(r"^def .*?(?=^def )", prompt, re.DOTALL | re.MULTILINE)  # all but the last function
    return f"{before}{''.join(helpers)}{code}\n"
