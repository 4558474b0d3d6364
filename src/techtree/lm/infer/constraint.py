"""Which tokens may come next, so that a text keeps to a JSON schema or a grammar.

    schema or grammar  ->  tried out (`grammar_trial`)  ->  automaton  ->  for each token a mask and a step

Shapes: ``V`` vocabulary.

The automaton over bytes, and the set of tokens whose bytes it accepts, are llguidance's
(https://github.com/guidance-ai/llguidance). A token that ends a text is allowed exactly where the text may
end. Nothing is chosen here: where the likeliest token of all is allowed, it is the likeliest that is allowed.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from techtree.errors import InputError
from techtree.lm.infer.gbnf import lark_from_gbnf
from techtree.lm.infer.grammar_trial import complaint, on_deep_stack, parser_limits
from techtree.lm.tokenizer import Tokenizer

Kind = Literal["json_schema", "gbnf"]

MAX_BYTES = 64_000
"""Of a schema or a grammar."""
MAX_DEPTH = 100
"""Of a schema's objects and arrays; each keyword that holds schemas takes two or so."""
MAX_REFERENCES = 300
"""Of a schema to its definitions, each counted once."""
MAX_COMPILED = 8
"""Grammars that are kept for the next request; each may take some 20 MB."""

_OPTIONS = '%llguidance {"no_forcing": true}'
"""Where the next bytes are certain, the library would allow but one of the tokens that have them."""
_JSON_OPTIONS = {"whitespace_pattern": r"[ \t\r\n]{1,64}"}
"""Between the parts of a JSON text. A small model, once it has begun, writes blanks until the limit."""


class Constraint:
    """The automaton of one text.

    Parameters
    ----------
    matcher
        The library's, at the start of the text.
    vocab_size
        Of the tokenizer.
    stop_ids
        The tokens that end a text.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int, stop_ids: Sequence[int]):
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._stop_ids = stop_ids

    def allowed(self, n_tokens: int) -> Bool[np.ndarray, " V"]:
        """Return for each token whether it may come next.

        Parameters
        ----------
        n_tokens
            How many the model knows, which may be more than the tokenizer has.

        Raises
        ------
        InputError
            When none may, or the library gives up.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise self._error()
        n_known = min(n_tokens, self._vocab_size)
        allowed = np.zeros(n_tokens, dtype=bool)
        allowed[:n_known] = np.unpackbits(bits, count=n_known, bitorder="little")
        allowed[[i for i in self._stop_ids if i < n_tokens]] = self._matcher.is_accepting()
        if not allowed.any():
            raise InputError(
                "the grammar must allow a token of the model's vocabulary after each that it allows; "
                "here it allows none: change the grammar"
            )
        return allowed

    def masked(self, scores: Float[np.ndarray, " V"]) -> Float[np.ndarray, " V"]:
        """Return a model's scores, with -inf for the tokens that may not come next; see `allowed`."""
        return np.where(self.allowed(scores.size), scores, scores.dtype.type(-np.inf))

    def ends_after(self, token: int) -> bool:
        """Go on by a token that is allowed and ends nothing, and return whether nothing can follow it.

        Raises
        ------
        InputError
            When the library gives up.
        """
        if not self._matcher.consume_token(token):
            raise self._error()
        return self._matcher.is_stopped()

    def accepted(self, tokens: Sequence[int]) -> list[int]:
        """Return the first of some guessed tokens, up to one that may not come there."""
        return list(tokens[: self._matcher.validate_tokens(list(tokens))])

    def _error(self) -> InputError:
        why = _brief(self._matcher.get_error())
        return InputError(f"the grammar must be such that each token can be decided; {why}")


class Grammars:
    """Makes constraints for one tokenizer; the last few that were compiled are kept. Threads may share it.

    Parameters
    ----------
    tokenizer
        The model's.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._compiled: OrderedDict[tuple[Kind, str], LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def constraint(self, kind: Kind, text: str) -> Constraint:
        """Return a constraint at the start of its text.

        Parameters
        ----------
        kind
            What the text is: a JSON schema, or a grammar of llama.cpp's.
        text
            The schema or grammar.

        Raises
        ------
        InputError
            When it is malformed, too large, takes too long, or asks for what the library cannot do.
        """
        with self._lock:
            matcher = self._compiled.get((kind, text))
        if matcher is None:
            # Not under the lock: others need not wait.
            matcher = self._compile(kind, text)
        with self._lock:
            self._compiled[kind, text] = matcher
            self._compiled.move_to_end((kind, text))
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
            copy = matcher.deep_copy()
        return Constraint(copy, self._tokenizer.vocab_size, sorted(self._tokenizer.stop_ids))

    def _compile(self, kind: Kind, text: str) -> LLMatcher:
        what = "a JSON schema" if kind == "json_schema" else "a grammar"
        n_bytes = len(text.encode("utf-8", "surrogatepass"))
        if n_bytes > MAX_BYTES:
            raise InputError(f"{what} must have {MAX_BYTES} bytes or fewer; got {n_bytes}: make it smaller")
        lark = _from_schema(text) if kind == "json_schema" else lark_from_gbnf(text)
        grammar = LLMatcher.grammar_from_lark(f"{_OPTIONS}\n{lark}")
        if error := complaint(grammar):
            raise InputError(f"{what} must be one that can be kept to; {_brief(error)}")
        matcher = on_deep_stack(
            lambda: LLMatcher(self._vocabulary, grammar, log_level=0, limits=parser_limits())
        )
        if matcher.is_error():
            raise InputError(f"{what} must be one that can be kept to; {_brief(matcher.get_error())}")
        return matcher

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        """The tokens as the library has them: those that are no text have no bytes, and one more ends all.

        To make it takes a second with 150,000 tokens, in half of which no other thread of Python's runs.
        """
        return LLTokenizer(TokenizerWrapper(_Tokens(self._tokenizer)), n_vocab=self._tokenizer.vocab_size + 1)


class _Tokens:
    """A tokenizer as the library asks for it."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.vocab_size
        self.special_token_ids = [self.eos_token_id]
        is_text = [
            tokenizer.has_bytes(i) and i not in tokenizer.stop_ids for i in range(tokenizer.vocab_size)
        ]
        self.tokens = [tokenizer.decode_bytes([i]) if is_one else b"" for i, is_one in enumerate(is_text)]
        self.tokens.append(b"<end>")

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8") if isinstance(text, bytes) else text)


def _from_schema(text: str) -> str:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"a JSON schema must be JSON; {error}") from error
    if not isinstance(schema, dict | bool):
        raise InputError(f"a JSON schema must be an object, or true; got {text[:40]}")
    if schema is False:
        raise InputError("a JSON schema must be one that something satisfies; got false")
    _require_flat(schema)
    schema = {} if schema is True else schema
    return f"start: %json {json.dumps(schema | {'x-guidance': _JSON_OPTIONS})}"


def _require_flat(schema: object) -> None:
    """Refuse a schema that is nested too deeply, by its own form or by its references."""
    level, depth, references = [schema], 0, set()
    while level := [part for part in level if isinstance(part, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise InputError(f"a JSON schema must be {MAX_DEPTH} deep or less: move parts into $defs")
        references |= {repr(part["$ref"]) for part in level if isinstance(part, dict) and "$ref" in part}
        level = [child for part in level for child in (part.values() if isinstance(part, dict) else part)]
    if len(references) > MAX_REFERENCES:
        raise InputError(
            f"a JSON schema must refer to {MAX_REFERENCES} definitions or fewer; got {len(references)}: "
            "write some in place"
        )


def _brief(error: str) -> str:
    """Return the library's words in one line."""
    if "coerce_one_of" in error:
        return "the alternatives of its oneOf may overlap: use anyOf"
    return " ".join(error.removesuffix("<non-verbose/>").split())[:300]
