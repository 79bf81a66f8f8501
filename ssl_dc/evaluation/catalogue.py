"""The evaluation protocols by name: what each is called with, and where it is. Listing them imports none."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ssl_dc.errors import ConfigError
from ssl_dc.parts import import_string

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ssl_dc.model import Model


class Report(Protocol):
    """What a protocol says of a model."""

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""


@dataclass(frozen=True)
class Entry:
    """One protocol.

    Attributes:
        name: What users write.
        summary: One line for help.
        target: Import string of a function (model, keyword options) -> report.
        options: Names of its keyword options; a test holds them equal to the function's.
        required: Those that have no default.
        picture: Import string of a function report -> figure, if its report can be drawn.
        drawn: Whether the command line always draws it, not only when ``--output`` asks for it.
    """

    name: str
    summary: str
    target: str
    options: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    picture: str | None = None
    drawn: bool = False

    def accepts(self, option: str) -> bool:
        """Whether an option belongs to this protocol; ``output`` belongs to all that can be drawn."""
        return option in self.options or (option == "output" and self.picture is not None)

    def check(self, given: Collection[str]) -> None:
        """Check that options given belong to this protocol, and that none is missing.

        Raises:
            ConfigError: If not; the message names the protocols that an option belongs to.
        """
        for option in given:
            if not self.accepts(option):
                owners = [entry.name for entry in CATALOGUE.values() if entry.accepts(option)]
                belongs = f"belongs to protocol {_listed(owners)}" if owners else "belongs to no protocol"
                raise ConfigError(f"{_flag(option)} {belongs}, not to {self.name}; {self.name} takes {self._options()}")
        for option in self.required:
            if option not in given:
                raise ConfigError(f"protocol {self.name} needs {_flag(option)}")

    def run(self, model: Model, **options: Any) -> Report:
        """Run the protocol; options are checked already."""
        report: Report = import_string(self.target)(model, **options)
        return report

    def draw(self, report: Report) -> Figure:
        """The picture of a report of a protocol that has one."""
        figure: Figure = import_string(str(self.picture))(report)
        return figure

    def _options(self) -> str:
        mine = (*self.options, "output") if self.picture else self.options
        return _listed(_flag(option) for option in mine) or "no options"


_LINEAR_OPTIONS = ("seeds", "epochs", "augment", "crop_scale")
_PROJECTION = "ssl_dc.evaluation.drawing:draw_projection"

CATALOGUE = {
    entry.name: entry
    for entry in (
        Entry("knn", "nearest neighbours among the training features", "ssl_dc.evaluation.named:knn", ("k", "metric")),
        Entry("linear", "a linear classifier on frozen features", "ssl_dc.evaluation.named:linear", _LINEAR_OPTIONS),
        Entry(
            "transfer",
            "a linear classifier on another data set",
            "ssl_dc.evaluation.named:transfer",
            ("to", "to_root", "to_limit", "to_set", *_LINEAR_OPTIONS),
            required=("to",),
        ),
        Entry(
            "umap",
            "a picture of the features by UMAP",
            "ssl_dc.evaluation.named:umap",
            ("points",),
            picture=_PROJECTION,
            drawn=True,
        ),
        Entry(
            "tsne",
            "a picture of the features by t-SNE",
            "ssl_dc.evaluation.named:tsne",
            ("points",),
            picture=_PROJECTION,
            drawn=True,
        ),
        Entry(
            "gates",
            "which channels are used, by site and class",
            "ssl_dc.evaluation.named:gates",
            picture="ssl_dc.evaluation.drawing:draw_gate_map",
        ),
    )
}
"""Every protocol, in the order of help."""


def find(name: str) -> Entry:
    """The protocol of that name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in CATALOGUE:
        raise ConfigError(f"unknown protocol {name!r}; there are: {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def _listed(names: Iterable[str]) -> str:
    *first, last = list(names) or [""]
    return f"{', '.join(first)} or {last}" if first else last
