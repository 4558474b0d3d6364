"""When decoding stops, and how far it has come: the same for whatever decodes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

StopReason = Literal["end_of_text", "max_tokens", "context", "deadline", "cancelled"]


def never() -> bool:
    """Return False: nobody cancels."""
    return False


@dataclass(frozen=True)
class Limits:
    """When to stop, if the model does not by itself."""

    max_tokens: int
    """Hand out so many tokens at most."""
    deadline: float = math.inf
    """Stop at this moment of `time.monotonic()`."""
    should_stop: Callable[[], bool] = never
    """Asked before every token, and during the prompt."""

    def reached(self, n_predicted: int) -> StopReason | None:
        """Return why to stop now, or None."""
        if self.should_stop():
            return "cancelled"
        if time.monotonic() >= self.deadline:
            return "deadline"
        return "max_tokens" if n_predicted >= self.max_tokens else None


@dataclass
class Progress:
    """What has happened so far; whoever decodes keeps it up to date."""

    n_prompt: int = 0
    """Tokens of the prompt."""
    n_reused: int = 0
    """Those of them that were in the cache."""
    prompt_s: float = 0.0
    """Time to run the others."""
    n_predicted: int = 0
    """Tokens handed out."""
    predicted_s: float = 0.0
    """Time to decode them."""
    scores: Any = None
    """Those of the model from which the token was chosen that was handed out last."""
    stop: StopReason | None = None
    """Why it ended by itself; None while it runs, or when the consumer ended it."""
