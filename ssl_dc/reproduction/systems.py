"""The systems that the paper compares, as settings over a recipe, and the tables and figures that do (method section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

DATASET = "cifar10"
"""The data set of the paper that runs are made on unless another is named."""

PaperMetric = Literal["linear", "knn1", "transfer"]


@dataclass(frozen=True)
class System:
    """One system of the paper.

    Attributes:
        name: As in the tables' ``method`` column.
        title: In words.
        settings: What sets it apart, by dotted key.
        budgeted: Whether it is run once for each budget.
        gate_warmup: Whether its first epochs (10 of 500) are without gates.
    """

    name: str
    title: str
    settings: Mapping[str, Any]
    budgeted: bool = True
    gate_warmup: bool = False


BASELINE1 = System("baseline1", "VICReg (Baseline-1)", {"gating.name": "none"}, budgeted=False)
BASELINE2 = System("baseline2", "VICReg-Gating (Baseline-2)", {"routes": ["gated", "gated"]})
DUAL = System("dual", "VICReg-Dual", {})
BARLOW_TWINS = System("barlow_twins-dual", "Barlow-Twins-Dual", {"objective.name": "barlow_twins"})
DOUBLE = System("dual-2x", "VICReg-Dual, 2x encoders", {"encoder.name": "double"})
NO_INVARIANCE = System("without-invariance", "VICReg-Dual without invariance", {"objective.invariance": 0.0})
VANILLA = System("vanilla", "VICReg-Dual, shared batch norm", {"norm.name": "shared"})
WARMUP = System("warmup", "VICReg-Dual, gate warm-up", {}, gate_warmup=True)


@dataclass(frozen=True)
class TableSpec:
    """One table of the paper.

    Attributes:
        number: In the paper.
        title: What it compares.
        metric: How it measures.
        systems: The systems that it compares, with the name that the paper's rows give each.
    """

    number: int
    title: str
    metric: PaperMetric
    systems: tuple[tuple[str, System], ...]


TABLES = {
    "table1": TableSpec(
        1,
        "Dual against the dense and the gated baseline",
        "linear",
        (("vicreg/baseline1", BASELINE1), ("vicreg/baseline2", BASELINE2), ("vicreg/dual", DUAL)),
    ),
    "table2": TableSpec(
        2, "Transfer to another data set", "transfer", (("vicreg/baseline1", BASELINE1), ("vicreg/dual", DUAL))
    ),
    "table3": TableSpec(
        3, "Barlow Twins against VICReg", "knn1", (("barlow_twins/dual", BARLOW_TWINS), ("vicreg/dual", DUAL))
    ),
    "table4": TableSpec(4, "One encoder against two", "knn1", (("vicreg/dual-1x", DUAL), ("vicreg/dual-2x", DOUBLE))),
    "table5": TableSpec(
        5,
        "With and without invariance",
        "knn1",
        (("vicreg/with-invariance", DUAL), ("vicreg/without-invariance", NO_INVARIANCE)),
    ),
    "table6": TableSpec(
        6,
        "Batch statistics and warm-up",
        "knn1",
        (("vicreg/vanilla", VANILLA), ("vicreg/separate-bn", DUAL), ("vicreg/warmup", WARMUP)),
    ),
}
"""The tables, by the name that ``ssl-dc reproduce`` knows them by."""


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the paper that shows the features of trained encoders.

    Attributes:
        number: In the paper.
        title: What it shows.
        systems: The systems that it shows, from left to right, each at all of its budgets.
    """

    number: int
    title: str
    systems: tuple[System, ...]


FIGURES = {"figure2": FigureSpec(2, "Features of held-out images, laid out by UMAP", (DUAL, BASELINE1))}
"""The figures, by the name that ``ssl-dc reproduce`` knows them by."""
