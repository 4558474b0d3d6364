"""What a server saves: tokens that are not read again, waiting, and work for those who have gone."""

import numpy as np

from techtree.techs.inference.sampling import Sampling
from techtree.techs.inference.serve import Completion, Engine, Server
from techtree.techs.transformer.llama_block import Llama, LlamaConfig

LENGTHS = (32, 64, 128, 256, 512)
N_KEYS = 16
"""Keystrokes; after each of them the editor asks."""
N_EDITORS, SLOTS = 4, (1, 2, 3, 4)
LONG, SHORT, N_SHORT = 200, 10, 4
"""Tokens of answers: somebody asks for a long one, then others for short ones."""
N_WANTED, N_WAITED = 32, 3
"""Tokens that an editor asks for, and that come before the next key is hit."""
VOCABULARY = [bytes([byte]) for byte in range(97, 123)]
WAYS = (
    "nothing kept",
    "key in the middle",
    "two editors, one slot",
    "two editors, two slots",
    "key at the end",
)


def make_model(seed: int) -> Llama:
    """Return a model that has learned nothing: here only counts matter."""
    return Llama(LlamaConfig(len(VOCABULARY), 8, 8, 1, 2, 1), np.random.default_rng(seed))


class Reader:
    """Answers an editor by an engine, and counts the tokens that its model reads."""

    def __init__(self, seed: int, max_len: int, n_slots: int = 1):
        model, self.n_read = make_model(seed), 0
        self.engine = Engine(model, self.encode, VOCABULARY, [], max_len, n_slots)
        norm = model.norm.forward
        vars(model.norm)["forward"] = lambda x: norm(self.counted(x))

    def counted(self, x):
        """Count tokens on their way to the logits."""
        self.n_read += x.shape[-2]
        return x

    @staticmethod
    def encode(text: str) -> list[int]:
        """Return the ids of small letters."""
        return [ord(each) - 97 for each in text]

    def asked(self, prompt: str, n_tokens: int = 1, n_waited: int | None = None) -> int:
        """Return how many tokens are read for an answer, or until somebody leaves."""
        before = self.n_read
        items = self.engine.complete(Completion(prompt, n_tokens, Sampling(0.0), 0, (), False))
        for _ in range(n_tokens + 1 if n_waited is None else n_waited):
            next(items)
        items.close()
        return self.n_read - before


def typed(rng: np.random.Generator, way: str, length: int) -> float:
    """Return how many tokens are read for a keystroke, after the first answer."""
    seed = int(rng.integers(2**32))
    texts = ["".join(chr(97 + n) for n in rng.integers(25, size=length)) for _ in range(2)]
    keys = "z" * N_KEYS
    reader = Reader(seed, length + N_KEYS, 1 + (way == "two editors, two slots"))
    texts = texts if "two editors" in way else texts[:1]
    counts = []
    for n in range(N_KEYS + 1):
        for text in texts:
            cut = len(text) // 2 if way == "key in the middle" else len(text)
            if way == "nothing kept":
                reader = Reader(seed, length + N_KEYS)
            found = reader.asked(text[:cut] + keys[:n] + text[cut:])
            counts += [found] * (n > 0)
    return float(np.mean(counts))


def kept(rng: np.random.Generator, n_slots: int, is_in_order: bool, n_asked: int) -> float:
    """Return for which share of keystrokes of four editors the text is still in a slot."""
    reader = Reader(int(rng.integers(2**32)), 200, n_slots)
    texts = [chr(97 + n) * 8 for n in range(N_EDITORS)]
    found = []
    for n in range(n_asked):
        who = n % N_EDITORS if is_in_order else int(rng.integers(N_EDITORS))
        texts[who] += "z"
        n_read = reader.asked(texts[who])
        found += [n_read == 1] * (n >= 2 * N_EDITORS)
    return float(np.mean(found))


def waited(seed: int, in_turns: bool) -> dict[str, list[int]]:
    """Return after how many tokens of work each answer is over: the long one came first."""
    engine = Engine(make_model(seed), Reader.encode, VOCABULARY, [], 4 + LONG, N_SHORT + 1)
    server, over, n_steps = Server(engine, 80), {}, 0
    waiting = [("long", LONG), *((f"short {n}", SHORT) for n in range(N_SHORT))]

    def feed(name: str, n_tokens: int) -> None:
        body = b'{"prompt":"abc","temperature":0,"max_tokens":%d}' % n_tokens
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost:80\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        server.feed(name, head + body)

    while waiting or len(over) < N_SHORT + 1:
        while waiting and (in_turns or len(over) == N_SHORT + 1 - len(waiting)):
            feed(*waiting.pop(0))
        step = server.step()
        if step is not None and step[1] is None:
            over[step[0]] = n_steps
        n_steps += step is not None and step[1] == b""  # One for each token.
    return {"long": [over.pop("long")], "short": list(over.values())}


def run(rng: np.random.Generator, scale: float = 1.0) -> dict:
    """Type into texts of several lengths, let editors share slots, let short answers wait for a long one.

    Parameters
    ----------
    rng
        Draws texts and weights.
    scale
        Below 1 for fewer lengths and shorter runs.

    Returns
    -------
    dict
        Ready for JSON: tokens that are read for a keystroke, shares, tokens of work.
    """
    lengths = LENGTHS if scale == 1 else LENGTHS[:3]
    n_seeds, n_asked = (3, 200) if scale == 1 else (1, 60)
    seeds = [int(each) for each in rng.integers(2**32, size=n_seeds)]
    gone = []
    for seed in seeds:
        reader, text, counts = Reader(seed, 200), "abcd" * 8, []
        for n in range(N_KEYS):
            text += chr(97 + n)
            counts.append([reader.asked(text, N_WANTED), reader.asked(f"{text}q", N_WANTED, N_WAITED)])
        gone.append(np.sum(counts[1:], axis=0).tolist())
    return {
        "lengths": list(lengths),
        "read": {way: [[typed(rng, way, n) for n in lengths] for _ in seeds] for way in WAYS},
        "kept": {
            name: [[kept(rng, n, name == "in order", n_asked) for n in SLOTS] for _ in seeds]
            for name in ("in order", "at random")
        },
        "over": {
            name: [waited(seed, name == "in turns") for seed in seeds] for name in ("one by one", "in turns")
        },
        "gone": gone,
    }


def plot(numbers: dict):
    """Draw tokens read by length, the share that is kept by slots, and when answers are over."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.4))
    for place, way in enumerate(WAYS):
        left.plot(
            numbers["lengths"],
            np.mean(numbers["read"][way], axis=0),
            color=f"C{place}",
            marker=".o^v."[place],
            ls=["-", "-", "--", "--", "-"][place],
            label=way,
        )
    left.set(xlabel="tokens of the prompt", ylabel="tokens read for a keystroke", xscale="log", yscale="log")
    left.set_ylim(0.7, 3000)
    left.set_xticks(numbers["lengths"], [str(each) for each in numbers["lengths"]])
    left.minorticks_off()
    left.legend(fontsize=7, loc="upper left")
    for name, marker in (("in order", "o"), ("at random", ".")):
        for each in numbers["kept"][name]:
            middle.plot(SLOTS, each, color="C0" if name == "in order" else "C1", alpha=0.25, lw=1)
        mean = np.mean(numbers["kept"][name], axis=0)
        middle.plot(SLOTS, mean, color="C0" if name == "in order" else "C1", marker=marker, label=name)
    middle.set(
        xlabel="slots for four editors", ylabel="share of keystrokes whose text is kept", ylim=(-0.05, 1.05)
    )
    middle.set_xticks(SLOTS)
    middle.legend(fontsize=8, title="they type", title_fontsize=8)
    for place, (name, found) in enumerate(numbers["over"].items()):
        for row, each in enumerate([*found[0]["long"], *found[0]["short"]]):
            right.barh(
                row + (0.2, -0.2)[place], each, 0.38, color=f"C{place}", label=name if not row else None
            )
    right.set_yticks(range(N_SHORT + 1), [f"{LONG} tokens", *[f"{SHORT} tokens"] * N_SHORT])
    right.invert_yaxis()
    right.set(xlabel="tokens of work until the answer is over")
    right.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def claim(numbers: dict) -> None:
    """README.md: a key costs one token where the text is kept; short answers need not wait."""
    lengths = np.array(numbers["lengths"])
    read = {way: np.array(found) for way, found in numbers["read"].items()}
    assert (read["key at the end"] == 1).all()
    assert (read["two editors, two slots"] == 1).all()
    for way in ("nothing kept", "two editors, one slot"):
        assert np.allclose(read[way], lengths + (N_KEYS + 1) / 2, atol=2)
    assert (read["key in the middle"] == lengths / 2 + 1).all()
    order, chance = (np.array(numbers["kept"][name]) for name in ("in order", "at random"))
    assert (order[:, :-1] == 0).all()
    assert (order[:, -1] == 1).all()
    assert np.allclose(
        chance, np.array(SLOTS) / N_EDITORS, atol=0.12 if len(lengths) == len(LENGTHS) else 0.3
    )
    for one_by_one, in_turns in zip(numbers["over"]["one by one"], numbers["over"]["in turns"], strict=True):
        total = LONG + N_SHORT * SHORT
        assert one_by_one["long"] == [LONG]
        assert one_by_one["short"] == [LONG + SHORT * n for n in range(1, N_SHORT + 1)]
        assert in_turns["long"] == [total]
        assert max(in_turns["short"]) <= (N_SHORT + 1) * (SHORT + 1)
    for whole, until_gone in numbers["gone"]:
        assert whole == (N_KEYS - 1) * N_WANTED
        assert until_gone == (N_KEYS - 1) * N_WAITED
