"""What a GGUF file says of a byte-level BPE tokenizer.

llama.cpp knows a pattern that splits text into words by a name, `tokenizer.ggml.pre`, and has it in its
program: a tokenizer whose pattern has no name there is refused. It gives the same ids as the `tokenizers`
library, with four exceptions:

- It never normalizes. Ours does not either; with a tokenizer whose normalizer is NFC, as Qwen's, text that is
  not in that form gets other ids.
- Its tables of letters and digits are those of Unicode 15.1, the library's those of Unicode 16 (4,382
  characters more, all of rare scripts): they may split words differently.
- The library lets the `s` of `'s`, whatever its case, also be the long s (U+017F), llama.cpp does not.
- Under some names (`gpt-2`, `llama-bpe`, `dbrx`) its function `llama_detokenize` drops spaces before
  punctuation. Token by token, as its programs write text, the bytes are exact.

Each is pinned in tests/lm/test_tokenizer_round_trip.py. In all of them decoding gives the text back.

Like the library, and unlike `Tokenizer.encode`, it also reads the added tokens that are not special from any
text. Those are for chats (`<tool_call>`); names such as `<|fim_prefix|>` are special here in any case.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from techtree.errors import InputError
from techtree.lm.formats.gguf_file import Value
from techtree.lm.tokenizer import (
    FILE_SEP,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    LLAMA3_PATTERN,
    QWEN2_PATTERN,
    SPECIAL_TOKENS,
    Tokenizer,
)

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
"""llama.cpp parses a control token from text, and shows its name, only on request; a user-defined one always;
an unused one never."""

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Also what the library's own ByteLevel splits by."""

_DIGITS = "digits"
_NAMES = {
    ((QWEN2_PATTERN,), False): "qwen2",
    ((GPT2_PATTERN,), False): "gpt-2",
    ((_DIGITS, GPT2_PATTERN), False): "smollm",  # StarCoder's as well
    ((LLAMA3_PATTERN,), True): "llama-bpe",
    ((LLAMA3_PATTERN,), False): "dbrx",
}
"""By the steps that split a text, and whether a word that is a token is taken whole, without its merges."""

_LOOKS_SPECIAL = re.compile(r"<\|.*\|>", re.DOTALL)
"""Qwen2.5-Coder does not mark its tokens for filling in as special, yet no text may say them."""

_END_OF_TURN = ("<|im_end|>", "<|eot_id|>")
"""How chat models of the Qwen and the Llama families end what they say."""


def vocabulary_metadata(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Value]:
    """Return the metadata of a tokenizer.

    Parameters
    ----------
    tokenizer
        The tokenizer.
    vocab_size
        How many ids the model has; those that the tokenizer does not use get the names `[PAD{id}]`.

    Raises
    ------
    InputError
        When llama.cpp cannot split and merge as the tokenizer does, or the model has too few ids.
    """
    spec = json.loads(tokenizer.to_json())
    tokens, types = _tokens(spec, tokenizer.vocab_size, vocab_size)
    end_of_text = tokenizer.end_of_text_id
    first = _first_token(spec)
    ids = {token: i for i, token in enumerate(tokens)}
    metadata: dict[str, Value] = {
        "model": "gpt2",  # byte-level BPE
        "pre": _pre_tokenizer(spec),
        "tokens": tokens,
        "token_type": types,
        "merges": [" ".join(pair) for pair in spec["model"]["merges"]],
        "bos_token_id": end_of_text if first is None else first,
        "eos_token_id": end_of_text,
        "eot_token_id": _end_of_turn(tokenizer, ids),
        "padding_token_id": end_of_text,
        "add_bos_token": first is not None,
        **_fill_in_the_middle_ids(tokenizer),
    }
    result = {f"tokenizer.ggml.{name}": value for name, value in metadata.items()}
    if tokenizer.chat_template is not None:
        result["tokenizer.chat_template"] = tokenizer.chat_template
    return result


def _tokens(spec: dict[str, Any], n_used: int, vocab_size: int) -> tuple[list[str], list[int]]:
    """Return every id's spelling and type; as in `tokenizer.json`, added tokens are spelled as they are."""
    if n_used > vocab_size:
        raise InputError(
            f"the tokenizer must have no more ids than the model; got {n_used} and {vocab_size}: "
            "they do not belong together"
        )
    tokens, types = [f"[PAD{i}]" for i in range(vocab_size)], [_UNUSED] * vocab_size
    for token, i in spec["model"]["vocab"].items():
        tokens[i], types[i] = token, _NORMAL
    for added in spec["added_tokens"]:
        name = added["content"]
        is_special = added["special"] or name in SPECIAL_TOKENS or _LOOKS_SPECIAL.fullmatch(name)
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise InputError(
                f"special tokens must stand for their name alone, as llama.cpp has it; {name!r} takes in the "
                "spaces around it, or only whole words: use another tokenizer"
            )
        tokens[added["id"]] = name
        types[added["id"]] = _CONTROL if is_special else _USER_DEFINED
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise InputError(f"every token must have a name of its own; {twice!r} comes twice: use another")
    return tokens, types


def _pre_tokenizer(spec: dict[str, Any]) -> str:
    """Return llama.cpp's name for the way from a text to the words in which bytes are merged."""
    model = spec["model"]
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model[key]:
            raise InputError(f"{key} must be absent, as llama.cpp has no such thing; got {model[key]!r}")
    normalizer = spec["normalizer"] or {"type": "NFC"}
    if normalizer["type"] != "NFC":
        raise InputError(
            f"the tokenizer must leave text as it is, as llama.cpp does; got {json.dumps(normalizer)[:200]}: "
            "use another tokenizer"
        )
    steps = tuple(_splits(spec["pre_tokenizer"]))
    try:
        return _NAMES[steps, model["ignore_merges"]]
    except KeyError:
        raise InputError(
            f"the tokenizer must split text in a way that llama.cpp has a name for; got {steps} with "
            f"ignore_merges={model['ignore_merges']}: use one of {', '.join(_NAMES.values())}"
        ) from None


def _splits(step: dict[str, Any] | None) -> Iterator[str]:
    """Yield the patterns of a pre-tokenizer's steps, or a description of what is none."""
    match step:
        case {"type": "Sequence", "pretokenizers": steps}:
            for one in steps:
                yield from _splits(one)
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            yield pattern
        case {"type": "Digits", "individual_digits": True}:
            yield _DIGITS
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": uses_pattern}:
            if uses_pattern:
                yield GPT2_PATTERN
        case _:
            yield json.dumps(step)


def _first_token(spec: dict[str, Any]) -> int | None:
    """Return the token that the tokenizer puts before every text, if any."""
    processor = spec["post_processor"] or {"type": "ByteLevel"}
    found = None
    for step in processor.get("processors", [processor]):
        match step:
            case {"type": "ByteLevel"} | {"type": "TemplateProcessing", "single": [{"Sequence": _}]}:
                continue
            case {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": name}}, {"Sequence": _}],
            } if len(step["special_tokens"][name]["ids"]) == 1:
                (found,) = step["special_tokens"][name]["ids"]
            case _:
                raise InputError(
                    "the tokenizer must add at most one token, before the text; "
                    f"got {json.dumps(step)[:200]}: use another tokenizer"
                )
    return found


def _end_of_turn(tokenizer: Tokenizer, ids: Mapping[str, int]) -> int:
    """Return the id that ends what a model says in a chat: the one that its files name, else a known one."""
    named = [i for i in tokenizer.end_ids if i != tokenizer.end_of_text_id]
    return next(
        iter([*named, *(ids[name] for name in _END_OF_TURN if name in ids)]), tokenizer.end_of_text_id
    )


def _fill_in_the_middle_ids(tokenizer: Tokenizer) -> dict[str, Value]:
    names = {"pre": FIM_PREFIX, "suf": FIM_SUFFIX, "mid": FIM_MIDDLE, "sep": FILE_SEP}
    ids: dict[str, Value] = {}
    for theirs, ours in names.items():
        try:
            ids[f"fim_{theirs}_token_id"] = tokenizer.special_id(ours)
        except InputError:  # a tokenizer of others need not have it
            continue
    return ids
