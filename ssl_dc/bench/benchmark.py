"""The report of ``ssl-dc bench``: all situations, what each gate costs and saves, and what each way gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssl_dc.bench.measure import Measured
from ssl_dc.bench.profile import Profile
from ssl_dc.bench.quality import Qualities
from ssl_dc.evaluation.report import Report, ReportTable


@dataclass(frozen=True)
class Benchmark(Report):
    """The measured situations of a run.

    Attributes:
        situations: The times in each situation.
        profile: The time of each layer and gate for single images; None without gates or without the compiled kernel.
        qualities: What each way gives for its time; None if that was not measured.
        images: How many images were timed; None if that is not known.
    """

    situations: Sequence[Measured]
    profile: Profile | None
    qualities: Qualities | None = None
    images: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The situations, the gates that cost more time than they save, and what each way gives."""
        losing = [] if self.profile is None else self.profile.losing_gates
        return {
            "images": self.images,
            "situations": [measured.as_json() for measured in self.situations],
            "losing_gates": [vars(gate) for gate in losing],
            "quality": None if self.qualities is None else self.qualities.as_json(),
        }

    def tables(self) -> Sequence[ReportTable]:
        """A table for each situation, one of the gates that cost more time than they save, one of what each way gives.

        What holds for all situations is said once, below the last one: how speed-ups are taken, of which images the cost
        is, and what was not measured.
        """
        times = [table for measured in self.situations for table in measured.tables()]
        if times:
            times[-1] = replace(times[-1], note="\n".join((times[-1].note, *self._how(), *self._not_measured())))
        return [*times, *self._losing_gates(), *(self.qualities.tables() if self.qualities is not None else ())]

    def _how(self) -> Iterator[str]:
        """How the numbers of all situations were taken, a line each."""
        yield (
            "A speed-up is the median of ratios: each call is compared with the call of the other way on the same images in"
            " the same round. The ratio of two medians may differ from it, most of all on a busy machine."
        )
        if self.images is not None and any(measured.cost_ratio is not None for measured in self.situations):
            yield (
                f"The cost is that of the {self.images:,} images that were timed (--images). The end of the training and"
                " ssl-dc cost take all held-out images, ssl-dc report takes up to 2,000, so their cost differs a little."
            )

    def _not_measured(self) -> Iterator[str]:
        """A line for each reason, with the names of the runtimes that are missing for it."""
        names: dict[str, list[str]] = {}
        for name, reason in {pair: None for measured in self.situations for pair in measured.unavailable.items()}:
            names.setdefault(reason, []).append(name)
        for reason, missing in names.items():
            yield f"not measured: {', '.join(missing)}: {reason}"

    def _losing_gates(self) -> Iterator[ReportTable]:
        if self.profile is None or not self.profile.losing_gates:
            return
        columns = ("gate", "costs", "saves", "decides in")
        rows = [
            (gate.site, f"{gate.cost:.1f}", f"{gate.saved:.1f}", "torch" if gate.in_torch else "the kernel")
            for gate in self.profile.losing_gates
        ]
        in_torch = any(gate.in_torch for gate in self.profile.losing_gates)
        note = (
            "The kernel has to call a gate that decides in torch. A gate that depends on nothing but the means of its input"
            " channels can define pooled_rule: the kernel then decides itself."
        )
        title = "gates that cost more time than they save: microseconds for a single image"
        yield ReportTable(title, columns, rows, note=note if in_torch else "")
