"""A network as a list of steps, which is what gets fused, made static and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ssl_dc.compiled.precisions import FLOAT32
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.gates import Decide, Dial
from ssl_dc.gating.sites import GateSite


@dataclass(frozen=True, eq=False)
class Plan:
    """A network as steps.

    Attributes:
        steps: The steps in the order in which they run.
        output: Name of the features.
        input: Name of the images.
    """

    steps: tuple[Step, ...]
    output: str
    input: str = "images"

    @property
    def precision(self) -> str:
        """In which a kernel multiplies when it runs the plan, from :mod:`ssl_dc.compiled.precisions`."""
        return FLOAT32

    @property
    def sites(self) -> list[GateSite]:
        """The sites that have a gate, in the order in which the gates decide."""
        return [step.site for step in self.steps if isinstance(step, Decide)]

    @property
    def dial(self) -> Dial | None:
        """The budget at which the gates decide; None for a plan without gates."""
        return next((step.dial for step in self.steps if isinstance(step, Decide)), None)

    def readers(self, value: str) -> list[Step]:
        """The steps that read a value."""
        return self._readers.get(value, [])

    def makers(self, value: str) -> list[Step]:
        """The steps that compute a value: none for the images, two where a branch is gated."""
        return self._makers.get(value, [])

    def read_once(self, value: str) -> bool:
        """Whether exactly one step reads a value, and the value is not the output."""
        return len(self.readers(value)) == 1 and value != self.output

    def exchanged(self, by: Mapping[Step, Sequence[Step]]) -> Plan:
        """The plan with some steps replaced by other steps, or by none."""
        return replace(self, steps=tuple(new for old in self.steps for new in by.get(old, (old,))))

    def with_dial(self, dial: Dial) -> Plan:
        """The plan with another dial in all decisions."""
        return self.exchanged({step: (replace(step, dial=dial),) for step in self.steps if isinstance(step, Decide)})

    @cached_property
    def _readers(self) -> dict[str, list[Step]]:
        readers: dict[str, list[Step]] = {}
        for step in self.steps:
            for value in step.inputs:
                readers.setdefault(value, []).append(step)
        return readers

    @cached_property
    def _makers(self) -> dict[str, list[Step]]:
        makers: dict[str, list[Step]] = {}
        for step in self.steps:
            if not isinstance(step, Decide):
                makers.setdefault(step.output, []).append(step)
        return makers


def last_reads(plan: Plan) -> dict[str, int]:
    """Index of the last step that reads each value.

    It is ``len(steps)`` for the output, and that of the producing step for a value that nothing reads.
    """
    last = {step.output: index for index, step in enumerate(plan.steps)}
    for index, step in enumerate(plan.steps):
        for value in step.inputs:
            last[value] = index
    last[plan.output] = len(plan.steps)
    return last
