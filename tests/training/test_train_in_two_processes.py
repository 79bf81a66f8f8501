"""Two processes train one network together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.forked import run_two_forked
from helpers.settings import TWO_BY_TWO
from helpers.training import logged, saved_steps

TWO_PROCESSES = """
import json, os, sys
import ssl_dc
from ssl_dc.assemble import build_data_set, build_network, build_objective, build_optimizer, build_views
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.subsets import open_splits
from ssl_dc.objectives.vicreg import VICReg
from ssl_dc.training.trainer import Trainer
from functools import partial

said = []

class Recording(VICReg):
    def forward(self, views):
        output = super().forward(views)
        said.append({name: term.item() for name, term in output.terms.items()})
        return output

for name, settings in json.loads(sys.argv[1]).items():
    said.clear()
    config = resolve([uniform_layer(settings, "test")]).config
    network = build_network(config)
    trainer = Trainer(
        encoder=network.encoder,
        objective=Recording(config.objective, network.encoder.feature_dim),
        gating=network.gating,
        optimizer=partial(build_optimizer, config),
        images=open_splits(build_data_set(config)).train,
        views=build_views(config),
        image_size=config.data.image_size,
        training=config.training,
        budget=config.budget,
        routes=config.routes,
    )
    error = None
    try:
        trainer.fit()
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"[:200]
    total = sum(float(p.double().sum()) for p in network.encoder.parameters())
    report = {"world": trainer.accelerator.num_processes, "error": error, "terms": said, "weights": total}
    with open(os.path.join(sys.argv[2], f"{name}-{os.environ['RANK']}.json"), "w") as file:
        json.dump(report, file)

ssl_dc.train(settings, output=os.path.join(sys.argv[2], "run"))
"""


SYSTEMS: dict[str, dict[str, Any]] = {
    "gated-dense": {},
    "shared-norm": {"norm.name": "shared"},
    "double": {"encoder.name": "double"},
    "accumulated": {"training.accumulation": 2},
    "gated-gated": {"routes": ["gated", "gated"]},
    "no-gates": {"gating.name": "none"},
    "gates-warming-up": {"training.gate_warmup": 1},
    "distilled": {"training.distillation": 2.0},
}
"""In most of them some parameters take no part in a step: gates, or the other route's batch norm."""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both processes of a launch say of each of several short runs."""
    folder = tmp_path_factory.mktemp("two")
    settings = {name: {**TWO_BY_TWO, **extra} for name, extra in SYSTEMS.items()}
    launched = run_two_forked(TWO_PROCESSES, json.dumps(settings), folder)
    (folder / "log").write_text(f"{launched.returncode}\n{launched.stderr}")
    return folder


@pytest.mark.long
def test_two_processes_train_together_and_leave_one_run(two_processes: Path) -> None:
    """One test, so that they are launched once: pytest-xdist may give the tests of a file to several workers."""
    for name in SYSTEMS:
        reports = [two_processes / f"{name}-{rank}.json" for rank in (0, 1)]
        assert all(report.exists() for report in reports), (name, (two_processes / "log").read_text()[-2000:])
        one, two = (json.loads(report.read_text()) for report in reports)
        assert one["world"] == two["world"] == 2, name
        assert one["error"] is None, name
        assert two["error"] is None, name
        parts = 2 if name == "accumulated" else 1
        assert len(one["terms"]) == 4 * parts, name
        for ours, theirs in zip(one["terms"], two["terms"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-6), name
        assert one["weights"] == pytest.approx(two["weights"], rel=1e-9), name
    run = two_processes / "run"
    assert (run / "result.json").is_file(), (two_processes / "log").read_text()[-2000:]
    assert [line["step"] for line in logged(run)] == [1, 2, 3, 4]
    assert saved_steps(run) == [2, 4]
