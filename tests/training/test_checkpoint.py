"""Resume points are written whole or not at all, and the newest good one is found again."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import SGD, Adagrad, AdamW, Optimizer

from helpers.settings import TINY
from helpers.training import trainer_of
from ssl_dc.errors import RunError
from ssl_dc.optimizers.base import ParameterGroup
from ssl_dc.optimizers.lars import build as build_lars
from ssl_dc.optimizers.options import LARSOptions
from ssl_dc.trackers.base import Watcher
from ssl_dc.training.accelerator import make_accelerator
from ssl_dc.training.checkpoint import Checkpoint, CheckpointStore, optimizer_tensors, restore_optimizer
from ssl_dc.training.trainer import Trainer


def checkpoint(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    learner = {"weight": torch.randn(3, 2, generator=generator), "count": torch.tensor(step)}
    return Checkpoint(step, {"learner": learner, "optimizer": {}}, {"budget": {"threshold": step / 3}})


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def assert_equal(found: Checkpoint | None, step: int) -> None:
    assert found is not None
    expected = checkpoint(step)
    assert found.step == step
    assert found.values == expected.values
    assert set(found.tensors) == {"learner", "optimizer"}
    assert set(found.tensors["learner"]) == {"weight", "count"}
    for name, tensor in expected.tensors["learner"].items():
        assert torch.equal(found.tensors["learner"][name], tensor)
        assert found.tensors["learner"][name].dtype == tensor.dtype
    assert dict(found.tensors["optimizer"]) == {}


def test_what_is_saved_is_found_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    assert store.latest() == (None, [])
    assert store.newest() is None
    store.save(checkpoint(7))
    found, problems = store.latest()
    assert_equal(found, 7)
    assert problems == []
    assert store.newest() == tmp_path / "checkpoints" / "step-00000007"


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    store = CheckpointStore(tmp_path, keep)
    for step in (5, 10, 15, 100):
        store.save(checkpoint(step))
    assert names(store) == [f"step-{step:08d}" for step in (5, 10, 15, 100)[-keep:]]
    assert_equal(store.latest()[0], 100)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(5))
    store.save(Checkpoint(5, {"learner": {}}, {"new": True}))
    found, _ = store.latest()
    assert found is not None
    assert found.values == {"new": True}
    assert names(store) == ["step-00000005"]


def test_a_fifo_with_the_name_of_a_resume_point_is_replaced(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    for step in (1, 3):
        os.mkfifo(tmp_path / f"step-{step:08d}")
    store.save(checkpoint(3))
    assert names(store) == ["step-00000003"]
    assert_equal(store.latest()[0], 3)


def test_a_channels_last_tensor_can_be_saved(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    CheckpointStore(tmp_path).save(Checkpoint(1, {"learner": {"weight": weight}}, {}))
    found, _ = CheckpointStore(tmp_path).latest()
    assert found is not None
    assert torch.equal(found.tensors["learner"]["weight"], weight)


def test_a_full_disk_leaves_the_earlier_resume_point_and_names_file_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    store.save(checkpoint(1))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RunError) as caught:
            store.save(checkpoint(2))
    text = str(caught.value)
    assert "step-00000002" in text
    assert "learner.safetensors" in text
    assert "MiB" in text
    assert "No space left on device" in text
    assert names(store) == ["step-00000001"]
    assert_equal(store.latest()[0], 1)
    store.save(checkpoint(2))
    assert names(store) == ["step-00000002"]


def test_being_killed_before_the_last_rename_leaves_the_earlier_resume_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    store.save(checkpoint(1))
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.is_dir():
            raise KeyboardInterrupt
        return original(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            store.save(checkpoint(2))
    assert_equal(CheckpointStore(tmp_path).latest()[0], 1)


def test_a_partial_resume_point_of_a_killed_run_is_not_used_and_not_in_the_way(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(1))
    partial = tmp_path / ".step-00000002.partial"
    partial.mkdir()
    (partial / "learner.safetensors").write_bytes(b"half")
    assert_equal(store.latest()[0], 1)
    store.save(checkpoint(2))
    assert_equal(store.latest()[0], 2)
    assert names(store) == ["step-00000001", "step-00000002"]


def test_what_killed_savings_left_is_cleared_away(tmp_path: Path) -> None:
    for name in (".step-00000002.partial", ".step-00000007.partial"):
        (tmp_path / name).mkdir()
    CheckpointStore(tmp_path).save(checkpoint(3))
    assert names(CheckpointStore(tmp_path)) == ["step-00000003"]


def test_a_damaged_later_resume_point_does_not_cost_the_new_ones_their_place(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    store.save(checkpoint(9))
    flip_a_bit(tmp_path / "step-00000009")
    store.save(checkpoint(3))  # the run began anew, there being nothing to go on from
    assert_equal(store.latest()[0], 3)
    assert names(store) == ["step-00000003"]


def flip_a_bit(folder: Path) -> None:
    path = folder / "learner.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def truncate(folder: Path) -> None:
    path = folder / "learner.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def remove_tensors(folder: Path) -> None:
    (folder / "learner.safetensors").unlink()


def remove_progress(folder: Path) -> None:
    (folder / "progress.json").unlink()


def cut_progress(folder: Path) -> None:
    (folder / "progress.json").write_text('{"step": 2, "val')


def other_progress(folder: Path) -> None:
    (folder / "progress.json").write_text("[1, 2]")


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, remove_tensors, remove_progress, cut_progress, other_progress])
def test_a_damaged_resume_point_is_left_for_the_one_before_with_a_message(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(1))
    store.save(checkpoint(2))
    damage(tmp_path / "step-00000002")
    found, problems = store.latest()
    assert_equal(found, 1)
    (problem,) = problems
    assert "step-00000002" in problem
    damage(tmp_path / "step-00000001")
    found, problems = store.latest()
    assert found is None
    assert len(problems) == 2


def test_nothing_in_a_resume_point_is_pickled(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(checkpoint(1))
    folder = tmp_path / "step-00000001"
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    assert json.loads((folder / "progress.json").read_text())["step"] == 1


def trained(optimizer: str) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    build = {
        "sgd": lambda p: SGD(p, lr=0.1, momentum=0.9),
        "adamw": lambda p: AdamW(p, lr=0.1),
        "adagrad": lambda p: Adagrad(p, lr=0.1),
        "lars": lambda p: build_lars(LARSOptions(), [ParameterGroup(list(p), decay=True)], 0.1),
    }[optimizer]
    return model, build(model.parameters())


def step(model: nn.Module, optimizer: Optimizer, seed: int) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adamw", "adagrad", "lars"])
def test_an_optimiser_goes_on_to_the_last_bit(tmp_path: Path, name: str) -> None:
    model, optimizer = trained(name)
    for number in range(3):
        step(model, optimizer, number)
    CheckpointStore(tmp_path).save(
        Checkpoint(3, {"learner": model.state_dict(), "optimizer": optimizer_tensors(optimizer)}, {})
    )
    for number in range(3, 6):
        step(model, optimizer, number)

    found, _ = CheckpointStore(tmp_path).latest()
    assert found is not None
    assert found.tensors["optimizer"]
    again, other = trained(name)
    again.load_state_dict(dict(found.tensors["learner"]))
    restore_optimizer(other, found.tensors["optimizer"])
    for number in range(3, 6):
        step(again, other, number)
    for one, two in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two)


class Counting(SGD):
    """Keeps a state that is not a tensor."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["steps"] = 1


def test_an_optimiser_whose_state_is_not_tensors_is_refused_by_name() -> None:
    optimizer = Counting([nn.Parameter(Tensor([1.0]))], lr=0.1)
    optimizer.step()
    with pytest.raises(RunError, match=r"Counting keeps 'steps' as a int"):
        optimizer_tensors(optimizer)


@pytest.mark.long
def test_the_scaler_of_mixed_precision_goes_on_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, whose float32 needs no scaler, but whose scaler is the one that a GPU's float16 has."""

    def with_a_scaler(precision: str) -> Accelerator:
        accelerator = make_accelerator(precision)
        accelerator.scaler = GradScaler("cpu", init_scale=2.0**12, growth_interval=3)
        return accelerator

    monkeypatch.setattr("ssl_dc.training.trainer.make_accelerator", with_a_scaler)

    def made() -> tuple[Trainer, list[float], Watcher]:
        trainer = trainer_of({**TINY, "training.checkpoint_every": 3})
        scales: list[float] = []

        class Scales(Watcher):
            def on_step_end(self, step: int) -> None:  # noqa: ARG002
                scales.append(trainer.accelerator.scaler.get_scale())

        parameter = next(iter(trainer.learner.parameters()))
        parameter.register_hook(lambda gradient: gradient * (torch.inf if trainer.step + 1 == 2 else 1.0))
        return trainer, scales, Scales()

    store = CheckpointStore(tmp_path / "checkpoints", keep=50)
    whole, scales, watcher = made()
    whole.fit(watchers=[watcher], checkpoints=store)
    assert scales == [2.0**12, *[2.0**11] * 3, *[2.0**12] * 3, 2.0**13]  # halved by the overflow of step 2, then doubled
    for folder in (tmp_path / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step-")) > 3:
            shutil.rmtree(folder)
    again, rest, watcher = made()
    again.fit(watchers=[watcher], checkpoints=store)
    assert rest == scales[3:]
    for name, value in whole.learner.state_dict().items():
        assert torch.equal(value, again.learner.state_dict()[name]), name
