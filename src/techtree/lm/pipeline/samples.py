"""Sample completions on held-out files: what the model writes where a line was cut, and what stood there."""

import hashlib
from collections.abc import Sequence

from techtree.lm.data.corpus import Document
from techtree.lm.infer.fim_prompt import FimText
from techtree.lm.infer.generate import PrefixCache, decoder
from techtree.lm.infer.infill import infill
from techtree.lm.infer.limits import Limits
from techtree.lm.infer.sampling import SamplingParams
from techtree.lm.infer.shown_text import Place
from techtree.lm.model.language_model import LanguageModel
from techtree.lm.tokenizer import Tokenizer

N_SAMPLES = 3
MAX_TOKENS = 32
N_LINES_SHOWN = 4


def make_samples(
    model: LanguageModel, tokenizer: Tokenizer, documents: Sequence[Document], n_samples: int = N_SAMPLES
) -> list[dict[str, str]]:
    """Complete a line in each of some documents, greedily.

    Returns
    -------
    list of dict
        ``path``, ``line`` (its number), ``before`` (some lines up to the cursor), ``completion`` and
        ``actual``; fewer than asked for where no more documents have a line to cut.
    """
    cache = PrefixCache(model, model.config.max_seq_len)
    decode = decoder(cache, SamplingParams(), tokenizer.stop_ids)
    samples = []
    # In the order of a hash: by path they would all come from one package.
    for document in sorted(documents, key=lambda d: hashlib.blake2b(d.text.encode("utf-8")).digest()):
        cursor = choose_cursor(document.text)
        if cursor is None or len(samples) == n_samples:
            continue
        prefix, rest = document.text[:cursor], document.text[cursor:]
        actual, newline, below = rest.partition("\n")
        place = Place(prefix, newline + below, lines="single")
        text = FimText(prefix, newline + below)
        limits = Limits(max_tokens=MAX_TOKENS)
        written = infill(tokenizer, decode, cache.max_len, text, place, limits)
        samples.append(
            {
                "path": document.path,
                "line": str(prefix.count("\n") + 1),
                "before": "\n".join(prefix.split("\n")[-N_LINES_SHOWN:]),
                "completion": written.text,
                "actual": actual,
            }
        )
    return samples


def choose_cursor(text: str) -> int | None:
    """Return a place after the first word of a line of code near the middle, or None where there is none."""
    lines = text.split("\n")
    order = sorted(range(len(lines)), key=lambda i: abs(i - len(lines) // 2))
    for i in order:
        words = lines[i].split()
        is_code = lines[i].startswith("    ") and words and words[0].isidentifier()
        if is_code and len(words) >= 3 and not lines[i].rstrip().endswith((".", ",")):
            n_before = sum(len(line) + 1 for line in lines[:i])
            return n_before + lines[i].index(words[0]) + len(words[0])
    return None
