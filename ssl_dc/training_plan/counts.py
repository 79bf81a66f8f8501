"""How many images a training has."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_dc.config import RunConfig
from ssl_dc.data.base import Splits
from ssl_dc.plugins.options import PublishedSet


@dataclass(frozen=True)
class Counts:
    """How many images a training has.

    Attributes:
        train: To train on.
        labelled: Labelled images that evaluation learns from; 0 without labels.
        held_out: Held out, to evaluate on or to measure cost.
        calibration: Held out, to calibrate gates on; 0 where training images are used.
        left_out: Files that are not used.
        why_left_out: How many and why, in words; empty if there are none.
        summary: What was understood of the user's files, in words; may be empty.
        limited: Whether limits of the config leave out some of what the summary counts.
    """

    train: int
    labelled: int = 0
    held_out: int = 0
    calibration: int = 0
    left_out: int = 0
    why_left_out: str = ""
    summary: str = ""
    limited: bool = False

    @classmethod
    def of(cls, splits: Splits, limited: bool) -> Counts:
        """Those of a data set that is open."""
        labelled = len(splits.evaluation_train) if splits.classes else 0
        calibration = 0 if splits.calibration is None else len(splits.calibration)
        found = splits.found
        left_out = sum(map(len, found.left_out.reasons.values())) if found else 0
        return cls(
            len(splits.train),
            labelled,
            len(splits.test),
            calibration,
            left_out,
            str(found.left_out) if found else "",
            found.summary if found else "",
            limited,
        )

    @classmethod
    def published(cls, known: PublishedSet, config: RunConfig) -> Counts:
        """Those of a data set that is always the same, as far as the config's limits let it be used."""
        limit, test_limit = config.data.limit or known.train, config.data.test_limit or known.test
        train, labelled, test = min(known.train, limit), min(known.labelled, limit), min(known.test, test_limit)
        summary = f"{train:,} to train on, {test:,} held out, as published: {config.data.name} is not here"
        return cls(train, labelled, test, summary=summary)

    def in_words(self) -> str:
        """What was understood of the user's files, or else the numbers."""
        used = f"{self.train:,} to train on, {self.held_out + self.calibration:,} held out"
        if not self.summary:
            return used
        left_out = f"; {self.why_left_out}" if self.why_left_out else ""
        return f"{self.summary}{left_out}{f'; within the limits {used}' if self.limited else ''}"
