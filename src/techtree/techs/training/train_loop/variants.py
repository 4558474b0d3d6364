"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import contextlib
import gc
import inspect
import json
import math
import tempfile
import weakref
from pathlib import Path

import numpy as np

from techtree.techs.autodiff.modules import Module, Parameter
from techtree.techs.autodiff.safetensors import load_file, read_metadata, save_file
from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad
from techtree.techs.training.dataloader import BatchStream, DataLoader
from techtree.techs.training.schedule_clip import clip_grad_norm
from techtree.techs.training.sgd import SGD

DROP = """    for parameter in model.parameters():
        parameter.grad = None
    total"""
BACKWARD = """        loss, n = batch_loss(model, batch)
        if n:
            loss.backward()
            total, n_examples = total + float(loss.data), n_examples + int(n)
    _require_examples(n_examples)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad = np.asarray(parameter.grad / n_examples)
    return total / n_examples
"""
DIVIDE = "parameter.grad = np.asarray(parameter.grad / n_examples)"
EVALUATED = """                if n:
                    total, n_examples = total + float(loss.data), n_examples + int(n)
    finally:
        if was_training:
            model.train()
    _require_examples(n_examples)
    return total / n_examples
"""
BACK = """    finally:
        if was_training:
            model.train()
    _require"""
SAVE = 'save_file(tensors, path, {"step": str(step), "parts": json.dumps(list(parts))})'
KEYS = 'f"{name}.{key}": value for name, part'
DOTTED = 'if dotted := [name for name in parts if "." in name]:'
SAME_NAMES = "if sorted(saved) != sorted(parts):"
LOAD = """    for name, part in parts.items():
        part.load_state_dict(states[name])
"""
PARTS = 'parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "stream": stream}'
FIRST = "first = load_checkpoint(path, parts) if path is not None and Path(path).exists() else 0"
RATE = 'group["lr"] = rate * schedule(step)'
RATES = 'rates = [group["lr"] for group in optimizer.groups]'
RESTORE = """    finally:
        for group, rate in zip(optimizer.groups, rates, strict=True):
            group["lr"] = rate
    return losses"""
LOSS = "losses.append(accumulate(model, batch_loss, (stream.next_batch() for _ in range(n_accumulate))))"
UPDATE = """            if math.isfinite(clip_grad_norm(model.parameters(), max_norm)):
                optimizer.step()
"""
DUE = "if path is not None and ((step + 1) % save_every == 0 or step + 1 == n_steps):"
SAVED = "save_checkpoint(path, step + 1, parts)"


def _one_backward(model, batch_loss, batches):
    """Adds up all losses first, and keeps all that was computed for them."""
    for parameter in model.parameters():
        parameter.grad = None
    losses = [batch_loss(model, batch) for batch in batches]
    losses = [(loss, int(n)) for loss, n in losses if n]
    n_examples = sum(n for _, n in losses)
    if not n_examples:
        raise ValueError("no examples")
    total = sum((loss for loss, _ in losses[1:]), losses[0][0]) / n_examples
    total.backward()
    return float(total.data)


MISTAKES = {
    "accumulate averages the gradients and losses of batches of different sizes": [
        (
            BACKWARD,
            BACKWARD.replace("loss.backward()", "loss = loss / n\n            loss.backward()").replace(
                "n_examples + int(n)", "n_examples + 1"
            ),
        )
    ],
    "accumulate averages the gradients of batches, and the losses of examples": [
        (
            BACKWARD,
            BACKWARD.replace("loss.backward()", "(loss / n).backward()\n            count += 1").replace(
                "grad / n_examples", "grad / count"
            ),
        ),
        (
            "    total, n_examples = 0.0, 0\n    for batch in batches:",
            "    total, n_examples, count = 0.0, 0, 0\n    for batch in batches:",
        ),
    ],
    "accumulate leaves the sum of the gradients": [(DIVIDE, "pass")],
    "accumulate divides the sum by the number of batches": [
        (DIVIDE, "parameter.grad = np.asarray(parameter.grad / count)"),
        ("            loss.backward()\n", "            loss.backward()\n            count += 1\n"),
        (
            "    total, n_examples = 0.0, 0\n    for batch in batches:",
            "    total, n_examples, count = 0.0, 0, 0\n    for batch in batches:",
        ),
    ],
    "accumulate divides by the size of the last batch": [(DIVIDE, DIVIDE.replace("n_examples", "(n or 1)"))],
    "accumulate keeps the gradient of the last batch only": [
        (
            "            loss.backward()\n",
            "            for parameter in model.parameters():\n                parameter.grad = None\n"
            "            loss.backward()\n",
        )
    ],
    "accumulate adds to the gradients from before": [(DROP, "    total")],
    "accumulate begins with zeros, so that unused parameters have a gradient": [
        (DROP, DROP.replace("parameter.grad = None", "parameter.grad = np.zeros_like(parameter.data)"))
    ],
    "accumulate keeps all batches in memory, for one backward pass": {"accumulate": _one_backward},
    "accumulate turns float32 into float64 when the numbers are NumPy's": [
        (BACKWARD, BACKWARD.replace("int(n)", "np.int64(n)"))
    ],
    "accumulate adds the loss of batches in which nothing counts": [
        (
            BACKWARD,
            BACKWARD.replace(
                "            total, n_examples = total + float(loss.data), n_examples + int(n)",
                "        total, n_examples = total + float(loss.data), n_examples + int(n)",
            ),
        )
    ],
    "accumulate differentiates batches in which nothing counts": [
        (
            BACKWARD,
            BACKWARD.replace(
                "        if n:\n            loss.backward()",
                "        if loss.requires_grad:\n            loss.backward()\n        if n:",
            ),
        )
    ],
    "accumulate returns the sum of the losses": [
        (BACKWARD, BACKWARD.replace("return total / n_examples", "return total"))
    ],
    "accumulate returns the loss of the last batch": [
        (BACKWARD, BACKWARD.replace("return total / n_examples", "return float(loss.data) / max(n, 1)"))
    ],
    "accumulate returns a tensor": [
        (BACKWARD, BACKWARD.replace("return total / n_examples", "return Tensor(total / n_examples)"))
    ],
    "accumulate gives 0 for no examples": [
        (
            BACKWARD,
            BACKWARD.replace("_require_examples(n_examples)", "if not n_examples:\n        return 0.0"),
        )
    ],
    "accumulate draws all batches before it computes": [(DROP, "    batches = list(batches)\n" + DROP)],
    "accumulate puts the model into the mode of training": [(DROP, "    model.train()\n" + DROP)],
    "accumulate leaves out the last batch": [
        (
            DROP.replace("    total", ""),
            DROP.replace("    total", "    batches = list(batches)\n    batches = batches[:-1] or batches\n"),
        ),
    ],
    "accumulate walks the batches twice": [(DROP, "    sum(1 for _ in batches)\n" + DROP)],
    "evaluate averages the means of batches of different sizes": [
        (
            EVALUATED,
            EVALUATED.replace(
                "float(loss.data), n_examples + int(n)", "float(loss.data) / n, n_examples + 1"
            ),
        )
    ],
    "evaluate returns the sum": [(EVALUATED, EVALUATED.replace("return total / n_examples", "return total"))],
    "evaluate adds the loss of batches in which nothing counts": [
        (EVALUATED, EVALUATED.replace("if n:", "if True:"))
    ],
    "evaluate gives 0 for no examples": [
        (
            EVALUATED,
            EVALUATED.replace("_require_examples(n_examples)", "if not n_examples:\n        return 0.0"),
        )
    ],
    "evaluate looks at the first batch only": [
        (EVALUATED, EVALUATED.replace("int(n)\n", "int(n)\n                    break\n", 1))
    ],
    "evaluate returns a tensor": [
        (EVALUATED, EVALUATED.replace("return total / n_examples", "return Tensor(total / n_examples)"))
    ],
    "evaluate does not care about the mode": [("    model.eval()\n", "")],
    "evaluate sets the mode of the outer module only": [
        ("    model.eval()\n", "    model.is_training = False\n"),
        (
            BACK,
            BACK.replace("if was_training:\n            model.train()", "model.is_training = was_training"),
        ),
    ],
    "evaluate leaves the model in the mode of use": [(BACK, BACK.replace("model.train()", "pass"))],
    "evaluate puts the model into the mode of training": [
        (BACK, BACK.replace("if was_training:\n            model", "model"))
    ],
    "evaluate does not put the mode back after an error": [
        (BACK, BACK.replace("finally:", "except ZeroDivisionError:\n        pass\n    if True:"))
    ],
    "evaluate records what is computed": [("with no_grad():", "if True:")],
    "evaluate drops the gradients": [
        (
            BACK,
            BACK.replace(
                "finally:",
                "finally:\n        for parameter in model.parameters():\n            parameter.grad = None",
            ),
        )
    ],
    "save_checkpoint writes into the old file": [
        (
            SAVE,
            f'whole = Path(f"{{path}}.whole")\n    {SAVE.replace("path", "whole")}\n'
            "    Path(path).write_bytes(whole.read_bytes())\n    whole.unlink()",
        )
    ],
    "save_checkpoint deletes the old file first": [(SAVE, f"Path(path).unlink(missing_ok=True)\n    {SAVE}")],
    "save_checkpoint leaves a copy behind": [
        (SAVE, f'{SAVE}\n    Path(f"{{path}}.step{{step}}").write_bytes(Path(path).read_bytes())')
    ],
    "save_checkpoint forgets the step": [(SAVE, SAVE.replace("str(step)", '"0"'))],
    "save_checkpoint stores the step as a tensor": [
        (SAVE, SAVE.replace("tensors, path", 'tensors | {"step": np.array(step)}, path')),
        (
            "    for key, value in load_file(path).items():\n",
            "    for key, value in load_file(path).items():\n"
            "        if key == 'step':\n            continue\n",
        ),
    ],
    "save_checkpoint forgets the names of the parts": [
        (SAVE, SAVE.replace("list(parts)", 'sorted({key.split(".")[0] for key in tensors})'))
    ],
    "save_checkpoint sorts the names of the parts": [(SAVE, SAVE.replace("list(parts)", "sorted(parts)"))],
    "save_checkpoint joins names by a slash": [
        (KEYS, KEYS.replace("{name}.{key}", "{name}/{key}")),
        ('key.partition(".")', 'key.partition("/")'),
    ],
    "save_checkpoint rounds to float32": [
        (
            KEYS,
            KEYS.replace(
                ": value for", ": np.asarray(value, np.float32) if value.dtype == np.float64 else value for"
            ),
        )
    ],
    "save_checkpoint takes names with dots": [(DOTTED, "if dotted := []:")],
    "load_checkpoint returns the step as a text": [("    return step\n", '    return metadata["step"]\n')],
    "load_checkpoint returns the number of the next step": [("    return step\n", "    return step + 1\n")],
    "load_checkpoint takes the parts that there are": [
        (SAME_NAMES, "if False:"),
        (
            LOAD,
            LOAD.replace(
                "part.load_state_dict(states[name])",
                "if name in states:\n            part.load_state_dict(states[name])",
            ),
        ),
    ],
    "load_checkpoint lets saved parts go unloaded": [(SAME_NAMES, "if not set(parts) <= set(saved):")],
    "load_checkpoint lets parts go without a state": [
        (SAME_NAMES, "if not set(saved) <= set(parts):"),
        (LOAD, LOAD.replace("states[name]", "states.get(name, {})")),
    ],
    "load_checkpoint compares how many parts there are, not which": [
        (SAME_NAMES, "if len(saved) != len(parts):"),
        (
            LOAD,
            LOAD.replace("for name, part in parts.items():", "for name, part in zip(saved, parts.values()):"),
        ),
    ],
    "load_checkpoint loads by position, not by name": [
        (
            LOAD,
            LOAD.replace("for name, part in parts.items():", "for name, part in zip(saved, parts.values()):"),
        )
    ],
    "load_checkpoint checks the names after it has loaded": [
        (SAME_NAMES, "if False:"),
        (
            LOAD,
            LOAD.replace("states[name]", "states.get(name, {})")
            + "    if sorted(saved) != sorted(parts):\n        raise ValueError\n",
        ),
    ],
    "load_checkpoint leaves out parts without tensors": [
        (LOAD, LOAD.replace("part.load", "if states[name]:\n            part.load"))
    ],
    "load_checkpoint cuts names at the last dot": [
        ('name, _, rest = key.partition(".")', 'name, rest = key.split(".")[0], key.rpartition(".")[2]')
    ],
    "load_checkpoint raises KeyError for a file that is no checkpoint": [
        ('if not {"step", "parts"} <= metadata.keys():', "if False:")
    ],
    "load_checkpoint takes a file without a step for one of step 0": [
        ('if not {"step", "parts"} <= metadata.keys():', 'if "parts" not in metadata:'),
        ('int(metadata["step"])', 'int(metadata.get("step", 0))'),
    ],
    "load_checkpoint swallows the errors of parts": [
        (
            LOAD,
            LOAD.replace(
                "        part.load_state_dict(states[name])",
                "        try:\n            part.load_state_dict(states[name])\n"
                "        except Exception:\n            pass",
            ),
        )
    ],
    "train multiplies the rate again and again": [(RATE, 'group["lr"] *= schedule(step)')],
    "train leaves the last rates": [(RESTORE, "    finally:\n        pass\n    return losses")],
    "train leaves the rates after an error": [
        (RESTORE, RESTORE.replace("finally:", "except ZeroDivisionError:\n        pass\n    if True:"))
    ],
    "train gives all groups the rate of the first": [(RATE, 'group["lr"] = rates[0] * schedule(step)')],
    "train takes the factor for the rate": [(RATE, 'group["lr"] = schedule(step)')],
    "train sets the rate of the first group only": [
        (
            "for group, rate in zip(optimizer.groups, rates, strict=True):\n                " + RATE,
            "for group, rate in zip(optimizer.groups[:1], rates):\n                " + RATE,
        )
    ],
    "train counts the schedule from 1": [(RATE, RATE.replace("(step)", "(step + 1)"))],
    "train begins the schedule anew in each call": [(RATE, RATE.replace("(step)", "(step - first)"))],
    "train does not know the schedule": [(RATE, 'group["lr"] = rate')],
    "train does not clip": [(UPDATE, UPDATE.replace("max_norm)", "math.inf)"))],
    "train clips each parameter by itself": [
        (
            UPDATE,
            UPDATE.replace(
                "clip_grad_norm(model.parameters(), max_norm)",
                "sum([clip_grad_norm([each], max_norm) for each in model.parameters()])",
            ),
        )
    ],
    "train updates with gradients that are not finite": [
        (UPDATE, "            clip_grad_norm(model.parameters(), max_norm)\n            optimizer.step()\n")
    ],
    "train updates with NaN, and not with infinity": [
        (UPDATE, UPDATE.replace("math.isfinite(", "not math.isinf("))
    ],
    "train ends when a gradient is not finite": [
        (UPDATE, UPDATE + "            else:\n                break\n")
    ],
    "train takes one batch in each step": [(LOSS, LOSS.replace("range(n_accumulate)", "range(1)"))],
    "train steps after each batch of a step": [
        (
            LOSS,
            "for _ in range(n_accumulate - 1):\n"
            "                accumulate(model, batch_loss, [stream.next_batch()])\n"
            "                optimizer.step()\n"
            "            losses.append(accumulate(model, batch_loss, [stream.next_batch()]))",
        )
    ],
    "train does not save the stream, and begins with its first batch": [
        (PARTS, PARTS.replace(', "stream": stream', ""))
    ],
    "train does not save the optimizer": [(PARTS, PARTS.replace('"optimizer": optimizer, ', ""))],
    "train never loads": [(FIRST, "first = 0")],
    "train loads, and counts from step 0 again": [(FIRST, FIRST + "\n    first = 0")],
    "train takes n_steps more steps after loading": [
        ("range(first, n_steps)", "range(first, first + n_steps)"),
        (DUE, DUE.replace("n_steps)", "first + n_steps)")),
    ],
    "train takes one step too many": [("range(first, n_steps)", "range(first, n_steps + 1)")],
    "train saves the step that it has begun": [(SAVED, "save_checkpoint(path, step, parts)")],
    "train saves before it updates": [
        (UPDATE, f"            {DUE}\n                {SAVED}\n{UPDATE}"),
        (f"            {DUE}\n                {SAVED}\n    finally", "    finally"),
    ],
    "train saves one step after it should": [
        (DUE, DUE.replace("(step + 1) % save_every == 0", "step % save_every == 0 and step"))
    ],
    "train saves after steps counted from its start": [
        (DUE, DUE.replace("(step + 1) % save_every", "(step - first + 1) % save_every"))
    ],
    "train does not save after the last step": [
        (DUE, "if path is not None and (step + 1) % save_every == 0:")
    ],
    "train saves after the last step only": [(DUE, "if path is not None and step + 1 == n_steps:")],
    "train saves after each step": [(DUE, "if path is not None:")],
    "train saves every 10 steps unless told": [("save_every: int = 100", "save_every: int = 10")],
    "train saves every 1000 steps unless told": [("save_every: int = 100", "save_every: int = 1000")],
    "train does not care about the mode": [("    losses = []\n    model.train()\n", "    losses = []\n")],
    "train puts the model into the mode of use at the end": [
        (RESTORE, RESTORE.replace("    return", "    model.eval()\n    return"))
    ],
    "train sets the mode of the outer module only": [
        ("    losses = []\n    model.train()\n", "    losses = []\n    model.is_training = True\n")
    ],
    "train returns the last loss": [(RESTORE, RESTORE.replace("return losses", "return losses[-1:]"))],
    "train returns the mean of the losses": [
        (
            RESTORE,
            RESTORE.replace(
                "return losses", "return [sum(losses) / len(losses)] * len(losses) if losses else []"
            ),
        )
    ],
    "train returns the losses after the updates": [
        (UPDATE, UPDATE + "            losses[-1] = evaluate(model, batch_loss, [stream.next_batch()])\n"),
    ],
}


def _by_hand(model, batch_loss, batches):
    """Each batch's gradients are taken away and added up outside of the parameters."""
    parameters = list(model.parameters())
    sums, total, n_all = [None] * len(parameters), [], 0
    for batch in batches:
        for parameter in parameters:
            parameter.grad = None
        loss, n = batch_loss(model, batch)
        if n == 0:
            continue
        loss.backward()
        n_all += int(n)
        total.append(float(loss.data))
        for place, parameter in enumerate(parameters):
            if parameter.grad is not None:
                sums[place] = parameter.grad if sums[place] is None else sums[place] + parameter.grad
    if n_all == 0:
        raise ValueError("nothing counts")
    for parameter, each in zip(parameters, sums, strict=True):
        parameter.grad = None if each is None else np.asarray(each * parameter.dtype.type(1 / n_all))
    return math.fsum(total) / n_all


def _running_mean(model, batch_loss, batches):
    """The mean of all examples so far, corrected by each batch."""
    means, mean, n_all = {}, 0.0, 0
    for parameter in model.parameters():
        parameter.grad = None
    for batch in batches:
        loss, n = batch_loss(model, batch)
        if not n:
            continue
        n = int(n)
        (loss * (1 / n)).backward()
        n_all += n
        mean += (float(loss.data) / n - mean) * (n / n_all)
        for parameter in model.parameters():
            if parameter.grad is not None or id(parameter) in means:
                old = means.get(id(parameter), np.zeros_like(parameter.data))
                new = np.zeros_like(old) if parameter.grad is None else parameter.grad
                means[id(parameter)] = old + (new - old) * parameter.dtype.type(n / n_all)
                parameter.grad = None
    if not n_all:
        raise ValueError("nothing counts")
    for parameter in model.parameters():
        parameter.grad = np.asarray(means[id(parameter)]) if id(parameter) in means else None
    return mean


@contextlib.contextmanager
def _in_use(model):
    before = model.is_training
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        (model.train if before else model.eval)()


def _evaluate_by_lists(model, batch_loss, batches):
    """Lists of sums and numbers."""
    with _in_use(model):
        found = [(float(loss.data), int(n)) for loss, n in (batch_loss(model, each) for each in batches) if n]
    if not found:
        raise ValueError("nothing counts")
    sums, numbers = zip(*found, strict=True)
    return math.fsum(sums) / sum(numbers)


def _save_part_by_part(path, step, parts):
    """Names in reverse, states read one by one."""
    for name in parts:
        if name.count("."):
            raise ValueError(f"{name} has a dot")
    tensors = {}
    for name in reversed(list(parts)):
        state = parts[name].state_dict()
        for key in sorted(state):
            tensors[".".join((name, key))] = np.array(state[key])
    save_file(tensors, Path(path), {"parts": json.dumps([*parts]), "step": f"{step}"})


def _load_by_prefix(path, parts):
    """Each part looks for its own names."""
    try:
        metadata = read_metadata(path)
        names, step = json.loads(metadata["parts"]), int(metadata["step"])
    except KeyError:
        raise ValueError("no checkpoint") from None
    if set(names) != set(parts):
        raise ValueError("other parts")
    tensors = load_file(path)
    for name in names:
        mine = {key[len(name) + 1 :]: np.array(x) for key, x in tensors.items() if key.startswith(name + ".")}
        parts[name].load_state_dict(mine)
    return step


def _train_with_a_while(
    model,
    batch_loss,
    optimizer,
    stream,
    n_steps,
    *,
    n_accumulate=1,
    schedule=None,
    max_norm=math.inf,
    path=None,
    save_every=100,
):
    """Everything in one function, with other means."""
    parts = {"model": model, "optimizer": optimizer, "stream": stream}
    step, losses = 0, []
    if path is not None and Path(path).is_file():
        step = _load_by_prefix(path, parts)
    model.train()
    while step < n_steps:
        batches = [stream.next_batch() for _ in range(n_accumulate)]
        losses.append(_by_hand(model, batch_loss, batches))
        norm = clip_grad_norm(list(model.parameters()), max_norm)
        if not (math.isnan(norm) or math.isinf(norm)):
            own = [group["lr"] for group in optimizer.groups]
            factor = 1.0 if schedule is None else schedule(step)
            try:
                for group in optimizer.groups:
                    group["lr"] = group["lr"] * factor
                optimizer.step()
            finally:
                for group, rate in zip(optimizer.groups, own, strict=True):
                    group["lr"] = rate
        step += 1
        if path is not None and (step == n_steps or step % save_every == 0):
            _save_part_by_part(path, step, parts)
    return losses


EQUIVALENTS = {
    "accumulate outside of the parameters": {"accumulate": _by_hand},
    "accumulate as a running mean": {"accumulate": _running_mean},
    "evaluate with a context of its own": {"evaluate": _evaluate_by_lists},
    "save_checkpoint part by part": {"save_checkpoint": _save_part_by_part},
    "load_checkpoint by prefixes": {"load_checkpoint": _load_by_prefix},
    "train with a while loop": {"train": _train_with_a_while},
}


class _Factor(Module):
    """Multiplies by one number; notes the modes, and whether it is recorded."""

    def __init__(self, dtype=np.float64):
        self.factor, self.unused = Parameter(np.array(0.5, dtype)), Parameter(np.zeros(1, dtype))
        self.inner = [Module()]
        self.notes = []

    def forward(self, x):
        y = self.factor * x
        self.notes = [self.is_training, self.inner[0].is_training, y.requires_grad]
        return y


def _squares(model, batch):
    """The sum of squared errors to 3, of the entries of a batch that are not 0."""
    batch = np.asarray(batch, model.factor.dtype)
    batch = batch[batch != 0]
    error = model(Tensor(batch)) - 3
    nothing = model(Tensor(np.ones(1, model.factor.dtype))).sum() * np.nan
    return ((error * error).sum() if batch.size else nothing), np.int64(batch.size)


class _Steps(SGD):
    """Notes the rates, and the gradient, at each step."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.seen = []

    def step(self):
        gradients = [each.grad for group in self.groups for each in group["parameters"]]
        self.seen.append(
            [*(g["lr"] for g in self.groups), *(0.0 if g is None else float(g.sum()) for g in gradients)]
        )
        super().step()


class _Part:
    """A part of a checkpoint."""

    def __init__(self, **arrays):
        self.arrays = {name.replace("_", "."): np.array(value) for name, value in arrays.items()}
        self.loaded = "not loaded"

    def state_dict(self):
        return self.arrays

    def load_state_dict(self, state):
        self.loaded = {name: np.array(value) for name, value in state.items()}


class _Stubborn(_Part):
    def load_state_dict(self, state):
        raise ArithmeticError


class _StopError(Exception):
    pass


def _run(dtype=np.float64):
    """The objects of a small run: two groups, four batches in an epoch."""
    model = _Factor(dtype)
    groups = [{"parameters": [model.factor], "lr": 0.01}, {"parameters": [model.unused], "lr": 0.001}]
    return model, _Steps(groups, lr=1.0, momentum=0.5), BatchStream(DataLoader(8, 2, seed=1))


def _numbers(model, batch):
    return _squares(model, batch + 1.0)


def _both(model, batch):
    """Depends on both parameters."""
    loss, n = _numbers(model, batch)
    return loss + model.unused.sum() * 9, n


HARMLESS = {
    f"train: {what}": "train is given no arrays"
    for what in (
        "wrong beyond 128 on an axis",
        "wrong for an axis of length 1",
        "refuses arrays without entries",
        "wrong for more than two axes",
        "wrong for arrays that are not contiguous",
        "wrong for float32",
        "wrong for values beyond 1e4",
        "changes an argument",
        "remembers results by the shape of the arguments",
    )
}


def probes(rng):
    """Situations in which the mistakes differ: each takes an implementation and returns what it answers."""

    def gathered(*batches, dtype=np.float64, old=None, answer="all"):
        def probe(impl):
            model = _Factor(dtype).eval()
            model.factor.grad = old
            loss = impl.accumulate(model, _squares, iter(batches))
            unused = "None" if model.unused.grad is None else "an array"
            found = {
                "loss": loss if isinstance(loss, float) else type(loss).__name__,
                "gradient": float(model.factor.grad) if model.factor.grad is not None else "None",
                "others": [str(np.asarray(model.factor.grad).dtype), unused, model.is_training],
            }
            return list(found.values()) if answer == "all" else found[answer]

        return probe

    def most_alive(impl):
        """How many earlier losses are there when one is computed."""
        alive, most = [], []

        def watched(model, batch):
            most.append(sum(each() is not None for each in alive))
            loss, n = _squares(model, batch)
            alive.append(weakref.ref(loss))
            return loss, n

        impl.accumulate(_Factor(), watched, [[1], [2], [3], [4]])
        gc.collect(0)
        return max(most) > 1

    def drawn_ahead(impl):
        """How many batches have been computed when the last one is drawn."""
        seen = []

        def batches():
            yield from ([1], [2], [3])
            seen.append("drawn")
            yield [4]

        def noting(model, batch):
            seen.append(batch)
            return _squares(model, batch)

        impl.accumulate(_Factor(), noting, batches())
        return seen.index("drawn") < 2

    def evaluated(*batches):
        def probe(impl):
            found = impl.evaluate(_Factor(), _squares, iter(batches))
            return found if isinstance(found, float) else type(found).__name__

        return probe

    def traces(is_training):
        def probe(impl):
            model = _Factor()
            model = model.train() if is_training else model.eval()
            model.factor.grad = np.array(1.0)
            impl.evaluate(model, _squares, [[1]])
            kept = model.factor.grad is not None
            return [*model.notes, model.is_training, model.inner[0].is_training, kept]

        return probe

    def mode_after_an_error(impl):
        model = _Factor()
        with contextlib.suppress(_StopError):
            impl.evaluate(model, _stopping, [[1]])
        return model.is_training

    def _stopping(model, batch):
        raise _StopError

    def in_folder(action):
        def probe(impl):
            with tempfile.TemporaryDirectory() as name:
                return action(impl, Path(name))

        return probe

    def file_content(impl, folder):
        parts = {"b": _Part(x_y=[0.1], z=1), "c": _Part(), "a": _Part(x=[2])}
        impl.save_checkpoint(folder / "run", 7, parts)
        metadata = read_metadata(folder / "run")
        tensors = {name: [str(x.dtype), x.tolist()] for name, x in load_file(folder / "run").items()}
        return [metadata, tensors, sorted(path.name for path in folder.iterdir())]

    def old_file(impl, folder):
        """Whether what had the old file open keeps the old content."""
        impl.save_checkpoint(folder / "run", 1, {"a": _Part(x=[1.0])})
        with (folder / "run").open("rb") as opened:
            before = opened.read()
            impl.save_checkpoint(folder / "run", 2, {"a": _Part(x=[2.0])})
            opened.seek(0)
            return opened.read() == before

    def old_file_after_an_error(impl, folder):
        impl.save_checkpoint(folder / "run", 1, {"a": _Part(x=[1.0])})
        with contextlib.suppress(ValueError):  # no file holds complex numbers
            impl.save_checkpoint(folder / "run", 2, {"a": _Part(x=[1j])})
        return (folder / "run").exists()

    def told(action):
        try:
            action()
        except Exception as error:
            return type(error).__name__
        return "no error"

    def loaded(saved, given):
        def act(impl, folder):
            impl.save_checkpoint(folder / "run", 7, saved)
            parts = {name: _Part() for name in given}
            answer = []
            error = told(lambda: answer.append(impl.load_checkpoint(folder / "run", parts)))
            return [error, answer, [part.loaded for part in parts.values()]]

        return in_folder(act)

    def foreign(metadata):
        def act(impl, folder):
            save_file({"a.x": np.zeros(1)}, folder / "run", metadata)
            return told(lambda: impl.load_checkpoint(folder / "run", {"a": _Part()}))

        return in_folder(act)

    def loaded_without_a_step(impl, folder):
        save_file({"a.x": np.zeros(1)}, folder / "run", {"parts": '["a"]', "step": "three"})
        part = _Part()
        told(lambda: impl.load_checkpoint(folder / "run", {"a": part}))
        return part.loaded is not None

    def dotted(impl, folder):
        return told(lambda: impl.save_checkpoint(folder / "run", 1, {"a.b": _Part()}))

    def stubborn(impl, folder):
        impl.save_checkpoint(folder / "run", 7, {"a": _Part()})
        return told(lambda: impl.load_checkpoint(folder / "run", {"a": _Stubborn()}))

    def trained(n_steps=4, answer="steps", loss=_numbers, **options):
        def probe(impl):
            model, optimizer, stream = _run()
            losses = impl.train(model, loss, optimizer, stream, n_steps, **options)
            rates = [group["lr"] for group in optimizer.groups]
            return {"steps": optimizer.seen, "losses": losses, "rates": rates, "weight": model.factor.data}[
                answer
            ]

        return probe

    def stopped_by(value):
        """A gradient that is not finite in the second of four steps."""

        def probe(impl):
            model, optimizer, stream = _run()
            calls = []

            def sometimes(model, batch):
                calls.append(1)
                loss, n = _numbers(model, batch)
                return (loss * value if len(calls) == 2 else loss), n

            losses = impl.train(model, sometimes, optimizer, stream, 4, schedule=lambda step: step + 1.0)
            return [len(losses), len(optimizer.seen), bool(np.isfinite(model.factor.data))]

        return probe

    def rates_after_an_error(impl):
        model, optimizer, stream = _run()
        with contextlib.suppress(_StopError):
            impl.train(model, _stopping, optimizer, stream, 2, schedule=lambda step: 0.5)
        return [group["lr"] for group in optimizer.groups]

    def modes_in_training(impl):
        model, optimizer, stream = _run()
        model.eval()
        impl.train(model, _numbers, optimizer, stream, 1)
        return [*model.notes, model.is_training, model.inner[0].is_training]

    def resumed(first, second, **options):
        """A run in two calls with new objects: what each says, the step in the file, its updates."""

        def call(impl, path, n_steps):
            model, optimizer, stream = _run()
            losses = []

            def act():
                losses.extend(impl.train(model, _numbers, optimizer, stream, n_steps, path=path, **options))

            error = told(act)
            step = read_metadata(path)["step"] if path.exists() else "no file"
            return [error, losses, step, optimizer.seen, float(model.factor.data)]

        return in_folder(lambda impl, folder: [call(impl, folder / "run", n) for n in (first, second)])

    def saved_steps(n_steps, before=0, **options):
        """The step in the file whenever a loss is computed."""

        def act(impl, folder):
            found = []

            def noting(model, batch):
                found.append(read_metadata(folder / "run")["step"] if (folder / "run").exists() else "-")
                return _numbers(model, batch)

            if before:
                model, optimizer, stream = _run()
                impl.train(model, _numbers, optimizer, stream, before, path=folder / "run", **options)
            model, optimizer, stream = _run()
            impl.train(model, noting, optimizer, stream, n_steps, path=folder / "run", **options)
            return [*found, read_metadata(folder / "run")["step"] if (folder / "run").exists() else "-"]

        return in_folder(act)

    def default_of_saving(impl):
        return inspect.signature(impl.train).parameters["save_every"].default

    two = {"a": _Part(x_y_z=[1.0]), "b": _Part()}
    return {
        "batches of one size": gathered([1, 2], [3, 4]),
        "batches of two sizes": gathered([1, 2, 4], [3]),
        "gradient of batches of two sizes": gathered([1, 2, 4], [3], answer="gradient"),
        "one batch": gathered([1, 2, 4]),
        "old gradients": gathered([1], old=np.array(5.0), answer="gradient"),
        "batches without examples": gathered([0], [1, 2], [0]),
        "loss with batches without examples": gathered([0], [1, 2], [0], answer="loss"),
        "float32": gathered([1], [2], dtype=np.float32, answer="others"),
        "nothing counts": lambda impl: told(lambda: gathered([0])(impl)),
        "losses that are alive": most_alive,
        "batches that are drawn ahead": drawn_ahead,
        "evaluation": evaluated([1, 2, 4], [3]),
        "evaluation of one batch": evaluated([1]),
        "evaluation with batches without examples": evaluated([0], [2, 1]),
        "evaluation of nothing": lambda impl: told(lambda: evaluated([0])(impl)),
        "traces of evaluation, training before": traces(True),
        "traces of evaluation, in use before": traces(False),
        "mode after an error": mode_after_an_error,
        "a file": in_folder(file_content),
        "the old file": in_folder(old_file),
        "the old file after an error": in_folder(old_file_after_an_error),
        "a name with a dot": in_folder(dotted),
        "loading": loaded(two, ["a", "b"]),
        "loading in another order": loaded(two, ["b", "a"]),
        "loading too few parts": loaded(two, ["a"]),
        "loading too many parts": loaded(two, ["a", "b", "c"]),
        "loading other parts": loaded(two, ["a", "c"]),
        "a file without metadata": foreign(None),
        "a file without a step": foreign({"parts": '["a"]'}),
        "a file whose step is a word": in_folder(loaded_without_a_step),
        "a part that refuses": in_folder(stubborn),
        "steps": trained(schedule=lambda step: 1 / (step + 2)),
        "rates afterwards": trained(schedule=lambda step: 1 / (step + 2), answer="rates"),
        "rates after an error": rates_after_an_error,
        "losses": trained(answer="losses"),
        "steps of two batches": trained(n_accumulate=2),
        "clipped steps": trained(max_norm=2.0),
        "clipped steps with two gradients": trained(max_norm=2.0, loss=_both),
        "weight after clipped steps": trained(max_norm=2.0, answer="weight"),
        "a gradient of infinity": stopped_by(np.inf),
        "a gradient of NaN": stopped_by(np.nan),
        "modes in training": modes_in_training,
        "a run in two calls": resumed(3, 6, schedule=lambda step: 1 / (step + 2)),
        "a run in two calls, saved every second step": resumed(3, 4, save_every=2),
        "when it saves": saved_steps(5, save_every=2),
        "when it saves after a resume": saved_steps(7, before=3, save_every=2),
        "how often it saves": default_of_saving,
    }
