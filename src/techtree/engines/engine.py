"""What an engine is: it gets the text around a cursor and returns what to insert there.

`serve` and the command line know this module only; they never see a model. An engine may be called from
many threads at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

StopReason = Literal[
    "end_of_text", "stop_string", "rule", "max_tokens", "context", "slow", "deadline", "cancelled"
]
"""Why a text ended: the model said so; a stop string came; it ran into what follows the cursor; one of
the limits (tokens, the model's context, `max_line_ms`, `timeout_s`); somebody cancelled, or a newer
request of the same slot came."""


class EngineBusyError(Exception):
    """So many requests are waiting already that one more makes no sense."""


@dataclass(frozen=True)
class Chunk:
    """Some text from elsewhere in the project, and the file that it is from."""

    filename: str
    text: str


@dataclass(frozen=True)
class Form:
    """What an answer must be, as far as it goes: an answer that a limit cuts is the beginning of one."""

    kind: Literal["json_schema", "gbnf"]
    """What the text is: a JSON schema that the answer must satisfy, or a grammar of llama.cpp's."""
    text: str


@dataclass(frozen=True)
class InfillRequest:
    """The question what stands between a prefix and a suffix."""

    prefix: str
    suffix: str = ""
    extra: tuple[Chunk, ...] = ()
    """Text from other places, the most useful last."""
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    """Strings that end the text."""
    n_indent: int = 0
    """A new line with less indentation ends the text."""
    temperature: float = 0.0
    """0 is greedy: the same question gets the same answer."""
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    max_line_ms: float | None = None
    """Stop so long after the first token, once there is a whole line."""
    timeout_s: float = 30.0
    """Stop so long after the request came to the engine, whatever there is."""
    is_raw: bool = False
    """Whether the text is shown as the model writes it, up to a stop string: without the rules for what an
    editor inserts. A prefix without a suffix is then gone on with as it is, also by a model that can fill in:
    the name of a special token in it means that token, and one that is too long is refused."""
    slot: int | None = None
    """Who asks. A newer question of the same asker makes the older one void; without a slot, each counts."""
    n_top: int = 0
    """How many of the likeliest tokens `on_token` is to be told beside each one."""
    form: Form | None = None
    """What the answer must be; then no rule for what an editor inserts shapes it."""


@dataclass(frozen=True)
class Message:
    """What one side of a chat said."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True)
class ChatRequest:
    """The question what is said next in a chat; the fields are those of `InfillRequest`."""

    messages: tuple[Message, ...]
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    timeout_s: float = 120.0
    slot: int | None = None
    n_top: int = 0
    form: Form | None = None


@dataclass(frozen=True)
class Likelihood:
    """A token, and the logarithm of its probability."""

    data: bytes
    """Its bytes, which may begin or end within a character."""
    logprob: float


@dataclass(frozen=True)
class WrittenToken(Likelihood):
    """A token of a text, where in the text it begins, and what else might have stood there."""

    start: int
    """Of its first character, or of the one within which it begins."""
    top: tuple[Likelihood, ...]
    """The likeliest tokens, the likeliest first."""


@dataclass(frozen=True)
class InfillResult:
    """The answer, and what it took."""

    text: str
    stop: StopReason
    stopping_word: str = ""
    is_truncated: bool = False
    """Whether something of the request did not fit into the model's context."""
    n_prompt: int = 0
    """Tokens of the prompt."""
    n_reused: int = 0
    """Those of them that an earlier request had left in the cache."""
    prompt_ms: float = 0.0
    n_predicted: int = 0
    predicted_ms: float = 0.0


class Engine(Protocol):
    """Something that fills in."""

    @property
    def name(self) -> str:
        """What to call the model."""
        ...

    @property
    def context_length(self) -> int:
        """The number of tokens that the model sees at once."""
        ...

    @property
    def can_fill_in(self) -> bool:
        """Whether the model has learned to see what stands after the cursor."""
        ...

    @property
    def can_chat(self) -> bool:
        """Whether the model has a chat template."""
        ...

    def infill(
        self,
        request: InfillRequest,
        cancelled: Callable[[], bool] = ...,
        on_text: Callable[[str], None] | None = None,
        on_token: Callable[[WrittenToken], None] | None = None,
    ) -> InfillResult:
        """Answer a question; this blocks until the answer is there.

        Parameters
        ----------
        request
            The question.
        cancelled
            Asked often, while waiting and before every token; True ends it with what there is.
        on_text
            Called, on the same thread, with each new piece of text as soon as it is certain.
        on_token
            Called, on the same thread, with each token before its text.

        Raises
        ------
        InputError
            When the request makes no sense, or not for this model.
        EngineBusyError
            When too many requests are waiting.
        """
        ...

    def chat(
        self,
        request: ChatRequest,
        cancelled: Callable[[], bool] = ...,
        on_text: Callable[[str], None] | None = None,
        on_token: Callable[[WrittenToken], None] | None = None,
    ) -> InfillResult:
        """Say what comes next in a chat; else as `infill`. One that the model cannot see whole is refused."""
        ...

    def chat_text(self, messages: tuple[Message, ...]) -> str:
        """Return a chat as the model's template has it.

        Raises
        ------
        InputError
            When the model has no template, or it refuses the chat.
        """
        ...

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Return the ids of a text; on request, the name of a special token in it means that token."""
        ...

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of ids.

        Raises
        ------
        InputError
            When an id is not in the vocabulary.
        """
        ...
