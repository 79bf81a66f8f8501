"""What a part of any kind must do: checks of its record, of its options, and of the options in a config file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ssl_dc.config import RunConfig, dump, read, resolve, uniform_layer
from ssl_dc.errors import PluginError
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.options import PartOptions
from ssl_dc.plugins.registry import registry
from ssl_dc.testing.check import ConformanceError, DoesNotApplyError, Subject, expect, required_options


def record_has_a_summary_of_one_line(subject: Subject) -> None:
    """The record's summary is one line and ends with a full stop."""
    summary = subject.registered.part.summary
    expect(
        summary.endswith(".") and "\n" not in summary, f"expected a summary of one line that ends with '.', saw {summary!r}"
    )


def record_names_no_options(subject: Subject) -> None:
    """The record names no options, as users cannot set any."""
    expect(subject.registered.part.options is None, f"expected no options, saw {subject.registered.part.options}")


def options_derive_from_those_of_the_kind(subject: Subject) -> None:
    """The options are a subclass of the options of the kind: `PartOptions`, or what [the hook](hooks.md) names."""
    try:
        subject.registered.options_model()
    except PluginError as error:
        raise ConformanceError(str(error)) from error


def options_bear_the_name_of_the_part(subject: Subject) -> None:
    """The options' `name` is, by default, the name of the part."""
    field = subject.options_model.model_fields["name"]
    saw = "none" if field.is_required() else repr(field.default)
    expect(field.default == subject.name, f"expected options with the name {subject.name!r}, saw {saw}")


def every_option_is_described(subject: Subject) -> None:
    """Each option has a description, which `ssl-dc plugins show` prints."""
    fields = subject.options_model.model_fields
    silent = [name for name, field in fields.items() if name != "name" and not field.description]
    expect(not silent, f"expected a description of every option, saw none for {', '.join(silent)}")


def unknown_options_are_refused(subject: Subject) -> None:
    """An option that does not exist is an error, so that a misspelt option does not go unnoticed."""
    unknown = "an_option_that_does_not_exist"
    try:
        subject.options_model.model_validate({"name": subject.name, unknown: 1})
    except ValidationError as error:
        if any(detail["loc"] == (unknown,) for detail in error.errors()):
            return
    expect(False, f"expected the unknown option {unknown!r} to be refused, saw it accepted")


def importing_the_options_imports_no_torch(subject: Subject) -> None:
    """The module of the options does not import torch, so that a config can be checked at once."""
    if subject.registered.distribution.endswith(".py"):
        raise DoesNotApplyError("a plugin of one file holds its options and its part together")
    module = (subject.registered.part.options or "").partition(":")[0]
    expect(not _imports_torch(module), f"expected importing {module} not to import torch, saw that it does")


@cache
def _imports_torch(module: str) -> bool:
    """Whether importing a module in a new Python imports torch."""
    code = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run(  # noqa: S603  # this Python, with a module that is registered here
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    expect(done.returncode == 0, f"expected {module} to be importable, saw: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.split()[-1] == "True"


def defaults_are_valid(subject: Subject) -> None:
    """Every default is valid. Parts that a config names have one for every option, so that choosing the part is enough."""
    missing = required_options(subject.options_model) if KINDS[subject.registered.kind].section else []
    expect(not missing, f"expected a valid default of every option, saw none for {', '.join(missing)}")
    try:
        subject.registered.options(subject.settings)
    except PluginError as error:
        raise ConformanceError(str(error)) from error
    except ValidationError as error:
        wrong = ", ".join(str(detail["loc"][0]) if detail["loc"] else detail["msg"] for detail in error.errors())
        needed = all(detail["type"] == "missing" for detail in error.errors())
        expect(needed, f"expected valid defaults and settings, saw others for {wrong}")


def options_survive_a_config_file(subject: Subject) -> None:
    """A config with the part is equal to itself after it was saved and read."""
    saved = _config_with(subject, {})
    model, seen = subject.registered.options_model(), type(_options(subject, saved))
    expect(seen is model, f"expected the section {subject.registered.kind} to be {model.__name__}, saw {seen.__name__}")
    again = _saved_and_read(saved)
    expect(
        saved == again,
        f"expected the same config after it was saved and read, saw {_options(subject, again)!r} for"
        f" {_options(subject, saved)!r}",
    )


def every_option_survives_a_config_file_with_another_value(subject: Subject) -> None:
    """Each option, set to another value than its default, has that value after the config was saved and read."""
    for option, value in _other_values(subject):
        saved = _config_with(subject, {option: value})
        before = getattr(_options(subject, saved), option)
        after = getattr(_options(subject, _saved_and_read(saved)), option)
        expect(
            before == after, f"expected option {option!r} to be {before!r} after a config was saved and read, saw {after!r}"
        )


def _config_with(subject: Subject, said: dict[str, Any]) -> RunConfig:
    subject.options  # noqa: B018  # raises DoesNotApplyError if an option needs a setting
    values = {"name": registry().written(subject.registered), **subject.settings, **said}
    kind = subject.registered.kind
    return resolve([uniform_layer({f"{kind}.{key}": value for key, value in values.items()}, "the check")]).config


def _options(subject: Subject, config: RunConfig) -> PartOptions:
    options: PartOptions = getattr(config, subject.registered.kind)
    return options


def _saved_and_read(config: RunConfig) -> RunConfig:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(dump(config), encoding="utf-8")
        return read(file)


def _other_values(subject: Subject) -> Iterator[tuple[str, Any]]:
    """Each option with another value that it may have."""
    options = subject.options
    values = {option: getattr(options, option) for option in type(options).model_fields}
    for option, field in type(options).model_fields.items():
        for candidate in _candidates(values[option], field) if option != "name" else ():
            try:
                other = type(options).model_validate({**values, option: candidate})
            except ValidationError:
                continue
            if getattr(other, option) != values[option]:
                yield option, candidate
                break


def _candidates(value: Any, field: FieldInfo) -> Iterator[Any]:
    """Values like a given one, of which an option may accept some."""
    if get_origin(field.annotation) is Literal:
        yield from get_args(field.annotation)
    elif isinstance(value, Enum):
        yield from type(value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value * 2, value / 2, value - 1, value + 0.25)
    elif isinstance(value, str | Path):
        yield f"{value}-other"
    elif isinstance(value, tuple | list):
        for factor in (0.5, 0.9):
            yield [item * factor if isinstance(item, float) else item for item in value]
        yield [0.25 if isinstance(item, int | float) else item for item in value]
    elif value is None:
        yield from (7, 0.25, "other")


def checks_of(kind: str) -> Sequence[Callable[[Subject], None]]:
    """The checks of this file that apply to a kind."""
    if KINDS[kind].options is None:
        return RECORD
    return (*RECORD_AND_OPTIONS, *CONFIG) if KINDS[kind].section else RECORD_AND_OPTIONS


RECORD = (record_has_a_summary_of_one_line, record_names_no_options)
RECORD_AND_OPTIONS = (
    record_has_a_summary_of_one_line,
    options_derive_from_those_of_the_kind,
    options_bear_the_name_of_the_part,
    every_option_is_described,
    unknown_options_are_refused,
    importing_the_options_imports_no_torch,
    defaults_are_valid,
)
CONFIG = (
    options_survive_a_config_file,
    every_option_survives_a_config_file_with_another_value,
)
