"""Which runs a table needs, what they are called, and how long they may take."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import pytest

from ssl_dc.config import flattened
from ssl_dc.errors import ConfigError, SslDcError
from ssl_dc.reproduction.estimate import MACS_PER_SECOND, estimate
from ssl_dc.reproduction.plan import PlannedRun, Scale, Scope
from ssl_dc.reproduction.requests import NAMES, TableRequest, request_for
from ssl_dc.reproduction.runner import Measure, Store
from ssl_dc.reproduction.systems import TABLES
from ssl_dc.routes import Route
from ssl_dc.training_cost import training_macs

BUDGETS = (0.1, 0.3)


def request(
    table: str,
    scale: Scale = "paper",
    dataset: str = "cifar100",
    root: Path | None = None,
    budgets: Sequence[float] = BUDGETS,
    seeds: Sequence[int] = (0, 1),
) -> TableRequest:
    return TableRequest(table, Scope(scale, dataset, root, budgets, seeds), "stl10" if table == "table2" else None)


def runs(table: str, scale: Scale = "paper", dataset: str = "cifar100", root: Path | None = None) -> list[PlannedRun]:
    return list(request(table, scale, dataset, root).runs())


def of_system(name: str, table: str, scale: Scale = "paper", dataset: str = "cifar100") -> PlannedRun:
    return next(run for run in runs(table, scale, dataset) if run.system.name == name)


# Names


@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.parametrize("scale", ["paper", "small"])
def test_every_config_has_a_name_of_its_own(table: str, scale: Scale) -> None:
    names = [run.name for run in runs(table, scale)]
    expected = sum((len(BUDGETS) if system.budgeted else 1) * 2 for _, system in TABLES[table].systems)
    assert len(set(names)) == len(names) == expected
    assert names == [run.name for run in runs(table, scale)], "the same call names the same runs"
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_") for name in names)


def test_a_name_says_system_budget_and_seed() -> None:
    names = [run.name.removeprefix(f"{run.group}-") for run in runs("table1")]
    assert names == [
        "baseline1-seed0",
        "baseline1-seed1",
        *(f"{system}-{budget}-seed{seed}" for system in ("baseline2", "dual") for budget in BUDGETS for seed in (0, 1)),
    ]


def test_names_do_not_depend_on_where_the_data_is(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    native = [[run.name for run in runs("table1", root=root)] for root in (None, here, there)]
    assert native[0] == native[1] == native[2]
    for folder in (here, there):
        (folder / "train.parquet").touch()
    parquet = [[run.name for run in runs("table1", root=root)] for root in (here, there)]
    assert parquet[0] == parquet[1]
    assert runs("table1", root=here)[0].config.data.root == here


def test_names_differ_between_scales_and_data_sets() -> None:
    lists = [
        [run.name for run in runs("table4", scale, dataset)]
        for scale in ("paper", "small")
        for dataset in ("cifar100", "stl10")
    ]
    assert len({name for names in lists for name in names}) == sum(len(names) for names in lists)


def test_a_budget_said_twice_is_run_once() -> None:
    twice = request("table3", budgets=[0.3, 0.3, 0.30]).runs()
    assert [run.name for run in twice] == [run.name for run in request("table3", budgets=[0.3]).runs()]


@pytest.mark.parametrize("scale", ["paper", "small"])
def test_tables_share_the_runs_that_they_have_in_common(scale: Scale) -> None:
    dual = {
        table: {run.name for run in runs(table, scale) if run.system.name == "dual"}
        for table, spec in TABLES.items()
        if "dual" in {system.name for _, system in spec.systems}
    }
    assert set(dual) >= {"table1", "table2", "table3", "table4", "table5", "table6"}
    assert all(names == dual["table1"] for names in dual.values())
    assert len(dual["table1"]) == 4


@pytest.mark.parametrize("scale", ["paper", "small"])
def test_figure2_shows_the_first_seed_of_runs_that_table1_has_too(scale: Scale) -> None:
    drawn = [run.name for run in request_for("figure2", Scope(scale, "cifar100", None, BUDGETS, [0, 1])).runs()]
    group = f"{scale}-cifar100"
    assert drawn == [f"{group}-dual-0.1-seed0", f"{group}-dual-0.3-seed0", f"{group}-baseline1-seed0"]
    assert set(drawn) <= {run.name for run in runs("table1", scale)}


# Configs


def test_systems_differ_in_what_the_paper_says() -> None:
    dual = of_system("dual", "table1")
    plain = flattened(dual.config.model_dump(mode="json"))
    for name, table, differences in [
        ("baseline2", "table1", {"routes": ["gated", "gated"]}),
        ("dual-2x", "table4", {"encoder.name": "double"}),
        ("without-invariance", "table5", {"objective.invariance": 0.0}),
        ("vanilla", "table6", {"norm.name": "shared"}),
        ("warmup", "table6", {"training.gate_warmup": 10}),
    ]:
        other = flattened(of_system(name, table).config.model_dump(mode="json"))
        assert {key: value for key, value in other.items() if plain.get(key) != value} == differences, name
    assert dual.config.routes == (Route.GATED, Route.DENSE)
    assert dual.config.budget.target == 0.1
    assert of_system("barlow_twins-dual", "table3").config.objective.name == "barlow_twins"


@pytest.mark.parametrize("scale", ["paper", "small"])
def test_baseline1_has_neither_gates_nor_a_budget(scale: Scale) -> None:
    run = of_system("baseline1", "table1", scale)
    assert run.budget is None
    assert (run.config.gating.name, run.config.budget.target) == ("none", None)
    assert run.config.routes == (Route.DENSE, Route.DENSE)


def test_seeds_differ_in_the_seed_alone() -> None:
    first, second = (flattened(run.config.model_dump(mode="json")) for run in runs("table3")[:2])
    assert {key: (first[key], second[key]) for key in first if first[key] != second[key]} == {"seed": (0, 1)}


def test_parquet_files_are_read_by_the_data_sets_own_recipe(tmp_path: Path) -> None:
    native = flattened(runs("table1")[0].config.model_dump(mode="json"))
    (tmp_path / "train-00000.parquet").touch()
    parquet = flattened(runs("table1", root=tmp_path)[0].config.model_dump(mode="json"))
    differing = {key for key in parquet if parquet[key] != native.get(key)}
    assert differing == {"data.name", "data.root", "data.hold_out", "data.image_column", "data.label_column", "data.stream"}
    assert parquet["data.name"] == "parquet"


def test_imagenet100_is_a_folder_of_images_at_224_pixels() -> None:
    run = of_system("dual", "table1", dataset="imagenet100")
    assert (run.config.data.name, run.config.data.image_size, run.config.training.epochs) == ("folder", 224, 500)


def test_transfer_needs_a_data_set_to_go_to_and_nothing_else_takes_one() -> None:
    scope = Scope("paper", "cifar100", None, BUDGETS, [0])
    with pytest.raises(ConfigError, match="--to stl10"):
        request_for("table2", scope)
    for name in set(NAMES) - {"table2"}:
        request_for(name, scope)
        with pytest.raises(ConfigError, match=f"{name} .* leave out --to"):
            request_for(name, scope, "stl10")
        with pytest.raises(ConfigError, match=f"{name} .* leave out --to"):
            request_for(name, scope, None, Path("somewhere"))


def test_unknown_data_set_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(SslDcError, match="cifar10"):
        runs("table1", dataset="cifar11")


# The paper's tables


def paper_rows() -> list[dict[str, str]]:
    text = resources.files("ssl_dc.reproduction").joinpath("paper_tables.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.parametrize(
    ("table", "label"), [(table, label) for table, spec in TABLES.items() for label, _ in spec.systems]
)
def test_every_label_is_a_row_of_the_paper(table: str, label: str) -> None:
    of_table = [row for row in paper_rows() if row["table"] == str(TABLES[table].number)]
    rows = [row for row in of_table if f"{row['objective']}/{row['method']}" == label]
    assert rows
    metric = TABLES[table].metric
    assert {row["metric"] for row in rows} == {"linear" if metric == "transfer" else metric}


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_row_of_the_paper_has_a_system(table: str) -> None:
    labels = {f"{row['objective']}/{row['method']}" for row in paper_rows() if row["table"] == str(TABLES[table].number)}
    assert labels == {label for label, _ in TABLES[table].systems}


# Time


def untrained(_run: PlannedRun) -> None:
    """The speed of a run that was never trained."""


def test_cost_of_an_image_by_hand() -> None:
    expander = 512 * 2048 + 2048 * 2048 + 2048 * 2048
    expected = 3 * 2 * (703_560_448 + expander)  # forward and backward, two views
    assert training_macs(of_system("dual", "table1").config) == expected
    assert training_macs(of_system("baseline1", "table1").config) == expected


def test_estimate_by_hand_and_only_for_what_is_left() -> None:
    planned = list(request("table3", seeds=[0]).runs())
    made = estimate("cifar100", [(run, run is planned[0]) for run in planned], untrained)
    steps = 500 * (50_000 // 512)
    expected = steps * 512 * training_macs(planned[1].config) / MACS_PER_SECOND
    assert made.seconds == pytest.approx([0.0, *[expected] * (len(planned) - 1)])
    assert made.total == pytest.approx(expected * (len(planned) - 1))
    assert "2 CPU cores" in made.basis


def test_estimate_takes_the_speed_of_what_was_trained_here() -> None:
    planned = list(request("table3", seeds=[0]).runs())
    made = estimate(
        "cifar100", [(run, run is planned[0]) for run in planned], lambda run: 100.0 if run is planned[0] else None
    )
    assert made.seconds[1] == pytest.approx(500 * (50_000 // 512) * 512 / 100)
    assert "1 run" in made.basis


def test_estimate_counts_the_images_that_are_used() -> None:
    planned = list(request("table3", scale="small", seeds=[0]).runs())
    made = estimate("cifar100", [(run, False) for run in planned], lambda _run: 100.0)
    assert made.seconds[0] == pytest.approx(10 * (10_000 // 256) * 256 / 100)


def test_estimate_says_when_it_does_not_know() -> None:
    planned = request("table3", dataset="folder", seeds=[0]).runs()
    made = estimate("folder", [(run, False) for run in planned], untrained)
    assert set(made.seconds) == {None}
    assert made.total is None


def test_results_made_with_other_settings_are_refused(tmp_path: Path) -> None:
    (run,) = [run for run in runs("table1") if run.name.endswith("dual-0.3-seed0")]
    other = run.config.model_dump(mode="json")
    other["training"]["epochs"] = 7
    (tmp_path / "results").mkdir()
    record = tmp_path / "results" / f"{run.name}.json"
    record.write_text(json.dumps({"config": other, "linear": {"dense": {"top1": 1.0, "ratio": 1.0}}}))
    with pytest.raises(ConfigError, match=r"training\.epochs = 7, now 500"):
        Store(tmp_path).known(run, Measure("linear"))
    del other["training"]["epochs"]  # a setting that did not exist yet
    other["data"]["root"] = "elsewhere"
    record.write_text(json.dumps({"config": other, "linear": {"dense": {"top1": 1.0, "ratio": 1.0}}}))
    assert Store(tmp_path).known(run, Measure("linear")) is not None
