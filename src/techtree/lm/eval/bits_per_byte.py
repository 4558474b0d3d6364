"""Bits per byte of a language model on whole documents.

A document longer than the model's context is read in windows that overlap by half: each token is
predicted once, and (but for a document's beginning) from at least half a context.

Arrays: `B` windows of a batch, `T` tokens of the longest one, `V` = vocab_size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import batched
