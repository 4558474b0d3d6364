"""Many texts share each reading of the weights, and one memory; each gets the tokens that it would get alone.

Claim: a decoded token reads all weights to use each once. Tokens of other texts can use them at the same
reading, whatever the lengths of the texts, since nothing but attention looks beyond one token. Texts of
unknown length fit into one memory without gaps if it is handed out in small blocks.

Idea: the new tokens of all texts stand in one row and go through the layers together; only in attention
each looks at its own text, whose keys and values lie in blocks anywhere in a *pool*. Between two tokens
any text may leave and another one come (*continuous batching*). When no block is free, the youngest text
gives its own back, and is read again later.

Legend: ``T`` new tokens of a text, ``K`` heads of keys and values of width ``D``; a *block* has room for the
keys and values of some tokens, in all layers; a text's *places* are counted from 0.

Left out: blocks that texts with the same beginning share, prompts that are read piece by piece, texts of
one length whose attention is one product.

Papers: Yu et al. (2022); Kwon et al. (2023), https://arxiv.org/abs/2309.06180
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.inference.sampling import Sampling, distribution, draw
from techtree.techs.transformer.attention import causal_mask
from techtree.techs.transformer.gqa import grouped_attention
from techtree.techs.transformer.llama_block import Llama, LlamaAttention, LlamaConfig
from techtree.techs.transformer.mha import merge_heads, split_heads
from techtree.techs.transformer.rope import rotate, rotation


class BlockPool:
    """A memory for the keys and values of many texts, handed out in blocks.

    Parameters
    ----------
    config
        The shape of the model.
    n_blocks, block_size
        How many blocks there are, and for how many tokens each has room: whole numbers (``int``, no
        booleans) of at least 1; ``ValueError`` otherwise.
    dtype
        In which keys and values are kept.

    Attributes
    ----------
    config, n_blocks, block_size
        As given.
    n_free
        How many blocks nobody has; all at first.
    keys, values
        (n_layers, n_blocks, K, block_size, D), each an array of its own, of the dtype, made once: they stay
        the same objects. What stands where no token of a text is means nothing.

    Examples
    --------
    >>> config = LlamaConfig(n_tokens=11, width=8, hidden=8, n_layers=3, n_heads=4, n_kv_heads=2)
    >>> pool = BlockPool(config, n_blocks=5, block_size=16)
    >>> pool.keys.shape, len(pool.take(2)), pool.n_free
    ((3, 5, 2, 16, 2), 2, 3)
    """

    def __init__(self, config: LlamaConfig, n_blocks: int, block_size: int, dtype: type = np.float64):
        for name, each in (("n_blocks", n_blocks), ("block_size", block_size)):
            if type(each) is not int or each < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {each!r}")
        assert config.head_width is not None
        shape = (config.n_layers, n_blocks, config.n_kv_heads, block_size, config.head_width)
        self.config, self.n_blocks, self.block_size = config, n_blocks, block_size
        self.keys, self.values = np.zeros(shape, dtype), np.zeros(shape, dtype)
        self._free = list(range(n_blocks))

    @property
    def n_free(self) -> int:
        """Return how many blocks nobody has."""
        return len(self._free)

    def take(self, n: int) -> list[int]:
        """Hand out n blocks, 0 or more: their numbers, from 0 to n_blocks - 1, all different, in any order.

        Nobody gets them again before they are given back. ``ValueError`` when fewer are free; then none is
        handed out.
        """
        if n > self.n_free:
            raise ValueError(f"{n} blocks are wanted and {self.n_free} of {self.n_blocks} are free")
        return [self._free.pop() for _ in range(n)]

    def give_back(self, blocks: Collection[int]) -> None:
        """Take back blocks that were handed out; the collection is not changed.

        ``ValueError`` when one is not handed out, no number of a block, or there twice; then none is taken.
        """
        unfit = [each for each in blocks if each in self._free or each not in range(self.n_blocks)]
        if unfit or len(set(blocks)) < len(blocks):
            raise ValueError(f"blocks must be handed out, each once; got {list(blocks)}")
        self._free += blocks


class PagedText:
    """A text whose keys and values lie in blocks of a pool.

    Parameters
    ----------
    pool
        Where the blocks come from.

    Attributes
    ----------
    pool
        As given.
    blocks
        The list of its blocks; none at first. The key of the token at place p is
        ``pool.keys[layer, blocks[p // block_size], :, p % block_size]``, after its norm and rotation as in a
        `KVCache`; values likewise.
    length
        How many tokens it holds; 0 at first.
    """

    def __init__(self, pool: BlockPool):
        self.pool, self.length = pool, 0
        self.blocks: list[int] = []

    def n_missing(self, n_tokens: int) -> int:
        """Return how many blocks it lacks for n_tokens tokens in all; 0 if it has as many, or more."""
        return max(0, -(-n_tokens // self.pool.block_size) - len(self.blocks))

    def reserve(self, n_tokens: int) -> None:
        """Take the blocks that are missing for n_tokens tokens in all, and no more.

        Those that it has stay as they are. ``ValueError``, and nothing changes, when too few are free.
        """
        self.blocks += self.pool.take(self.n_missing(n_tokens))

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length``: from 0 to what it holds, ``ValueError`` otherwise.

        Blocks that are not needed for these are given back, the reserved ones too: with 0 all of them.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"a text of {self.length} tokens cannot be cut to {length}")
        self.length = length
        n_needed = -(-length // self.pool.block_size)
        self.pool.give_back(self.blocks[n_needed:])
        del self.blocks[n_needed:]


def extend_batch(
    model: Llama, texts: Sequence[PagedText], ids: Sequence[Sequence[int] | np.ndarray]
) -> list[np.ndarray]:
    """Read more tokens of several texts at once, as `kv_cache.extend` would each alone.

    Parameters
    ----------
    model
        As for `kv_cache.extend`. Each of its feed-forward parts is asked once, for the new tokens of all
        texts (and no others, no padding either), those of the first text first.
    texts
        At least one, all different and of one pool, which was made for ``model.config``.
    ids
        For each text its T new tokens, T at least 1, not the same for all: each as for `kv_cache.extend`.

    Returns
    -------
    list[np.ndarray]
        For each text (T, n_tokens), what `kv_cache.extend` gives, up to rounding, whatever the other texts
        are; new plain arrays that share no memory. Nothing is recorded for gradients.

    Raises
    ------
    ValueError
        As `kv_cache.extend` does for the ids; when there is no text, a text stands there twice, or is of
        another pool; when there are not as many ids as texts; when the pool has too few free blocks for all
        of them together. Then nothing has changed, no text's length and blocks either. After any other error
        the lengths, and the tokens held, are as they were.

    Notes
    -----
    Each text's length grows by its T, and it takes the blocks that it lacks, no more. Attention reads keys
    and values from the pool, those of the new tokens too, and computes in the model's dtype.

    Examples
    --------
    >>> config = LlamaConfig(n_tokens=11, width=8, hidden=8, n_layers=1, n_heads=2, n_kv_heads=1)
    >>> model, pool = Llama(config, np.random.default_rng(0)), BlockPool(config, n_blocks=4, block_size=2)
    >>> one, other = PagedText(pool), PagedText(pool)
    >>> [each.shape for each in extend_batch(model, [one, other], [[3, 1, 4], [1]])]
    [(3, 11), (1, 11)]
    >>> one.length, len(one.blocks), other.length, len(other.blocks), pool.n_free
    (3, 2, 1, 1, 1)
    """
    rows = [_checked(each, model.config) for each in ids]
    if not texts or len(texts) != len(rows) or len({id(each) for each in texts}) < len(texts):
        raise ValueError(
            f"there must be texts, all different, and ids for each; got {len(texts)}, {len(rows)}"
        )
    pool = texts[0].pool
    if any(each.pool is not pool for each in texts) or pool.config != model.config:
        raise ValueError("the texts must be of one pool, which was made for the model's config")
    ends = [text.length + len(row) for text, row in zip(texts, rows, strict=True)]
    n_missing = sum(text.n_missing(end) for text, end in zip(texts, ends, strict=True))
    if n_missing > pool.n_free:
        raise ValueError(f"{n_missing} more blocks are needed and {pool.n_free} are free")
    for text, end in zip(texts, ends, strict=True):
        text.reserve(end)
    with no_grad():
        x = model.token_embedding(np.concatenate(rows))  # (all T, W): a row of all new tokens
        for layer, block in enumerate(model.blocks):
            x = x + _attend(block.attention, block.attention_norm(x), texts, ends, layer)
            x = x + block.feed_forward(block.feed_forward_norm(x))
        x = model.norm(x)
        logits = model.token_embedding.unembed(x) if model.head is None else model.head(x)
    first, found = 0, []
    for text, end in zip(texts, ends, strict=True):
        found.append(logits.data[first : first + end - text.length])
        first += end - text.length
        text.length = end
    return found


def _checked(ids: Sequence[int] | np.ndarray, config: LlamaConfig) -> np.ndarray:
    """Return ids as an array, or refuse them."""
    row = np.asarray(ids)
    if row.ndim != 1 or not row.size or row.dtype.kind not in "iu":
        raise ValueError(
            f"ids must be whole numbers of the shape (T,), T at least 1; got {row.dtype} {row.shape}"
        )
    if row.min() < 0 or row.max() >= config.n_tokens:
        raise ValueError(f"ids must be from 0 to {config.n_tokens - 1}; got {row.min()} to {row.max()}")
    return row.astype(np.intp)


def _attend(
    part: LlamaAttention, x: Tensor, texts: Sequence[PagedText], ends: list[int], layer: int
) -> Tensor:
    """Compute what `LlamaAttention` does, for new tokens (all T, W) that each see their own text."""
    config, pool = part.config, texts[0].pool
    q = split_heads(part.query(x), config.n_heads)
    k, v = (split_heads(each(x), config.n_kv_heads) for each in (part.key, part.value))
    if part.query_norm is not None and part.key_norm is not None:
        q, k = part.query_norm(q), part.key_norm(k)
    places = [np.arange(text.length, end) for text, end in zip(texts, ends, strict=True)]
    turn = rotation(np.concatenate(places), q.shape[-1], config.base, config.scaling)
    q, k = rotate(q, *turn), rotate(k, *turn)
    answers, first = [], 0
    for text, place, end in zip(texts, places, ends, strict=True):
        new = np.s_[:, first : first + len(place)]
        first += len(place)
        blocks = np.array(text.blocks)
        at = (layer, blocks[place // pool.block_size], slice(None), place % pool.block_size)
        pool.keys[at], pool.values[at] = k.data[new].swapaxes(0, 1), v.data[new].swapaxes(0, 1)
        used = blocks[: -(-end // pool.block_size)]
        held = [_gathered(each[layer, used], end, x.dtype) for each in (pool.keys, pool.values)]
        mask = causal_mask(len(place), end)
        if config.window is not None:
            mask &= ~np.tri(len(place), end, text.length - config.window, dtype=bool)
        answers.append(grouped_attention(q[new], held[0], held[1], mask).data)
    return part.output(merge_heads(Tensor(np.concatenate(answers, axis=1))))


def _gathered(blocks: np.ndarray, n_tokens: int, dtype: np.dtype) -> Tensor:
    """Join blocks (N, K, block_size, D) to (K, n_tokens, D)."""
    joined = blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1, blocks.shape[-1])
    return Tensor(joined[:, :n_tokens].astype(dtype))


@dataclass(frozen=True, eq=False)
class Request:
    """What somebody wants: the arguments of `sampling.generate` but the model.

    Attributes
    ----------
    ids, n_new, settings, rng, stop
        As for `sampling.generate`, but n_new is at least 1. `rng` belongs to this request alone.
    """

    ids: Sequence[int]
    n_new: int
    settings: Sampling
    rng: np.random.Generator
    stop: Collection[int] = ()


@dataclass(eq=False)
class _State:
    """A request on its way: all its tokens, and what is kept of those that were read."""

    request: Request
    tokens: list[int]
    n_all: int
    text: PagedText


class Scheduler:
    """Serves requests as they come, many at once; each gets the tokens that `sampling.generate` gives it.

    Parameters
    ----------
    model
        As for `extend_batch`.
    pool
        Made for ``model.config``; nobody else uses it.
    max_running
        How many texts run at most, a whole number (``int``, no boolean) of at least 1; ``ValueError``
        otherwise.

    Attributes
    ----------
    waiting, running
        Lists of the numbers of the requests that wait, and that run, each ascending.
    n_evicted
        How many times a text had to give back its blocks and wait again.

    Examples
    --------
    >>> config = LlamaConfig(n_tokens=11, width=8, hidden=8, n_layers=1, n_heads=2, n_kv_heads=1)
    >>> model, cold = Llama(config, np.random.default_rng(0)), Sampling(temperature=0.0)
    >>> scheduler = Scheduler(model, BlockPool(config, n_blocks=9, block_size=2), max_running=2)
    >>> for n_new in (1, 2, 2):
    ...     number = scheduler.submit(Request([3, 1], n_new, cold, np.random.default_rng(0)))
    >>> [sorted(scheduler.step()) for _ in range(4)]  # when 0 has left, 2 comes
    [[0, 1], [1, 2], [2], []]
    """

    def __init__(self, model: Llama, pool: BlockPool, max_running: int):
        if type(max_running) is not int or max_running < 1:
            raise ValueError(f"max_running must be a whole number of at least 1; got {max_running!r}")
        self.model, self.pool, self.max_running = model, pool, max_running
        self.waiting: list[int] = []
        self.running: list[int] = []
        self.n_evicted = 0
        self._states: dict[int, _State] = {}
        self._n_submitted = 0

    def submit(self, request: Request) -> int:
        """Let a request wait, behind all others, and return its number: 0, 1, 2, ... in the order they come.

        ``ValueError`` when it could never be served: ids as for `extend_batch`, n_new no whole number of at
        least 1, or more tokens to hold than the whole pool has places. To hold are all but the last new one.
        Then it has no number. A later change of its ids does not matter.
        """
        ids = _checked(request.ids, self.model.config)
        if type(request.n_new) is not int or request.n_new < 1:
            raise ValueError(f"n_new must be a whole number of at least 1; got {request.n_new!r}")
        n_all, n_places = len(ids) + request.n_new, self.pool.n_blocks * self.pool.block_size
        if n_all - 1 > n_places:
            raise ValueError(f"{n_all - 1} tokens must be held, and the pool has {n_places} places")
        number = self._n_submitted
        self._n_submitted += 1
        self._states[number] = _State(request, ids.tolist(), n_all, PagedText(self.pool))
        self.waiting.append(number)
        return number

    def step(self) -> dict[int, int]:
        """Give every running text one more token, in one `extend_batch`; return number -> token.

        First the running texts, the oldest first, take the block that they may need for the token they were
        given last. While too few are free, the youngest running text is evicted, which may be the one that
        asks: it gives back all its blocks and waits before all others. Then those that wait are admitted, the
        oldest first and none before an older one, as long as fewer than ``max_running`` run and there are
        blocks for all tokens that it has so far. (So an evicted one reads its text again, with its new
        tokens.) All that run read what they have not read, and draw.

        A text leaves, and gives back all its blocks, with its last new token, or when it draws one of its
        ``stop``, which is not returned. When nothing runs or waits: an empty dictionary, and no call of the
        model. If the model raises, no number was drawn, and another step may be tried.
        """
        for number in list(self.running):
            state = self._states[number]
            while number in self.running and state.text.n_missing(len(state.tokens)) > self.pool.n_free:
                self._evict(self.running[-1])
            if number in self.running:
                state.text.reserve(len(state.tokens))
        while self.waiting and len(self.running) < self.max_running:
            state = self._states[self.waiting[0]]
            if state.text.n_missing(len(state.tokens)) > self.pool.n_free:
                break
            state.text.reserve(len(state.tokens))
            self.running.append(self.waiting.pop(0))
        if not self.running:
            return {}
        states = [self._states[number] for number in self.running]
        unread = [state.tokens[state.text.length :] for state in states]
        logits = extend_batch(self.model, [state.text for state in states], unread)
        found = {}
        for number, state, rows in zip(list(self.running), states, logits, strict=True):
            request = state.request
            token = draw(distribution(rows[-1], state.tokens, request.settings), request.rng)
            if token not in request.stop:
                found[number] = token
                state.tokens.append(token)
            if token in request.stop or len(state.tokens) == state.n_all:
                self.cancel(number)
        return found

    def cancel(self, number: int) -> None:
        """Forget a request that waits or runs, and give its blocks back; ``ValueError`` if it does not."""
        if number not in self._states:
            raise ValueError(f"the request {number} neither waits nor runs")
        self._states.pop(number).text.truncate(0)
        (self.waiting if number in self.waiting else self.running).remove(number)

    def _evict(self, number: int) -> None:
        self._states[number].text.truncate(0)
        self.running.remove(number)
        self.waiting.insert(0, number)
        self.n_evicted += 1
