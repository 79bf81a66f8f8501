"""What a check is, and what it is given."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_dc.plugins.options import PartOptions
from ssl_dc.plugins.registry import Registered


class ConformanceError(AssertionError):
    """A promise that a part does not keep: one sentence, what was expected and what was seen."""


class DoesNotApplyError(Exception):
    """A check that says nothing about this part; the text says why."""


@dataclass(frozen=True)
class Subject:
    """The part under check.

    Attributes:
        registered: The part with its provenance.
        settings: Options to build it with, by name; the others keep their defaults.
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
            DoesNotApplyError: If an option has no default and the settings do not give it.
        """
        fields = self.registered.options_model().model_fields
        needed = [name for name, field in fields.items() if field.is_required() and name not in (*self.settings, "name")]
        if needed:
            raise DoesNotApplyError(f"it needs settings of {', '.join(needed)}")
        return self.registered.options_model().model_validate({"name": self.name, **self.settings})

    def build(self, *arguments: Any) -> Any:
        """The part: its class (or function), called with its options and the arguments of its kind."""
        return self.registered.target()(self.options, *arguments)


@dataclass(frozen=True)
class Check:
    """One promise of a kind of part, and how it is looked at.

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
        """Look at a part, always with the same random draws, and leave the caller's random states as they were.

        Raises:
            ConformanceError: If the part does not keep the promise.
            DoesNotApplyError: If the promise says nothing about the part.
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
    """What a check said of a part.

    Attributes:
        name: The check's name.
        promise: What the part must do.
        state: Whether the part does.
        message: What was expected and seen, or why the check does not apply; empty if it passed.
    """

    name: str
    promise: str
    state: Literal["passed", "failed", "does not apply"]
    message: str = ""


def expect(kept: bool, message: str) -> None:
    """Raise :class:`ConformanceError` with the message unless the promise is kept."""
    if not kept:
        raise ConformanceError(message)


def expect_instance(made: Any, base: type) -> None:
    """What a part's target builds must be an instance of the base class of its kind."""
    expect(isinstance(made, base), f"expected the target to build an ssl_dc.{base.__name__}, saw a {type(made).__name__}")


def expect_gradient(name: str, p: Tensor, where: str = "") -> None:
    """A parameter must have a finite gradient.

    Args:
        name: Of the parameter, for the message.
        p: The parameter, after a backward.
        where: What the gradient should have come from, for the message.
    """
    expect(p.grad is not None, f"expected a gradient of {name}{where}, saw none")
    expect_finite_gradient(name, p)


def expect_finite_gradient(name: str, p: Tensor) -> None:
    """What gradient a parameter has, if any, must be finite."""
    expect(p.grad is None or bool(p.grad.isfinite().all()), f"expected a finite gradient of {name}, saw {p.grad}")


def reseed(seed: int = 0) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
