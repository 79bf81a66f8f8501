"""The ways through an encoder: dense, or gated at a budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

Budget = float | tuple[float, ...] | None
"""A share of the dense cost in (0, 1], one such share for each image of a batch, or the budget of the training."""


ROUTE_NAMES = "'dense', 'gated' or 'gated@BUDGET'"
"""The names of routes, in words."""


@dataclass(frozen=True)
class Route:
    """How a view goes through the encoder. The training loop hands it down to every gate and norm layer.

    A route is a value: two routes that say the same are equal, have one hash and may be keys. It is a constant to
    ``torch.compile`` and ``torch.export``, so that each route has a graph of its own.

    Attributes:
        gated: Whether the gates act.
        budget: Share of the dense cost that a gated view may pay, in (0, 1], or a tuple with one share for each image.
            None means the budget that the network was trained for. A dense route has none.
        DENSE: The dense route.
        GATED: The gated route, at the budget that the network was trained for.
        BOTH: These two, dense first.

    Raises:
        ValueError: If a budget is outside (0, 1], or a dense route has one.
    """

    gated: bool
    budget: Budget = None

    DENSE: ClassVar[Route]
    GATED: ClassVar[Route]
    BOTH: ClassVar[tuple[Route, Route]]

    def __post_init__(self) -> None:
        if self.budget is None:
            return
        if not self.gated:
            raise ValueError("a dense route has no budget")
        shares = self.budget if isinstance(self.budget, tuple) else (self.budget,)
        wrong = [share for share in shares if not 0 < share <= 1]
        if wrong or not shares:
            raise ValueError(f"a budget is above 0 and at most 1, not {wrong[0] if wrong else 'empty'}")

    @classmethod
    def at(cls, budget: float | Sequence[float]) -> Route:
        """The gated route at a budget, or at one budget for each image of a batch.

        Raises:
            TypeError: If it is neither a number nor several numbers.
            ValueError: If a budget is outside (0, 1].
        """
        try:
            if isinstance(budget, (str, bool)):
                raise TypeError
            # A tensor is iterable, and may hold a single number.
            one = getattr(budget, "ndim", None) == 0 or not isinstance(budget, Iterable)
            shares: Budget = float(cast(float, budget)) if one else tuple(map(float, cast(Iterable[float], budget)))
        except (TypeError, ValueError):
            raise TypeError(f"a budget is a number, or a list with one for each image, not {budget!r}") from None
        return cls(gated=True, budget=shares)

    @classmethod
    def parse(cls, text: str) -> Route:
        """The route that ``str`` writes as this text: ``dense``, ``gated``, ``gated@0.25`` or ``gated@0.1,0.5``.

        Raises:
            ValueError: If it is none of these.
        """
        named = {str(route): route for route in cls.BOTH}
        if text in named:
            return named[text]
        name, _, budget = text.partition("@")
        shares = budget.split(",")
        try:
            if name == "gated":
                return cls.at(float(budget) if len(shares) == 1 else [float(share) for share in shares])
        except ValueError:
            pass
        raise ValueError(f"a route is {ROUTE_NAMES} with a budget above 0, at most 1; not {text!r}")

    def __str__(self) -> str:
        if not self.gated:
            return "dense"
        if self.budget is None:
            return "gated"
        shares = self.budget if isinstance(self.budget, tuple) else (self.budget,)
        return f"gated@{','.join(map(str, shares))}"


Route.DENSE = Route(gated=False)
Route.GATED = Route(gated=True)
Route.BOTH = (Route.DENSE, Route.GATED)
