"""What a `tokenizer.json` may say, checked before the `tokenizers` library sees it.

The library trusts its file. Tokens that share an id, a padding to a length of 10^9 or a step that doubles the
text end in a panic, in no memory, or in ids of another text. So what encoding a file's text does not need is
taken out (truncation and padding; what is put around a text is kept for other programs alone), and what would
change the text, drop parts of it or split it by chance is refused. What is left is byte-level BPE, whose ids
decode to the text that was given.
"""

import re
import reprlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from techtree.errors import InputError

MAX_IDS = 1 << 24
"""The largest vocabularies have a quarter of a million."""
_MAX_PATTERN_CHARS = 10_000
_MAX_STEPS = 32

_BYTE_LEVEL_FLAGS = ("add_prefix_space", "trim_offsets", "use_regex")
_OTHERS = "use another tokenizer"
_KEEPING = ("Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
"""What may become of the places where a text is split; the one left out drops them."""


_PLAIN_TEXT = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))
"""ASCII but for control characters, some of which SmolLM2 has no token for."""


def checked_spec(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of a `tokenizer.json`, complete, and without what is not used here.

    Raises
    ------
    InputError
        When they are no byte-level BPE, contradict each other, or ids would not decode to the text.
    """
    model, decoder = _object(values, "model"), values.get("decoder")
    _require_byte_level(model, decoder)
    model = _model(model)
    added = _added_tokens(values.get("added_tokens"), model["vocab"])
    ids = {*model["vocab"].values(), *(token["id"] for token in added)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": _normalizer(values.get("normalizer")),
        "pre_tokenizer": _pre_tokenizer(values.get("pre_tokenizer")),
        "post_processor": _post_processor(values.get("post_processor"), ids),
        "decoder": _decoder(decoder),
        "model": model,
    }


def characters_of_bytes() -> str:
    """Return the printable character that stands for each byte in `tokenizer.json`.

    Printable bytes stand for themselves; the others, in order, for U+0100 and on.
    """
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = iter(range(256, 512))
    return "".join(chr(byte) if byte in printable else chr(next(others)) for byte in range(256))


def bytes_without_token(spec: Mapping[str, Any]) -> bytes:
    """Return the bytes of UTF-8 for which a tokenizer has no token of their own, as SmolLM2's for eight.

    The library drops them from a text.
    """
    return _without_token(spec["model"]["vocab"])


def _require_byte_level(model: Mapping[str, Any], decoder: Any) -> None:
    steps = decoder.get("decoders", [decoder]) if isinstance(decoder, dict) else []
    kinds = [step.get("type") for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    kind = model.get("type", "BPE" if {"vocab", "merges"} <= model.keys() else None)  # old files leave it out
    if kind != "BPE" or "ByteLevel" not in kinds:
        found = f"{_shown(kind)} with decoder {'+'.join(map(_shown, kinds)) or 'none'}"
        raise InputError(
            f"the tokenizer must be byte-level BPE; got {found}: choose a model with such a tokenizer"
        )


# The model -----------------------------------------------------------------------------------------------


def _model(values: dict[str, Any]) -> dict[str, Any]:
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if values.get(key):
            raise InputError(
                f"{key} must be absent, as the same text must always get ids that decode to it; got "
                f"{reprlib.repr(values[key])}: {_OTHERS}"
            )
    vocab, unknown = _vocab(_object(values, "vocab")), values.get("unk_token")
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown if isinstance(unknown, str) and unknown in vocab else None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        **{key: _flag(values, key) for key in ("fuse_unk", "byte_fallback", "ignore_merges")},
        "vocab": vocab,
        "merges": _merges(values.get("merges"), vocab),
    }


def _vocab(vocab: dict[str, Any]) -> dict[str, int]:
    for token, i in vocab.items():
        _check_id(token, i)
    if len(set(vocab.values())) < len(vocab):
        twice, _ = Counter(vocab.values()).most_common(1)[0]
        names = [token for token, i in vocab.items() if i == twice]
        raise InputError(
            f"every token must have an id of its own; {reprlib.repr(names[0])} and {reprlib.repr(names[1])} "
            f"both have {twice}: copy the file again"
        )
    missing = _without_token(vocab)
    if needed := _PLAIN_TEXT.intersection(missing):
        raise InputError(
            "the vocabulary must have a token for every byte of plain text; it has none for "
            f"{min(needed):#04x} ({len(missing)} in all), and would drop it from a text: {_OTHERS}"
        )
    return vocab


def _without_token(vocab: Mapping[str, int]) -> bytes:
    characters = characters_of_bytes()
    # No UTF-8 has the other 13.
    return bytes(byte for byte in (*range(0xC0), *range(0xC2, 0xF5)) if characters[byte] not in vocab)


def _merges(merges: Any, vocab: Mapping[str, int]) -> list[list[str]]:
    if not isinstance(merges, list):
        raise InputError(f"merges must be a list of pairs; got {reprlib.repr(merges)}")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise InputError(f"a merge must be a pair of tokens; got {reprlib.repr(pair)}")
        if not (pair[0] in vocab and pair[1] in vocab and pair[0] + pair[1] in vocab):
            raise InputError(
                f"a merge must be of two tokens, and give a third; {reprlib.repr(pair)} does not: copy the "
                "file again"
            )
    return pairs


# Added tokens --------------------------------------------------------------------------------------------


def _added_tokens(added: Any, vocab: Mapping[str, int]) -> list[dict[str, Any]]:
    if added is None:
        return []
    if not isinstance(added, list) or not all(isinstance(one, dict) for one in added):
        raise InputError(f"added_tokens must be a list of objects; got {reprlib.repr(added)}")
    tokens = [_added_token(one) for one in added]
    owners = {i: token for token, i in vocab.items()}
    names: dict[str, int] = {}
    for token in tokens:
        name, i = token["content"], token["id"]
        owner = owners.setdefault(i, name)
        if owner != name or name in names or vocab.get(name, i) != i:
            raise InputError(
                f"every token must have one id of its own; {reprlib.repr(name)} has {i}, which is that of "
                f"{reprlib.repr(owner)}, or has two: copy the file again"
            )
        names[name] = i
    return tokens


def _added_token(values: dict[str, Any]) -> dict[str, Any]:
    name = values.get("content")
    if not isinstance(name, str) or not name or not _is_unicode(name):
        raise InputError(f"an added token must have a name in content; got {reprlib.repr(name)}")
    _check_id(name, values.get("id"))
    flags = {key: _flag(values, key) for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    return {"id": values["id"], "content": name, **flags}


def _check_id(token: str, i: Any) -> None:
    if type(i) is not int or not 0 <= i < MAX_IDS:
        raise InputError(
            f"a token's id must be a whole number from 0 to {MAX_IDS - 1:,}; {reprlib.repr(token)} has "
            f"{reprlib.repr(i)}: copy the file again"
        )


# The steps from a text to words --------------------------------------------------------------------------


def _normalizer(values: Any) -> dict[str, Any] | None:
    steps = _steps(values, "normalizers")
    for step in steps:
        if step.get("type") != "NFC":
            raise InputError(
                "the tokenizer must leave text as it is, or compose its characters (NFC); its normalizer "
                f"{_shown(step.get('type'))} would change it: {_OTHERS}"
            )
    return {"type": "NFC"} if steps else None


def _pre_tokenizer(values: Any) -> dict[str, Any]:
    steps = [_checked_step(step) for step in _steps(values, "pretokenizers")]
    n_byte_level = sum(step["type"] == "ByteLevel" for step in steps)
    if n_byte_level != 1:
        raise InputError(f"the pre_tokenizer must have one ByteLevel step; it has {n_byte_level}: {_OTHERS}")
    is_sequence = values["type"] == "Sequence"
    return {"type": "Sequence", "pretokenizers": steps} if is_sequence else steps[0]


def _checked_step(step: dict[str, Any]) -> dict[str, Any]:
    match step:
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": behavior} | {
            "type": "Split",
            "pattern": {"String": str(pattern)},
            "behavior": behavior,
        } if behavior in _KEEPING and len(pattern) <= _MAX_PATTERN_CHARS and len(step["pattern"]) == 1:
            if "Regex" in step["pattern"] and may_take_ages(pattern):
                raise InputError(
                    "a pattern that splits text must not repeat what repeats in itself, or is a choice: some "
                    f"texts would take ages; got {reprlib.repr(pattern)}: {_OTHERS}"
                )
            kept = {"pattern": step["pattern"], "behavior": behavior, "invert": _flag(step, "invert")}
        case {"type": "Digits"}:
            kept = {"individual_digits": _flag(step, "individual_digits")}
        case {"type": "Punctuation"} if step.get("behavior", "Isolated") in _KEEPING:
            kept = {"behavior": step.get("behavior", "Isolated")}
        case {"type": "ByteLevel", "add_prefix_space": False}:
            kept = {
                "add_prefix_space": False,
                "trim_offsets": _flag(step, "trim_offsets", default=True),
                "use_regex": _flag(step, "use_regex", default=True),
            }
        case _:
            raise InputError(
                "the pre_tokenizer must split a text and leave all of it as it is; its step "
                f"{reprlib.repr(step)} may not: {_OTHERS}"
            )
    return {"type": step["type"], **kept}


_PATTERN_PARTS = re.compile(
    r"\\[pP]\{[^}]*\}|\\.|\[(?:\\.|\[[^\]]*\]|[^\]\\])*\]|[()|]|[*+?]|\{(?P<least>\d*)(?P<to>,?)(?P<most>\d*)\}",
    re.DOTALL,
)
"""What matters in a pattern: groups, choices, and how often they come. Characters and classes do not."""


def may_take_ages(pattern: str) -> bool:
    r"""Whether a group that may come any number of times can itself match in more than one length or way.

    >>> may_take_ages(r"(a+)+b"), may_take_ages(r"(?:\d{3})+|a+b*(?:c|d)?")
    (True, False)

    Notes
    -----
    A search that fails then tries all ways to divide the text among the repetitions, two to the power of its
    length. (What follows each other, as in `a*a*a*b`, costs a power of the length alone; after ten million
    tries the library gives up.)
    """
    parts = list(_PATTERN_PARTS.finditer(pattern))
    varies = [False]  # of each group that is open, whether it can match otherwise
    for i, part in enumerate(parts):
        match part[0][0]:
            case "(":
                varies.append(False)
            case ")" if len(varies) > 1:
                inner = varies.pop()
                after = parts[i + 1] if i + 1 < len(parts) and parts[i + 1].start() == part.end() else None
                is_endless = after is not None and (
                    after[0] in ("*", "+") or (after["to"] == "," and not after["most"])
                )
                if inner and is_endless:
                    return True
                varies[-1] |= inner
            case "|" | "*" | "+":
                varies[-1] = True
            case "?" if not pattern[: part.start()].endswith("("):  # `(?:` begins a group
                varies[-1] = True
            case "{" if part["to"] or part[0] == "{}":
                varies[-1] = True
    return False


def _decoder(values: Any) -> dict[str, Any]:
    for step in _steps(values, "decoders"):
        kind = step.get("type")
        if kind not in ("ByteLevel", "Fuse"):
            raise InputError(f"the decoder must be ByteLevel alone; got {_shown(kind)}: {_OTHERS}")
    return {"type": "ByteLevel", **{key: _flag(values, key, default=True) for key in _BYTE_LEVEL_FLAGS}}


def _steps(values: Any, key: str) -> list[dict[str, Any]]:
    """Return the steps of what may be one step, several in a sequence, or none."""
    found: list[dict[str, Any]] = []
    left = [] if values is None else [values]
    while left:
        step = left.pop()
        if isinstance(step, dict) and step.get("type") == "Sequence":
            inner = step.get(key)
            if not isinstance(inner, list):
                raise InputError(f"a sequence must have a list of {key}; got {reprlib.repr(inner)}")
            left += reversed(inner)
        elif isinstance(step, dict):
            found.append(step)
        else:
            raise InputError(f"the {key} must be objects; got {reprlib.repr(step)}")
        if len(found) + len(left) > _MAX_STEPS:
            raise InputError(f"there must be at most {_MAX_STEPS} {key}; there are more: {_OTHERS}")
    return found


# What is put around a text -------------------------------------------------------------------------------


def _post_processor(values: Any, ids: Collection[int]) -> dict[str, Any] | None:
    """Return it as it is: nothing here uses it, and other programs shall find it sound."""
    for step in _steps(values, "processors"):
        if not _is_sound(step, ids):
            raise InputError(
                f"the post_processor must put known tokens around a text; got {reprlib.repr(step)}: copy the "
                "file again"
            )
    return values


def _is_sound(step: dict[str, Any], ids: Collection[int]) -> bool:
    match step:
        case {"type": "ByteLevel"}:
            return all(isinstance(step.get(key, True), bool) for key in _BYTE_LEVEL_FLAGS)
        case {"type": "RobertaProcessing" | "BertProcessing", "sep": [str(), sep], "cls": [str(), cls]}:
            return {type(sep), type(cls)} == {int} and sep in ids and cls in ids
        case {"type": "TemplateProcessing", "single": list(one), "pair": list(two), "special_tokens": names}:
            return isinstance(names, dict) and _are_pieces((*one, *two), names, ids)
    return False


def _are_pieces(pieces: Iterable[Any], names: Mapping[str, Any], ids: Collection[int]) -> bool:
    for one in names.values():
        match one:
            case {"ids": [int(), *_] as given, "tokens": [str(), *_] as tokens}:
                if not all(type(i) is int and i in ids for i in given) or len(given) != len(tokens):
                    return False
            case _:
                return False
    for piece in pieces:
        match piece:
            case {"Sequence": {"id": "A" | "B"}}:
                continue
            case {"SpecialToken": {"id": str(name)}} if name in names:
                continue
        return False
    return True


# Values --------------------------------------------------------------------------------------------------


def _object(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    if not isinstance(found, dict):
        raise InputError(f"a tokenizer must have an object {key!r}; got {reprlib.repr(found)}")
    return found


def _flag(values: Mapping[str, Any], key: str, default: bool = False) -> bool:
    given = values.get(key, default)
    if not isinstance(given, bool):
        raise InputError(f"{key} must be true or false; got {reprlib.repr(given)}")
    return given


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(kind: Any) -> str:
    return kind if isinstance(kind, str) and len(kind) < 40 and kind.isprintable() else reprlib.repr(kind)
