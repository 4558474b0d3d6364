"""The byte-level BPE tokenizer of the product: text to token ids and back, without loss.

The `tokenizers` library trains it and reads and writes `tokenizer.json`. Encoding has a second,
faster path: the split into words by Python's `re`, and a dictionary from word to ids, which the
library fills. On the standard library (12.1 MB, one core) that takes 1.2 s instead of 5.0 s, and
gives the same ids. It serves ASCII text, where Python's character classes equal the pattern's;
other text goes through the library.

The special tokens come first, so that their ids do not depend on the size of the vocabulary.
"""

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from techtree.atomic import write_text
from techtree.errors import InputError, did_you_mean

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

_ASCII_WORD = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    re.ASCII,
)
"""`QWEN2_PATTERN` on ASCII text."""

_CONFIG, _CHAT_TEMPLATE = "tokenizer_config.json", "chat_template.jinja"

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
        A byte-level BPE tokenizer of the `tokenizers` library.
    chat_template
        How a chat becomes a text, in the Jinja language; None where the model is not made for chats. It is
        only kept, for those who read the files that we write.
    """

    def __init__(self, library_tokenizer: tokenizers.Tokenizer, chat_template: str | None = None):
        self.chat_template = chat_template
        spec = json.loads(library_tokenizer.to_str())
        _require_byte_level(spec)
        self._library = library_tokenizer
        # The library reads "<|endoftext|>" in any text as the special token. Text comes from files and
        # must not be able to say that, so text goes to a twin that has no added tokens at all. (The
        # library's own switch would leave those added tokens that are not marked as special, such
        # as Qwen's for filling in.)
        self._plain = tokenizers.Tokenizer.from_str(json.dumps(spec | {"added_tokens": []}))
        self._word_ids = _WordIds(self._plain)
        self._splits_like_qwen2 = (
            spec["pre_tokenizer"] == json.loads(_untrained().to_str())["pre_tokenizer"]
            and (spec["normalizer"] or {"type": "NFC"})["type"] == "NFC"  # which leaves ASCII as it is
        )

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learn the merges from texts.

        Parameters
        ----------
        texts
            What to learn from; the order does not matter.
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
        untrained.train_from_iterator(map(_require_unicode, texts), trainer)
        return cls(untrained)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read `tokenizer.json` from a folder, and the template for chats if there is one.

        Raises
        ------
        InputError
            When the file is missing, is damaged, or holds another kind of tokenizer.
        """
        path = Path(folder) / "tokenizer.json"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"a model's folder must hold a tokenizer.json; cannot read {path}: {error}"
            ) from error
        chat_template = _read_chat_template(Path(folder))
        try:
            return cls(tokenizers.Tokenizer.from_str(text), chat_template)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except Exception as error:  # the library raises nothing more precise
            raise InputError(f"{path} is damaged ({error}): make it again, or copy it again") from error

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, and the `tokenizer_config.json` that transformers wants beside it."""
        end_of_text = self._library.id_to_token(self.end_of_text_id)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": False,
            "add_prefix_space": False,
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": end_of_text,
            "pad_token": end_of_text,
            "unk_token": None,
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        write_text(Path(folder) / "tokenizer.json", self.to_json())
        write_text(Path(folder) / _CONFIG, json.dumps(config, indent=2) + "\n")
        (Path(folder) / _CHAT_TEMPLATE).unlink(missing_ok=True)  # an older one, which would count

    def to_json(self) -> str:
        """Return the text of `tokenizer.json`."""
        return self._library.to_str(pretty=True)

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Return the ids of a text.

        Parameters
        ----------
        text
            Any text; the ids decode to exactly this.
        parse_special
            Whether the name of a special token in the text means that token. Without it, no text
            gives a special token.

        Raises
        ------
        InputError
            When the text is not Unicode (it holds half of a surrogate pair).
        """
        if parse_special:
            return self._library.encode(_require_unicode(text), add_special_tokens=False).ids
        if self._splits_like_qwen2 and text.isascii():
            return list(chain.from_iterable(map(self._word_ids.__getitem__, _ASCII_WORD.findall(text))))
        return self._plain.encode(_require_unicode(text), add_special_tokens=False).ids

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

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._library.get_vocab(with_added_tokens=True).values()) + 1

    def special_id(self, token: str) -> int:
        """Return the id of a special token, by our name or by the tokenizer's own.

        Raises
        ------
        InputError
            When the tokenizer has no such special token.
        """
        known = {added.content: i for i, added in self._library.get_added_tokens_decoder().items()}
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
        byte_of = {char: byte for byte, char in enumerate(_characters_of_bytes())}
        spelled = self._library.get_vocab(with_added_tokens=False)
        table = {
            i: bytes(byte_of[char] for char in token)
            for token, i in spelled.items()
            if set(token) <= byte_of.keys()
        }
        added = self._library.get_added_tokens_decoder()
        return table | {i: token.content.encode("utf-8") for i, token in added.items()}


class _WordIds(dict[str, list[int]]):
    """The ids of each word; a new word is asked of the library, and kept while there is room."""

    MAX_WORDS = 1 << 18

    def __init__(self, library_tokenizer: tokenizers.Tokenizer):
        super().__init__()
        self._library = library_tokenizer

    def __missing__(self, word: str) -> list[int]:
        ids = self._library.encode(word, add_special_tokens=False).ids
        if len(self) < self.MAX_WORDS:
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


def _read_chat_template(folder: Path) -> str | None:
    """Return the template for chats, from a file of its own or from the tokenizer's settings."""
    try:
        if (folder / _CHAT_TEMPLATE).exists():
            return (folder / _CHAT_TEMPLATE).read_text(encoding="utf-8")
        if not (folder / _CONFIG).exists():
            return None
        template = json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("chat_template")
        if isinstance(template, list):  # several, by name
            template = {one.get("name"): one.get("template") for one in template}.get("default")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"the {_CONFIG} in {folder} is damaged ({error}): copy it again") from error
    return template if isinstance(template, str) else None


def _characters_of_bytes() -> str:
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


def _require_unicode(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"text must be Unicode; character {error.start} is half of a surrogate pair "
            f"({text[error.start]!r}): read the file as UTF-8, or drop the character"
        ) from error
    return text


def _require_byte_level(spec: dict) -> None:
    decoder = spec["decoder"] or {}
    steps = [step["type"] for step in decoder.get("decoders", [decoder]) if "type" in step]
    if spec["model"]["type"] != "BPE" or "ByteLevel" not in steps:
        found = f"{spec['model']['type']} with decoder {'+'.join(steps) or 'none'}"
        raise InputError(
            f"the tokenizer must be byte-level BPE; got {found}: choose a model with such a tokenizer"
        )
