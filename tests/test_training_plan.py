"""The plan before a training: what it says, what it warns of, and that it changes nothing."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ssl_dc
from helpers.command_line import call, done, parsed, refused, successful
from helpers.settings import SHORT, TINY, as_options, config_of
from helpers.training import assert_same_files
from ssl_dc.api import opened_again, plan_of_rest
from ssl_dc.errors import ConfigError
from ssl_dc.fitted_recipe import Machine
from ssl_dc.training.rehearsal import Rehearsal, rehearse
from ssl_dc.training_cost import training_macs
from ssl_dc.training_plan.counts import Counts
from ssl_dc.training_plan.needs import disk, evaluation_seconds, memory, step_seconds, workers_memory
from ssl_dc.training_plan.noise import Noise

LAPTOP = Machine(cores=2)
MIB = 2**20


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so many seconds each time it is asked."""
    asked = itertools.count()
    return lambda: seconds * next(asked)


def tried(**changes: Any) -> Rehearsal:
    """What trial steps might have taken."""
    values: dict[str, Any] = {
        "step_seconds": 1.0,
        "drawing_seconds": 0.5,
        "forward_seconds": 0.01,
        "reading_seconds": 0.002,
        "parameters": 1000,
        "encoder_bytes": 10 * MIB,
        "learner_bytes": 20 * MIB,
        "optimizer_bytes": 40 * MIB,
        "activation_bytes": 100 * MIB,
        "evaluation_bytes": MIB,
        "dense_macs": 1_000_000,
        "shrunk_bytes": 0,
        "resident_bytes": 0,
        "device_bytes": 0,
    }
    return Rehearsal(**{**values, **changes})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the test runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_plan_says_what_a_training_does_and_takes(here: Path) -> None:
    plan = ssl_dc.plan(TINY, timer=ticking(0.25))
    assert (plan.epochs, plan.steps_per_epoch, plan.steps, plan.batch_size) == (2, 4, 8, 16)
    assert (plan.pictures.train, plan.pictures.labelled, plan.pictures.held_out) == (64, 64, 40)
    needs = plan.needs
    assert needs is not None
    model = ssl_dc.Model.untrained(config_of(TINY))
    assert needs.dense_macs == model.cost.dense_macs
    assert needs.gated_macs == round(0.3 * needs.dense_macs)
    assert needs.parameters > sum(p.numel() for p in model.encoder.parameters())
    # Every timed piece of work takes 0.25 s on this clock: a step of 16 images, reading 16 images, drawing their views, and
    # a forward pass of 256 images; the control of the budget passes the 16 once more every fifth step.
    assert needs.step_seconds == pytest.approx(0.25 + 0.25 + 0.25 + 0.25 * 16 / 256 / 5)
    assert needs.seconds == pytest.approx(8 * needs.step_seconds + needs.evaluation_seconds)
    assert plan.folder == "runs/digits-vicreg-dgnet-0.3-seed0"
    assert list(here.iterdir()) == [], "nothing is written"


def test_a_step_is_reckoned_from_two_of_different_size() -> None:
    config = config_of({**TINY, "training.batch_size": 64})
    clock = ticking(0.25)
    # 8 images at a time can be afforded: both trial steps take 0.25 s, so an image costs half of what it seems to
    reckoned = rehearse(config, Noise(64, 8), clock, macs_per_second=8.0, macs_per_image=2, evaluation_batch=256)
    per_image = 0.25 / 8 / 2
    fixed = 0.25 - 8 * per_image
    control = reckoned.forward_seconds * 64 / 5
    assert reckoned.step_seconds == pytest.approx(fixed + 64 * per_image + control)


def test_the_memory_of_a_step_is_counted_by_the_image() -> None:
    small, large = (
        rehearse(config_of({**TINY, "training.batch_size": batch}), Noise(64, 8), ticking(1), 1e9, 10**6, 256)
        for batch in (16, 64)
    )
    assert large.activation_bytes == 4 * small.activation_bytes > 0
    assert large.optimizer_bytes == small.optimizer_bytes > large.parameters * 4


def test_nothing_is_changed_by_a_plan(here: Path) -> None:
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    ssl_dc.plan(TINY)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


@pytest.mark.long
def test_a_training_with_a_plan_is_the_one_without_to_the_bit(here: Path, finished_run: ssl_dc.Run) -> None:
    said = call("train", *as_options(SHORT), "--output", "with")
    assert "Plan" in said.stderr.splitlines()
    assert_same_files(finished_run.folder, here / "with", "metrics.jsonl", "model.safetensors")


def test_the_plan_says_how_many_pictures_the_limits_leave() -> None:
    whole = Counts(train=50, held_out=10, summary="here: 50 pictures to train on, 10 held out")
    assert whole.in_words() == whole.summary
    limited = replace(whole, train=20, held_out=3, calibration=1, why_left_out="1 file left out: 1 broken", limited=True)
    assert limited.in_words() == f"{whole.summary}; 1 file left out: 1 broken; within the limits 20 to train on, 4 held out"


def test_dry_run_prints_the_plan_and_stops(here: Path) -> None:
    shown = done("train", *as_options(TINY), "--dry-run")
    for words in ("Plan", "2 epochs of 4 steps = 8 steps of 16 images", "0.3-seed0", "64 to train on", "MACs an image"):
        assert words in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 130
    assert len(shown.splitlines()) <= 24, "one screen"
    document = parsed("train", *as_options(TINY), "--dry-run", "--output", "there")
    assert (document["steps"], document["folder"], document["pictures"]["train"]) == (8, "there", 64)
    assert document["needs"]["seconds"] > 0
    assert list(here.iterdir()) == []


def test_a_data_set_that_is_not_here_is_planned_by_its_published_size(here: Path) -> None:
    settings = {"data.name": "cifar10", "data.image_size": 8, "backbone.width": 4, "objective.expander_width": 16}
    plan = ssl_dc.plan(settings)
    assert (plan.pictures.train, plan.pictures.held_out, plan.steps) == (50_000, 10_000, 500 * 97)


def test_pictures_that_are_not_here_are_planned_by_their_number(here: Path) -> None:
    small = ["--width", "4", "--objective.expander_width", "16", "--image-size", "16", "--budget", "0.5"]
    document = parsed("train", "--dry-run", "--data", "folder", "--pictures", "1281167", "--recipe", "paper", *small)
    assert document["steps"] == 500 * (1_281_167 // 512)
    said = refused("train", "--dry-run", "--data", "folder")
    assert "--data-root" in said
    assert "--pictures N plans for so many" in said
    for words in ([], ["--dry-run", "--resume", "run"]):
        assert "belongs to --dry-run of a new run" in refused("train", "--pictures", "10", *words)


@pytest.mark.long
def test_what_is_left_of_a_run_is_planned(copied_run: Path) -> None:
    rest = plan_of_rest(opened_again(copied_run))
    assert (rest.steps, rest.pictures.train) == (0, 32)
    (copied_run / "model.safetensors").unlink()  # a run that is trained and has no whole resume point is refused
    for folder in (copied_run / "checkpoints").iterdir():
        folder.rename(folder.with_name("step-00000001"))
    assert plan_of_rest(opened_again(copied_run)).steps == 1
    document = parsed("train", "--resume", copied_run, "--dry-run", "--epochs", "5")
    assert (document["epochs"], document["steps"]) == (5, 9)
    assert "--lr" in refused("train", "--resume", copied_run, "--dry-run", "--lr", "5")
    words = ("train", "--resume", copied_run, "--dry-run", "--training.compile")
    assert successful(call(*words, "false")).stdout
    assert "training.compile = 'perhaps'" in refused(*words, "perhaps")


def test_a_training_that_goes_on_may_be_compiled_or_not_and_its_config_stays(copied_run: Path) -> None:
    opened = opened_again(copied_run, compiled=True)
    assert (opened.config.training.compile, opened.own.training.compile) == (True, False)
    assert opened_again(copied_run).config.training.compile is False


def test_time_by_hand() -> None:
    config = config_of({**TINY, "training.workers": 2})
    counts = Counts(train=64, labelled=64, held_out=40)
    torch_threads = torch.get_num_threads()
    # two cores: the workers' half second is shared with the threads of the training
    expected = max(1.0, 0.5 / 2, (min(torch_threads, 2) * 1.0 + 0.5) / 2)
    assert step_seconds(tried(), config, LAPTOP) == expected
    assert step_seconds(tried(resident_bytes=1), config, LAPTOP) == 1.5
    assert step_seconds(tried(drawing_seconds=9.0), config, Machine(cores=8, gpus=1)) == 4.5
    # 10 passes over 64 images to calibrate, then both routes of both networks over 104 images
    forward = 0.01 * (10 * 64 + 4 * 104)
    reading = 0.002 * (64 + 104 / 2)
    compared = 64 * 40 * 8 * 4 * 5 / 6e10
    assert evaluation_seconds(tried(), config, counts, LAPTOP) == pytest.approx(forward + reading + compared)


def test_memory_and_disk_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.training_plan.needs.libraries", lambda: 500 * MIB)
    config = config_of({**TINY, "training.workers": 0})
    drawn = 4 * 3 * 8 * 8 * 2 * 16
    weights = 2 * 20 * MIB + 2 * 40 * MIB
    assert memory(tried(), config, LAPTOP) == 500 * MIB + weights + 256 * (MIB + 12 * 64)
    assert memory(tried(activation_bytes=900 * MIB), config, LAPTOP) == 500 * MIB + weights + 900 * MIB + drawn
    assert memory(tried(device_bytes=7), config, Machine(cores=8, gpus=1)) == 7
    two = config_of({**TINY, "training.workers": 2})
    assert workers_memory(tried(), two, LAPTOP) == 2 * (120 * MIB + 2 * drawn)
    assert memory(tried(), two, LAPTOP) == memory(tried(), config, LAPTOP) + workers_memory(tried(), two, LAPTOP)
    assert workers_memory(tried(resident_bytes=1), two, LAPTOP) == 0, "the training process holds the images"
    assert workers_memory(tried(device_bytes=1), two, LAPTOP) == 0
    assert disk(tried(), config, steps=8) == 10 * MIB + 3 * 60 * MIB + 600 * 9


@pytest.mark.parametrize(
    ("settings", "changes", "free", "words"),
    [
        ({}, {}, 10**12, []),
        ({"training.batch_size": 32}, {}, 10**12, ["an epoch is 2 steps: lower --batch-size (now 32), to 16 say"]),
        ({"optimizer.name": "lars"}, {}, 10**12, ["lars learns little in so few steps, of which 200 should be"]),
        (
            {},
            {"activation_bytes": 900 * MIB},
            10**12,
            ["this needs about 1.5 GiB of memory, and there are 1.7 GiB: lower --batch-size (now 16)"],
        ),
        ({"training.workers": 9}, {}, 10**12, ["and there are 1.7 GiB: lower --workers (now 9)"]),
        (
            {"training.workers": 99},
            {"resident_bytes": 900 * MIB},
            10**12,
            ["and there are 1.7 GiB: lower --batch-size (now 16"],
        ),
        ({}, {}, 50 * MIB, ["the disk has 50 MiB free and the run takes 190 MiB: name an --output elsewhere"]),
        ({}, {"step_seconds": 20_000.0}, 10**12, ["takes about 1 d 20 h here: lower --epochs (now 2)"]),
    ],
)
def test_what_will_not_do_is_said_with_the_option_to_change(
    settings: dict[str, Any],
    changes: dict[str, Any],
    free: int,
    words: list[str],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ssl_dc.training_plan.planning.rehearse", lambda *_: tried(**changes))
    monkeypatch.setattr("ssl_dc.training_plan.needs.libraries", lambda: 500 * MIB)
    monkeypatch.setattr("ssl_dc.training_plan.resources.memory_of_the_machine", lambda: 1700 * MIB)
    monkeypatch.setattr("ssl_dc.training_plan.planning.disk_free", lambda _folder: free)
    warnings = ssl_dc.plan({**TINY, **settings}).warnings
    assert len(warnings) == len(words)
    for warning, expected in zip(warnings, words, strict=True):
        assert expected in warning


@pytest.mark.long
def test_a_training_that_the_system_would_kill_is_refused_before_anything_is_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_dc.training_plan.resources.memory_of_the_machine", lambda: 100 * MIB)
    said = refused("train", *as_options(TINY))
    assert "of memory, and there are 0.1 GiB: lower --batch-size (now 16; 2 may fit)" in said
    assert "Warning: this needs about" in done("train", *as_options(TINY), "--dry-run"), "a plan may be for another machine"
    with pytest.raises(ConfigError, match="lower --batch-size"):
        ssl_dc.plan(TINY).check()


def test_a_network_too_large_to_be_tried_is_planned_without_times(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.training_plan.planning.training_macs", lambda _config: 10**15)
    plan = ssl_dc.plan(TINY)
    assert plan.needs is None
    (table,) = plan.tables()
    assert table.note.startswith("Time and memory are not known: one step of this network takes too long")
    assert dict(table.rows)["time"] == "not known"


def test_a_trial_step_is_one_with_gates_also_where_the_first_steps_are_dense() -> None:
    def kept(**settings: Any) -> int:
        config = config_of({**TINY, **{key.replace("__", "."): value for key, value in settings.items()}})
        return rehearse(config, Noise(64, 8), ticking(1), 1e9, 10**6, 256).activation_bytes

    distilled = kept(training__distillation=1.0)
    assert kept(training__distillation=1.0, training__gate_warmup=1) == distilled > 1.2 * kept()


def test_distillation_takes_a_pass_more_for_each_gated_view() -> None:
    plain, distilled = (training_macs(config_of({**TINY, "training.distillation": weight})) for weight in (0.0, 1.0))
    assert 2 * distilled == 3 * plain
