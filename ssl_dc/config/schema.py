"""The complete configuration of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ssl_dc.errors import PluginError
from ssl_dc.plugins.kinds import KINDS, config_sections, default_part
from ssl_dc.plugins.options import DataOptions, GatingOptions, OptimizerOptions, PartOptions, Strict, UserPath
from ssl_dc.plugins.parts import import_string
from ssl_dc.plugins.registry import registry
from ssl_dc.routes import Route

MAY_BE_ABSENT = "may_be_absent"
"""Key of the context of a validation: the kinds of part that need not be installed."""


class AbsentPart(PartOptions):
    """The options of a part that is not installed, as they were written. They are not checked."""


@cache
def _absent_part(kind: str) -> type[PartOptions]:
    """What stands for the options of a part of a kind that is not installed."""
    bases = (AbsentPart, import_string(KINDS[kind].options or ""))
    return create_model(f"Absent{kind.capitalize()}", __base__=bases, __cls_kwargs__={"extra": "allow"})


def absent_parts(config: RunConfig) -> frozenset[str]:
    """The kinds of part whose part is not installed. Only a config that was read for its network alone has any."""
    return frozenset(kind for kind in config_sections() if isinstance(getattr(config, kind), AbsentPart))


def _slot(kind: str) -> BeforeValidator:
    """Validates a section by the options of the part that it names, and imports these options only then.

    A qualified name, ``package:name``, is kept, so that the saved config finds the same part again.
    """

    def check(section: Any, info: ValidationInfo) -> Any:
        if isinstance(section, PartOptions):
            return section
        section = dict(section) if isinstance(section, Mapping) else {"name": section}
        name = section.setdefault("name", default_part(kind))
        try:
            registered = registry().find(kind, name)
            options = registered.options(section)
        except PluginError as error:
            if kind in (info.context or {}).get(MAY_BE_ABSENT, ()):
                return _absent_part(kind).model_validate(section)
            raise PydanticCustomError("unknown_part", "{message}", {"message": str(error)}) from error
        return options if name == registered.part.name else options.model_copy(update={"name": name})

    return BeforeValidator(check)


def _route_of_view(said: Any) -> Any:
    """A route by its name. The budget of a training is said elsewhere, so a route has none here."""
    named = {str(route): route for route in Route.BOTH}
    if str(said) not in named:
        raise ValueError(f"a route is {' or '.join(map(repr, named))}")
    return named[str(said)]


RouteOfView = Annotated[
    Route,
    BeforeValidator(_route_of_view),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "enum": [str(route) for route in Route.BOTH]}),
]
"""A route, written ``dense`` or ``gated``."""


def _at_least_two(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    if len(routes) < 2:
        raise ValueError("training needs a route for each of at least two views")
    return routes


Share = Annotated[float, Field(gt=0, le=1)]
"""A share of the dense cost."""

USUAL_BUDGET = 0.3
"""Of several budgets, the one nearest to this is meant where none is named."""

GRID_STEP = 0.1
"""Distance of the budgets of a range."""


def budget_grid(text: str | Sequence[Any]) -> tuple[float, ...]:
    """The budgets that a range, ``0.1:0.9``, or a list, ``0.1,0.3,0.5``, means: ascending, each once.

    Raises:
        ValueError: If it is neither, or has fewer than two budgets.
    """
    is_range = isinstance(text, str) and text.count(":") == 1
    words = text.split(":" if is_range else ",") if isinstance(text, str) else text
    try:
        numbers = [float(word) for word in words]
    except (TypeError, ValueError):
        numbers = []
    if is_range and len(numbers) == 2:
        low, high = numbers
        steps = max(1, round((high - low) / GRID_STEP)) if 0 < low < high <= 1 else 0
        numbers = [round(low + (high - low) * step / steps, 6) for step in range(steps + 1)] if steps else []
        if 0 < high < low <= 1:
            raise ValueError(f"target: the range {text} is reversed; write {words[1].strip()}:{words[0].strip()}")
    grid = tuple(sorted(set(numbers)))
    if len(grid) < 2 or not all(0 < budget <= 1 for budget in grid) or (isinstance(text, str) and text.count(":") > 1):
        raise ValueError(
            f"target: {text!r} is no budget; allowed: a number above 0, at most 1; a range such as 0.1:0.9; or several"
            " numbers such as 0.1,0.3,0.5"
        )
    return grid


class BudgetConfig(Strict):
    """What the gated route may cost, and how training holds it to that."""

    target: float | None = Field(
        0.3,
        gt=0,
        le=1,
        description="Budget t_d: the share of the dense cost that the gated route may pay. A range, 0.1:0.9, or several"
        " budgets train one network for all of them: they become the grid, and the one nearest to 0.3 the target.",
    )
    grid: tuple[Share, ...] | None = Field(
        None,
        min_length=2,
        description="Budgets that one network is trained for, ascending: each step draws one. The target is among them.",
    )
    control: Literal["adaptive", "penalty"] = Field(
        "adaptive",
        description="'adaptive' steers what evaluation mode pays to the budget; 'penalty' is the paper's penalty alone.",
    )

    @property
    def budgets(self) -> tuple[float, ...]:
        """The budgets that the network is trained for, ascending; none without a target."""
        return self.grid or (() if self.target is None else (self.target,))

    @model_validator(mode="before")
    @classmethod
    def _several(cls, said: Any) -> Any:
        """Take a range or a list in place of the target."""
        target = said.get("target") if isinstance(said, Mapping) else None
        if isinstance(target, (list, tuple)) or (isinstance(target, str) and re.search("[:,]", target)):
            grid = budget_grid(target)
            return {**said, "grid": grid, "target": min(grid, key=lambda budget: abs(budget - USUAL_BUDGET))}
        return said

    @model_validator(mode="after")
    def _fits_grid(self) -> BudgetConfig:
        if self.grid is None:
            return self
        if list(self.grid) != sorted(set(self.grid)):
            raise ValueError(f"grid: budgets must ascend, each once, not {', '.join(map(str, self.grid))}")
        if self.target not in self.grid:
            raise ValueError(f"target: {self.target} is none of the grid's budgets, {', '.join(map(str, self.grid))}")
        if self.control != "adaptive":
            raise ValueError("control: 'penalty' holds one budget; several need 'adaptive'")
        return self


class EarlierLength(Strict):
    """A length that a training was meant to have, until it was changed."""

    epochs: int = Field(ge=1, description="Epochs that the whole training was meant to have.")
    until_step: int = Field(ge=1, description="Steps that were done when the length was changed.")


class TrainingConfig(Strict):
    """Length, batches, precision and checks of a training."""

    epochs: int = Field(500, ge=1, description="Passes over the training images.")
    earlier_epochs: tuple[EarlierLength, ...] = Field(
        (),
        description="Lengths that this training was meant to have before, and the steps at which --resume RUN --epochs N"
        " changed them.",
    )
    init: UserPath | None = Field(
        None,
        description="Weights that the encoder starts from: a run's folder, a safetensors file, or a state_dict of"
        " torchvision's or timm's ResNet that torch.save wrote. What does not fit is left out, and listed in init.json.",
    )
    batch_size: int = Field(
        512,
        ge=2,
        description="Images a step, over all processes and accumulation steps together: the global batch.",
    )
    accumulation: int = Field(1, ge=1, description="Into how many parts a step divides its batch, to save memory.")
    warmup_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of the training in which the learning rate rises from a hundredth of its peak. The default"
        " is 10 of 500 epochs.",
    )
    least_warmup: int = Field(
        0,
        ge=0,
        description="Steps of warm-up, at least. A run of fewer than twice as many steps warms up for half of them, to a"
        " peak that is lower in proportion.",
    )
    gate_warmup: int = Field(0, ge=0, description="First epochs in which every view is dense and gates are not trained.")
    dense_share: float = Field(
        0.0, ge=0, lt=1, description="Share of the steps, drawn at random, in which every view is dense."
    )
    distillation: float = Field(
        0.0,
        ge=0,
        description="Weight of the distance of gated features from the dense ones of the same view, relative to their"
        " spread. Above 0 each gated view also takes the dense route. The objective then sees dense features only, and the"
        " gated ones learn from them. A step takes more time and memory. 0 is the paper's training.",
    )
    gated_gradient: float = Field(
        1.0, ge=0, le=1, description="Share of the objective's gradient that passes through gated views; 1 is the paper's."
    )
    precision: Literal["no", "fp16", "bf16"] = Field("no", description="Mixed precision; 'no' is float32.")
    compile: bool = Field(
        False,
        description="Compile the network by torch.compile, on a GPU with CUDA graphs. It takes minutes at the start, again"
        " for each of several budgets. Steps then take less time. What torch cannot compile runs uncompiled.",
    )
    workers: int = Field(
        2,
        ge=0,
        description="Processes that prepare images; 0 prepares them in the training process. If a GPU trains on images of"
        " one size with batched views: threads of the training process that draw them; 0 draws them on the GPU.",
    )
    log_every: int = Field(10, ge=1, description="Steps between two lines of metrics.")
    checkpoint_every: int | None = Field(
        None, ge=1, description="Steps between two resume points, besides the one at the end of each epoch."
    )
    checkpoint_minutes: float | None = Field(
        10.0, gt=0, description="Minutes between two resume points, besides those by steps and epochs."
    )
    watch_every: int | None = Field(
        None,
        ge=1,
        description="Steps between two looks at what is learned: kNN, a linear probe, RankMe, LiDAR and alpha-ReQ of both"
        " routes, on labelled images that are not the test images. Not set, nobody looks.",
    )
    watch_data: str | None = Field(None, description="Data set that is looked at. Not set, it is the run's own.")
    watch_root: UserPath | None = Field(None, description="Folder that holds watch_data.")
    keep_best: (
        Literal[
            "knn/dense",
            "knn/gated",
            "linear/dense",
            "linear/gated",
            "rankme/dense",
            "rankme/gated",
            "lidar/dense",
            "lidar/gated",
            "alpha_req/dense",
            "alpha_req/gated",
        ]
        | None
    ) = Field(
        None,
        description="Keep the model that is best by this measure of the looks, in best/ of the run, beside the last one."
        " With kNN or linear, labels choose it.",
    )
    keep_checkpoints: int = Field(2, ge=1, description="How many resume points are kept.")
    on_not_finite: Literal["stop", "skip"] = Field(
        "stop",
        description="A loss or gradient that is not finite: 'stop' ends the run, 'skip' skips the update of that step.",
    )
    on_collapse: Literal["warn", "stop"] = Field(
        "warn", description="An embedding that is nearly the same for all images. It is looked for every log_every steps."
    )
    on_stuck_gates: Literal["warn", "stop"] = Field(
        "warn",
        description="Gates that are all shut, or all open at a budget below 1. They are looked for every log_every steps.",
    )

    @model_validator(mode="after")
    def _fits(self) -> TrainingConfig:
        if self.gate_warmup >= self.epochs:
            raise ValueError(f"gate_warmup ({self.gate_warmup}) must be less than epochs ({self.epochs})")
        if self.distillation > 0 and self.gated_gradient < 1:
            raise ValueError(
                "gated_gradient has no effect with distillation, where the objective sees dense features: set one"
            )
        if self.watch_every is None and (self.watch_data or self.watch_root or self.keep_best):
            raise ValueError("watch_data, watch_root and keep_best need watch_every: how many steps lie between two looks")
        if self.watch_root is not None and self.watch_data is None:
            raise ValueError("watch_root says where watch_data is: name the data set as well")
        ends = [earlier.until_step for earlier in self.earlier_epochs]
        if ends != sorted(set(ends)):
            raise ValueError(f"earlier_epochs: until_step must ascend, not {', '.join(map(str, ends))}")
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of accumulation ({self.accumulation})")
        return self


if TYPE_CHECKING:
    _by_default: Any = None

    class _Sections(Strict):
        """The sections of parts, for type checkers. A test holds them equal to the rows of the kinds."""

        objective: PartOptions = _by_default
        gating: GatingOptions = _by_default
        encoder: PartOptions = _by_default
        backbone: PartOptions = _by_default
        norm: PartOptions = _by_default
        data: DataOptions = _by_default
        views: PartOptions = _by_default
        optimizer: OptimizerOptions = _by_default
        tracker: PartOptions = _by_default

else:

    def _section(kind):
        """The type and the field of a part's section. Left empty, it means the default part with its default options."""
        base = import_string(kind.options)
        return Annotated[SerializeAsAny[base], _slot(kind.name)], Field(default={}, description=kind.section)

    _Sections = create_model("_Sections", __base__=Strict, **{name: _section(KINDS[name]) for name in config_sections()})


class RunConfig(_Sections):
    """Everything that decides what a run computes. A saved config makes the same run again.

    It has a section for each kind of part that :mod:`ssl_dc.plugins.kinds` gives one, and those below.
    """

    budget: BudgetConfig = Field(BudgetConfig(), description="Cost budget of the gated route.")
    routes: Annotated[tuple[RouteOfView, ...], AfterValidator(_at_least_two)] = Field(
        (Route.GATED, Route.DENSE),
        description="Route of each view in training.",
        json_schema_extra={"default": ["gated", "dense"], "minItems": 2},
    )
    training: TrainingConfig = Field(TrainingConfig(), description="Length, batch, precision.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of everything random.")

    @model_validator(mode="after")
    def _gates_have_a_budget(self) -> RunConfig:
        gating = f"gating {self.gating.name!r}"
        if not self.gating.gates and any(route.gated for route in self.routes):
            raise ValueError(f"routes: {gating} has no gates, so every route must be dense")
        if not self.gating.gates and self.budget.target is not None:
            raise ValueError(f"budget.target: {gating} has no gates to hold to a budget; leave the budget out")
        if self.gating.gates and self.budget.target is None:
            raise ValueError(f"budget.target: {gating} needs a budget; allowed: above 0, at most 1")
        return self

    @model_validator(mode="after")
    def _gated_views_learn(self) -> RunConfig:
        asked = {"distillation": self.training.distillation > 0, "gated_gradient": self.training.gated_gradient < 1}
        for name in (name for name, is_asked in asked.items() if is_asked):
            if not any(route.gated for route in self.routes):
                raise ValueError(f"training.{name}: no view is gated, so it would change nothing; leave it out")
        return self
