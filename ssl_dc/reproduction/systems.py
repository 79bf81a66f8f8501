"""The systems that the paper compares, as settings over a recipe, and its tables and figures (method section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

DATASET = "cifar10"
"""The data set of the paper that is used by default."""

PaperMetric = Literal["linear", "knn1", "transfer"]


@dataclass(frozen=True)
class System:
    """One system of the paper.

    Attributes:
        name: Its name in the ``method`` column of the tables.
        title: Its name in words.
        settings: The settings that distinguish it, by dotted key.
        budgeted: Whether it is run once for each budget.
        gate_warmup: Whether the gates are off in its first epochs (10 of 500).
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
        number: Its number in the paper.
        title: What it compares.
        metric: How it measures.
        systems: The systems that it compares, each with its name in the paper's rows.
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
"""The tables by their name in ``ssl-dc reproduce``."""


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the paper that shows the features of trained encoders.

    Attributes:
        number: Its number in the paper.
        title: What it shows.
        systems: The systems that it shows, from left to right, each at all of its budgets.
    """

    number: int
    title: str
    systems: tuple[System, ...]


FIGURES = {"figure2": FigureSpec(2, "Features of held-out images, laid out by UMAP", (DUAL, BASELINE1))}
"""The figures by their name in ``ssl-dc reproduce``."""
