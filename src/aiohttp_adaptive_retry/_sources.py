"""Where settings come from beside code: mappings, as TOML and JSON give them, and the environment.

What is read here is checked by `AdaptiveConfig` like any other setting.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Mapping
from types import NoneType
from typing import Any, Final, TypeVar

from ._checks import known_names, likely, nearest, shown, wrong_type

_T = TypeVar("_T")

_FLAGS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def of_mapping(mapping: object, known: Collection[str]) -> dict[str, Any]:
    """The fields that a mapping sets."""
    if not isinstance(mapping, Mapping):
        raise wrong_type("mapping", "a mapping of fields to values", mapping)
    known_names("AdaptiveConfig", mapping, known)
    return dict(mapping)


def of_environment(
    prefix: object, environ: object, hints: Mapping[str, Any], make: Callable[[dict[str, Any]], _T]
) -> _T:
    """What `make` makes of the fields that variables with this prefix set, each by its type.

    An error names the variable.
    """
    if not isinstance(prefix, str):
        raise wrong_type("prefix", "a str", prefix)
    if not isinstance(environ, Mapping):
        raise wrong_type("environ", "a mapping of names to texts", environ)
    fields: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for variable, text in environ.items():
        if not variable.startswith(prefix):
            continue
        name = variable.removeprefix(prefix).lower()
        if name not in hints:
            if not prefix:
                # Without a prefix all the other variables of the process are here too.
                continue
            # The value may be a secret, as nobody knows what it is for.
            meant = nearest(name, hints)
            hint = likely(None if meant is None else prefix + meant.upper())
            raise TypeError(f"{variable} sets no field of AdaptiveConfig{hint}")
        if not isinstance(text, str):
            raise wrong_type(variable, "a str", text)
        if text.strip():
            variables[name] = variable
            fields[name] = _parsed(variable, text.strip(), hints[name])
    try:
        return make(fields)
    except (TypeError, ValueError) as error:
        # Each text begins with the field's name.
        variable = variables.get(str(error).partition(" ")[0], prefix + "*")
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{variable}: {error}") from None


def _parsed(variable: str, text: str, hint: Any) -> Any:
    """A variable's text as a value of the field's type."""
    members = typing.get_args(hint)
    kinds = members if NoneType in members or float in members else (hint,)
    if NoneType in kinds and text.lower() in ("none", "null"):
        return None
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return text.lower()
    if isinstance(origin, type) and issubclass(origin, Collection):
        words = text.replace(",", " ").split()
        return [_number(variable, word, int) for word in words] if int in members else words
    if bool in kinds:
        if text.lower() not in _FLAGS:
            raise ValueError(f"{variable} must be true or false, got {shown(text)}")
        return _FLAGS[text.lower()]
    for kind in (int, float):
        if kind in kinds:
            return _number(variable, text, kind)
    raise TypeError(f"{variable} can't be set from the environment")


def _number(variable: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        wanted = "an int" if kind is int else "a number"
        raise ValueError(f"{variable} must be {wanted}, got {shown(text)}") from None
