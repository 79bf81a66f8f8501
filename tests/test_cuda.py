"""The product on a CUDA GPU. ``pytest -m cuda`` runs these, and the other tests with that mark, where there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ssl_dc
from helpers.gradients import compare_gradients
from ssl_dc.config import resolve, uniform_layer

pytestmark = pytest.mark.cuda

TINY: dict[str, Any] = {
    "data.limit": 256,
    "data.test_limit": 60,
    "backbone.width": 8,
    "objective.expander_width": 32,
    "training.epochs": 2,
    "training.batch_size": 64,
    "training.workers": 0,
    "training.log_every": 1,
    "views.name": "batched",
    "budget.target": 0.3,
}


def trained(folder: Path, **settings: Any) -> ssl_dc.Run:
    return ssl_dc.train({**TINY, **settings}, output=folder)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def images(model: ssl_dc.Model, count: int = 8) -> torch.Tensor:
    size = model.config.data.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("views", ["batched", "standard"])
def test_a_run_trains_on_the_gpu_in_each_precision(tmp_path: Path, precision: str, views: str) -> None:
    run = trained(tmp_path / "run", **{"training.precision": precision, "views.name": views})
    assert run.model.device.type == "cuda"
    assert np.isfinite(losses(run.folder)).all()
    assert abs(run.outcome.routes[ssl_dc.Route.GATED].ratio - 0.3) < 0.05
    assert next(iter(run.model.encoder.parameters())).is_contiguous(memory_format=torch.channels_last)


def test_the_gpu_learns_what_the_cpu_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first loss of a run, on the same views, and without noise: up to float32's rounding."""
    settings = {"gating.noise": 0.0, "training.epochs": 1}
    there = losses(trained(tmp_path / "gpu", **settings).folder)[0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    here = losses(trained(tmp_path / "cpu", **settings).folder)[0]
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    assert there == pytest.approx(here, rel=2e-3)


def test_a_run_goes_on_from_its_resume_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to the uninterrupted run, where the GPU's own sums come out the same each time."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    torch.use_deterministic_algorithms(True, warn_only=True)

    class StopHalfway(ssl_dc.Watcher):
        def on_epoch_end(self, epoch: int) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ssl_dc.train(TINY, output=tmp_path / "stopped", watchers=[StopHalfway()])
    resumed = ssl_dc.resume(tmp_path / "stopped")
    whole = trained(tmp_path / "whole")
    torch.use_deterministic_algorithms(False)
    assert losses(resumed.folder) == pytest.approx(losses(whole.folder), rel=1e-3)


def test_a_model_moves_to_the_gpu_and_back(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run").folder
    here, there = ssl_dc.load(folder, device="cpu"), ssl_dc.load(folder, device="cuda")
    assert there.device.type == "cuda"
    x = images(here)
    torch.testing.assert_close(there.dense(x).cpu(), here.dense(x), rtol=1e-2, atol=1e-3)
    gated_here, gated_there = here.gated(x), there.gated(x)
    agree = [(gated_here.masks[site] == gated_there.masks[site].cpu()).float().mean() for site in gated_here.masks]
    assert min(agree) > 0.98
    torch.testing.assert_close(there.to("cpu").dense(x), here.dense(x))


def test_evaluation_on_the_gpu_is_that_of_the_cpu(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run").folder
    for protocol in ("knn", "linear"):
        reports = [ssl_dc.evaluate(folder, protocol, device=device).as_json() for device in ("cpu", "cuda")]
        for route in ("dense", "gated"):
            a, b = (report["routes"][route]["top1"] for report in reports)
            assert abs(a - b) <= 100 * 3 / 60  # a few of the 60 images may tip over


def test_one_network_for_many_budgets(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", **{"budget.target": "0.2:0.6"})
    x = images(run.model, 64)
    ratios = [float(run.model.gated(x, budget).ratio.mean()) for budget in (0.2, 0.4, 0.6)]
    assert ratios == sorted(ratios)


def test_a_compiled_training_learns_what_the_uncompiled_one_learns(tmp_path: Path) -> None:
    """The loss of the first compiled step, up to rounding. No gate draws noise. AdamW makes rounding a difference soon."""
    settings = {"gating.noise": 0.0}
    plain = losses(trained(tmp_path / "plain", **settings).folder)
    compiled = losses(trained(tmp_path / "compiled", **settings, **{"training.compile": True}).folder)
    assert compiled[:2] == pytest.approx(plain[:2], rel=2e-4)
    assert np.isfinite(compiled).all()
    assert len(compiled) == len(plain)


def test_the_gradients_of_a_compiled_pass_are_those_of_the_uncompiled_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times: CUDA graphs are recorded in the second pass, and replayed in the third."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    compare_gradients({**TINY, "gating.noise": 0.0}, passes=3, graphs=True)


def test_views_drawn_by_threads_train_as_those_drawn_on_the_gpu(tmp_path: Path) -> None:
    """The first loss; a pixel may fall on the other side of solarisation's threshold."""
    by_gpu = losses(trained(tmp_path / "gpu").folder)
    by_threads = losses(trained(tmp_path / "threads", **{"training.workers": 2}).folder)
    assert by_threads[0] == pytest.approx(by_gpu[0], rel=5e-3)
    assert len(by_threads) == len(by_gpu)


def test_two_objectives_and_gatings_take_steps(tmp_path: Path) -> None:
    for number, settings in enumerate(
        [
            {"objective.name": "barlow_twins"},
            {"gating.name": "convnet_aig"},
            {"gating.name": "prefix"},
            {"encoder.name": "double"},
            {"optimizer.name": "lars", "optimizer.lr": 0.1},
        ]
    ):
        assert np.isfinite(losses(trained(tmp_path / str(number), **settings).folder)).all()


def test_batch_norms_of_several_gpus_are_synchronised() -> None:
    """The conversion that a launch on several GPUs makes keeps every norm of both routes."""
    from ssl_dc.assemble import build_encoder

    encoder, _ = build_encoder(resolve([uniform_layer(TINY, "test")]).config)
    before = sum(isinstance(each, torch.nn.BatchNorm2d) for each in encoder.modules())
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(encoder).cuda()
    assert sum(isinstance(each, torch.nn.SyncBatchNorm) for each in converted.modules()) == before
    assert converted(torch.randn(4, 3, 16, 16, device="cuda"), ssl_dc.Route.GATED).features.isfinite().all()
