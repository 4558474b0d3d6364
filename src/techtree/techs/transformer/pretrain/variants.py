"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import math
import tempfile
from pathlib import Path

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.text.causal_lm import next_token_pairs
from techtree.techs.training.adamw import AdamW
from techtree.techs.training.cross_entropy import cross_entropy
from techtree.techs.training.dataloader import BatchStream, DataLoader
from techtree.techs.training.linear import Linear
from techtree.techs.training.muon import Muon
from techtree.techs.training.schedule_clip import clip_grad_norm, warmup_linear
from techtree.techs.training.sgd import SGD
from techtree.techs.training.train_loop import load_checkpoint, save_checkpoint
from techtree.techs.transformer.embedding import Embedding
from techtree.techs.transformer.gpt import GPT, GPTConfig

_NAMES = "names = sorted(files)"
_FIRST = "is_first = {group[0] for group in groups}"
_SPLIT = "sides = split(names, groups, share, seed)"
_TEXTS = "texts = [files[name] for name in training]"
_TOKENIZER = 'tokenizer = train_tokenizer(texts, vocab_size, ["<|endoftext|>"])'
_MADE = "return Prepared(tokenizer, pack(map(tokenizer.encode, texts), length, 0), training, held_out)"
_TRAIN_EMPTY = "not any(files[name] for name in training) or "
_HELD_EMPTY = " or not any(files[name] for name in held_out)"
_NONE = "if not optimizers:"
_GROUPS = "return [group for each in self._optimizers for group in each.groups]"
_STEP = "            each.step()"
_ZERO = "            each.zero_grad()"
_KEY = 'f"{n}.{key}": value'
_NUMBER = 'number, _, rest = key.partition(".")'
_UNKNOWN = 'raise ValueError(f"{key} is not expected of {len(parts)} optimizers")'
_BACK = "                each.load_state_dict(part)\n            raise"
_OTHERS = 'split_parameters(model, ("token_embedding", "position_embedding", "head"))'
_MUON = "Muon(matrices, recipe.matrix_rate, weight_decay=recipe.weight_decay)"
_ADAMW = "AdamW(rest, recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)"
_LOADER = "DataLoader(len(rows), min(recipe.batch_size, len(rows)), recipe.seed)"
_LOSS = "return loss(model, rows[batch], end)"
_SCHEDULE = "warmup_linear(step, recipe.n_steps, recipe.n_warmup)"

MISTAKES = {
    "names are in the order of the files": [(_NAMES, "names = list(files)")],
    "near copies are learned": [(_FIRST, "is_first = set(range(len(names)))")],
    "the last of near copies stays": [(_FIRST, _FIRST.replace("[0]", "[-1]"))],
    "the share is ignored": [(_SPLIT, "sides = split(names, groups, seed=seed)")],
    "the seed of the split is ignored": [(_SPLIT, "sides = split(names, groups, share)")],
    "most files are held out": [(_SPLIT, _SPLIT + "[::-1]")],
    "the tokenizer learns from the held-out texts, too": [
        (_TOKENIZER, _TOKENIZER.replace("texts,", "[files[name] for name in training + held_out],"))
    ],
    "the tokenizer learns from near copies, too": [
        (_TOKENIZER, _TOKENIZER.replace("texts,", "[files[names[i]] for i in sides[0]],"))
    ],
    "rows hold the held-out texts, too": [(_TEXTS, "texts = [files[name] for name in training + held_out]")],
    "all texts are one document": [(_MADE, _MADE.replace("map(tokenizer.encode, texts)", "[tokenizer.encode(''.join(texts))]"))],
    "the end token has another name": [(_TOKENIZER, _TOKENIZER.replace("<|endoftext|>", "<end>"))],
    "names of the end token in texts are end tokens": [
        (_MADE, _MADE.replace("map(tokenizer.encode, texts)", "[[i for i in tokenizer.encode(text, ['<|endoftext|>']) if i] for text in texts]"))
    ],
    "no text to measure with is needed": [(_HELD_EMPTY, "")],
    "no text to train with is needed": [(_TRAIN_EMPTY, "")],
    "Optimizers may be none": [(_NONE, "if optimizers is None:")],
    "Optimizers have copies of the groups": [(_GROUPS, _GROUPS.replace("[group for", "[dict(group) for"))],
    "Optimizers have the groups of the first": [(_GROUPS, "return list(self._optimizers[0].groups)")],
    "the last optimizer steps first": [
        ("        for each in self._optimizers:\n" + _STEP, "        for each in self._optimizers[::-1]:\n" + _STEP)
    ],
    "only the first optimizer steps": [
        ("        for each in self._optimizers:\n" + _STEP, "        for each in self._optimizers[:1]:\n" + _STEP)
    ],
    "gradients of the second stay": [
        ("        for each in self._optimizers:\n" + _ZERO, "        for each in self._optimizers[:1]:\n" + _ZERO)
    ],
    "states of the second take the place of the first's": [(_KEY, "key: value")],
    "optimizers are counted from 1 in a state": [("for n, each in enumerate(self._optimizers)", "for n, each in enumerate(self._optimizers, 1)")],
    "ten optimizers are the most": [(_NUMBER, "number, rest = key[:1], key[2:]")],
    "a state may hold more": [(_UNKNOWN, "continue")],
    "a state that does not fit changes the first": [(_BACK, "                pass\n            raise")],
    "runs of no step are possible": [("if self.n_steps < 1 or", "if self.n_steps < 0 or")],
    "batches of no row are possible": [("or self.batch_size < 1:", "or self.batch_size < 0:")],
    "a warm-up may be longer than the run": [("if not 0 <= self.n_warmup <= self.n_steps:", "if not 0 <= self.n_warmup:")],
    "a warm-up may be negative": [("if not 0 <= self.n_warmup <= self.n_steps:", "if not self.n_warmup <= self.n_steps:")],
    "16 rows are a batch if nothing is said": [("batch_size: int = 8", "batch_size: int = 16")],
    "the head is Muon's": [(_OTHERS, _OTHERS.replace(', "head"', ""))],
    "tables are Muon's": [(_OTHERS, _OTHERS.replace('"token_embedding", "position_embedding", ', ""))],
    "positions are Muon's": [(_OTHERS, _OTHERS.replace('"position_embedding", ', ""))],
    "everything is AdamW's": [(_OTHERS, "[], list(model.parameters())")],
    "the rates are exchanged": [(_MUON, _MUON.replace("matrix_rate", "rate")), (_ADAMW, _ADAMW.replace("recipe.rate", "recipe.matrix_rate"))],
    "matrices do not decay": [(_MUON, "Muon(matrices, recipe.matrix_rate)")],
    "all parameters decay": [(_ADAMW, _ADAMW.replace("weight_decay=0.0", "weight_decay=recipe.weight_decay"))],
    "AdamW decays as it does if nothing is said": [(_ADAMW, _ADAMW.replace(", weight_decay=0.0", ""))],
    "AdamW has its own betas": [(_ADAMW, _ADAMW.replace("betas=(0.9, 0.95), ", ""))],
    "Muon has the momentum of SGD": [(_MUON, _MUON.replace("weight_decay", "momentum=0.9, weight_decay", 1))],
    "AdamW steps first": [("return Optimizers(*made)", "return Optimizers(*made[::-1])")],
    "there is no warm-up": [(_SCHEDULE, "warmup_linear(step, recipe.n_steps, 0)")],
    "rates stay at their height": [(_SCHEDULE, "min(1.0, (step + 1) / max(1, recipe.n_warmup))")],
    "rates fall to a tenth": [(_SCHEDULE, _SCHEDULE.replace("n_warmup)", "n_warmup, 0.1)"))],
    "rates fall by a cosine": [
        (_SCHEDULE, "(step + 1) / recipe.n_warmup if step < recipe.n_warmup else 0.5 + 0.5 * np.cos(np.pi * (step - recipe.n_warmup) / (recipe.n_steps - recipe.n_warmup))")
    ],
    "gradients are not clipped": [("        max_norm=recipe.max_norm,\n", "")],
    "the order is always that of seed 0": [(_LOADER, _LOADER.replace("recipe.seed", "0"))],
    "a last, smaller batch is taken": [(_LOADER, _LOADER.replace("recipe.seed", "recipe.seed, keep_last=True"))],
    "there must be a batch of rows": [(_LOADER, _LOADER.replace("min(recipe.batch_size, len(rows))", "recipe.batch_size"))],
    "rows come in their order": [(_LOSS, "return loss(model, rows[np.sort(batch) * 0 + np.arange(len(batch))], end)")],
    "the end is 0": [(_LOSS, _LOSS.replace("end)", "0)"))],
    "padding is counted in the mean": [
        (_LOSS, "total, _ = loss(model, rows[batch], end)\n        return total, rows[batch][:, 1:].size")
    ],
    "losses are in bits": [(_LOSS, "total, n = loss(model, rows[batch], end)\n        return total * 1.4426950408889634, n")],
    "losses are those of the last rows alone": [(_LOSS, "return loss(model, rows[batch[-1:]], end)")],
    "nothing is saved": [("        path=path,\n", "")],
    "a run is saved every 100 steps, whatever is said": [("        save_every=save_every,\n", "")],
    "no rows are a run of nothing": [
        ('raise ValueError("a model learns from at least one row; got none")', "return []")
    ],
}  # fmt: skip


class _ByNumber:
    """The optimizers in a dictionary, what is remembered read entry by entry."""

    def __init__(self, *optimizers):
        self.all = dict(enumerate(optimizers))
        if len(self.all) == 0:
            raise ValueError("no optimizer")

    def __getattr__(self, name):
        if name != "groups":
            raise AttributeError(name)
        found = []
        for each in self.all.values():
            found += each.groups
        return found

    def step(self):
        for number in sorted(self.all):
            self.all[number].step()

    def zero_grad(self):
        for group in self.groups:
            for parameter in group["parameters"]:
                parameter.grad = None

    def state_dict(self):
        found = {}
        for number, each in self.all.items():
            found.update({".".join([str(number), key]): value for key, value in each.state_dict().items()})
        return found

    def load_state_dict(self, state):
        own = self.state_dict()
        if set(own) != set(state) or any(np.shape(state[key]) != own[key].shape for key in own):
            raise ValueError("another state")
        for number, each in self.all.items():
            prefix = f"{number}."
            each.load_state_dict({key[len(prefix) :]: state[key] for key in own if key.startswith(prefix)})


_ByNumber.__name__ = "Optimizers"


def _run_by_hand(model, rows, recipe, end=0, path=None, save_every=100):
    """The loop written out, with a loss that is a mean."""
    if len(rows) == 0:
        raise ValueError("no row")
    muons, adams = [], []
    for name, each in model.named_parameters():
        is_table = any(part in ("token_embedding", "position_embedding", "head") for part in name.split("."))
        (adams if each.ndim < 2 or is_table else muons).append(each)
    muon = Muon(muons, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay)
    adamw = AdamW(adams, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0)
    both = _ByNumber(muon, adamw)
    stream = BatchStream(DataLoader(len(rows), min(len(rows), recipe.batch_size), recipe.seed))
    parts = {"model": model, "optimizer": both, "stream": stream}
    first = load_checkpoint(path, parts) if path is not None and Path(path).exists() else 0
    model.train()
    losses = []
    for step in range(first, recipe.n_steps):
        inputs, targets = next_token_pairs(rows[stream.next_batch()], end)
        both.zero_grad()
        mean = cross_entropy(model(inputs), targets)
        mean.backward()
        losses.append(float(mean.data))
        factor = warmup_linear(step, recipe.n_steps, recipe.n_warmup)
        muon.groups[0]["lr"], adamw.groups[0]["lr"] = recipe.matrix_rate * factor, recipe.rate * factor
        if math.isfinite(clip_grad_norm(model.parameters(), recipe.max_norm)):
            both.step()
        if path is not None and ((step + 1) % save_every == 0 or step + 1 == recipe.n_steps):
            save_checkpoint(path, step + 1, parts)
    return losses


EQUIVALENTS = {
    "optimizers in a dictionary": {"Optimizers": _ByNumber},
    "the loop written out": {"pretrain": _run_by_hand},
    "near copies are left out before the split": [
        (
            '    training, held_out = ([names[i] for i in side if i in is_first] for side in sides)\n',
            "    kept = [name for number, name in enumerate(names) if number in is_first]\n"
            "    chosen = {names[i] for i in sides[1]}\n"
            "    training, held_out = [n for n in kept if n not in chosen], [n for n in kept if n in chosen]\n",
        )
    ],
    "parameters are told apart by their names": [
        (
            f"matrices, rest = {_OTHERS}",
            "named = list(model.named_parameters())\n"
            '    tables = {"token_embedding", "position_embedding", "head"}\n'
            "    is_inner = [p.data.ndim >= 2 and tables.isdisjoint(name.split('.')) for name, p in named]\n"
            "    matrices = [p for (_, p), inner in zip(named, is_inner, strict=True) if inner]\n"
            "    rest = [p for (_, p), inner in zip(named, is_inner, strict=True) if not inner]",
        )
    ],
}  # fmt: skip

_NO_LOADER = "DataLoader refuses no examples, too"
HARMLESS = {
    "if not len(rows): => if False:": _NO_LOADER,
    "raise ValueError('a model learns from at least one row; got none') => pass": _NO_LOADER,
    "prepare: right at the first call only": "what is spoiled is no object of several parts",
    "optimizers_for: right at the first call only": "what is spoiled is no optimizer",
    "pretrain: wrong for float32": "rows are integers",
    "pretrain: wrong for values beyond 1e4": "rows are integers",
    "pretrain: wrong for more than two axes": "rows have two",
}  # fmt: skip


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    config = GPTConfig(9, 4, 4, 1, 1, is_tied=False)
    rows = np.array([[0, 5, 6, 0, 7], [7, 8, 0, 0, 0], [3, 1, 2, 3, 1], [4, 4, 0, 3, 3], [6, 2, 5, 0, 8]])
    letters = "abcdefghijkl"
    files = {f"{c}.py": " ".join(f"{c}{d}" for d in "mnopqrst"[i % 3 :]) for i, c in enumerate(letters)}
    files = dict(sorted(files.items(), key=lambda item: item[1][::-1], reverse=True))
    files |= {f"{2 * c}.py": files[f"{c}.py"].replace(" ", "  ") for c in "acegi"}
    files["k.py"] += " <|endoftext|> k k"

    def refused(call):
        def probe(impl):
            try:
                return call(impl)
            except Exception as error:
                return type(error).__name__

        return probe

    def prepared(given, *more):
        def call(impl):
            made = impl.prepare(given, 262, 5, *more)
            return str([made.train, made.held_out, made.tokenizer.vocab, made.rows.tolist()])

        return refused(call)

    def run(end=0, given=rows, **options):
        def call(impl):
            model = GPT(config, np.random.default_rng(0))
            losses = impl.pretrain(model, given, impl.Recipe(**options), end)
            return [*losses, *(float(np.abs(each.data).sum()) for each in model.parameters())]

        return refused(call)

    def saved(impl):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "run")

            class Short(GPT):
                n_calls = 0

                def forward(self, ids):
                    self.n_calls += 1
                    if self.n_calls > 3:
                        raise KeyError
                    return super().forward(ids)

            try:
                recipe = impl.Recipe(5, batch_size=2)
                impl.pretrain(Short(config, np.random.default_rng(0)), rows, recipe, 0, path, 2)
            except KeyError:
                return f"saved: {path.exists()}"
            return "all steps"

    def saved_last(impl):
        with tempfile.TemporaryDirectory() as folder:
            impl.pretrain(GPT(config, np.random.default_rng(0)), rows, impl.Recipe(1), 0, Path(folder, "run"))
            return str([path.name for path in Path(folder).iterdir()])

    class Named(Module):
        def __init__(self):
            self.token_embedding, self.position_embedding = (
                Embedding(2, 2, np.random.default_rng(0)) for _ in "ab"
            )
            self.layer, self.head = (Linear(2, 2, np.random.default_rng(0)) for _ in "ab")

    def groups(impl):
        model = Named()
        names = {id(each): name for name, each in model.named_parameters()}
        found = impl.optimizers_for(
            model, impl.Recipe(9, matrix_rate=0.5, rate=0.25, weight_decay=0.125)
        ).groups
        return str([
            {key: value if key != "parameters" else [names[id(each)] for each in value] for key, value in one.items()}
            for one in found
        ])  # fmt: skip

    def several(look, n=2):
        def call(impl):
            weights = [Parameter([1.0]) for _ in range(n)]
            both = impl.Optimizers(*(SGD([each], lr=0.5 + i, momentum=0.5) for i, each in enumerate(weights)))
            for each in weights:
                each.grad = np.array([1.0])
            return look(both, weights)

        return refused(call)

    def stepped(both, weights):
        both.groups[1]["lr"] = 9.0
        both.step()
        both.zero_grad()
        return str([[float(each.data[0]), each.grad is None] for each in weights])

    def in_order(impl):
        told = []

        class Telling(SGD):
            def step(self):
                told.append(self.groups[0]["lr"])

        impl.Optimizers(*(Telling([Parameter([1.0])], lr=lr) for lr in (1.0, 2.0))).step()
        return told

    def loaded(state):
        def look(both, weights):
            both.step()
            try:
                both.load_state_dict(state)
            except Exception as error:
                return str([type(error).__name__, {k: v.tolist() for k, v in both.state_dict().items()}])
            return str({k: v.tolist() for k, v in both.state_dict().items()})

        return look

    one = np.array([7.0])
    many = {f"{n}.0.momentum": np.array([float(n)]) for n in range(12)}
    return {
        "files": prepared(files, 0.4),
        "files with a seed": prepared(files, 0.4, 3),
        "files, a tenth held out": prepared(files),
        "nothing held out": prepared(files, 0.0),
        "all held out": prepared(files, 1.0),
        "groups": groups,
        "a step of two": several(stepped),
        "the order of steps": refused(in_order),
        "no optimizers": refused(lambda impl: str(impl.Optimizers().groups)),
        "a state": several(loaded({"0.0.momentum": one, "1.0.momentum": one + 1})),
        "a state with more": several(loaded({"0.0.momentum": one, "1.0.momentum": one, "2.0.momentum": one})),
        "a state that fits half": several(loaded({"0.0.momentum": one, "1.0.momentum": np.ones(2)})),
        "a state of many": several(loaded(many), 12),
        **{
            f"a recipe of {options}": refused(lambda impl, o=options: str(impl.Recipe(*o)))
            for options in ((0,), (5, 0), (5, 1, 6), (5, 1, -1), (5,))
        },
        "a run": run(n_steps=3),
        "a run by batches": run(n_steps=4, batch_size=2, n_warmup=2, seed=1),
        "a run of row by row": run(n_steps=4, batch_size=1, max_norm=0.1),
        "a run of threes": run(n_steps=4, batch_size=3),
        "a run with decay": run(n_steps=3, batch_size=2, weight_decay=3.0, matrix_rate=0.2),
        "a run to another end": run(3, n_steps=2, batch_size=5),
        "a run of nothing": run(given=rows[:0], n_steps=2),
        "a run that breaks off": refused(saved),
        "a run of one step": refused(saved_last),
        "the dtype of losses": refused(
            lambda impl: (
                type(impl.pretrain(GPT(config, np.random.default_rng(0)), rows, impl.Recipe(1))[0]).__name__
            )
        ),
    }
