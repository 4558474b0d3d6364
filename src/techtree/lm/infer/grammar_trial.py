"""Trying a grammar out in a process of its own, which may hang or crash without harm.

The library that compiles grammars bounds neither its time (twenty patterns in one `allOf` take it hours) nor
its stack (a chain of references is followed by recursion, and a stack that overflows ends the process). What
has compiled here once does so in the server too. This file is that process's program, so it imports little.
"""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

TIMEOUT_S = 10.0
"""A whole process starts in it, on a machine that is busy."""
MAX_CPU_S = 2
MAX_BYTES = 2 * 2**30
"""Of memory. Both bounds are kept where the system can."""
STACK_BYTES = 16 * 2**20
"""Of the thread that compiles; that of the trial has half."""

_result = TypeVar("_result")
_changing_stack_size = threading.Lock()
_trying = threading.Lock()


def parser_limits() -> LLParserLimits:
    """Return how much work and memory a grammar may take."""
    # A grammar that is read character by character passes the library's 50,000 items in every step.
    return LLParserLimits(step_max_items=3_000_000, max_lexer_states=20_000, verbose_errors=False)


def on_deep_stack(work: Callable[[], _result], n_bytes: int = STACK_BYTES) -> _result:
    """Return a function's result, with as much room for recursion on every system."""
    with ThreadPoolExecutor(1) as threads:
        with _changing_stack_size:
            before = threading.stack_size(n_bytes)
            try:
                done = threads.submit(work)
            finally:
                threading.stack_size(before)
        return done.result()


def complaint(grammar: str) -> str:
    """Return what is wrong with a grammar of the library's, or nothing. One is tried at a time."""
    try:
        with _trying:
            tried = subprocess.run(
                [sys.executable, "-P", __file__],
                input=grammar.encode("utf-8"),
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return "it takes too long to compile: make it smaller, or its patterns simpler"
    if tried.returncode:
        return "it takes too much time, memory or depth to compile: make it smaller, or its patterns simpler"
    return tried.stdout.decode("utf-8", "replace")


class _Bytes:
    """A vocabulary of the bytes, and a token that ends a text."""

    eos_token_id, bos_token_id, special_token_ids = 256, None, (256,)
    tokens = (*(bytes([i]) for i in range(256)), b"<end>")

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def _try(grammar: str) -> str:
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=257)
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=parser_limits())
    if not matcher.is_error():
        matcher.compute_bitmask()
    return matcher.get_error()


def main() -> None:
    """Read a grammar, and write what is wrong with it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    grammar = sys.stdin.buffer.read().decode("utf-8")
    sys.stdout.buffer.write(on_deep_stack(lambda: _try(grammar), STACK_BYTES // 2).encode("utf-8"))


if __name__ == "__main__":
    main()
