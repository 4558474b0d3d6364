"""What `bpe` opens, behind the exercise's names: `tokenizers` trains, encodes, and finds special tokens."""

import json

import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from techtree.lm.tokenizer import QWEN2_PATTERN
from techtree.techs.text.pretokenize import bytes_to_unicode, from_visible, visible

__all__ = ["BPE", "train"]


def _library(model: models.BPE) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(model)
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return library


class BPE:
    """The library's tokenizer with its own numbers; ours are put in their place."""

    def __init__(self, merges, special_tokens=None):
        self.merges = tuple(merges)
        self.special_tokens = dict(special_tokens or {})
        taken = set(self.special_tokens.values())
        if len(taken) < len(self.special_tokens) or min(taken, default=0) < 0 or "" in self.special_tokens:
            raise ValueError("special tokens need names and different ids from 0")
        tokens = list(bytes_to_unicode().values())
        for left, right in self.merges:
            if visible(left) not in tokens or visible(right) not in tokens:
                raise ValueError("the parts of a merge must be tokens before it")
            if visible(left + right) not in tokens:
                tokens.append(visible(left + right))
        if len(set(self.merges)) < len(self.merges):
            raise ValueError("each merge must occur once")
        model = models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[(visible(left), visible(right)) for left, right in self.merges],
        )
        self._model = model
        self._plain = _library(model)
        free = [i for i in range(len(tokens) + len(taken)) if i not in taken]
        self._ids = dict(enumerate(free))
        ordinary = {self._ids[i]: from_visible(token) for i, token in enumerate(tokens)}
        names = {i: name.encode("utf-8") for name, i in self.special_tokens.items()}
        self.vocab = dict(sorted((ordinary | names).items()))

    def encode(self, text, allowed_special=()):
        text.encode("utf-8")
        if not set(allowed_special) <= self.special_tokens.keys():
            raise ValueError("allowed_special must name special tokens")
        if not allowed_special:
            return [self._ids[i] for i in self._plain.encode(text).ids]
        parser = tokenizers.Tokenizer.from_str(self._plain.to_str())
        parser.add_special_tokens(list(allowed_special))
        names = {parser.token_to_id(name): self.special_tokens[name] for name in allowed_special}
        return [names[i] if i in names else self._ids[i] for i in parser.encode(text).ids]

    def decode_bytes(self, ids):
        ids = list(ids)
        if not self.vocab.keys() >= set(ids):
            raise ValueError("ids must be in the vocabulary")
        return b"".join(self.vocab[i] for i in ids)

    def decode(self, ids):
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


def train(texts, vocab_size, special_tokens=()):
    if isinstance(texts, str) or len(set(special_tokens)) < len(special_tokens):
        raise ValueError("texts must be several, special tokens distinct")
    n_merges = vocab_size - 256 - len(special_tokens)
    if n_merges < 0:
        raise ValueError("no room for the bytes")
    texts = list(texts)
    for text in texts:
        text.encode("utf-8")
    library = _library(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + min(n_merges, 100_000),  # for which the library takes memory at once
        initial_alphabet=alphabet,
        show_progress=False,
        special_tokens=[],
    )
    library.train_from_iterator(texts, trainer)
    pairs = json.loads(library.to_str())["model"]["merges"]
    merges = [(from_visible(left), from_visible(right)) for left, right in pairs]
    return BPE(merges, {name: i for i, name in enumerate(special_tokens)})
