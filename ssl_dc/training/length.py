"""The length of a training, and how a run is trained for longer or shorter than it was begun.

``ssl-dc train --resume RUN --epochs N`` changes the length of a run at its newest resume point. From there on the run
follows the schedule of a training of N epochs: the learning rate, and all else that depends on the share of training done.
The learning rate goes linearly from what it was to that schedule, in as many steps as a training of the remaining length
warms up. So a finished run warms up again from 0.

The config keeps the earlier lengths (``training.earlier_epochs``). Every learning rate stays a function of the config and
the step, so a resume point needs no more state, and a new run with this config is the same run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_dc.config import RunConfig, TrainingConfig, with_settings
from ssl_dc.errors import ConfigError
from ssl_dc.training.schedule import Schedule


@dataclass(frozen=True)
class Length:
    """A part of a training that was meant to have a certain length.

    Attributes:
        epochs: The epochs that the whole training was meant to have.
        first_step: The step at which this part begins.
        schedule: The schedule of a training of that length.
        joining_steps: Steps in which the learning rate goes from that of the part before to the schedule.
    """

    epochs: int
    first_step: int
    schedule: Schedule
    joining_steps: int


class Lengths:
    """The learning rate and the progress of a training, at each of its steps.

    Args:
        training: The length, and the earlier lengths.
        steps_per_epoch: Optimiser steps in an epoch.

    Raises:
        ConfigError: If a part begins when the training is over.
    """

    def __init__(self, training: TrainingConfig, steps_per_epoch: int) -> None:
        self.total_steps = training.epochs * steps_per_epoch
        for earlier in training.earlier_epochs:
            if earlier.until_step > earlier.epochs * steps_per_epoch:
                raise ConfigError(
                    f"training.earlier_epochs: {earlier.epochs:,} epochs are {earlier.epochs * steps_per_epoch:,} steps,"
                    f" and do not reach step {earlier.until_step:,}"
                )
        ends = [earlier.until_step for earlier in training.earlier_epochs]
        if ends and ends[-1] >= self.total_steps:
            raise ConfigError(
                f"training.epochs = {training.epochs}: {training.epochs:,} epochs are {self.total_steps:,} steps, and"
                f" {ends[-1]:,} steps are done already; train for {ends[-1] // steps_per_epoch + 1:,} epochs or more"
            )
        epochs = [*(earlier.epochs for earlier in training.earlier_epochs), training.epochs]
        self._parts = [
            Length(
                number,
                first,
                schedule_of(training, number * steps_per_epoch),
                schedule_of(training, self.total_steps - first).warmup_steps if first else 0,
            )
            for number, first in zip(epochs, [0, *ends], strict=True)
        ]

    def share(self, step: int) -> float:
        """The learning rate of a step, from 0, as a share of its peak."""
        return self._share(self._parts_until(step), step)

    def progress(self, step: int, done: int) -> float:
        """The share of training that is done after a number of steps, as planned at a step."""
        return done / self._parts_until(step)[-1].schedule.total_steps

    def change_at(self, step: int) -> str:
        """What changes at a step, as a sentence; empty if nothing does."""
        parts = self._parts_until(step)
        if len(parts) == 1 or parts[-1].first_step != step:
            return ""
        before, now = parts[-2:]
        joined = step + now.joining_steps
        return (
            f"after step {step:,} this training goes on for {now.epochs:,} epochs in all, in place of {before.epochs:,}:"
            f" the learning rate goes from {self._share(parts[:-1], step):.0%} to {now.schedule.share(joined):.0%} of its"
            f" peak within {now.joining_steps + 1:,} step(s), and then follows the cosine of {now.epochs:,} epochs to 0"
        )

    def _parts_until(self, step: int) -> Sequence[Length]:
        return [part for part in self._parts if part.first_step <= step]

    def _share(self, parts: Sequence[Length], step: int) -> float:
        *before, now = parts
        share = now.schedule.share(step)
        joined = (step - now.first_step + 1) / (now.joining_steps + 1)
        if not before or joined >= 1:
            return share
        return (1 - joined) * self._share(before, now.first_step) + joined * share


def schedule_of(training: TrainingConfig, steps: int) -> Schedule:
    """The schedule of a training of that many steps."""
    return Schedule.of(training.warmup_share, training.least_warmup, steps)


def with_length(config: RunConfig, epochs: int, step: int) -> RunConfig:
    """The config of a run that is trained for another number of epochs from a step on.

    Args:
        config: The run's config.
        epochs: The epochs of the whole training, those that are done included.
        step: The steps that are done.

    Raises:
        ConfigError: If the config is not valid with that many epochs.
    """
    planned = config.training.earlier_epochs
    before = [earlier for earlier in planned if earlier.until_step < step]
    followed = next((earlier.epochs for earlier in planned if earlier.until_step >= step), config.training.epochs)
    kept = [earlier.model_dump(mode="json") for earlier in before]
    settings = {"training.epochs": epochs, "training.earlier_epochs": kept}
    changed = with_settings(config, "--epochs", settings)
    if step == 0 or followed == changed.training.epochs:
        return changed
    return with_settings(
        changed, "--epochs", {"training.earlier_epochs": [*kept, {"epochs": followed, "until_step": step}]}
    )
