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
    """

    situations: Sequence[Measured]
    profile: Profile | None
    qualities: Qualities | None = None

    def as_json(self) -> dict[str, Any]:
        """The situations, the gates that cost more time than they save, and what each way gives."""
        losing = [] if self.profile is None else self.profile.losing_gates
        return {
            "situations": [measured.as_json() for measured in self.situations],
            "losing_gates": [vars(gate) for gate in losing],
            "quality": None if self.qualities is None else self.qualities.as_json(),
        }

    def tables(self) -> Sequence[ReportTable]:
        """A table for each situation, one of the gates that cost more time than they save, one of what each way gives.

        What was not measured is said once, below the last situation.
        """
        times = [table for measured in self.situations for table in measured.tables()]
        if times:
            times[-1] = replace(times[-1], note="\n".join((times[-1].note, *self._not_measured())))
        return [*times, *self._losing_gates(), *(self.qualities.tables() if self.qualities is not None else ())]

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
