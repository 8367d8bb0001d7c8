"""The settings of an objective: a checkpoint goes on only with an objective of the same settings.

The rule: whatever hangs on the module and does not change in training is a setting. That is the class of each
part; its attributes, private ones too, down to numbers, texts and tensors; its buffers; the shapes of its
parameters; the defaults of an optimiser; the seed of a generator; functions by name, and lambdas and local
functions by their code and what they enclose as well. Values of parameters and what ``get_extra_state`` gives
are state, and so is any other value that has changed since the run began: a counter, a running mean, RankMI's
beta. A setting that leaves no other trace than the first value of a parameter is not seen.
"""

import dataclasses
import enum
import hashlib
import math
import sys
import types
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from numbers import Number
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Description = dict[str, Any]
"""Plain values by dotted path, such as ``objective.distance.p``."""

_INTERNAL = frozenset(vars(nn.Module()))
_LONG = 64


def describe(objective: nn.Module) -> Description:
    """Describe an objective by plain values.

    Example:
        >>> found = describe(nn.MarginRankingLoss(margin=0.5))
        >>> found["objective"], found["objective.margin"]
        ('torch.nn.modules.loss.MarginRankingLoss', 0.5)
    """
    found: Description = {}
    _Walk(found).enter("objective", objective)
    return found


def unchanged(start: Mapping[str, Any], now: Mapping[str, Any]) -> Description:
    """The settings: whatever has the same description at the start and now."""
    return {path: value for path, value in start.items() if path in now and now[path] == value}


class _Walk:
    """Descend into a value; an object that is met again is described once."""

    def __init__(self, found: Description) -> None:
        self.found = found
        self.paths: dict[int, str] = {}
        self.held: list[Any] = []  # so that no other object gets the id of one that is gone

    def enter(self, path: str, value: Any) -> None:
        """Describe a value under a path."""
        plain = _plain(value)
        if plain is not None:
            self.found[path] = plain[0]
        elif id(value) in self.paths:
            self.found[path] = f"see {self.paths[id(value)]}"
        else:
            self.paths[id(value)] = path
            self.held.append(value)
            self._descend(path, value)
            if isinstance(value, _PASSING):  # equal ones may be one object or not, as it happens
                del self.paths[id(value)]

    def _descend(self, path: str, value: Any) -> None:
        kind, parts = _opened(value)
        if len(parts) <= _LONG:
            self.found[path] = kind
            for name, part in parts:
                self.enter(f"{path}.{name}", part)
            return
        inside = _Walk({})
        inside.paths, inside.held = self.paths, self.held
        for name, part in parts:
            inside.enter(name, part)
        self.found[path] = f"{kind}, digest {_digest(repr(inside.found))}"


_PASSING = (Mapping, Sequence, AbstractSet, types.FunctionType, types.MethodType, partial)


def _plain(value: Any) -> tuple[Any] | None:
    """A value that can be compared as it is, in a tuple; None for others."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, str):
        return (value,)
    if type(value) is float:
        return ("nan" if math.isnan(value) else value,)
    if isinstance(value, Tensor | np.ndarray):
        return (_numbers(value),)
    if isinstance(value, type | types.ModuleType):
        return (_name(value),)
    if isinstance(value, torch.Generator):
        return (f"generator of seed {value.initial_seed()}",)
    if isinstance(value, torch.device):  # a run may go on elsewhere
        return ("device",)
    if isinstance(value, enum.Enum | Number | PurePath | bytes | str | torch.dtype | torch.Size):
        return (str(value),)
    return None


Parts = list[tuple[str, Any]]


def _opened(value: Any) -> tuple[str, Parts]:
    """The kind of a composed value, and its parts by name."""
    kind = _name(type(value))
    if isinstance(value, nn.Module):
        return kind + (f" of {', '.join(value._modules)}" if value._modules else ""), _of_module(value)
    if isinstance(value, torch.optim.Optimizer):
        return kind, list(value.defaults.items())
    if isinstance(value, Mapping):
        return f"{kind} of {len(value)}", [(_key(key), item) for key, item in value.items()]
    if isinstance(value, AbstractSet):
        return f"{kind} of {', '.join(sorted(map(_key, value)))}", []
    if isinstance(value, Sequence):
        return f"{kind} of {len(value)}", _numbered(value)
    if isinstance(value, partial):
        return kind, [("func", value.func), *_numbered(value.args), *value.keywords.items()]
    if isinstance(value, types.MethodType):
        return kind, [("function", value.__func__)]
    if isinstance(value, types.FunctionType) and "<" in value.__qualname__:
        return f"{_name(value)}, code {_digest(_code(value.__code__))}", _enclosed(value)
    if callable(value) and hasattr(value, "__name__"):
        return _name(value), []
    if dataclasses.is_dataclass(value):
        return kind, [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
    foreign = kind.split(".")[0] in {"torch", *sys.stdlib_module_names}
    return kind, [] if foreign else list(getattr(value, "__dict__", {}).items())


def _of_module(module: nn.Module) -> Parts:
    shapes = {
        name: None if p is None or is_lazy(p) else f"parameter of shape {tuple(p.shape)}"
        for name, p in module._parameters.items()
    }
    own = {name: value for name, value in vars(module).items() if name not in _INTERNAL}
    return [*module._modules.items(), *shapes.items(), *module._buffers.items(), *own.items()]


def _numbered(values: Sequence[Any]) -> Parts:
    return [(str(i), value) for i, value in enumerate(values)]


def _key(key: Any) -> str:
    plain = _plain(key)
    return _name(type(key)) if plain is None else str(plain[0])


def _name(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return value.__name__
    module = getattr(value, "__module__", None)
    if module == "__main__":  # by python -m it has a name
        module = getattr(sys.modules[module].__spec__, "name", module)
    return f"{module}.{getattr(value, '__qualname__', value.__name__)}"


def _enclosed(function: types.FunctionType) -> Parts:
    """Values that a lambda or a local function has taken along."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    filled = [(name, cell.cell_contents) for name, cell in cells if cell != types.CellType()]
    return [("defaults", function.__defaults__), ("keywords", function.__kwdefaults__), *filled]


def _code(constant: Any) -> str:
    if isinstance(constant, types.CodeType):
        inner = [_code(part) for part in constant.co_consts]
        return repr((constant.co_code, inner, constant.co_names, constant.co_varnames))
    if isinstance(constant, tuple | frozenset):  # the order in a set differs between processes
        inner = [_code(part) for part in constant]
        return repr(inner if isinstance(constant, tuple) else sorted(inner))
    return repr(constant)


def _numbers(value: Tensor | np.ndarray) -> str:
    if isinstance(value, Tensor):
        if value.is_meta or is_lazy(value):
            return "tensor without values"
        value = value.detach().cpu().to_dense()
        value = (value.double() if value.is_floating_point() else value).numpy()
    if value.size <= 4 or value.dtype.hasobject:
        return f"tensor {value.tolist()}"
    return f"tensor of shape {value.shape}, digest {_digest(value.tobytes())}"


def _digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]
