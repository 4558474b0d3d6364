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

from techtree.errors import InputError, did_you_mean
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
from techtree.lm.tokenizer_settings import TokenizerSettings

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5
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

_READ_NAMES = {
    "qwen2": (_QWEN := (QWEN2_PATTERN,), False),
    "deepseek-r1-qwen": (_QWEN, False),
    "stablelm2": (_QWEN, False),
    "gpt-2": (_GPT2 := (GPT2_PATTERN,), False),
    "mpt": (_GPT2, False),
    "olmo": (_GPT2, False),
    "phi-2": (_GPT2, False),
    "smollm": (_STARCODER := (_DIGITS, GPT2_PATTERN), False),
    "starcoder": (_STARCODER, False),
    "refact": (_STARCODER, False),
    "command-r": (_STARCODER, False),
    "codeshell": (_STARCODER, False),
    "llama-bpe": (_LLAMA3 := (LLAMA3_PATTERN,), True),
    "llama3": (_LLAMA3, True),
    "llama-v3": (_LLAMA3, True),
    "falcon3": (_LLAMA3, True),
    "dbrx": (_LLAMA3, False),
    "smaug-bpe": (_LLAMA3, False),
}
"""The names whose ways of splitting are known here (`llama-vocab.cpp`), several for some."""

_COMPOSING = ("qwen2", "deepseek-r1-qwen")
"""Whose own tokenizers compose a text first (NFC); llama.cpp leaves that out."""

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


# Reading ------------------------------------------------------------------------------------------------


def tokenizer_of(metadata: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer that a file's metadata describe.

    Raises
    ------
    InputError
        When it is no byte-level BPE, splits in a way that is not known here, or is damaged.
    """
    ask = {
        name.removeprefix("tokenizer.ggml."): value
        for name, value in metadata.items()
        if name.startswith("tokenizer.ggml.")
    }
    kind = ask.get("model")
    if kind != "gpt2":
        raise InputError(
            f"tokenizer.ggml.model must be gpt2, which is byte-level BPE; got {kind!r}: use another model"
        )
    name = ask.get("pre")
    if name not in _READ_NAMES:
        raise InputError(
            f"tokenizer.ggml.pre must be one of {', '.join(_READ_NAMES)}; got {name!r}"
            f"{did_you_mean(str(name), _READ_NAMES)}: use another model"
        )
    if ask.get("add_space_prefix"):
        raise InputError("tokenizer.ggml.add_space_prefix must be false, or text would not come back")
    steps, ignores_merges = _READ_NAMES[name]
    vocab, added = _read_tokens(ask.get("tokens"), ask.get("token_type"))
    merges = ask.get("merges")
    if not _are_texts(merges):
        raise InputError("tokenizer.ggml.merges must be a list of texts, each two tokens and a blank between")
    names = {i: token for token, i in vocab.items()} | {one["id"]: one["content"] for one in added}
    first = ask.get("bos_token_id") if ask.get("add_bos_token", ignores_merges) else None
    if first is not None and first not in names:
        raise InputError(f"tokenizer.ggml.bos_token_id must be the id of a token; got {first!r}")
    spec = {
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if name in _COMPOSING else None,
        "pre_tokenizer": _splitting(steps),
        "post_processor": _BYTE_LEVEL if first is None else _beginning_with(names[first], first),
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": [merge.split(" ") for merge in merges or ()],
            "ignore_merges": ignores_merges,
        },
    }
    ends = [ask.get(f"{end}_token_id") for end in ("eot", "eos")]
    template = metadata.get("tokenizer.chat_template")
    start = ask.get("bos_token_id")
    settings = TokenizerSettings(
        chat_template=template if isinstance(template, str) else None,
        start_token=names.get(start) if isinstance(start, int) else None,
        end_ids=tuple(dict.fromkeys(end for end in ends if isinstance(end, int) and end in names)),
    )
    return Tokenizer(spec, settings)


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def _read_tokens(tokens: Any, types: Any) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Return the ids of what merges make, and the added tokens."""
    if not _are_texts(tokens) or not isinstance(types, list) or len(types) != len(tokens):
        raise InputError("tokenizer.ggml.tokens must be texts, and tokenizer.ggml.token_type as many numbers")
    vocab: dict[str, int] = {}
    added = []
    for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind in (_CONTROL, _UNKNOWN, _USER_DEFINED):
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            added.append({"id": i, "content": token, **flags, "special": kind != _USER_DEFINED})
        elif kind != _UNUSED and vocab.setdefault(token, i) != i:
            raise InputError(f"tokenizer.ggml.tokens must differ; {token!r} comes twice")
    # The library numbers added tokens from the end of the vocabulary on, unless they are in it, too.
    n = max(vocab.values(), default=0)
    return vocab | {one["content"]: one["id"] for one in added if one["id"] < n}, added


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _splitting(steps: tuple[str, ...]) -> dict[str, Any]:
    """Return the steps from a text to words, as `tokenizer.json` has them."""
    found: list[dict[str, Any]] = []
    for step in steps:
        if step == _DIGITS:
            found.append({"type": "Digits", "individual_digits": True})
        elif step != GPT2_PATTERN:
            split = {"type": "Split", "pattern": {"Regex": step}, "behavior": "Isolated", "invert": False}
            found.append(split)
    found.append(_BYTE_LEVEL | {"use_regex": steps[-1] == GPT2_PATTERN})
    return {"type": "Sequence", "pretokenizers": found}


def _beginning_with(name: str, i: int) -> dict[str, Any]:
    token = {"SpecialToken": {"id": name, "type_id": 0}}
    texts = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": [token, texts[0]],
        "pair": [token, texts[0], token, texts[1]],
        "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]}},
    }
