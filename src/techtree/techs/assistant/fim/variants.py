"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import numpy as np

from techtree.techs.text.bpe import BPE

_FOUR = "if len({self.prefix, self.suffix, self.middle, self.end}) < 4:"
_PLACES = "start, stop = sorted(rng.integers(0, len(text) + 1, size=2).tolist())"
_PARTS = "return text[:start], text[start:stop], text[stop:]"
_ROOM = 'if room < 0:\n        raise ValueError(f"room must be at least 0'
_MIDDLE = "middle = list(middle[max(0, len(middle) - room) :])"
_LEFT = "left = room - len(middle)"
_SUFFIX = "n_suffix = min(len(suffix), max(left // 2, left - len(prefix)))"
_PREFIX = "n_prefix = min(len(prefix), left - n_suffix)"
_KEPT = "return list(prefix[len(prefix) - n_prefix :]), middle, list(suffix[:n_suffix])"
_MARKS = "marks = {sentinels.prefix, sentinels.suffix, sentinels.middle, sentinels.end}"
_HELD = "if held := marks & {*prefix, *middle, *suffix}:"
_FIRST = (
    "first = [sentinels.prefix, *([] if is_spm else prefix), sentinels.suffix, *suffix, sentinels.middle]"
)
_REST = "return [*first, *(prefix if is_spm else []), *middle, sentinels.end]"
_ORDER = "order = [sentinels.prefix, sentinels.suffix, sentinels.middle, sentinels.end]"
_SOUND = "if [each for each in ids if each in order] != order or [ids[0], ids[-1]] != [order[0], order[-1]]:"
_JOINED = "return ids[1:at_suffix] + ids[at_middle + 1 : -1] + ids[at_suffix + 1 : at_middle]"
_LEAST = "if max_tokens < 4:"
_PLAIN = "if rng.random() >= fim_rate:"
_WHOLE = "return [*tokenizer.encode(text), sentinels.end][:max_tokens]"
_ENCODED = "prefix, middle, suffix = (tokenizer.encode(part) for part in cut(text, rng))"
_IS_SPM = "is_spm = rng.random() < spm_rate"
_EXAMPLE = "return arrange(*trim(prefix, middle, suffix, max_tokens - 4), sentinels, is_spm)"
_NONE = 'if room < 0:\n        raise ValueError(f"max_tokens'
_AFTER = "after = tokenizer.encode(suffix)[: room // 4]"
_BEFORE = "before = tokenizer.encode(prefix)\n"
_CUT = "before = before[max(0, len(before) - room + len(after)) :]"
_PROMPT = "return arrange(before, [], after, sentinels, is_spm)[:-1]"

MISTAKES = {
    "Sentinels: two may be the same": [(_FOUR, "if False:")],
    "Sentinels: the end may be one of the others": [
        (_FOUR, "if len({self.prefix, self.suffix, self.middle}) < 3:")
    ],
    "cut: never at the end of the text": [
        (_PLACES, "start, stop = sorted(rng.integers(0, max(len(text), 1), size=2).tolist())")
    ],
    "cut: the middle is never empty": [
        (_PARTS, f"stop = max(stop, min(start + 1, len(text)))\n    {_PARTS}")
    ],
    "cut: the second place is drawn behind the first": [
        (
            _PLACES,
            "start = int(rng.integers(0, len(text) + 1))\n    stop = int(rng.integers(start, len(text) + 1))",
        )
    ],
    "cut: a character is lost at the second place": [
        (_PARTS, _PARTS.replace("text[stop:]", "text[stop + 1 :]"))
    ],
    "cut: places are not sorted": [
        (_PLACES, _PLACES.replace("sorted(", "(").replace(".tolist()", ".tolist()"))
    ],
    "cut: lines stay whole": [
        (
            _PARTS,
            "start = text.rfind('\\n', 0, start) + 1\n    stop = max(start, text.rfind('\\n', 0, stop) + 1)\n    "
            + _PARTS,
        )
    ],
    "trim: no room is taken for all room": [(_ROOM, _ROOM.replace("room < 0", "room < 0 and prefix"))],
    "trim: the middle keeps its beginning": [(_MIDDLE, "middle = list(middle[:room])")],
    "trim: with no room the middle is whole": [(_MIDDLE, "middle = list(middle[-room:])")],
    "trim: the middle comes last": [
        (_LEFT, "left = max(0, room)"),
        (_KEPT, "middle = middle[max(0, len(middle) - room + n_prefix + n_suffix) :]\n    " + _KEPT),
    ],
    "trim: prefix and suffix get half each, needed or not": [
        (_SUFFIX, "n_suffix = min(len(suffix), left // 2)"),
        (_PREFIX, "n_prefix = min(len(prefix), left - left // 2)"),
    ],
    "trim: the prefix takes what it needs first": [
        (_SUFFIX, "n_suffix = min(len(suffix), max(0, left - len(prefix)))")
    ],
    "trim: the suffix gets the odd token": [(_SUFFIX, _SUFFIX.replace("left // 2", "(left + 1) // 2"))],
    "trim: the prefix keeps its beginning": [
        (_KEPT, _KEPT.replace("prefix[len(prefix) - n_prefix :]", "prefix[:n_prefix]"))
    ],
    "trim: a prefix without room is whole": [
        (_KEPT, _KEPT.replace("len(prefix) - n_prefix :", "-n_prefix:"))
    ],
    "trim: the suffix keeps its end": [
        (_KEPT, _KEPT.replace("suffix[:n_suffix]", "suffix[len(suffix) - n_suffix :]"))
    ],
    "arrange: sentinels in a part are no error": [(_HELD, "if held := set():")],
    "arrange: the end may stand in a part": [(_MARKS, _MARKS.replace(", sentinels.end", ""))],
    "arrange: the middle does not end": [(_REST, _REST.replace(", sentinels.end", ""))],
    "arrange: SPM has no sentinel of the prefix": [
        (
            _FIRST,
            "first = [*([] if is_spm else [sentinels.prefix, *prefix]), sentinels.suffix, *suffix, sentinels.middle]",
        )
    ],
    "arrange: SPM as first proposed, the prefix behind its own sentinel": [
        (
            _FIRST,
            "first = [sentinels.suffix, *suffix, sentinels.prefix] if is_spm else [sentinels.prefix, *prefix, sentinels.suffix, *suffix, sentinels.middle]",
        ),
        (_REST, "return [*first, *([*prefix, sentinels.middle] if is_spm else []), *middle, sentinels.end]"),
    ],
    "arrange: always PSM": [(_FIRST, f"is_spm = False\n    {_FIRST}")],
    "arrange: SPM is the default": [
        (
            '    is_spm: bool = False,\n) -> list[int]:\n    """Write',
            '    is_spm: bool = True,\n) -> list[int]:\n    """Write',
        )
    ],
    "arrange: the middle stands where it stood": [
        (
            _FIRST,
            "first = [sentinels.prefix, *([] if is_spm else prefix), sentinels.middle, *middle, sentinels.suffix]",
        ),
        (_REST, "return [*first, *(prefix if is_spm else []), *suffix, sentinels.end]"),
    ],
    "restore: the suffix comes before the middle": [
        (_JOINED, "return ids[1:at_suffix] + ids[at_suffix + 1 : at_middle] + ids[at_middle + 1 : -1]")
    ],
    "restore: what is no example passes": [(_SOUND, "if len(ids) < 4:")],
    "restore: something may stand around": [(_SOUND, "if [each for each in ids if each in order] != order:")],
    "restore: the order of the sentinels does not matter": [
        (
            _SOUND,
            "if sorted(each for each in ids if each in order) != sorted(order) or [ids[0], ids[-1]] != [order[0], order[-1]]:",
        )
    ],
    "example: room for three tokens is enough": [(_LEAST, "if max_tokens < 3:")],
    "example: the rate is that of whole texts": [(_PLAIN, "if rng.random() < fim_rate:")],
    "example: every text is cut": [(_PLAIN, "if rng.random() >= 1:")],
    "example: a whole text has no end": [(_WHOLE, "return tokenizer.encode(text)[:max_tokens]")],
    "example: a text that is too long ends all the same": [
        (_WHOLE, "return [*tokenizer.encode(text)[: max_tokens - 1], sentinels.end]")
    ],
    "example: a whole text may be too long": [(_WHOLE, "return [*tokenizer.encode(text), sentinels.end]")],
    "example: cuts lie on the borders of tokens": [
        (
            _ENCODED,
            "ids = tokenizer.encode(text)\n    start, stop = sorted(rng.integers(0, len(ids) + 1, size=2).tolist())\n    prefix, middle, suffix = ids[:start], ids[start:stop], ids[stop:]",
        )
    ],
    "example: the parts are encoded together": [
        (
            _ENCODED,
            "parts = cut(text, rng)\n    ids, n = tokenizer.encode(text), [len(tokenizer.encode(each)) for each in parts]\n    prefix, middle, suffix = ids[: n[0]], ids[n[0] : n[0] + n[1]], ids[n[0] + n[1] :]",
        )
    ],
    "example: the order is drawn before the cut": [
        (_ENCODED, f"second = rng.random()\n    {_ENCODED}"),
        (_IS_SPM, "is_spm = second < spm_rate"),
    ],
    "example: the rate is that of PSM": [(_IS_SPM, "is_spm = rng.random() >= spm_rate")],
    "example: never SPM": [(_EXAMPLE, _EXAMPLE.replace(", is_spm)", ")"))],
    "example: the sentinels are not counted": [(_EXAMPLE, _EXAMPLE.replace("max_tokens - 4", "max_tokens"))],
    "example: what is too long is cut off at the end": [
        (_EXAMPLE, "return arrange(prefix, middle, suffix, sentinels, is_spm)[:max_tokens]")
    ],
    "example: half of all texts are cut, whatever the rate": [(_PLAIN, "if rng.random() >= 0.5:")],
    "prompt: room for four sentinels is asked for": [(_NONE, _NONE.replace("room < 0", "room < 1"))],
    "prompt: no least room": [(_NONE, _NONE.replace("room < 0", "False"))],
    "prompt: the suffix gets a quarter, rounded up": [
        (_AFTER, "after = tokenizer.encode(suffix)[: -(-room // 4)]")
    ],
    "prompt: the suffix gets half": [(_AFTER, _AFTER.replace("// 4", "// 2"))],
    "prompt: the suffix keeps its end": [
        (
            _AFTER,
            "after = tokenizer.encode(suffix)\n    after = after[len(after) - min(len(after), room // 4) :]",
        )
    ],
    "prompt: the prefix gets three quarters, needed or not": [
        (_CUT, "before = before[max(0, len(before) - room + room // 4) :]")
    ],
    "prompt: the prefix keeps its beginning": [(_CUT, "before = before[: room - len(after)]")],
    "prompt: a prefix without room is whole": [(_CUT, "before = before[-(room - len(after)) :]")],
    "prompt: blanks before the cursor are left out": [
        (_BEFORE, "before = tokenizer.encode(prefix.rstrip())\n")
    ],
    "prompt: names of sentinels in the text are sentinels": [
        (
            _BEFORE,
            "before = tokenizer.encode(prefix, getattr(tokenizer, 'special_tokens', {})) if '<' in prefix else tokenizer.encode(prefix)\n",
        ),
        (
            _PROMPT,
            "head = [sentinels.prefix, *([] if is_spm else before), sentinels.suffix, *after, sentinels.middle]\n    return head + (before if is_spm else [])",
        ),
    ],
    "prompt: it ends": [(_PROMPT, _PROMPT.removesuffix("[:-1]"))],
    "prompt: always PSM": [(_PROMPT, _PROMPT.replace(", is_spm)", ")"))],
}


def _trimmed(prefix, middle, suffix, room):
    """Drop one token after the other."""
    if room < 0:
        raise ValueError("no room")
    prefix, middle, suffix = ([*part] for part in (prefix, middle, suffix))
    while len(prefix) + len(middle) + len(suffix) > room:
        if not prefix and not suffix:
            middle.pop(0)
        elif len(suffix) >= len(prefix):
            suffix.pop()
        else:
            prefix.pop(0)
    return prefix, middle, suffix


def _arranged(prefix, middle, suffix, sentinels, is_spm=False):
    """Two lists for two orders."""
    for part in (prefix, middle, suffix):
        for each in part:
            if each in (sentinels.prefix, sentinels.suffix, sentinels.middle, sentinels.end):
                raise ValueError("a sentinel in a part")
    found = [sentinels.prefix]
    if not is_spm:
        found.extend(prefix)
    found.append(sentinels.suffix)
    found.extend(suffix)
    found.append(sentinels.middle)
    if is_spm:
        found.extend(prefix)
    return [*found, *middle, sentinels.end]


def _restored(ids, sentinels):
    """Walk along the ids."""
    expected = [sentinels.prefix, sentinels.suffix, sentinels.middle, sentinels.end]
    marks, parts, at = set(expected), [[], [], []], -1
    for each in ids:
        if each in marks:
            at += 1
            if at > 3 or each != expected[at]:
                raise ValueError("a sentinel at the wrong place")
        elif at < 0 or at > 2:
            raise ValueError("tokens outside")
        else:
            parts[at].append(int(each))
    if at != 3:
        raise ValueError("no end")
    return parts[0] + parts[2] + parts[1]


def _prompted(prefix, suffix, tokenizer, sentinels, max_tokens, is_spm=False):
    """Without arranging."""
    if max_tokens < 3:
        raise ValueError("no room")
    after = tokenizer.encode(suffix)
    del after[(max_tokens - 3) // 4 :]
    before = tokenizer.encode(prefix)[::-1][: max_tokens - 3 - len(after)][::-1]
    if is_spm:
        return [sentinels.prefix, sentinels.suffix, *after, sentinels.middle, *before]
    return [sentinels.prefix, *before, sentinels.suffix, *after, sentinels.middle]


EQUIVALENTS = {
    "parts lose one token after the other": {"trim": _trimmed},
    "a list that grows": {"arrange": _arranged},
    "a walk along the ids": {"restore": _restored},
    "prompts without arranging": {"prompt": _prompted},
    "places by hand": [
        (
            _PLACES,
            "one, other = (int(each) for each in rng.integers(0, 1 + len(text), size=2))\n    start, stop = min(one, other), max(one, other)",
        )
    ],
}

HARMLESS = {}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    bpe = BPE([(b"a", b"b"), (b"ab", b"c")], {"<pre>": 0, "<suf>": 270, "<mid>": 5, "<end>": 300})

    class ByHand:
        def __init__(self, *numbers, places=(0, 0)):
            self.numbers, self.places, self.asked = list(numbers), list(places), []

        def random(self):
            self.asked.append("random")
            return self.numbers.pop(0)

        def integers(self, low, high=None, size=None):
            self.asked.append(f"{low} {high} {size}")
            return self.places.pop(0) if size is None else np.array(self.places)

    def told(call):
        def probe(impl):
            try:
                return call(impl, impl.Sentinels(0, 270, 5, 300))
            except Exception as error:
                return "ValueError" if isinstance(error, ValueError) else type(error).__name__

        return probe

    def cut(text, *places):
        def call(impl, marks):
            by_hand = ByHand(places=places)
            return [list(impl.cut(text, by_hand)), by_hand.asked]

        return told(call)

    def trimmed(n_prefix, n_middle, n_suffix, room):
        parts = [
            [100 * k + n for n in range(size)] for k, size in enumerate((n_prefix, n_middle, n_suffix), 1)
        ]
        return told(lambda impl, marks: list(impl.trim(*parts, room)))

    def arranged(*parts, **options):
        return told(lambda impl, marks: impl.arrange(*map(list, parts), marks, **options))

    def restored(*ids):
        return told(lambda impl, marks: impl.restore(list(ids), marks))

    def example(text, max_tokens, first, second, places=(0, 0), **options):
        def call(impl, marks):
            by_hand = ByHand(first, second, places=places)
            return [impl.example(text, bpe, marks, max_tokens, by_hand, **options), by_hand.asked]

        return told(call)

    def prompt(prefix, suffix, max_tokens, **options):
        return told(lambda impl, marks: impl.prompt(prefix, suffix, bpe, marks, max_tokens, **options))

    def four(*ids):
        return told(lambda impl, marks: list(vars(impl.Sentinels(*ids)).values()))

    text = "abcabc\nxabab\nabcx"
    return {
        "two alike": four(1, 1, 2, 3),
        "the end alike": four(1, 2, 3, 3),
        "a cut": cut("abcdef\nghi", 8, 2),
        "an empty cut": cut("abcd", 2, 2),
        "parts that fit": trimmed(2, 2, 2, 9),
        "parts that do not fit": trimmed(5, 2, 5, 7),
        "an odd room": trimmed(5, 2, 5, 9),
        "a short prefix": trimmed(1, 2, 5, 6),
        "a short suffix": trimmed(5, 2, 1, 7),
        "a long middle": trimmed(2, 5, 2, 3),
        "a middle that fits": trimmed(2, 3, 2, 3),
        "no room": trimmed(2, 2, 2, 0),
        "less than no room": trimmed(0, 0, 0, -1),
        "less than no room, with tokens": trimmed(1, 1, 1, -1),
        "PSM": arranged([10, 11], [12], [13]),
        "SPM": arranged([10, 11], [12], [13], is_spm=True),
        "a sentinel inside": arranged([10], [5], [13]),
        "an end inside": arranged([10, 300], [12], [13]),
        "restored": restored(0, 10, 270, 13, 5, 12, 300),
        "restored from SPM": restored(0, 270, 13, 5, 10, 12, 300),
        "no example": restored(10, 11, 12, 13),
        "something around": restored(9, 0, 10, 270, 13, 5, 12, 300),
        "another order": restored(0, 10, 5, 13, 270, 12, 300),
        "a text": example(text, 99, 0.6, 0.1),
        "a text, seldom cut": example(text, 99, 0.3, 0.1, (2, 9), fim_rate=0.2),
        "a text, often cut": example(text, 99, 0.6, 0.1, (2, 9), fim_rate=0.9),
        "a long text": example(text, 6, 0.6, 0.1),
        "a cut text": example(text, 99, 0.1, 0.1, (9, 2)),
        "a cut text, PSM": example(text, 99, 0.1, 0.9, (2, 9)),
        "a cut text, seldom SPM": example(text, 99, 0.1, 0.3, (2, 9), spm_rate=0.2),
        "a long cut text": example(text, 9, 0.1, 0.9, (2, 9)),
        "no text, no room": example("", 3, 0.6, 0.1),
        "no text, cut, no room": example("", 3, 0.1, 0.1),
        "a prompt": prompt("abc x ", "xabc", 99),
        "a prompt in SPM": prompt("abc x", "xabc", 99, is_spm=True),
        "a short prompt": prompt("xyxyxyzw", "wxyzxyz", 12),
        "a shorter prompt": prompt("xyxyxyzw", "wxyzxyz", 10),
        "a prompt with a short suffix": prompt("xyxyxyzwxyxyxyzw", "w", 14),
        "a prompt without a suffix": prompt("xyxyxyzw", "", 14),
        "a prompt without room": prompt("xyxyxyzw", "wxyz", 3),
        "a prompt with less than no room": prompt("", "", 2),
        "a prompt with names": prompt("a<mid>", "b", 50),
    }
