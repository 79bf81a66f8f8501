"""The options of a part as options of a command."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ssl_dc.cli.options import Assignments, Number
from ssl_dc.config.messages import bounds


def part_options(model: type[BaseModel]) -> list[click.Option]:
    """An option for each field of a part's options but its name. The options' own model checks the values."""
    return [_option(name, field) for name, field in model.model_fields.items() if name != "name"]


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = "--" + name.replace("_", "-")
    kind = _without_none(field.annotation)
    help_text = _help(field)
    if kind is bool:
        return click.Option([flag, name], is_flag=True, default=None, help=help_text)
    if get_origin(kind) is Literal:
        return click.Option([flag, name], type=click.Choice([str(choice) for choice in get_args(kind)]), help=help_text)
    if get_origin(kind) is tuple:
        return click.Option([flag, name], type=Number(), nargs=len(get_args(kind)), default=None, help=help_text)
    if get_origin(kind) is dict:
        return click.Option(
            [flag, name], type=str, multiple=True, callback=Assignments(flag), metavar="KEY=VALUE", help=help_text
        )
    if get_origin(kind) is list:
        (of,) = get_args(kind)
        single = click.Path() if of is Path else str if of is str else Number()
        return click.Option([flag, name], type=single, multiple=True, callback=_given, help=help_text)
    if kind is Path:
        return click.Option([flag, name], type=click.Path(), help=help_text)
    return click.Option([flag, name], type=str if kind is str else Number(), help=help_text)


def _given(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> list[Any] | None:  # noqa: ARG001
    """The values of an option that may be repeated; None if there are none, so that the default counts."""
    return list(values) or None


def _help(field: FieldInfo) -> str:
    allowed = bounds(field)
    default = field.get_default()
    shown = None if field.is_required() or default is None or isinstance(default, bool) else f"default: {default}"
    extra = "; ".join(words for words in (allowed, shown, "needed" if field.is_required() else "") if words)
    return f"{field.description or ''}{f'  [{extra}]' if extra else ''}"


def _without_none(annotation: Any) -> Any:
    """The type of an optional field when it is given."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else annotation
    return annotation
