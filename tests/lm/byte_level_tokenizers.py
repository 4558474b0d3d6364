"""Byte-level tokenizers as other projects have them, trained on the spot."""

from collections.abc import Iterable

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from techtree.lm.tokenizer import Tokenizer

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""As their `tokenizer.json` have them."""

_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), _BYTES])


PRE_TOKENIZERS: dict[str, tuple[pre_tokenizers.PreTokenizer, bool]] = {
    "qwen2": (_split(QWEN2_PATTERN), False),
    "gpt-2": (_GPT2, False),
    "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2]), False),
    "llama-bpe": (_split(LLAMA3_PATTERN), True),
    "dbrx": (_split(LLAMA3_PATTERN), False),
}
"""By llama.cpp's name: how text is split, and whether a word that is a token needs no merges."""


def train_library_tokenizer(
    texts: Iterable[str],
    name: str,
    *,
    vocab_size: int = 600,
    special: tuple[str, ...] = ("<|endoftext|>",),
    normalizer: normalizers.Normalizer | None = None,
    bos: str | None = None,
) -> tokenizers.Tokenizer:
    """Return a tokenizer of the library whose special tokens come last, as most have them."""
    step, ignores_merges = PRE_TOKENIZERS[name]
    found = tokenizers.Tokenizer(models.BPE(ignore_merges=ignores_merges))
    found.pre_tokenizer = step
    found.decoder = decoders.ByteLevel()
    if normalizer is not None:
        found.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    found.train_from_iterator(texts, trainer)
    found.add_special_tokens(list(special))
    if bos is not None:
        template = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, found.token_to_id(bos))]
        )
        found.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return found


def train_tokenizer(texts: Iterable[str], name: str, **options) -> Tokenizer:
    """Return the same as one of ours."""
    return Tokenizer(train_library_tokenizer(texts, name, **options))
