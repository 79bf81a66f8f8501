"""How fast views are drawn and networks are trained, beside lightly, kornia and a plain PyTorch loop.

    pip install lightly kornia
    python benchmarks/training.py --cifar10 DIR [--jpegs DIR] [--device cuda] [--precision bf16] [--json FILE]

All contenders of a table are timed in turns, several rounds in one process; a ratio is the median over rounds. A machine's
other load then meets all of them alike. Contenders whose package is not installed are left out, and named.

- Views: images a second on one core, by processor time, two views an image. "in workers" is the way of images that differ
  in size: each is cropped by itself, and the crops become views as a batch.
- Training: an epoch of the same network, batch and objective. Each contender draws views in its own way, from one set of
  images in memory, and the start of its workers counts. "plain" is the loop that most people write: torchvision's
  transforms on PIL images in DataLoader workers. "lightly" is that loop with lightly's transform and loss.
- Dual: a gated and a dense view, against two dense views of the same network; the control of the budget included.
- Profile: where the time of a step of ours goes, and on a GPU the share of the time in which it has nothing to do, by what
  the CPU does meanwhile.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gpu_waits import Doings, idle_share, waits
from PIL import Image
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

import ssl_dc
from ssl_dc.assemble import build_network, build_objective
from ssl_dc.config import RunConfig, resolve, uniform_layer
from ssl_dc.data.base import ImageSet
from ssl_dc.objectives.vicreg import covariance, invariance, variance
from ssl_dc.training.from_config import trainer_from_config
from ssl_dc.views.batched import BatchedStandardViews
from ssl_dc.views.chances import chances
from ssl_dc.views.options import BatchedStandardViewsOptions, StandardViewsOptions
from ssl_dc.views.standard import StandardViews

MEAN, STD = (0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)


class Pictures(ImageSet):
    """Images in memory.

    Args:
        pixels: (n, H, W, 3) uint8.
    """

    labels = None

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int) -> Image.Image:
        """The image of that number."""
        return Image.fromarray(self.pixels[index])


class Pairs(Dataset[tuple[Any, Any]]):
    """Two transforms of each image, for the plain loop and for lightly's."""

    def __init__(self, pixels: np.ndarray, transform: Callable[[Image.Image], Sequence[Tensor]]) -> None:
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        first, second = self.transform(Image.fromarray(self.pixels[index]))
        return first, second


def torchvision_transform(size: int) -> v2.Compose:
    """The recipe of the paper as torchvision's transforms, on PIL images."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, (0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomSolarize(128, p=0.1),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def twice(transform: Callable[[Image.Image], Tensor], image: Image.Image) -> tuple[Tensor, Tensor]:
    """Two views by one transform."""
    return transform(image), transform(image)


def installed(name: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(name) is not None


# Views


def jpegs_as_images(files: Sequence[Path]) -> Iterator[Image.Image]:
    """Each file decoded in full."""
    for file in files:
        yield Image.open(io.BytesIO(file.read_bytes())).convert("RGB")


def view_contenders(size: int, images: Callable[[], Iterator[Image.Image]]) -> dict[str, Callable[[], None]]:
    """Two views of each image, by each way there is here. The images are of one size."""
    batched = BatchedStandardViews(BatchedStandardViewsOptions(), size, MEAN, STD)
    standard = StandardViews(StandardViewsOptions(), size, MEAN, STD)

    def by_batched(cropped_on_device: bool) -> None:
        pictures = list(images())
        drawn = [chances(0, 0, np.arange(len(pictures)), number, batched.chances) for number in (0, 1)]
        for start in range(0, len(pictures), 128):
            some = pictures[start : start + 128]
            for number in (0, 1):
                rows = drawn[number][start : start + 128]
                if cropped_on_device:
                    pixels = torch.from_numpy(np.stack([np.asarray(one) for one in some])).permute(0, 3, 1, 2)
                    batched.view_batch(pixels, number, rows)
                else:
                    crops = torch.stack([batched.crop(one, number, row) for one, row in zip(some, rows, strict=True)])
                    batched.finish(crops, number, rows)

    def one_by_one(views: Callable[[Image.Image], Any]) -> None:
        for image in images():
            views(image)

    ways: dict[str, Callable[[], None]] = {
        "ssl-dc batched": partial(by_batched, cropped_on_device=True),
        "ssl-dc in workers": partial(by_batched, cropped_on_device=False),
        "ssl-dc standard": partial(one_by_one, lambda image: (standard.view(image, 0), standard.view(image, 1))),
        "torchvision": partial(one_by_one, partial(twice, torchvision_transform(size))),
    }
    if installed("lightly"):
        ways["lightly"] = partial(one_by_one, lightly_transform(size))
    if installed("kornia"):
        ways["kornia"] = partial(by_kornia, size, images)
    return ways


def lightly_transform(size: int) -> Callable[[Image.Image], Sequence[Tensor]]:
    """Lightly's transform for VICReg with the paper's strengths."""
    from lightly.transforms import VICRegTransform

    transform: Callable[[Image.Image], Sequence[Tensor]] = VICRegTransform(
        input_size=size,
        cj_strength=1.0,
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.2,
        cj_hue=0.1,
        min_scale=0.2,
        gaussian_blur=0.0,
        normalize={"mean": list(MEAN), "std": list(STD)},
    )
    return transform


def by_kornia(size: int, images: Callable[[], Iterator[Image.Image]]) -> None:
    """The recipe by kornia, on whole batches of images of one size."""
    import kornia.augmentation as K  # kornia's own habit

    recipe = nn.Sequential(
        K.RandomResizedCrop((size, size), scale=(0.2, 1.0), resample="bicubic"),
        K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomSolarize(thresholds=0.0, p=0.1),
        K.RandomHorizontalFlip(),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )
    pictures = [np.asarray(image.resize((size, size)) if image.size != (size, size) else image) for image in images()]
    for start in range(0, len(pictures), 128):
        pixels = torch.from_numpy(np.stack(pictures[start : start + 128])).permute(0, 3, 1, 2).float() / 255
        recipe(pixels)
        recipe(pixels)


def time_views(size: int, images: Callable[[], Iterator[Image.Image]], rounds: int) -> dict[str, Any]:
    """Images a second of each way on one core, and the ratio of ours to each other's, medians over rounds."""
    torch.set_num_threads(1)
    count = sum(1 for _ in images())
    ways = view_contenders(size, images)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            if number:  # the first round warms up
                rates[name].append(count / (time.process_time() - start))
    ours = rates["ssl-dc batched"]
    return {
        name: {
            "images_per_second": statistics.median(some),
            "ours_over_it": statistics.median(a / b for a, b in zip(ours, some, strict=True)),
        }
        for name, some in rates.items()
    }


# Training


def config_of(
    width: int, batch: int, device: str, precision: str, workers: int, routes: str = "dense,dense", epochs: int = 1
) -> RunConfig:
    """An epoch of CIFAR-sized images; the network of the paper, or a small one. ``workers`` threads draw a GPU's views."""
    gated = "gated" in routes
    settings: dict[str, Any] = {
        "data.name": "digits",
        "data.image_size": 32,
        "data.mean": MEAN,
        "data.std": STD,
        "views.name": "batched",
        "backbone.width": width,
        "backbone.stem": "cifar" if width == 64 else "strided",
        "objective.expander_width": 2048 if width == 64 else 512,
        "optimizer.name": "lars",
        "optimizer.lr": 1e-4,  # speed does not depend on it; at the paper's, so short a warm-up ends in a loss of inf
        "gating.name": "dgnet" if gated else "none",
        "budget.target": 0.3 if gated else None,
        "routes": routes.split(","),
        "training.epochs": epochs,
        "training.batch_size": batch,
        "training.precision": precision,
        "training.log_every": 50,
        "training.workers": workers if device == "cuda" else 2,
    }
    for key in ("crop_scale", "jitter_p", "flip_p", "solarize_p"):
        settings[f"views.{key}"] = StandardViewsOptions.model_fields[key].default
    return resolve([uniform_layer(settings, "benchmark")]).config


class Took(NamedTuple):
    """What an epoch takes, in seconds.

    Attributes:
        clock: By the clock.
        processor: Of processor time, in this process and in those that prepare images.
    """

    clock: float
    processor: float


def ours(config: RunConfig, pixels: np.ndarray) -> Took:
    """An epoch by the product."""
    trainer = trainer_from_config(config, Pictures(pixels))
    return took(trainer.fit)


def took(work: Callable[[], None]) -> Took:
    """What something takes until the device is done with it, and the processes that it started have ended."""
    wait_for_device()
    start, before = time.perf_counter(), sum(os.times()[:4])
    work()
    wait_for_device()
    return Took(time.perf_counter() - start, sum(os.times()[:4]) - before)


def wait_for_device() -> None:
    """Wait until a GPU, if there is one, has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Plain(nn.Module):
    """The network and the expander of a config, dense."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.encoder = build_network(config).encoder
        self.expander = build_objective(config, self.encoder.feature_dim).expander

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (N, D)."""
        embeddings: Tensor = self.expander(self.encoder(x, ssl_dc.Route.DENSE).features)
        return embeddings


def vicreg(z1: Tensor, z2: Tensor) -> Tensor:
    """The loss, as the product weighs it."""
    terms = 25 * invariance(z1, z2) + 25 * (variance(z1) + variance(z2))
    return terms + covariance(z1) + covariance(z2)


def loop(
    config: RunConfig,
    pixels: np.ndarray,
    transform: Callable[[Image.Image], Sequence[Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    device: str,
    workers: int,
) -> Took:
    """An epoch by the loop that people write: DataLoader, forward, backward, SGD."""
    network = Plain(config).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-4)
    dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.training.precision]
    loader = DataLoader(
        Pairs(pixels, transform),
        batch_size=config.training.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=device == "cuda",
    )

    def epoch() -> None:
        for x1, x2 in loader:
            x1, x2 = (x.to(device, memory_format=torch.channels_last, non_blocking=True) for x in (x1, x2))
            optimizer.zero_grad()
            with torch.autocast(device, dtype, enabled=dtype is not None):
                z1, z2 = network(x1), network(x2)
            loss(z1.float(), z2.float()).backward()
            optimizer.step()

    return took(epoch)


def time_training(
    width: int, batch: int, pixels: np.ndarray, device: str, precision: str, workers: int, rounds: int
) -> dict[str, Any]:
    """Images a second of each way, and the ratio of ours to it, by the clock and by processor time."""
    config = config_of(width, batch, device, precision, workers)
    steps = len(pixels) // batch
    ways: dict[str, Callable[[], Took]] = {
        "ssl-dc": partial(ours, config, pixels),
        "plain": partial(loop, config, pixels, partial(twice, torchvision_transform(32)), vicreg, device, workers),
        "ssl-dc dual": partial(ours, config_of(width, batch, device, precision, workers, "gated,dense"), pixels),
    }
    if installed("lightly"):
        from lightly.loss import VICRegLoss

        ways["lightly"] = partial(loop, config, pixels, lightly_transform(32), VICRegLoss(), device, workers)
    times: dict[str, list[Took]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            epoch = way()
            if number:
                times[name].append(epoch)
    return {
        name: {
            "images_per_second": steps * batch / statistics.median(one.clock for one in some),
            "ours_over_it": statistics.median(b.clock / a.clock for a, b in zip(times["ssl-dc"], some, strict=True)),
            "ours_over_it_by_processor_time": statistics.median(
                b.processor / a.processor for a, b in zip(times["ssl-dc"], some, strict=True)
            ),
        }
        for name, some in times.items()
    }


PROFILED = 20
"""Most steps at the end of a training that are profiled: to read what was recorded takes seconds for each ten."""


def profile_step(
    width: int, batch: int, pixels: np.ndarray, device: str, precision: str, workers: int, compiled: bool
) -> dict[str, Any]:
    """Shares of the time of our dual step by kind of work, and the share in which a GPU waits."""
    config = config_of(width, batch, device, precision, workers, "gated,dense", epochs=4)
    training = config.training.model_copy(update={"compile": compiled})
    config = config.model_copy(update={"training": training})
    trainer = trainer_from_config(config, Pictures(pixels))
    # On a GPU, to record what the CPU does as well would slow the CPU down, and the GPU would wait for it.
    recorded = profile(activities=[ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU])
    recorder = Recorder(recorded, trainer.total_steps // 4, max(trainer.total_steps // 2, trainer.total_steps - PROFILED))
    done = Doings(trainer)
    trainer.fit(watchers=[recorder, done])
    on_device = [event for event in recorded.events() if str(event.device_type).endswith("CUDA")]
    kind = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    averages = sorted(recorded.key_averages(), key=lambda each: -getattr(each, kind))
    total = sum(getattr(each, kind) for each in averages) or 1
    shares = {each.key: getattr(each, kind) / total for each in averages[:12]}
    steps = recorder.first - recorder.warm
    result: dict[str, Any] = {"shares": shares, "warm_images_per_second": steps * batch / recorder.seconds}
    if on_device:
        began = recorded.profiler.kineto_results.trace_start_ns() / 1000  # times of events are microseconds from there
        kernels = [(e.time_range.start + began, e.time_range.end + began) for e in on_device]
        result["gpu_waits"] = idle_share(kernels)
        result["gpu_waits_for"] = waits(kernels, done.spans)
    return result


class Recorder(ssl_dc.Watcher):
    """Profiles the end of a training, and before that times it without the profiler.

    Args:
        recorded: The profiler.
        warm: The step after which the time is taken: until then everything gets warm.
        first: The step after which the profiler begins.
    """

    def __init__(self, recorded: profile, warm: int, first: int) -> None:
        self.recorded, self.warm, self.first, self.running = recorded, warm, first, False
        self.seconds = 0.0

    def on_step_end(self, step: int) -> None:
        """Begin when it is time."""
        if step == self.warm:
            wait_for_device()
            self._began = time.perf_counter()
        if step == self.first:
            wait_for_device()
            self.seconds = time.perf_counter() - self._began
            self.recorded.start()
            self.running = True

    def on_end(self) -> None:
        """End with the training."""
        wait_for_device()
        if self.running:
            self.recorded.stop()


# The command


def table(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """A table of rates and ratios."""
    print(f"\n{title}\n{'':18}{'images / s':>12}{'ours / it':>11}{'by processor time':>19}")
    for name, row in rows.items():
        processor = row.get("ours_over_it_by_processor_time", row["ours_over_it"])  # views are timed by nothing else
        print(f"{name:18}{row['images_per_second']:12,.0f}{row['ours_over_it']:11.2f}{processor:19.2f}", flush=True)


def cifar10(folder: Path, count: int) -> np.ndarray:
    """The first training images of CIFAR-10 as Hugging Face's parquet, (count, 32, 32, 3) uint8."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "train.parquet", columns=["image"]).slice(0, count)["image"]
    return np.stack([np.array(Image.open(io.BytesIO(row["bytes"].as_py())).convert("RGB")) for row in rows])


def main() -> None:
    """Time everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, required=True, help="folder with train.parquet")
    parser.add_argument("--jpegs", type=Path, help="folder with JPEG files, for the views at 224 px")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"], default="no")
    parser.add_argument("--images", type=int, default=2560, help="images of an epoch")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--widths", type=int, nargs="*", default=[16, 64])
    parser.add_argument("--workers", type=int, default=2, help="of the plain loop and lightly; threads of ours on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="profile a compiled training, too")
    parser.add_argument("--no-views", action="store_true", help="leave the views' tables out")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    pixels = cifar10(arguments.cifar10, arguments.images)
    result: dict[str, Any] = {"device": arguments.device, "precision": arguments.precision, "torch": torch.__version__}
    missing = [name for name in ("lightly", "kornia") if not installed(name)]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    threads = torch.get_num_threads()
    if not arguments.no_views:
        small = [Image.fromarray(image) for image in pixels[:512]]
        larger = [image.resize((96, 96), Image.Resampling.BICUBIC) for image in small[:256]]
        result["views 32 px"] = time_views(32, partial(iter, small), arguments.rounds)
        result["views 96 px"] = time_views(96, partial(iter, larger), arguments.rounds)
        if arguments.jpegs:
            files = sorted(arguments.jpegs.rglob("*.[jJ][pP]*[gG]"))[:128]
            result["views 224 px, from JPEG"] = time_views(224, partial(jpegs_as_images, files), arguments.rounds)
        for name in [key for key in result if key.startswith("views")]:
            table(name, result[name])
    torch.set_num_threads(threads)
    for width in arguments.widths:
        for compiled in (True, False) if arguments.compile else (False,):
            way = "compiled" if compiled else "uncompiled"
            profiled = profile_step(
                width, arguments.batch, pixels, arguments.device, arguments.precision, arguments.workers, compiled
            )
            result[f"profile, width {width}, {way}"] = profiled
            print(f"a warm dual training, {way}: {profiled['warm_images_per_second']:.0f} images/s", flush=True)
            if "gpu_waits" in profiled:
                print(f"the GPU waits {100 * profiled['gpu_waits']:.1f} % of the time, while the CPU is at", flush=True)
                for doing, share in profiled["gpu_waits_for"].items():
                    print(f"  {doing:22}{100 * share:5.1f} %", flush=True)
            write(result, arguments.json)
        name = f"training, width {width}, 32 px, batch {arguments.batch}"
        result[name] = time_training(
            width, arguments.batch, pixels, arguments.device, arguments.precision, arguments.workers, arguments.rounds
        )
        table(name, result[name])
        write(result, arguments.json)


def write(result: Mapping[str, Any], file: Path | None) -> None:
    """Write what is measured so far: a call that is ended loses no more than what it was at."""
    if file is not None:
        file.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
