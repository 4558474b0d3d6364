"""Wrong versions that people really write, right ones written differently, and what tells them apart."""

import numpy as np

from techtree.techs.autodiff.tensor_autodiff import Tensor, no_grad

_COPY = "super().__init__(np.array(data), requires_grad=True)"
_CALL = "return self.forward(*arguments, **options)"
_PATH = 'f"{path}.{name}" if path else str(name)'
_LISTS = "    elif isinstance(each, list | tuple):\n        inside = dict(enumerate(each))\n"
_DICTS = "    elif isinstance(each, dict):\n        inside = each\n"
_SEEN = "    if id(each) in seen:\n        return\n"
_MARK = "    seen.add(id(each))\n"
_STATE = "return {name: parameter.data.copy() for name, parameter in self.named_parameters()}"
_SWITCH = """    for _, each in _walk(module, "", set()):
        if isinstance(each, Module):
            each.is_training = is_training
"""
_NAMES = '        for name, each in _walk(self, "", set()):\n            if isinstance(each, Parameter):\n'
_REFUSE = (
    "            raise ValueError(f\"the state must fit the {type(self).__name__}: {'; '.join(problems)}\")\n"
)
_VALUES = "values = {name: np.array(state[name], parameter.dtype) for name, parameter in own.items()}"
_WRITE = "            parameter.data[...] = values[name]\n"
_SHAPE = "if name in state and np.shape(state[name]) != parameter.shape"

MISTAKES = {
    "a Parameter keeps the array that it was given, and training changes the caller's": [
        (_COPY, "super().__init__(data, requires_grad=True)")
    ],
    "a Parameter needs no gradient": [(_COPY, "super().__init__(np.array(data))")],
    "a Parameter that is made inside no_grad needs no gradient": [
        (_COPY, "super().__init__(np.array(data), requires_grad=(Tensor(1.0, True) * 1.0).requires_grad)")
    ],
    "a Parameter is always float64": [(_COPY, "super().__init__(np.array(data, float), requires_grad=True)")],
    "a Parameter has at least one axis": [
        (_COPY, "super().__init__(np.array(data, ndmin=1), requires_grad=True)")
    ],
    "a Parameter is no Tensor but holds one": [
        (
            "class Parameter(Tensor):",
            "class Parameter:\n"
            "    def __getattr__(self, name):\n"
            "        return getattr(self.__dict__['held'], name)\n",
        ),
        (_COPY, "self.held = Tensor(np.array(data), requires_grad=True)"),
    ],
    "lists and tuples are not looked into": [(_LISTS, "")],
    "lists are looked into, tuples are not": [("isinstance(each, list | tuple)", "isinstance(each, list)")],
    "dicts are not looked into": [(_DICTS, "")],
    "lists and dicts inside of lists and dicts are not looked into": [
        (
            "        yield from _walk(child,",
            "        if isinstance(each, list | tuple | dict) and isinstance(child, list | tuple | dict):\n"
            "            continue\n"
            "        yield from _walk(child,",
        )
    ],
    "attributes with a leading underscore are skipped": [
        (
            "inside = vars(each)",
            'inside = {name: child for name, child in vars(each).items() if not name.startswith("_")}',
        )
    ],
    "every tensor that needs a gradient counts as a parameter": [
        (
            _NAMES,
            _NAMES.replace("isinstance(each, Parameter)", "isinstance(each, Tensor) and each.requires_grad"),
        ),
    ],
    "sets are looked into": [("isinstance(each, list | tuple)", "isinstance(each, list | tuple | set)")],
    "a shared parameter comes under each of its names": [
        (_MARK, "    if not isinstance(each, Parameter):\n        seen.add(id(each))\n")
    ],
    "a shared parameter comes by its last name": [
        (
            _NAMES,
            '        last = {id(each): name for name, each in _walk(self, "", set(), True)}\n'
            '        for name, each in _walk(self, "", set(), True):\n'
            "            if isinstance(each, Parameter) and last[id(each)] == name:\n",
        ),
        ("path: str, seen: set[int])", "path: str, seen: set[int], again: bool = False)"),
        (_MARK, "    if not (again and isinstance(each, Parameter)):\n        seen.add(id(each))\n"),
        ("path else str(name), seen)", "path else str(name), seen, again)"),
    ],
    "a shared parameter is recognised within one module only": [
        (
            f"        yield from _walk(child, {_PATH}, seen)",
            "        within = seen\n"
            "        if isinstance(child, Module) and id(child) not in seen:\n"
            "            modules.add(id(child))\n"
            "            within = set(modules)\n"
            "            within.discard(id(child))\n"
            f"        yield from _walk(child, {_PATH}, within, modules)",
        ),
        (
            "path: str, seen: set[int])",
            "path: str, seen: set[int], modules=None)",
        ),
        (_SEEN, f"    modules = set() if modules is None else modules\n{_SEEN}"),
    ],
    "parameters with equal values count as one": [
        (
            _SEEN,
            "    key = each.data.tobytes() if isinstance(each, Parameter) else id(each)\n"
            "    if key in seen:\n"
            "        return\n",
        ),
        (_MARK, "    seen.add(key)\n"),
    ],
    "modules that are equal count as the same": [
        (
            "if id(each) in seen:",
            "if any(each is one or (isinstance(each, Module) and each == one) for one in seen):",
        ),
        (_MARK, "    seen.append(each)\n"),
        (
            '        for name, each in _walk(self, "", set()):',
            '        for name, each in _walk(self, "", []):',
        ),
        ('    for _, each in _walk(module, "", set()):', '    for _, each in _walk(module, "", []):'),
    ],
    "a module that holds its parent sends the walk round for ever": [
        (_MARK, "    if isinstance(each, Parameter):\n        seen.add(id(each))\n")
    ],
    "positions count from 1": [("dict(enumerate(each))", "dict(enumerate(each, 1))")],
    "positions are left out of names": [(_PATH, "path if isinstance(each, list | tuple) else " + _PATH)],
    "names are joined by slashes": [('f"{path}.{name}" if', 'f"{path}/{name}" if')],
    "names begin with a dot": [(_PATH, 'f"{path}.{name}"')],
    "parameters come in the order of their names": [
        (
            _NAMES,
            _NAMES.replace(
                '_walk(self, "", set())', 'sorted(_walk(self, "", set()), key=lambda pair: pair[0])'
            ),
        )
    ],
    "a module's own parameters come before those of the modules in it": [
        (
            "    for name, child in inside.items():",
            "    own_first = sorted(inside.items(), key=lambda pair: not isinstance(pair[1], Parameter))\n"
            "    for name, child in own_first:",
        )
    ],
    "the keys of a dict are sorted": [
        ("        inside = each\n", "        inside = {key: each[key] for key in sorted(each, key=str)}\n")
    ],
    "an attribute that is assigned again moves to the end": [
        (
            "    is_training: bool = True\n",
            "    is_training: bool = True\n\n"
            "    def __setattr__(self, name, value):\n"
            "        vars(self).pop(name, None)\n"
            "        vars(self)[name] = value\n",
        )
    ],
    "two parameters with one name are let through": [("if name in names:", "if False:")],
    "the message about two parameters with one name does not say which": [
        ("two parameters called {name!r}", "two alike")
    ],
    "parameters are looked for once, and those that come later are missed": [
        (
            _NAMES,
            '        if not hasattr(self, "_found"):\n'
            '            self._found = lambda found=[*_walk(self, "", set())]: found\n'
            "        for name, each in self._found():\n"
            "            if isinstance(each, Parameter):\n",
        )
    ],
    "a parameter that is frozen is passed over": [
        (
            _NAMES,
            _NAMES.replace(
                "isinstance(each, Parameter)", "isinstance(each, Parameter) and each.requires_grad"
            ),
        )
    ],
    "parameters are copies of those in the model": [
        ("                yield name, each\n", "                yield name, Parameter(each.data)\n")
    ],
    "super().__init__() must be called": [
        ("    is_training: bool = True\n", "    def __init__(self):\n        self.is_training = True\n")
    ],
    "a module starts in use, not in training": [("is_training: bool = True", "is_training: bool = False")],
    "the switch is one for all modules of a class": [
        (
            "            each.is_training = is_training",
            "            type(each).is_training = is_training",
        )
    ],
    "the switch turns this module only": [(_SWITCH, "    module.is_training = is_training\n")],
    "the switch turns modules that are attributes, not those in lists": [
        (
            _SWITCH,
            "    module.is_training = is_training\n"
            "    for each in list(vars(module).values()):\n"
            "        if isinstance(each, Module) and each.is_training != is_training:\n"
            "            _switch(each, is_training)\n",
        )
    ],
    "train and eval return nothing": [
        (f"        _switch(self, {mode})\n        return self\n", f"        _switch(self, {mode})\n")
        for mode in (True, False)
    ],
    "train does nothing": [("        _switch(self, True)\n", "")],
    "eval takes requires_grad from the parameters": [
        (
            _SWITCH,
            _SWITCH
            + "        if isinstance(each, Parameter):\n"
            + "            each.requires_grad = is_training\n",
        )
    ],
    "in eval mode a call records nothing": [
        (
            _CALL,
            "if self.is_training:\n            return self.forward(*arguments, **options)\n"
            "        from techtree.techs.autodiff.tensor_autodiff import no_grad\n"
            "        with no_grad():\n            return self.forward(*arguments, **options)",
        )
    ],
    "a call passes no options on": [(_CALL, "return self.forward(*arguments)")],
    "a call passes the first argument only": [(_CALL, "return self.forward(*arguments[:1], **options)")],
    "a call always returns a tensor": [
        (
            _CALL,
            "result = self.forward(*arguments, **options)\n"
            "        return result if isinstance(result, Tensor | tuple) else Tensor(result)",
        )
    ],
    "a module without forward returns what it is given": [
        (
            'raise NotImplementedError(f"{type(self).__name__} must define forward to be called")',
            "return arguments[0] if arguments else None",
        )
    ],
    "a state dict holds the arrays of the model": [(_STATE, _STATE.replace(".copy()", ""))],
    "a state dict holds float32": [(_STATE, _STATE.replace(".copy()", ".astype(np.float32)"))],
    "a state dict holds parameters": [
        (_STATE, _STATE.replace("parameter.data.copy()", "Parameter(parameter.data)"))
    ],
    "a state dict is sorted by name": [(_STATE, f"return dict(sorted({_STATE[7:]}.items()))")],
    "loading gives the parameter a new array": [(_WRITE, "            parameter.data = values[name]\n")],
    "loading makes the arrays of the state those of the model": [
        (_VALUES, "values = state"),
        (_WRITE, "            parameter.data = values[name]\n"),
    ],
    "loading takes the dtype of the state": [
        (_VALUES, "values = {name: np.array(state[name]) for name in own}"),
        (
            _WRITE,
            "            if values[name].dtype != parameter.dtype:\n"
            "                parameter.data = values[name]\n" + _WRITE,
        ),
    ],
    "loading makes a new parameter": [
        (
            _WRITE,
            "            place = self\n"
            '            *path, last = name.split(".")\n'
            "            for step in path:\n"
            "                step = int(step) if isinstance(place, list) else step\n"
            "                place = getattr(place, step) if isinstance(place, Module) else place[step]\n"
            "            last = int(last) if isinstance(place, list) else last\n"
            "            inside = vars(place) if isinstance(place, Module) else place\n"
            "            inside[last] = Parameter(values[name])\n",
        )
    ],
    "loading drops the gradients": [(_WRITE, _WRITE + "            parameter.grad = None\n")],
    "loading empties the state": [
        (
            _WRITE,
            _WRITE + "        if isinstance(state, dict):\n            state.clear()\n",
        )
    ],
    "loading writes while it reads, so that values which change places are lost": [
        (_VALUES, "values = state")
    ],
    "loading goes by position, not by name": [
        (
            _VALUES,
            "values = {name: np.array(x, own[name].dtype) for name, x in zip(own, state.values())}",
        )
    ],
    "names that are missing are passed over": [
        ('[f"{name!r} is missing" for name in own if name not in state]', "[]"),
        (
            "own = dict(self.named_parameters())",
            "own = {n: p for n, p in self.named_parameters() if n in state}",
        ),
        (
            "for name in state if name not in own]",
            "for name in state if name not in dict(self.named_parameters())]",
        ),
    ],
    "names that are not expected are passed over": [
        ('problems += [f"{name!r} is not expected" for name in state if name not in own]\n', "\n")
    ],
    "shapes that broadcast are accepted": [
        (
            _SHAPE,
            "if name in state\n"
            "            and np.broadcast_shapes(np.shape(state[name]), parameter.shape) != parameter.shape",
        )
    ],
    "shapes of as many entries are accepted": [
        (_SHAPE, "if name in state and np.size(state[name]) != parameter.data.size"),
        (_WRITE, _WRITE.replace("values[name]", "values[name].reshape(parameter.shape)")),
    ],
    "what is no number is converted while it is written, after others were": [
        (_VALUES, "values = {name: np.array(state[name]) for name in own}")
    ],
    "two parameters with one name are let through by state dicts": [
        (
            _STATE,
            'return {n: p.data.copy() for n, p in _walk(self, "", set()) if isinstance(p, Parameter)}',
        )
    ],
    "what is nested more than thirty deep is left out": [
        (_SEEN, '    if id(each) in seen or path.count(".") > 30:\n        return\n')
    ],
    "keys of dicts are written as repr writes them": [
        (
            "        inside = each\n",
            "        inside = {k if isinstance(k, str) else repr(k): each[k] for k in each}\n",
        )
    ],
    "loading turns training on": [(_WRITE, _WRITE + "        self.train()\n")],
    "the switch stops at modules that are in this mode already": [
        (
            _SWITCH,
            "    if module.is_training == is_training:\n        return\n" + _SWITCH,
        )
    ],
    "what the class holds counts as well": [
        ("inside = vars(each)", "inside = {**vars(type(each)), **vars(each)}")
    ],
    "parameters that share their memory count as one": [
        (
            "            if isinstance(each, Parameter):\n                if name in names:",
            "            if isinstance(each, Parameter):\n"
            "                if any(np.shares_memory(each.data, one) for one in held):\n"
            "                    continue\n"
            "                held.append(each.data)\n"
            "                if name in names:",
        ),
        ("        names: set[str] = set()\n", "        names: set[str] = set()\n        held = []\n"),
    ],
    "what fits is loaded before the error is raised": [
        (
            _REFUSE,
            "            for name, parameter in own.items():\n"
            "                if name in state and np.shape(state[name]) == parameter.shape:\n"
            "                    parameter.data[...] = state[name]\n" + _REFUSE,
        )
    ],
    "the message names the first thing that is wrong only": [("'; '.join(problems)", "problems[0]")],
    "a state that does not fit is a KeyError": [(_REFUSE, _REFUSE.replace("ValueError", "KeyError"))],
}


class _Parameter(Tensor):
    def __init__(self, data):
        plain = Tensor(data)
        super().__init__(np.copy(plain.data))
        self.requires_grad = True


class _Listing:
    """Collects everything before it gives anything; the switch is set when an object is made."""

    def __new__(cls, *arguments, **options):
        made = object.__new__(cls)
        made.is_training = True
        return made

    def forward(self, *arguments, **options):
        raise NotImplementedError

    def __call__(self, *arguments, **options):
        return self.forward(*arguments, **options)

    def _collect(self):
        found, waiting, seen = [], [((), self)], []
        while waiting:
            path, each = waiting.pop(0)
            if any(each is one for one in seen):
                continue
            match each:
                case _Listing():
                    entries = each.__dict__.items()
                case dict():
                    entries = each.items()
                case list() | tuple():
                    entries = enumerate(each)
                case _Parameter():
                    entries = ()
                case _:
                    continue
            seen.append(each)
            found.append((".".join(path), each))
            waiting[:0] = [((*path, str(name)), child) for name, child in entries]
        return found

    def named_parameters(self):
        found = [(name, each) for name, each in self._collect() if isinstance(each, _Parameter)]
        names = [name for name, _ in found]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} is the name of {names.count(name)} parameters")
        return iter(found)

    def parameters(self):
        return iter([each for _, each in self.named_parameters()])

    def train(self, mode=True):
        for _, each in self._collect():
            if isinstance(each, _Listing):
                each.is_training = mode
        return self

    def eval(self):
        return self.train(False)

    def state_dict(self):
        return {name: np.array(each.data, order="C") for name, each in self.named_parameters()}

    def load_state_dict(self, state):
        own = dict(self.named_parameters())
        wrong = set(own) ^ set(state)
        wrong |= {name for name in set(own) & set(state) if state[name].shape != own[name].shape}
        if wrong:
            raise ValueError(f"these do not fit: {sorted(wrong)}")
        copies = {name: state[name].astype(own[name].dtype) for name in own}
        for name, value in copies.items():
            np.copyto(own[name].data, value, casting="unsafe")


EQUIVALENTS = {
    "another implementation: collects first, with a match statement and a list of what was seen": {
        "Parameter": _Parameter,
        "Module": _Listing,
    },
    "a Parameter that copies a plain tensor's data": [
        (_COPY, "super().__init__(np.copy(Tensor(data).data))\n        self.requires_grad = True")
    ],
    "a stack instead of recursion": [
        (
            f"        yield from _walk(child, {_PATH}, seen)",
            "        pass\n"
            f"    waiting = [({_PATH}, child) for name, child in inside.items()][::-1]\n"
            "    while waiting:\n"
            "        path, each = waiting.pop()\n"
            "        if id(each) in seen:\n"
            "            continue\n"
            "        if isinstance(each, Parameter | Module):\n"
            "            yield path, each\n"
            "        seen.add(id(each))\n"
            "        inside = each if isinstance(each, dict) else {}\n"
            "        inside = vars(each) if isinstance(each, Module) else inside\n"
            "        inside = dict(enumerate(each)) if isinstance(each, list | tuple) else inside\n"
            '        waiting += [(f"{path}.{name}", child) for name, child in inside.items()][::-1]',
        )
    ],
    "is_training as a property over a private attribute": [
        (
            "    is_training: bool = True\n",
            "    @property\n"
            "    def is_training(self):\n"
            '        return vars(self).get("_mode", True)\n\n'
            "    @is_training.setter\n"
            "    def is_training(self, mode):\n"
            '        vars(self)["_mode"] = mode\n',
        )
    ],
    "what is wrong is found with sets, and values are written one by one": [
        (
            'problems = [f"{name!r} is missing" for name in own if name not in state]',
            "problems = [repr(name) for name in set(own) - set(state)]",
        ),
        (_WRITE, "            parameter.data.flat = values[name].ravel()\n"),
    ],
}


def probes(rng):
    """Inputs on which the mistakes differ: each takes an implementation and returns what it answers."""
    array = rng.normal(size=(2, 2))

    def part(impl, **attributes):
        made = type("Part", (impl.Module,), {})()
        for name, value in attributes.items():
            setattr(made, name, value)
        return made

    def ones(impl, *shape):
        return impl.Parameter(np.ones(shape))

    def names(m):
        return " ".join(name for name, _ in m.named_parameters())

    def own_copy(impl):
        given = array.copy()
        impl.Parameter(given).data[...] = 0
        return given

    def made_in_no_grad(impl):
        with no_grad():
            return impl.Parameter(1.0).requires_grad

    def tied(impl):
        weight = ones(impl, 1)
        return names(part(impl, a=part(impl, w=weight), b=ones(impl, 2), c=part(impl, w=weight)))

    def tied_within(impl):
        weight = ones(impl, 1)
        return names(part(impl, a=weight, b=ones(impl, 2), c=[weight]))

    def equal_modules(impl):
        kind = type("Same", (impl.Module,), {"__eq__": lambda a, b: True, "__hash__": None})
        a, b = kind(), kind()
        a.w, b.w = ones(impl, 1), ones(impl, 2)
        return names(part(impl, a=a, b=b))

    def cycle(impl):
        child = part(impl, w=ones(impl, 1))
        parent = part(impl, child=child, v=ones(impl, 2))
        child.parent = parent
        return names(parent)

    def clash(impl):
        return names(part(impl, x={1: ones(impl, 1), "1": ones(impl, 2)}))

    def clash_message(impl):
        try:
            clash(impl)
        except ValueError as error:
            return "x.1" in str(error)

    def reassigned(impl):
        m = part(impl, a=ones(impl, 1), b=ones(impl, 2))
        m.a = ones(impl, 3)
        return names(m)

    def appended(impl):
        m = part(impl, layers=[ones(impl, 1)])
        before = names(m)
        m.layers.append(ones(impl, 2))
        return f"{before}, {names(m)}"

    def frozen(impl):
        m = part(impl, a=ones(impl, 1), b=ones(impl, 2))
        m.a.requires_grad = False
        return names(m)

    def same_objects(impl):
        m = part(impl, a=ones(impl, 1))
        return next(m.parameters()) is m.a

    def modes(change):
        def answer(impl):
            inner = [part(impl) for _ in range(3)]
            m = part(impl, a=inner[0], b=[inner[1]])
            inner[0].c = inner[2]
            change(m)
            return [bool(each.is_training) for each in (m, *inner)]

        return answer

    def own_init(impl):
        made = type("Part", (impl.Module,), {"__init__": lambda self: None})()
        return made.is_training

    def others(impl):
        kind = type("Part", (impl.Module,), {})
        a, b = kind(), kind()
        a.eval()
        return b.is_training

    def of_eval(impl):
        m = part(impl, w=ones(impl, 1))
        return m.eval() is m, m.w.requires_grad

    def recorded(impl):
        m = type("Double", (impl.Module,), {"forward": lambda self, x: x * 2.0})()
        m.eval()
        return m(impl.Parameter(1.0)).requires_grad

    def echo(impl):
        m = type("Echo", (impl.Module,), {"forward": lambda self, *a, **o: (a, sorted(o.items()))})()
        return m(1, 2, x=3)

    def returned(impl):
        return type(type("Text", (impl.Module,), {"forward": lambda self: 5})()()).__name__

    def state(impl):
        m = part(impl, b=ones(impl, 2), a=impl.Parameter(1 / 3))
        found = m.state_dict()
        m.b.data[...] = 2
        kinds = [type(each).__name__ for each in found.values()]
        return list(found), kinds, found["b"]

    def state_values(impl):
        return part(impl, a=impl.Parameter(1 / 3)).state_dict()["a"]

    def loading(report, state, **shapes):
        """What ``report`` sees of a model of ones, and what is raised, after a state was loaded."""

        def answer(impl):
            m = part(impl, **{name: ones(impl, *shape) for name, shape in shapes.items()})
            m.alpha.grad = np.array([3.0])
            array, parameter = m.alpha.data, m.alpha
            given = {name: value.copy() for name, value in state.items()}
            try:
                m.load_state_dict(given)
                raised = "nothing"
            except Exception as error:
                kind = "ValueError" if isinstance(error, ValueError) else type(error).__name__
                raised = kind + "".join(
                    name for name in (" alpha", " beta", " omega") if name[1:] in str(error)
                )
            return report(m, array, parameter, given), raised

        return answer

    def swapped(impl):
        m = part(impl, a=impl.Parameter([1.0, 2.0]), b=impl.Parameter([3.0, 4.0]))
        m.load_state_dict({"a": m.b.data, "b": m.a.data})
        return values(m)

    def clash_of_states(impl):
        return list(part(impl, x={1: ones(impl, 1), "1": ones(impl, 2)}).state_dict())

    def deep(impl):
        inner = ones(impl, 1)
        for _ in range(40):
            inner = [inner]
        return len(names(part(impl, d=inner)))

    def of_class(impl):
        made = type("Part", (impl.Module,), {"shared": ones(impl, 1)})()
        made.w = ones(impl, 2)
        return names(made)

    def of_one_memory(impl):
        m = part(impl, a=ones(impl, 1), b=ones(impl, 1))
        m.a.data = m.b.data
        return names(m)

    def no_number(impl):
        m = part(impl, a=ones(impl, 1), b=ones(impl, 1))
        try:
            m.load_state_dict({"a": np.zeros(1), "b": np.array(["x"])})
        except ValueError:
            return values(m)

    def mode_after_loading(impl):
        m = part(impl).eval()
        m.load_state_dict({})
        return m.is_training

    def half_switched(m):
        m.a.eval()
        m.train()

    two = {"alpha": np.array([5.0, 6.0]), "beta": np.array([7.0])}
    fits = {"alpha": (2,), "beta": (1,)}

    def values(m, *_):
        return np.concatenate([each.data.ravel() for each in m.parameters()])

    def everything(impl):
        table = {"y": ones(impl, 1), "x": ones(impl, 2)}
        return names(part(impl, z=[ones(impl, 1), ones(impl, 2)], t=(ones(impl, 3),), d=table))

    return {
        "names in a list": lambda impl: names(part(impl, z=[ones(impl, 1), ones(impl, 2)])),
        "names in a tuple": lambda impl: names(part(impl, t=(ones(impl, 1), ones(impl, 2)))),
        "names in a dict": lambda impl: names(part(impl, d={"y": ones(impl, 1), "x": ones(impl, 2)})),
        "names in a list of lists": lambda impl: names(
            part(impl, n=[[ones(impl, 1)]], d={"k": (ones(impl, 2),)})
        ),
        "names in a module": lambda impl: names(part(impl, z=part(impl, w=ones(impl, 1)), a=ones(impl, 2))),
        "names of everything": everything,
        "a key that is a number of NumPy": lambda impl: names(part(impl, d={np.int64(3): ones(impl, 1)})),
        "what is deep": deep,
        "what the class holds": of_class,
        "two parameters over one memory": of_one_memory,
        "a state dict of two parameters of one name": clash_of_states,
        "loading what is no number": no_number,
        "the mode after loading": mode_after_loading,
        "hidden names": lambda impl: names(part(impl, _w=ones(impl, 1))),
        "a tensor beside a parameter": lambda impl: names(part(impl, t=Tensor(1.0, True), w=ones(impl, 1))),
        "a set": lambda impl: names(part(impl, s={ones(impl, 1)})),
        "a parameter tied in two modules": tied,
        "a parameter tied in one module": tied_within,
        "equal values": lambda impl: names(part(impl, a=ones(impl, 1), b=ones(impl, 1))),
        "equal modules": equal_modules,
        "modules that hold each other": cycle,
        "two parameters of one name": clash,
        "what is said of two parameters of one name": clash_message,
        "an attribute assigned again": reassigned,
        "a layer that comes later": appended,
        "a frozen parameter": frozen,
        "the parameters themselves": same_objects,
        "the array after its parameter was changed": own_copy,
        "a parameter of a number": lambda impl: impl.Parameter(2.0).data,
        "the dtype of a parameter": lambda impl: str(impl.Parameter(np.float32(1)).dtype),
        "a parameter as a tensor": lambda impl: isinstance(impl.Parameter(1.0), Tensor),
        "a parameter needs a gradient": lambda impl: impl.Parameter(1.0).requires_grad,
        "a parameter made in no_grad": made_in_no_grad,
        "a class with its own __init__": own_init,
        "modes at the start": modes(lambda m: None),
        "modes after eval": modes(lambda m: m.eval()),
        "modes after a part's eval and train": modes(half_switched),
        "modes after eval and train": modes(lambda m: (m.eval(), m.train())),
        "the mode of another module": others,
        "eval": of_eval,
        "a call in eval mode": recorded,
        "a call with options": echo,
        "a call that returns a number": returned,
        "a call without forward": lambda impl: str(part(impl)(1)),
        "a state dict": state,
        "values of a state dict": state_values,
        "loaded values": loading(values, two, **fits),
        "the array that is loaded into": loading(
            lambda m, array, *_: (array, m.alpha.data is array), two, **fits
        ),
        "the parameter that is loaded into": loading(
            lambda m, array, parameter, given: m.alpha is parameter, two, **fits
        ),
        "the array of the state after loading": loading(
            lambda m, array, parameter, given: given.get("alpha") is m.alpha.data, two, **fits
        ),
        "the state after loading": loading(lambda m, array, parameter, given: sorted(given), two, **fits),
        "the gradient after loading": loading(lambda m, *_: m.alpha.grad, two, **fits),
        "the dtype after loading": loading(
            lambda m, *_: str(m.alpha.data.dtype), {"alpha": np.array([5.0], np.float32)}, alpha=(1,)
        ),
        "loading in another order": loading(values, dict(reversed(two.items())), **fits),
        "loading what changes places": swapped,
        "loading without a name": loading(values, {"beta": np.array([7.0])}, **fits),
        "loading a name too many": loading(values, two | {"omega": np.array([7.0])}, **fits),
        "loading a number into two": loading(values, two | {"alpha": np.array(5.0)}, **fits),
        "loading another shape": loading(values, two | {"alpha": np.array([[5.0, 6.0]])}, **fits),
        "loading with three faults": loading(values, {"alpha": np.ones(3), "omega": np.ones(1)}, **fits),
    }
