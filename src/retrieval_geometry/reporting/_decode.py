"""From JSON to frozen dataclasses, with every type checked and every fault named by its place."""

import dataclasses
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def decode(cls: type[T], data: Any, where: str = "") -> T:
    """Build the dataclass ``cls`` from parsed JSON.

    Raises:
        ValueError: a field is missing, unknown, or of another type; the message gives its place, as
            ``methods[2].metrics.P@1.low``.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where or 'the file'} should be an object, got {_kind(data)}")
    # Own code, not msgspec or cattrs: eighty lines against one more dependency of every installation.
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in data:
        if name not in fields:
            raise ValueError(f"{_join(where, name)} is not a known field")
    # Annotations may be text; this evaluates them in the module of the class.
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _value(hints[name], data[name], _join(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{_join(where, name)} is missing")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where or 'the file'}: {error}") from None


def _value(hint: Any, data: Any, where: str) -> Any:
    if hint is Any:
        return data
    if dataclasses.is_dataclass(hint):
        return decode(hint, data, where)  # type: ignore[arg-type]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return _one_of(arguments, data, where)
    if origin is typing.Literal and type(data) is str and data in arguments:
        return data
    if origin is tuple and isinstance(data, list):
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is dict and isinstance(data, dict):
        return {key: _value(arguments[1], item, _join(where, key)) for key, item in data.items()}
    # JSON has one kind of number: 1 is a float too. A bool is none, though Python calls it an int.
    if hint is float and type(data) in (int, float):
        return float(data)  # finite, as parse_json lets no other pass
    # Not isinstance: True would pass for an int.
    if type(data) is hint:
        return data
    expected = {tuple: "a list", dict: "an object"}.get(origin, getattr(hint, "__name__", str(hint)))
    raise ValueError(f"{where} should be {expected}, got {_kind(data)}")


def _one_of(hints: tuple[Any, ...], data: Any, where: str) -> Any:
    """``X | None``, or several dataclasses that are told apart by their field ``kind``."""
    hints = tuple(hint for hint in hints if hint is not types.NoneType)
    if data is None or len(hints) == 1:
        return None if data is None else _value(hints[0], data, where)
    kinds = {hint.kind: hint for hint in hints}
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{_join(where, 'kind')} should be one of {', '.join(kinds)}, got {_kind(kind)}")
    return decode(kinds[kind], data, where)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _kind(data: Any) -> str:
    return f"{type(data).__name__} {str(data)[:40]!r}" if data is not None else "null"
