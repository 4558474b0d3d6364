"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import time
from collections import Counter

import numpy as np

from techtree.techs.elsewhere import elsewhere

_DRAWS = "draws = rng.bit_generator.random_raw(n).tolist()"
_CHOSEN = "chosen = draws[last] % (last + 1)"
_RETURN = "return np.array(order, dtype=np.int64)"
_LOOP = "for last in range(n - 1, 0, -1):"
_RANGE = "        if n_examples < 1 or batch_size < 1:\n"
_SEED = "        if not 0 <= seed < 2**63:\n"
_EMPTY = "        if batch_size > n_examples and not keep_last:\n"
_COUNT = "self.n_batches = -(-n_examples // batch_size) if keep_last else n_examples // batch_size"
_NUMBER = "        if number < 0:\n"
_STREAM = 'random_stream(self.seed, f"shuffle, epoch {number}")'
_ORDER = f"order = shuffled(self.n_examples, {_STREAM})"
_STARTS = "starts = range(0, self.n_batches * self.batch_size, self.batch_size)"
_GIVE = "return (order[start : start + self.batch_size].copy() for start in starts)"
_STAND = "self.loader, self._epoch, self._position = loader, 0, 0\n        self._batches = loader.epoch(0)\n"
_NEXT = "            self._epoch, self._position = self._epoch + 1, 0\n"
_AT_END = "if self._position == self.loader.n_batches:"
_STATE = "return {name: np.array(value) for name, value in stands.items()}"
_STANDS = 'stands = _settings(self.loader) | {"epoch": self._epoch, "position": self._position}'
_LOAD = '        self._epoch, self._position = int(state["epoch"]), int(state["position"])\n'
_GO = "        self._batches = islice(self.loader.epoch(self._epoch), self._position, None)\n"
_OTHER = "            if int(state[name]) != own:\n"

MISTAKES = {
    # The shuffle.
    "each place is swapped with any place, not with one that is still open": [
        (_CHOSEN, "chosen = draws[last] % n")
    ],
    "a number is never left where it is (Sattolo)": [(_CHOSEN, "chosen = draws[last] % last")],
    "the last swap is left out": [(_LOOP, "for last in range(n - 1, 1, -1):")],
    "the first swap is left out": [(_LOOP, "for last in range(n - 2, 0, -1):")],
    "neighbours only are swapped": [(_CHOSEN, "chosen = last - draws[last] % 2")],
    "the numbers are turned round, not mixed": [
        (_RETURN, "return np.roll(np.arange(n), int(draws[0] % n) if n else 0)")
    ],
    "numbers are sorted by random keys of which many are equal": [
        (_RETURN, "return np.argsort(rng.integers(0, max(n, 1), size=n), kind='stable')")
    ],
    "numbers are drawn with replacement": [
        (_RETURN, "return np.array([d % n for d in draws], dtype=np.int64)")
    ],
    "the numbers begin with 1": [("order = list(range(n))", "order = list(range(1, n + 1))")],
    "a shuffle is a list": [(_RETURN, "return order")],
    "a shuffle is of int32": [(_RETURN, "return np.array(order, dtype=np.int32)")],
    "a shuffle has 16 bits, which are too few for many examples": [
        (_RETURN, "return np.array(order).astype(np.uint16).astype(np.int64)")
    ],
    "the generator is copied, so that the next shuffle is the same": [
        (_DRAWS, "import copy\n    " + _DRAWS.replace("rng.", "copy.deepcopy(rng)."))
    ],
    "the global generator is used": [(_DRAWS, "draws = np.random.randint(0, 2**62, size=n).tolist()")],
    "a new generator is made in each shuffle": [
        (_DRAWS, "draws = np.random.default_rng(n).bit_generator.random_raw(n).tolist()")
    ],
    "the first 1,000 only are shuffled": [(_LOOP, "for last in range(min(n, 1000) - 1, 0, -1):")],
    # Epochs.
    "all epochs have the same order": [(_STREAM, 'random_stream(self.seed, "shuffle")')],
    "all seeds have the same orders": [(_STREAM, _STREAM.replace("self.seed", "0"))],
    "seed and number are added": [(_STREAM, 'random_stream(self.seed + number, "shuffle")')],
    "seed and number are written one behind the other": [
        (_STREAM, 'random_stream(0, f"{self.seed}{number}")')
    ],
    "each epoch turns the order of the one before": [
        (_ORDER, 'order = np.roll(shuffled(self.n_examples, random_stream(self.seed, "shuffle")), number)')
    ],
    "seeds come from hash(), which differs from process to process": [
        (_STREAM, 'np.random.default_rng(abs(hash(f"{self.seed}, {number}")))')
    ],
    "the order depends on the day": [
        (_STREAM, "random_stream(self.seed, f\"{number}, {__import__('time').strftime('%j')}\")")
    ],
    "the order depends on the size of the batches": [
        (_STREAM, 'random_stream(self.seed, f"shuffle, epoch {number}, {self.batch_size}")')
    ],
    "the order depends on keep_last": [
        (_STREAM, 'random_stream(self.seed, f"shuffle, epoch {number}, {bool(self.keep_last)}")')
    ],
    "one generator goes on from epoch to epoch, so that the second call gives another order": [
        (_COUNT, _COUNT + '\n        self._rng = random_stream(seed, "shuffle")'),
        (_STREAM, "self._rng"),
    ],
    "one generator goes through all earlier epochs": [
        (
            _ORDER,
            'rng = random_stream(self.seed, "shuffle")\n'
            "        for _ in range(number + 1):\n"
            "            order = shuffled(self.n_examples, rng)",
        )
    ],
    "there is no shuffle": [(_ORDER, "order = np.arange(self.n_examples)")],
    "batches are mixed, not examples": [
        (
            _ORDER,
            f"starts = shuffled(self.n_batches, {_STREAM}) * self.batch_size\n"
            "        whole = [np.arange(s, min(s + self.batch_size, self.n_examples)) for s in starts]\n"
            "        whole.sort(key=len, reverse=True)\n"
            "        order = np.concatenate(whole)",
        )
    ],
    "the examples of a batch are sorted": [
        (
            _GIVE,
            _GIVE.replace(
                "order[start : start + self.batch_size].copy()",
                "np.sort(order[start : start + self.batch_size])",
            ),
        )
    ],
    "the same examples are left out in each epoch": [
        (
            _ORDER,
            f"order = shuffled(min(self.n_batches * self.batch_size, self.n_examples), {_STREAM})",
        )
    ],
    "what is left over is always a batch": [(_COUNT, "self.n_batches = -(-n_examples // batch_size)")],
    "what is left over is never a batch": [(_COUNT, "self.n_batches = max(1, n_examples // batch_size)")],
    "the last batch is filled up from the beginning": [
        (
            _GIVE,
            "return (np.resize(order, self.n_batches * self.batch_size)[s : s + self.batch_size] for s in starts)",
        )
    ],
    "the last batch is left out also where nothing is left over": [
        (_COUNT, "self.n_batches = -(-n_examples // batch_size) - (not keep_last)")
    ],
    "there is an empty batch where nothing is left over": [
        (_COUNT, "self.n_batches = n_examples // batch_size + bool(keep_last)")
    ],
    "n_batches counts the whole batches only": [
        (
            _STARTS,
            "starts = range(0, self.n_examples if self.keep_last else self.n_batches * self.batch_size, self.batch_size)",
        ),
        (_COUNT, "self.n_batches = n_examples // batch_size"),
        (_AT_END, "if self._position == len(list(self.loader.epoch(0))):"),
    ],
    "keep_last is true if nothing is said": [("keep_last: bool = False", "keep_last: bool = True")],
    "orders are kept, and who writes into a batch changes the next call's": [
        (_COUNT, _COUNT + "\n        self._orders = {}"),
        (_ORDER, f"order = self._orders.setdefault(number, shuffled(self.n_examples, {_STREAM}))"),
        (_GIVE, _GIVE.replace(".copy()", "")),
    ],
    "one array is used for all batches": [
        (
            _GIVE,
            "batch = np.empty(self.batch_size, np.int64)\n\n"
            "        def fill(part):\n"
            "            batch[: len(part)] = part\n"
            "            return batch[: len(part)]\n\n"
            "        return (fill(order[start : start + self.batch_size]) for start in starts)",
        )
    ],
    "batches are lists": [(_GIVE, _GIVE.replace(".copy()", ".tolist()"))],
    "no examples, or batches of none, are accepted": [(_RANGE, "        if False:\n")],
    "a negative seed is made positive": [
        (_SEED, "        seed = abs(seed)\n        if not 0 <= seed < 2**63:\n")
    ],
    "a seed of 64 bits is accepted": [(_SEED, "        if not 0 <= seed < 2**64:\n")],
    "a loader without any batch is accepted": [(_EMPTY, "        if False:\n")],
    "a batch of more than all examples is refused also with keep_last": [
        (_EMPTY, "        if batch_size > n_examples:\n")
    ],
    "an epoch before the first is accepted": [(_NUMBER, "        if False:\n")],
    # The stream.
    "the stream repeats its first epoch": [(_NEXT, "            self._position = 0\n")],
    "the stream begins with the second epoch": [
        (_STAND, _STAND.replace("loader, 0, 0", "loader, 1, 0").replace("epoch(0)", "epoch(1)"))
    ],
    "the stream loses the last batch of each epoch": [
        (_AT_END, "if self._position == max(1, self.loader.n_batches - 1):")
    ],
    "the stream ends after its first epoch": [(_NEXT, "            raise StopIteration\n")],
    "streams of one loader share their place": [
        (
            _STAND,
            f"{_STAND}"
            "        if not hasattr(loader, 'place'):\n"
            "            loader.place = self.__dict__\n"
            "        self.__dict__ = loader.place\n",
        )
    ],
    "a resumed stream begins its epoch again": [
        (_LOAD, _LOAD.replace('int(state["position"])', "0")),
    ],
    "a resumed stream gives the last batch again": [
        (_LOAD, _LOAD.replace('int(state["position"])', 'max(0, int(state["position"]) - 1)')),
    ],
    "a resumed stream leaves a batch out": [
        (_GO, _GO.replace("self._position,", "self._position + (self._position > 0),"))
    ],
    "a resumed stream is in the first epoch": [(_LOAD, _LOAD.replace('int(state["epoch"])', "0"))],
    "a resumed stream goes on to the end of its epoch, and then to the first": [
        (_GO, _GO + "        self._epoch = -1\n")
    ],
    "a stream cannot go back": [
        (_LOAD, '        if int(state["epoch"]) < self._epoch:\n            return\n' + _LOAD)
    ],
    "the state holds the order of the epoch": [
        (
            _STANDS,
            f"{_STANDS}\n"
            '        stands["order"] = np.concatenate(list(self.loader.epoch(self._epoch))).tolist()',
        )
    ],
    "the state holds Python's integers": [(_STATE, "return stands")],
    "the epoch in the state is a byte": [
        (
            _STATE,
            "return {name: np.array(value % 256 if name == 'epoch' else value) for name, value in stands.items()}",
        )
    ],
    "the seed in the state has the digits of a float": [
        (_STATE, "return {name: np.array(int(float(value))) for name, value in stands.items()}"),
        (_OTHER, "            if int(state[name]) != int(float(own)):\n"),
    ],
    "the state changes while the stream goes on": [
        (
            _STATE,
            "self._live = getattr(self, '_live', {})\n"
            "        for name, value in stands.items():\n"
            "            self._live.setdefault(name, np.zeros((), np.int64))[...] = value\n"
            "        return self._live",
        )
    ],
    "loading writes into the state": [
        (
            _LOAD,
            _LOAD + '        if state["position"].flags.writeable:\n            state["position"][...] = 0\n',
        )
    ],
    "a state of any loader is accepted": [(_OTHER, "            if False:\n")],
    "a state of another seed is accepted": [
        (_OTHER, '            if name != "seed" and int(state[name]) != own:\n')
    ],
    "a state of another size of batches is accepted": [
        (_OTHER, '            if name != "batch_size" and int(state[name]) != own:\n')
    ],
    "a state of another number of examples is accepted": [
        (_OTHER, '            if name != "n_examples" and int(state[name]) != own:\n')
    ],
    "a state of another keep_last is accepted": [
        (_OTHER, '            if name != "keep_last" and int(state[name]) != own:\n')
    ],
    "the message about another loader does not say what differs": [
        ("a loader with {name}={own}; got", "a loader with {own}; got")
    ],
    "the stream has moved when a state is refused": [
        (
            "        for name, own in _settings(self.loader).items():\n",
            _LOAD + _GO + "        for name, own in _settings(self.loader).items():\n",
        )
    ],
}


def _inside_out(n, rng):
    """Build the order from the front: each number takes a place, whose owner moves to the end."""
    order = np.empty(n, np.int64)
    for number in range(n):
        place = int(rng.integers(number + 1))
        order[number] = order[place]
        order[place] = number
    return order


class _Counting:
    """One count of all batches instead of epoch and place, kept in another form."""

    def __init__(self, loader):
        self.loader, self.n_given = loader, 0

    def next_batch(self):
        epoch, place = divmod(self.n_given, self.loader.n_batches)
        self.n_given += 1
        return list(self.loader.epoch(epoch))[place].copy()

    def _key(self):
        loader = self.loader
        return [loader.n_examples, loader.batch_size, loader.seed, int(loader.keep_last)]

    def state_dict(self):
        return {"given": np.array([self.n_given]), "loader": np.array(self._key(), dtype=np.int64)}

    def load_state_dict(self, state):
        names = ["n_examples", "batch_size", "seed", "keep_last"]
        for name, own, other in zip(names, self._key(), state["loader"].tolist(), strict=True):
            if own != other:
                raise ValueError(f"another {name}")
        (self.n_given,) = state["given"].tolist()


EQUIVALENTS = {
    "sorted by random keys of 64 bits": [
        (_RETURN, "return np.argsort(np.array(draws, np.uint64), kind='stable').astype(np.int64)")
    ],
    "built from the front, with bounded integers": {"shuffled": _inside_out},
    "NumPy's own permutation": {"shuffled": lambda n, rng: rng.permutation(n).astype(np.int64)},
    "numbers chosen one by one from those that are left": [
        (
            _RETURN,
            "left = list(range(n))\n"
            "    return np.array([left.pop(draw % len(left)) for draw in draws], dtype=np.int64)",
        )
    ],
    "a counter-based generator whose key is seed and number": [
        (_STREAM, "np.random.Generator(np.random.Philox(key=[self.seed, number]))")
    ],
    "epochs as lists, cut by split": [
        (
            _GIVE,
            "whole = order[: self.n_batches * self.batch_size]\n"
            "        cuts = range(self.batch_size, len(whole), self.batch_size)\n"
            "        return iter([np.array(part) for part in np.split(whole, cuts)])",
        )
    ],
    "a stream that counts all batches": {"BatchStream": _Counting},
}

HARMLESS = {
    "for last in range(n - 1, 0, -1): => for last in range(n - 1, -1, -1):": "place 0 is swapped with itself",
    "shuffled: float32 becomes float64": "the numbers are integers",
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    del rng  # The orders of right versions differ: what is asked for are properties that they share.

    def threes(impl):
        """Which orders of three occur, whether equally often, and whether the plain one is preferred."""
        generator = np.random.default_rng(0)
        found = Counter(tuple(map(int, impl.shuffled(3, generator))) for _ in range(12_000))
        is_equal = sum((n - 2000) ** 2 for n in found.values()) / 2000 < 51 and len(found) == 6
        return sorted(found) if len(found) < 10 else "many", is_equal, found[0, 1, 2] > 3600

    def shuffle(look, n=5):
        return lambda impl: look(impl.shuffled(n, np.random.default_rng(3)))

    def twice(impl):
        """Whether the same generator, one in the same state, and another one give the same order."""
        first = np.random.default_rng(3)
        given = [
            list(impl.shuffled(20, generator))
            for generator in (first, first, np.random.default_rng(3), np.random.default_rng(4))
        ]
        return [each == given[0] for each in given[1:]]

    def order(impl, n, size, seed, number, *more):
        loader = impl.DataLoader(n, size, seed, *more)
        return [int(each) for batch in loader.epoch(number) for each in batch]

    def equal(one, other):
        return lambda impl: order(impl, *one) == order(impl, *other)

    def turned(impl):
        a, b = order(impl, 30, 30, 0, 0), order(impl, 30, 30, 0, 1)
        return a == b[b.index(a[0]) :] + b[: b.index(a[0])]

    def with_another_salt(impl):
        names, before = impl.DataLoader.epoch.__globals__, order(impl, 20, 20, 1, 1)
        names["hash"] = lambda _: 1
        try:
            return order(impl, 20, 20, 1, 1) == before
        finally:
            del names["hash"]

    def on_another_day(impl):
        before = order(impl, 20, 20, 1, 1)
        with elsewhere(impl):
            return order(impl, 20, 20, 1, 1) == before

    def after_300_epochs(impl):
        loader = impl.DataLoader(9, 9, 3)
        one, other = impl.BatchStream(loader), impl.BatchStream(loader)
        for _ in range(300):
            one.next_batch()
        other.load_state_dict(one.state_dict())
        return list(one.next_batch()) == list(other.next_batch())

    def of_the_next_seed(impl):
        one, other = (impl.BatchStream(impl.DataLoader(9, 9, 2**62 + n)) for n in range(2))
        try:
            one.load_state_dict(other.state_dict())
        except ValueError:
            return "refused"
        return "accepted"

    def again(impl):
        loader = impl.DataLoader(20, 20, 1)
        return next(loader.epoch(1)).tolist() == next(loader.epoch(1)).tolist()

    def batches(look, *arguments, **options):
        return lambda impl: look([list(map(int, b)) for b in impl.DataLoader(*arguments, **options).epoch(0)])

    def sizes(*arguments, **options):
        return batches(lambda found: [len(each) for each in found], *arguments, **options)

    def left_out(impl):
        loader = impl.DataLoader(7, 3, 0)
        found = {frozenset(range(7)).difference(*map(list, loader.epoch(n))) for n in range(20)}
        return sorted(len(each) for each in found)[0], len(found) > 1

    def cost(impl):
        def least(number):
            times = []
            for _ in range(3):
                start = time.process_time()
                list(impl.DataLoader(100, 100, 0).epoch(number))
                times.append(time.process_time() - start)
            return max(min(times), 2e-5)

        return least(1000) > 30 * least(0)

    def written_to(impl):
        """Whether what is written into a batch is seen in the next call, or in another batch."""
        loader = impl.DataLoader(6, 3, 0)
        first, second = loader.epoch(0)
        kept = second.tolist()
        first[...] = -1
        return second.tolist() == kept, -1 in next(loader.epoch(0)).tolist()

    def kind(impl):
        batch = next(impl.DataLoader(6, 3, 0).epoch(0))
        return type(batch).__name__, str(getattr(batch, "dtype", ""))

    def refused(*arguments, number=0):
        def answer(impl):
            try:
                list(impl.DataLoader(*arguments).epoch(number))
            except Exception as error:
                return "ValueError" if isinstance(error, ValueError) else type(error).__name__
            return "nothing"

        return answer

    def places(impl, loader, stream, n):
        """Of the next batches of a stream: which epoch's they are, and which of it."""
        known = {
            tuple(batch.tolist()): [number, place]
            for number in range(5)
            for place, batch in enumerate(loader.epoch(number))
        }
        if any(tuple(b.tolist()) not in known for b in loader.epoch(0)):
            return "epochs that are never the same"
        return [known.get(tuple(map(int, stream.next_batch())), "unknown") for _ in range(n)]

    def stream(look, n_examples=12, size=4):
        def answer(impl):
            loader = impl.DataLoader(n_examples, size, 3, True)
            return look(impl, loader, impl.BatchStream(loader))

        return answer

    def resumed(n, n_ahead=0):
        """The places of a stream that goes on where another stood after n batches."""

        def look(impl, loader, one):
            places(impl, loader, one, n)
            other = impl.BatchStream(loader)
            places(impl, loader, other, n_ahead)
            other.load_state_dict(one.state_dict())
            return places(impl, loader, other, 6)

        return stream(look)

    def two_streams(impl, loader, one):
        places(impl, loader, one, 1)
        return places(impl, loader, impl.BatchStream(loader), 1)

    def state(impl, loader, one):
        """Kinds of values, and whether the state of many examples is as small."""
        found = one.state_dict().values()
        many = impl.BatchStream(impl.DataLoader(100, 4, 3, True)).state_dict().values()
        return sorted({type(each).__name__ for each in found}), sum(map(np.size, found)) == sum(
            map(np.size, many)
        )

    def state_later(impl, loader, one):
        before = one.state_dict()
        copies = {name: np.array(each) for name, each in before.items()}
        places(impl, loader, one, 1)
        one.state_dict()
        return all(np.array_equal(before[name], copies[name]) for name in copies)

    def state_loaded(impl, loader, one):
        places(impl, loader, one, 2)
        given = one.state_dict()
        copies = {name: np.array(each) for name, each in given.items()}
        impl.BatchStream(loader).load_state_dict(given)
        return all(np.array_equal(given[name], copies[name]) for name in copies)

    def of_another(name, value):
        """What a state of another loader raises, whether the message names it, and where the stream is then."""

        def answer(impl):
            own = {"n_examples": 12, "batch_size": 4, "seed": 3, "keep_last": True}
            loader = impl.DataLoader(**own)
            one, other = impl.BatchStream(loader), impl.BatchStream(impl.DataLoader(**own | {name: value}))
            other.next_batch()
            try:
                one.load_state_dict(other.state_dict())
            except ValueError as error:
                return name in str(error), places(impl, loader, one, 1)
            return "nothing"

        return answer

    return {
        "orders of three": threes,
        "a shuffle, sorted": shuffle(lambda found: sorted(map(int, found))),
        "a shuffle of many, sorted": shuffle(
            lambda found: sorted(map(int, found)) == list(range(70_000)), 70_000
        ),
        "the end of a shuffle of many": shuffle(
            lambda found: list(map(int, found[-900:])) == list(range(69_100, 70_000)), 70_000
        ),
        "the kind of a shuffle": shuffle(
            lambda found: (type(found).__name__, str(getattr(found, "dtype", "")))
        ),
        "shuffles and their generators": twice,
        "another epoch": equal((30, 30, 0, 0), (30, 30, 0, 1)),
        "another epoch, turned": turned,
        "another seed": equal((30, 30, 0, 0), (30, 30, 1, 0)),
        "seed and number changed by one": equal((30, 30, 0, 1), (30, 30, 1, 0)),
        "digits of seed and number": equal((30, 30, 1, 11), (30, 30, 11, 1)),
        "another size": equal((30, 30, 0, 0), (30, 10, 0, 0)),
        "another keep_last": equal((30, 10, 0, 0, True), (30, 10, 0, 0, False)),
        "another process": with_another_salt,
        "another day": on_another_day,
        "a second call": again,
        "the plain order": batches(
            lambda found: [n for each in found for n in each] == list(range(20)), 20, 5, 0
        ),
        "neighbours in batches": batches(
            lambda found: all(each == list(range(each[0], each[0] + 5)) for each in found), 20, 5, 0
        ),
        "batches are sorted": batches(lambda found: all(each == sorted(each) for each in found), 20, 5, 0),
        "what is left out": left_out,
        "sizes": sizes(7, 3, 0),
        "sizes with the last": sizes(7, 3, 0, True),
        "sizes where nothing is left over": sizes(6, 3, 0),
        "sizes with the last where nothing is left over": sizes(6, 3, 0, True),
        "the number of batches": lambda impl: impl.DataLoader(7, 3, 0, True).n_batches,
        "the cost of a later epoch": cost,
        "batches that were written to": written_to,
        "the kind of a batch": kind,
        "no examples": refused(0, 1, 0, True),
        "a negative seed": refused(5, 1, -1),
        "a seed of 64 bits": refused(5, 1, 2**63),
        "no batch": refused(5, 6, 0),
        "a last batch only": refused(5, 6, 0, True),
        "an epoch before the first": refused(5, 1, 0, number=-1),
        "a stream": stream(lambda impl, loader, one: places(impl, loader, one, 7)),
        "two streams": stream(two_streams),
        "resumed at the start": resumed(0),
        "resumed in the first epoch": resumed(1),
        "resumed in the second epoch": resumed(5),
        "resumed by a stream that is ahead": resumed(1, 5),
        "a state": stream(state),
        "a state later": stream(state_later),
        "a state after loading": stream(state_loaded),
        "resumed after 300 epochs": after_300_epochs,
        "a state of the next of large seeds": of_the_next_seed,
        "a state of another seed": of_another("seed", 4),
        "a state of another size": of_another("batch_size", 6),
        "a state of another number": of_another("n_examples", 16),
        "a state of another keep_last": of_another("keep_last", False),
    }
