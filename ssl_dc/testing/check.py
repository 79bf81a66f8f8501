"""A check, the part that it is run on, and its outcome."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_dc.errors import PluginError
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.options import PartOptions
from ssl_dc.plugins.registry import Registered

FAULTY_OPTIONS = "its options are at fault, as another check says"
"""Why a check that needs the options of a part does not apply."""


class ConformanceError(AssertionError):
    """A part breaks a promise. The text is one sentence: what was expected, and what was seen."""


class DoesNotApplyError(Exception):
    """A check does not apply to this part. The text says why."""


@dataclass(frozen=True)
class Subject:
    """The part under check.

    Attributes:
        registered: The part with its provenance.
        settings: Options to build it with, by name. The others keep their defaults.
    """

    registered: Registered
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The part's name."""
        return self.registered.part.name

    @property
    def options(self) -> PartOptions:
        """The part's options, with the settings.

        Raises:
            DoesNotApplyError: If an option has neither a default nor a setting, or the options themselves are at fault.
                Another check says so.
        """
        needed = [name for name in required_options(self.options_model) if name not in self.settings]
        if needed:
            raise DoesNotApplyError(f"it needs settings of {', '.join(needed)}")
        try:
            return self.registered.options(self.settings)
        except PluginError as error:
            raise DoesNotApplyError(FAULTY_OPTIONS) from error

    @property
    def options_model(self) -> type[PartOptions]:
        """The model of the part's options.

        Raises:
            DoesNotApplyError: If it cannot be had. Another check says why.
        """
        try:
            return self.registered.options_model()
        except PluginError as error:
            raise DoesNotApplyError(FAULTY_OPTIONS) from error

    def build(self, *arguments: Any) -> Any:
        """The part: its target, called with its options (if its kind has any) and the arguments of its kind."""
        has_options = KINDS[self.registered.kind].options is not None
        return self.registered.target()(*([self.options] if has_options else []), *arguments)


@dataclass(frozen=True)
class Check:
    """One promise of a kind of part, and the function that checks it.

    Attributes:
        function: Returns if the part keeps the promise; raises :class:`ConformanceError` if it does not, and
            :class:`DoesNotApplyError` if the promise says nothing about the part. Its docstring is the promise.
    """

    function: Callable[[Subject], None]

    @property
    def name(self) -> str:
        """What the check is called in reports: the function's name."""
        return self.function.__name__

    @property
    def promise(self) -> str:
        """What a part of the kind must do, in one line."""
        return (self.function.__doc__ or "").strip()

    def run(self, subject: Subject) -> None:
        """Check a part, always with the same random draws. The caller's random states stay as they are.

        Raises:
            ConformanceError: If the part breaks the promise.
            DoesNotApplyError: If the promise does not apply to the part.
        """
        states = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            reseed()
            try:
                self.function(subject)
            finally:
                random.setstate(states[0])
                np.random.set_state(states[1])


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check on a part.

    Attributes:
        name: The check's name.
        promise: What the part must do.
        state: Whether it does.
        message: What was expected and seen, or why the check does not apply. Empty if it passed.
    """

    name: str
    promise: str
    state: Literal["passed", "failed", "does not apply"]
    message: str = ""


def required_options(model: type[PartOptions]) -> list[str]:
    """The names of the options that have no default, but for that of the part's name."""
    return [name for name, field in model.model_fields.items() if field.is_required() and name != "name"]


def expect(kept: bool, message: str) -> None:
    """Raise :class:`ConformanceError` with a message unless a promise is kept."""
    if not kept:
        raise ConformanceError(message)


def expect_instance(made: Any, base: type) -> None:
    """Expect that what the target builds is an instance of the base class of its kind."""
    expect(isinstance(made, base), f"expected the target to build an ssl_dc.{base.__name__}, saw a {type(made).__name__}")


def expect_gradient(name: str, p: Tensor, where: str = "") -> None:
    """Expect that a parameter has a finite gradient.

    Args:
        name: Name of the parameter, for the message.
        p: The parameter, after a backward.
        where: Where the gradient should come from, for the message.
    """
    expect(p.grad is not None, f"expected a gradient of {name}{where}, saw none")
    expect_finite_gradient(name, p)


def expect_finite_gradient(name: str, p: Tensor) -> None:
    """Expect that the gradient of a parameter is finite, if it has one."""
    expect(p.grad is None or bool(p.grad.isfinite().all()), f"expected a finite gradient of {name}, saw {p.grad}")


def reseed(seed: int = 0) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
