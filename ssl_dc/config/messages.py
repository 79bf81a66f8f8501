"""Errors in a config as text: the key, its value and source, what is allowed, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ssl_dc.config.schema import RunConfig
from ssl_dc.errors import PluginError
from ssl_dc.plugins.kinds import config_sections, default_part
from ssl_dc.plugins.registry import registry

_BOUND_WORDS = {Gt: ("above", "gt"), Ge: ("at least", "ge"), Lt: ("below", "lt"), Le: ("at most", "le")}


def readable(error: ValidationError, values: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """All errors of a config, a line each.

    Args:
        error: The errors, from pydantic.
        values: The values as given, by dotted key.
        sources: Where each was given, by dotted key.
    """
    lines = [_line(detail, values, sources) for detail in error.errors(include_url=False)]
    if len(lines) == 1:
        return lines[0]
    return f"Found {len(lines)} errors in the config:\n" + "\n".join(f"  {line}" for line in lines)


def readable_options(error: ValidationError, model: type[BaseModel], flag: Callable[[str], str]) -> str:
    """All errors of options that are no part of a config, a line each.

    Args:
        error: The errors, from pydantic.
        model: The model that the options were checked by.
        flag: Makes of an option's name what the user writes.
    """
    return "\n".join(_option_line(detail, model, flag) for detail in error.errors(include_url=False))


def _option_line(detail: ErrorDetails, model: type[BaseModel], flag: Callable[[str], str]) -> str:
    if not detail["loc"]:
        return _own_words(detail)
    name = str(detail["loc"][0])
    allowed = bounds(model.model_fields[name])
    return f"{flag(name)} {detail['input']!r}: {_own_words(detail)}{f'; allowed: {allowed}' if allowed else ''}"


def _line(detail: ErrorDetails, values: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    location = [str(part) for part in detail["loc"]]
    message, given_value = _own_words(detail), detail["input"]
    setting, colon, rest = message.partition(": ")
    if colon and isinstance(given_value, Mapping) and setting in given_value:  # a section's own check names the setting
        location, message, given_value = [*location, setting], rest, given_value[setting]
    key = ".".join(location)
    given = next((k for k in (key, f"{key}.name", ".".join(location[:-1])) if k in sources), None)
    given = given or next((k for k in sources if k.startswith(f"{key}.name.")), None)
    given = given or next((k for k in sources if k.startswith(f"{key}.")), None)
    if not location:  # a check of the whole config names the setting that it is about
        given = setting if setting in sources else None
    where = f"{sources[given]}: " if given else ""
    if detail["type"] == "extra_forbidden":
        return f"{where}unknown key {key!r}{_nearest(location, values)}"
    if not location or detail["type"] == "unknown_part":
        return f"{where}{message}"
    allowed = "" if "allowed: " in message else _allowed(location, values)
    return f"{where}{key} = {given_value!r}: {message}{f'; allowed: {allowed}' if allowed else ''}"


def _own_words(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    return message if message != detail["msg"] else message[0].lower() + message[1:]


def _nearest(location: list[str], values: Mapping[str, Any]) -> str:
    *sections, wrong = location
    model = _model_at(sections, values)
    here = list(model.model_fields) if model else []
    # the key may be right, but in the wrong section
    elsewhere = [key for key in _all_keys(values) if key.rpartition(".")[2] == wrong]
    near = elsewhere or [".".join([*sections, name]) for name in difflib.get_close_matches(wrong, here, n=1, cutoff=0.4)]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    names = f" {'.'.join(sections) or 'a config'} has: {', '.join(here)}" if here else ""
    return f"{hint}{names}" if hint else f";{names}" if names else ""


def _all_keys(values: Mapping[str, Any]) -> Iterator[str]:
    for section in RunConfig.model_fields:
        model = _model_at([section], values)
        if model is None:
            yield section
        else:
            yield from (f"{section}.{name}" for name in model.model_fields)


def _model_at(sections: list[str], values: Mapping[str, Any]) -> type[BaseModel] | None:
    """The model that checks the section at a path; None if there is none."""
    if not sections:
        return RunConfig
    section, *deeper = sections
    model: Any
    if section in config_sections():
        try:
            model = registry().find(section, values.get(f"{section}.name", default_part(section))).options_model()
        except PluginError:
            return None
    else:
        model = _field_model(RunConfig.model_fields.get(section))
    for name in deeper:
        model = _field_model(model.model_fields.get(name)) if model else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _field_model(field: FieldInfo | None) -> Any:
    annotation = field.annotation if field else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _allowed(location: list[str], values: Mapping[str, Any]) -> str:
    """The range of the field at a path, in words; empty if it has no bounds."""
    model = _model_at(location[:-1], values)
    field = model.model_fields.get(location[-1]) if model else None
    return bounds(field) if field else ""


def allowed_values(field: FieldInfo) -> str:
    """What a setting may be, in words: its choices, or its type and bounds."""
    return ", ".join(words for words in (_in_words(field.annotation), bounds(field)) if words)


def _in_words(annotation: Any) -> str:
    """A type as users know it: choices as texts, and nothing of how it is validated."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is Annotated:
        return _in_words(arguments[0])
    if annotation in (None, type(None), ...):
        return "..." if annotation is ... else "None"
    if origin in (Union, UnionType):
        return " | ".join(map(_in_words, arguments))
    if arguments and isinstance(origin, type):
        return f"{origin.__name__}[{', '.join(map(_in_words, arguments))}]"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def bounds(field: FieldInfo) -> str:
    """The range of a field, in words; empty if it has no bounds."""
    words = []
    for constraint in field.metadata:
        for bound, (word, attribute) in _BOUND_WORDS.items():
            if isinstance(constraint, bound):
                words.append(f"{word} {_number(getattr(constraint, attribute))}")
    return ", ".join(words)
