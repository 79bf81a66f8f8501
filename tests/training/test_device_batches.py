"""Batches of views that are drawn as a whole: the same from any step, in any process, from memory or from workers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import ssl_dc
from helpers.settings import TINY
from helpers.training import assert_same_files
from ssl_dc.config.schema import TrainingConfig
from ssl_dc.data.base import ImageSet
from ssl_dc.data.folder import FolderImages
from ssl_dc.errors import ConfigError
from ssl_dc.training import device_batches
from ssl_dc.training.batches import RestOfRun
from ssl_dc.training.device_batches import DeviceBatches, resident
from ssl_dc.views.batched import BatchedStandardViews
from ssl_dc.views.options import BatchedStandardViewsOptions

CPU = torch.device("cpu")
TRAINING = TrainingConfig(epochs=2, batch_size=8, workers=0)
WITH_THREADS = TRAINING.model_copy(update={"workers": 2})


class Noise(ImageSet):
    """Random images, all of one size or not."""

    labels = None

    def __init__(self, count: int = 20, sizes: tuple[int, ...] = (12,)) -> None:
        rng = np.random.default_rng(0)
        self.pixels = [rng.integers(0, 256, (sizes[n % len(sizes)], 12, 3), np.uint8) for n in range(count)]

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


def batches(images: ImageSet, training: TrainingConfig = TRAINING, count: int = 2) -> DeviceBatches:
    views = BatchedStandardViews(BatchedStandardViewsOptions(blur_p=(0.5, 0.5)), 8, (0.5,) * 3, (0.25,) * 3)
    return DeviceBatches(images, views, count, training, 3, CPU)


def test_images_of_one_size_are_kept_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = resident(Noise(), CPU)
    assert pixels is not None
    assert pixels.shape == (20, 3, 12, 12)
    assert torch.equal(pixels[7].permute(1, 2, 0), torch.from_numpy(Noise().pixels[7]))
    assert resident(Noise(sizes=(12, 14)), CPU) is None
    monkeypatch.setattr(device_batches, "RESIDENT_BYTES", 100)
    assert resident(Noise(), CPU) is None


def test_a_step_s_views_are_the_same_wherever_the_run_begins() -> None:
    whole = list(batches(Noise()).rest(0))
    assert len(whole) == 4
    assert all(view.shape == (8, 3, 8, 8) for views in whole for view in views)
    for first in (1, 3):
        for views, again in zip(whole[first:], batches(Noise()).rest(first), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(views, again, strict=True))


def test_views_drawn_ahead_for_a_gpu_are_those_drawn_when_they_are_needed() -> None:
    when_needed, ahead = batches(Noise()), batches(Noise(), WITH_THREADS)
    pixels = resident(Noise(), CPU)
    assert pixels is not None
    threads = torch.get_num_threads()
    drawn = ahead._drawn_ahead(RestOfRun(Noise(), TRAINING, 3, 0), pixels)
    for views, again in zip(when_needed.rest(0), drawn, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(views, again, strict=True))
    assert torch.get_num_threads() == threads


def test_views_are_not_drawn_ahead_any_more_when_a_training_ends_or_they_fail() -> None:
    class Failing(BatchedStandardViews):
        calls = 0

        def view_batch(self, images: Tensor, number: int, chances: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 4:
                raise ValueError("no more views")
            return super().view_batch(images, number, chances)

    views = Failing(BatchedStandardViewsOptions(), 8, (0.5,) * 3, (0.25,) * 3)
    pixels = resident(Noise(), CPU)
    assert pixels is not None
    drawn = DeviceBatches(Noise(), views, 2, WITH_THREADS, 3, CPU)._drawn_ahead(RestOfRun(Noise(), TRAINING, 3, 0), pixels)
    assert len([next(drawn), next(drawn)]) == 2
    with pytest.raises(ValueError, match="no more views"):
        next(drawn)
    before = threading.active_count()
    ended = batches(Noise(), WITH_THREADS)._drawn_ahead(RestOfRun(Noise(), TRAINING, 3, 0), pixels)
    next(ended)
    ended.close()
    assert threading.active_count() == before


def test_views_cropped_in_workers_are_those_cropped_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the rounding of crops to whole pixel values."""
    on_device = list(batches(Noise()).rest(0))
    monkeypatch.setattr(device_batches, "RESIDENT_BYTES", 0)
    in_workers = list(batches(Noise()).rest(0))
    for here, there in zip(on_device, in_workers, strict=True):
        for a, b in zip(here, there, strict=True):
            assert (a - b).abs().mean() < 0.05


def test_workers_decode_jpeg_files_smaller_where_no_crop_is_enlarged_for_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (120, 160 + number, 3), np.uint8)).save(tmp_path / f"{number}.jpg")
    images = FolderImages([str(tmp_path / f"{number}.jpg") for number in range(8)], None)
    seen: list[tuple[int, int]] = []

    class Watching(BatchedStandardViews):
        def crop(self, image: Image.Image, number: int, chances: Tensor) -> Tensor:
            seen.append(image.size)
            return super().crop(image, number, chances)

    views = Watching(BatchedStandardViewsOptions(), 16, (0.5,) * 3, (0.25,) * 3)
    list(DeviceBatches(images, views, 2, TRAINING.model_copy(update={"epochs": 1}), 3, CPU).rest(0))
    assert sorted(set(seen)) == sorted({(-(-(160 + number) // 2), 60) for number in range(8)})
    assert images.image(0).size == (160, 120)


def test_images_of_several_sizes_give_views_too() -> None:
    views = next(iter(batches(Noise(sizes=(12, 20)), count=3).rest(0)))
    assert [view.shape for view in views] == [(8, 3, 8, 8)] * 3
    assert views[0].is_contiguous(memory_format=torch.channels_last)


def test_micro_batches_hold_the_images_of_the_whole_batch() -> None:
    whole = next(iter(batches(Noise()).rest(0)))
    parts = batches(Noise(), TrainingConfig(epochs=2, batch_size=8, accumulation=2, workers=0)).rest(0)
    halves = [next(parts), next(parts)]
    for number in (0, 1):
        assert torch.equal(torch.cat([half[number] for half in halves]), whole[number])


def test_two_processes_share_the_views_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = next(iter(batches(Noise()).rest(0)))
    monkeypatch.setattr("ssl_dc.training.batches.world_size", lambda: 2)
    halves = []
    for number in (0, 1):
        monkeypatch.setattr("ssl_dc.training.batches.rank", lambda number=number: number)
        halves.append(next(iter(batches(Noise()).rest(0))))
    for number in (0, 1):
        assert torch.allclose(torch.cat([half[number] for half in halves]), whole[number], atol=1e-6)


def test_a_batch_of_one_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch norm needs two"):
        batches(Noise(), TrainingConfig(batch_size=4, accumulation=4))


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [{}, {"data.image_size": 16, "views.global_count": 1, "views.local_size": 8}],
    ids=["two global views", "a global and a local view"],
)
def test_a_run_resumes_exactly(options: dict[str, Any], tmp_path: Path) -> None:
    settings: dict[str, Any] = {**TINY, "views.name": "batched", "training.checkpoint_every": 3, **options}

    class Stop(ssl_dc.Watcher):
        def on_step_end(self, step: int) -> None:
            if step == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ssl_dc.train(settings, output=tmp_path / "stopped", watchers=[Stop()])
    ssl_dc.resume(tmp_path / "stopped")
    ssl_dc.train(settings, output=tmp_path / "whole")
    assert_same_files(tmp_path / "stopped", tmp_path / "whole", "metrics.jsonl", "model.safetensors")
