"""The byte-level BPE tokenizer of the product: text to token ids and back, without loss.

The `tokenizers` library trains it and reads and writes `tokenizer.json`. Encoding has a second,
faster path: the split into words by Python's `re`, and a dictionary from word to ids, which the
library fills. On the standard library (12.1 MB, one core) that takes 1.2 s instead of 5.0 s, and
gives the same ids. It serves ASCII text, where Python's character classes equal the pattern's;
other text goes through the library.

The special tokens come first, so that their ids do not depend on the size of the vocabulary.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from techtree.atomic import write_text
from techtree.errors import InputError, did_you_mean
from techtree.lm.interruptible import run_interruptibly
from techtree.lm.tokenizer_settings import TokenizerSettings, read_settings, write_settings
from techtree.lm.tokenizer_spec import bytes_without_token, characters_of_bytes, checked_spec
from techtree.reading import read_object

END_OF_TEXT = "<|endoftext|>"
FIM_PREFIX = "<fim_prefix>"
FIM_MIDDLE = "<fim_middle>"
FIM_SUFFIX = "<fim_suffix>"
FILE_SEP = "<file_sep>"
SPECIAL_TOKENS = (END_OF_TEXT, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX, FILE_SEP)
"""In the order of their ids, from 0."""

MIN_VOCAB_SIZE = len(SPECIAL_TOKENS) + 256

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What a word is, before BPE merges bytes within it. Every digit is a word of its own."""

LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
"""Like Qwen2's, with up to three digits in a word."""

ASCII_WORD = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.ASCII,
)
"""`QWEN2_PATTERN` on ASCII text."""

LINE_START = re.compile(r"(?<=\n)(?=[^\S\r\n]*\S)")
"""Where a line starts that is not blank: before it, a text may be cut (`Tokenizer.splits_at_lines`)."""

TOKENIZER = "tokenizer.json"
MAX_TOKENIZER_BYTES = 100_000_000
"""The longest in use have 35 MB."""

MAX_TRAINED_CHARS = 1000
"""Of a word to learn from: the library's time grows with the square of its length, and a line of a genome is
one word."""

_ANY = r"\x1c-\x1f\x80-\U0010ffff"
"""Characters of which Python and the library may think differently."""
_KINDS = (rf"[A-Za-z{_ANY}]", rf"[\0-\x08\x0e-\x1b!-/:-@\[-`{{-\x7f{_ANY}]", rf"[\t-\r {_ANY}]")
"""Letters, signs, blanks: a word holds one of these but for its first character and its last line feeds."""
_RUN = re.compile("|".join(f"{kind}+" for kind in _KINDS))
_LONG_RUN = re.compile("|".join(f"(?<!{kind}){kind}{{{MAX_TRAINED_CHARS}}}" for kind in _KINDS))
"""The start of a long run; each is tried once, from its beginning."""

_LOOKS_SPECIAL = re.compile(r"<[^<>\s]+>|<([|｜]).*\1>|\[[A-Z_0-9]+\]", re.DOTALL)
"""How marks are written: `<|im_end|>`, `<file_sep>`, `</think>`, DeepSeek's `<｜fim▁hole｜>`, `[INST]`."""

_FOREIGN_NAMES = {
    END_OF_TEXT: "<|end_of_text|>",
    FIM_PREFIX: "<|fim_prefix|>",
    FIM_MIDDLE: "<|fim_middle|>",
    FIM_SUFFIX: "<|fim_suffix|>",
    FILE_SEP: "<|file_sep|>",
}
"""How Llama 3 (the first) and Qwen2.5-Coder call the same tokens."""


class Tokenizer:
    """Text to ids and back.

    Parameters
    ----------
    library_tokenizer
        A byte-level BPE tokenizer of the `tokenizers` library, or the contents of a `tokenizer.json`.
    settings
        What else its folder says of it. The template for chats is only kept, for those who read the files
        that we write.

    Raises
    ------
    InputError
        When it is of another kind, or ids would not decode to the text they are of.
    """

    def __init__(
        self,
        library_tokenizer: tokenizers.Tokenizer | Mapping[str, Any],
        settings: TokenizerSettings = TokenizerSettings(),  # noqa: B008 (it is frozen)
    ):
        is_library = isinstance(library_tokenizer, tokenizers.Tokenizer)
        self._spec = checked_spec(json.loads(library_tokenizer.to_str()) if is_library else library_tokenizer)
        self._settings = settings
        # The library reads "<|endoftext|>" in any text as the special token. Text comes from files and
        # must not be able to say that, so text goes to a twin that has no added tokens at all. (The
        # library's own switch would leave those added tokens that are not marked as special, such
        # as Qwen's for filling in.)
        self._plain = _library_tokenizer(self._spec | {"added_tokens": []})
        missing = bytes_without_token(self._spec)
        self._missing = re.compile(b"[%b]" % re.escape(missing)) if missing else None
        self._word_ids = _WordIds(self._plain)
        # NFC leaves ASCII as it is.
        self._splits_like_qwen2 = self._spec["pre_tokenizer"] == _untrained_spec()["pre_tokenizer"]

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learn the merges from texts.

        Parameters
        ----------
        texts
            What to learn from; the order does not matter. A word of more than 1000 characters is taken in
            pieces.
        vocab_size
            How many ids there are in all; fewer result where the texts are too short to learn so many.

        Raises
        ------
        InputError
            When there is no room for the bytes and the special tokens, or a text is not Unicode.
        """
        if vocab_size < MIN_VOCAB_SIZE:
            raise InputError(
                f"vocab_size must hold 256 bytes and {len(SPECIAL_TOKENS)} special tokens; "
                f"got {vocab_size}: use {MIN_VOCAB_SIZE} or more"
            )
        untrained = _untrained()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        pieces = (piece for text in texts for piece in _without_long_words(_require_unicode(text)))
        run_interruptibly(lambda drawn: untrained.train_from_iterator(drawn(pieces), trainer))
        return cls(untrained)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read `tokenizer.json` from a folder, and what the files beside it say of it.

        Raises
        ------
        InputError
            When the file is missing, is damaged, or holds another kind of tokenizer.
        """
        path = Path(folder) / TOKENIZER
        advice = f"a model's folder must hold a {TOKENIZER}, copy it again"
        values = read_object(path, MAX_TOKENIZER_BYTES, advice)
        settings = read_settings(Path(folder))
        try:
            return cls(values, settings)
        except InputError as error:
            raise InputError(f"{path} is damaged, or of another kind: {error}") from error

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, and the `tokenizer_config.json` that transformers wants beside it."""
        end_of_text, end_token = map(self._names.__getitem__, (self.end_of_text_id, self.end_ids[0]))
        write_text(Path(folder) / TOKENIZER, self.to_json())
        write_settings(Path(folder), self.chat_template, end_of_text, end_token, self.start_token)

    @property
    def chat_template(self) -> str | None:
        """How a chat becomes a text, in the Jinja language; None where the model is not made for chats."""
        return self._settings.chat_template

    @property
    def start_token(self) -> str | None:
        """The name of the token that a template for chats calls `bos_token`, if any."""
        return self._settings.start_token

    @cached_property
    def fingerprint(self) -> bytes:
        """A hash of what `tokenizer.json` says; to write that text takes several times as long."""
        model = self._spec["model"]
        tables = {"vocab": None, "merges": None}
        parts = (
            json.dumps(self._spec | {"model": model | tables}, ensure_ascii=False),
            "\0".join(model["vocab"]),
            " ".join(map(str, model["vocab"].values())),
            "\0".join(chain.from_iterable(model["merges"])),
        )
        return hashlib.sha256("\0\0".join(parts).encode("utf-8", "surrogatepass")).digest()

    def to_json(self) -> str:
        """Return the text of `tokenizer.json`."""
        return json.dumps(self._spec, indent=2, ensure_ascii=False)

    def encode(self, text: str, *, parse_special: bool = False, is_exact: bool = False) -> list[int]:
        """Return the ids of a text.

        Parameters
        ----------
        text
            Any text. The ids decode to exactly this, or with Qwen's tokenizer to its composed form (NFC).
        parse_special
            Whether the name of a special token in the text means that token. Without it, no text
            gives a special token.
        is_exact
            Whether nothing is composed.

        Raises
        ------
        InputError
            When the text is not Unicode (it holds half of a surrogate pair), or holds a byte for which the
            tokenizer has no token.
        """
        self._require_tokens(text)
        if parse_special:
            return _encoded(self._parsing, text).ids
        if self._splits_like_qwen2 and text.isascii():
            return list(chain.from_iterable(map(self._word_ids.__getitem__, ASCII_WORD.findall(text))))
        library = self._exact if is_exact else self._plain
        return _encoded(library, text).ids

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """Return the ids of a text, and the character at which, or within which, each begins."""
        self._require_tokens(text)
        encoding = _encoded(self._plain, text)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def _require_tokens(self, text: str) -> None:
        """Refuse a text of which the library would drop something."""
        if self._missing and (found := self._missing.search(_require_unicode(text).encode("utf-8"))):
            raise InputError(
                f"the text holds the byte {found[0][0]:#04x}, for which this tokenizer has no token: take "
                "it out, as the model would not see it, or use another model"
            )

    @cached_property
    def splits_at_lines(self) -> bool:
        """Whether no word crosses the start of a line that is not blank, so that lines can be encoded apart.

        It is so with the patterns of Qwen2 and Llama 3, and not with GPT-2's, where blanks at the start of a
        line are in a word with the line feed before them.
        """
        match self._spec["pre_tokenizer"]:
            case {
                "type": "Sequence",
                "pretokenizers": [
                    {
                        "type": "Split",
                        "pattern": {"Regex": pattern},
                        "behavior": "Isolated",
                        "invert": False,
                    },
                    {"type": "ByteLevel", "use_regex": False},
                ],
            }:
                return pattern in (QWEN2_PATTERN, LLAMA3_PATTERN)
        return False

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, as `encode` does."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, special tokens by their names.

        Ids that end within a character, as a model may produce them, give U+FFFD there.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of ids, which may begin or end within a character.

        Raises
        ------
        InputError
            When an id is not in the vocabulary.
        """
        try:
            return b"".join([self._token_bytes[int(i)] for i in ids])
        except KeyError as error:
            raise InputError(f"ids must be in the vocabulary of {self.vocab_size}; got {error}") from error

    def has_bytes(self, i: int) -> bool:
        """Whether an id stands for some bytes."""
        return i in self._token_bytes

    @cached_property
    def _parsing(self) -> tokenizers.Tokenizer:
        """The twin that reads special tokens from text."""
        return _library_tokenizer(self._spec)

    @cached_property
    def _exact(self) -> tokenizers.Tokenizer:
        """The twin that composes nothing."""
        if self._spec["normalizer"] is None:
            return self._plain
        return _library_tokenizer(self._spec | {"added_tokens": [], "normalizer": None})

    @cached_property
    def _names(self) -> dict[int, str]:
        """The spelling of each id."""
        spelled = {i: token for token, i in self._spec["model"]["vocab"].items()}
        return spelled | {added["id"]: added["content"] for added in self._spec["added_tokens"]}

    @cached_property
    def _added(self) -> dict[str, int]:
        """The ids of the added tokens, by name."""
        return {added["content"]: added["id"] for added in self._spec["added_tokens"]}

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._names) + 1

    def special_id(self, token: str) -> int:
        """Return the id of a special token, by our name or by the tokenizer's own.

        Raises
        ------
        InputError
            When the tokenizer has no such special token.
        """
        known = self._added
        for name in (token, _FOREIGN_NAMES.get(token)):
            if name in known:
                return known[name]
        raise InputError(
            f"this tokenizer has no special token {token!r}{did_you_mean(token, known)}; "
            f"it has: {', '.join(known) or 'none'}"
        )

    @cached_property
    def end_of_text_id(self) -> int:
        """The id that ends every document and every middle, and that stands before a document."""
        return self.special_id(END_OF_TEXT)

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The ids that end what the model says: those that its files name, and the end of a text."""
        ids_of = {name: i for i, name in self._names.items()}
        ids = [ids_of[name] for name in self._settings.end_tokens if name in ids_of]
        ids += [i for i in self._settings.end_ids if i in self._names]
        ids += [ids_of[name] for name in (END_OF_TEXT, _FOREIGN_NAMES[END_OF_TEXT]) if name in self._added]
        return tuple(dict.fromkeys(ids))

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The ids that belong into no file: all that end a text, and every added token that is a mark.

        Some tokenizers add plain text too, such as runs of blanks; Qwen's do not call all marks special.
        """
        marks = {
            added["id"]
            for added in self._spec["added_tokens"]
            if added["special"] or _LOOKS_SPECIAL.fullmatch(added["content"])
        }
        return frozenset({*marks, *self.end_ids, *self._settings.end_ids, *self._settings.special_ids})

    @cached_property
    def marks(self) -> dict[str, int]:
        """The ids of the added tokens that are no text, by name."""
        return {name: i for name, i in self._added.items() if i in self.stop_ids}

    @cached_property
    def can_fill_in(self) -> bool:
        """Whether it has the three special tokens of a prompt for filling in."""
        tokens = (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)
        return all({token, _FOREIGN_NAMES[token]} & self._added.keys() for token in tokens)

    @cached_property
    def fim_prefix_id(self) -> int:
        """The id before the text on the left of the cursor."""
        return self.special_id(FIM_PREFIX)

    @cached_property
    def fim_middle_id(self) -> int:
        """The id after which the model fills in."""
        return self.special_id(FIM_MIDDLE)

    @cached_property
    def fim_suffix_id(self) -> int:
        """The id before the text on the right of the cursor."""
        return self.special_id(FIM_SUFFIX)

    @cached_property
    def file_sep_id(self) -> int:
        """The id before each file of a project."""
        return self.special_id(FILE_SEP)

    @cached_property
    def _token_bytes(self) -> dict[int, bytes]:
        """The bytes of each id; an added token's are its name."""
        byte_of = {char: byte for byte, char in enumerate(characters_of_bytes())}
        table = {
            i: bytes(byte_of[char] for char in token)
            for token, i in self._spec["model"]["vocab"].items()
            if set(token) <= byte_of.keys()
        }
        return table | {added["id"]: added["content"].encode("utf-8") for added in self._spec["added_tokens"]}


class _WordIds(dict[str, list[int]]):
    """The ids of each word; a new word is asked of the library, and kept for a while.

    What is kept is bounded in bytes and not in words: a server is sent new words for ever, and some are long.
    """

    MAX_WORD_CHARS = 100
    """A longer word is never kept: it hardly comes twice."""
    MAX_BYTES = 24_000_000
    """Then all is forgotten. The words of the standard library take 15 MB."""

    def __init__(self, library_tokenizer: tokenizers.Tokenizer):
        super().__init__()
        self._library = library_tokenizer
        self._n_bytes = 0

    def __missing__(self, word: str) -> list[int]:
        ids = _encoded(self._library, word).ids
        if len(word) <= self.MAX_WORD_CHARS:
            # A place in the dictionary, a text and a list take 200 bytes, a number and its place 36.
            self._n_bytes += 200 + len(word) + 36 * len(ids)
            if self._n_bytes > self.MAX_BYTES:
                self.clear()
                self._n_bytes = 0
            self[word] = ids
        return ids


def _untrained() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN2_PATTERN), "isolated")
    bytes_to_characters = pre_tokenizers.ByteLevel(
        add_prefix_space=False, trim_offsets=False, use_regex=False
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_to_characters])  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def _untrained_spec() -> dict[str, Any]:
    return json.loads(_untrained().to_str())


def _library_tokenizer(spec: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Return the library's tokenizer for a text alone: nothing is put around it.

    Raises
    ------
    InputError
        When the library finds something wrong with it.
    """
    try:
        return tokenizers.Tokenizer.from_str(json.dumps({**spec, "post_processor": None}))
    except Exception as error:  # the library raises nothing more precise
        raise InputError(f"the tokenizer is damaged ({error}): make it again, or copy it again") from error


def _encoded(library: tokenizers.Tokenizer, text: str) -> Any:
    """Ask the library for the ids of a text.

    Raises
    ------
    InputError
        When the text is not Unicode, or the library gives up, which is no `Exception` of Python's.
    """
    try:
        return library.encode(_require_unicode(text), add_special_tokens=False)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(
            f"a tokenizer must split every text; its pattern gave up on one ({error}): use another tokenizer"
        ) from None


def _without_long_words(text: str) -> Iterator[str]:
    """Yield a text in pieces, cut within words that are too long to learn from."""
    begin = 0
    for run in _RUN.finditer(text) if _LONG_RUN.search(text) else ():
        for cut in range(run.start() + MAX_TRAINED_CHARS, run.end(), MAX_TRAINED_CHARS):
            yield text[begin:cut]
            begin = cut
    yield text[begin:]


def _require_unicode(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"text must be Unicode; character {error.start} is half of a surrogate pair "
            f"({text[error.start]!r}): read the file as UTF-8, or drop the character"
        ) from error
    return text
