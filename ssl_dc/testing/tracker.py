"""What a tracker must do; checked by telling it of a training that does not happen."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ssl_dc.testing.check import Subject, expect_instance
from ssl_dc.testing.watching import (
    expect_to_bear_a_resumed_training,
    expect_to_bear_a_training,
    expect_to_leave_the_run_alone,
)
from ssl_dc.trackers.base import Watcher


def is_a_tracker(subject: Subject) -> None:
    """What the target builds is an `ssl_dc.Watcher`."""
    with tempfile.TemporaryDirectory() as folder:
        expect_instance(subject.build(Path(folder)), Watcher)


def it_bears_every_event(subject: Subject) -> None:
    """Built for a folder, it may be told of every event of a training, in order."""
    expect_to_bear_a_training(subject.build)


def it_bears_a_resumed_training(subject: Subject) -> None:
    """A training may be broken off and resumed, with a new tracker for the same folder."""
    expect_to_bear_a_resumed_training(subject.build)


def the_run_is_left_alone(subject: Subject) -> None:
    """It changes neither the run's own files in that folder nor the metrics that it is handed."""
    expect_to_leave_the_run_alone(subject.build)


CHECKS = (is_a_tracker, it_bears_every_event, it_bears_a_resumed_training, the_run_is_left_alone)
