"""Which files may be used, which are nearly the same, and a split through which nothing leaks."""

from techtree.techs.text.corpus.corpus import (
    is_permitted,
    licence_of,
    minhash,
    near_duplicates,
    shingles,
    split,
)

__all__ = ["is_permitted", "licence_of", "minhash", "near_duplicates", "shingles", "split"]
