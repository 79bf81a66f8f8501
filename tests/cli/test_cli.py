"""The command line as a user calls it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ssl_dc import __version__
from ssl_dc.cli import main
from ssl_dc.cli.commands import SUMMARIES
from ssl_dc.cli.options import NAMED
from ssl_dc.config import dump, file_layer, override_layer, resolve

SSL_DC = [sys.executable, "-c", "from ssl_dc.cli import main; main(prog_name='ssl-dc')"]
TINY = [
    *("--limit", "64", "--batch-size", "32", "--workers", "0", "--epochs", "2", "--width", "4", "--image-size", "8"),
    *("--set", "objective.expander_width=16", "--set", "data.test_limit=60", "--set", "training.log_every=1"),
]
RUN_FILES = {
    "config.json",
    "data.json",
    "model.safetensors",
    "metrics.jsonl",
    "environment.json",
    "result.json",
    "checkpoints",
}


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="ssl-dc")


def done(*arguments: str | Path) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr or result.exception
    return result.stdout


def parsed(*arguments: str | Path) -> Any:
    return json.loads(done(*arguments, "--json"))


def refused(*arguments: str | Path, status: int = 2) -> str:
    """The one message of a call that is refused before anything is done."""
    before = sorted(Path.cwd().rglob("*"))
    result = call(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert sorted(Path.cwd().rglob("*")) == before
    return result.stderr


def message(*arguments: str | Path) -> str:
    """As :func:`refused`; nothing but the message, on a line of its own, is said."""
    text = refused(*arguments)
    assert text.startswith("ssl-dc: ")
    assert text.count("\n") == 1
    return text


def subprocess_environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory for every test."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run folder, and what the process that trained it said."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    said = subprocess.run(
        [*SSL_DC, "train", *TINY, "--output", str(folder), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        env=subprocess_environment(),
    )
    assert said.returncode == 0, said.stderr
    return folder, said


# help and start-up


@pytest.mark.parametrize("code", ["import ssl_dc", "from ssl_dc.cli import main; main(['--help'])"])
def test_import_and_help_answer_at_once(code: str) -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3


def test_the_installed_command_answers_at_once() -> None:
    command = Path(sys.executable).parent / "ssl-dc"
    if not command.exists():
        pytest.skip(f"{command} is not installed")
    times = []
    for _ in range(3):
        start = time.perf_counter()
        said = subprocess.run([command, "--help"], check=True, capture_output=True, text=True, timeout=60)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3
    assert said.stderr == ""
    for name, summary in SUMMARIES.items():
        assert name in said.stdout
        assert summary in said.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["config", "show"],
        ["train", "--budget", "7"],
        ["evaluate", "--k", "0"],
    ],
    ids=" ".join,
)
def test_what_trains_nothing_imports_no_torch(arguments: list[str]) -> None:
    code = f"""
import sys
from ssl_dc.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
assert "torch" not in sys.modules
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr


def test_listed_help_is_each_commands_own() -> None:
    for name, summary in SUMMARIES.items():
        command: click.Command = import_module(f"ssl_dc.cli.{name}").command
        assert command.name == name
        assert command.short_help == summary


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_command_and_option_has_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
    assert "--help" in done(name, "--help")


def test_an_unknown_command_or_option_is_refused() -> None:
    assert "trane" in refused("trane")
    assert "--budgt" in refused("train", "--budgt", "0.1")


# config


def test_config_show_is_a_config_that_reads_back_equal(here: Path) -> None:
    text = done("config", "show", "--budget", "0.1", "--set", "objective.invariance=10")
    (here / "shown.yaml").write_text(text)
    expected = resolve([override_layer(["budget.target=0.1", "objective.invariance=10"])]).config
    assert resolve([file_layer(here / "shown.yaml")]).config == expected
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "target: 0.1 # --budget" in lines
    assert "invariance: 10.0 # --set objective.invariance" in lines


def test_config_show_json_is_what_a_run_saves() -> None:
    shown = parsed("config", "show", "--data", "cifar10", "--gating", "none")
    assert shown == json.loads(dump(resolve([override_layer(["data=cifar10", "gating=none"])]).config))


def test_named_options_rank_above_the_file_and_set_above_them(here: Path) -> None:
    (here / "run.yaml").write_text("training:\n  epochs: 2\n  batch_size: 32\n  workers: 1\n")
    shown = parsed(
        *("config", "show", "--config", "run.yaml", "--epochs", "3", "--batch-size", "48", "--set", "training.epochs=4")
    )
    training = shown["training"]
    assert (training["epochs"], training["batch_size"], training["workers"]) == (4, 48, 1)


def test_every_named_option_sets_its_key() -> None:
    words: dict[str, tuple[str, Any]] = {
        "--objective": ("barlow_twins", "barlow_twins"),
        "--gating": ("convnet_aig", "convnet_aig"),
        "--budget": ("0.25", 0.25),
        "--budget-control": ("penalty", "penalty"),
        "--encoder": ("double", "double"),
        "--backbone": ("resnet50", "resnet50"),
        "--width": ("8", 8),
        "--stem": ("strided", "strided"),
        "--norm": ("shared", "shared"),
        "--views": ("standard", "standard"),
        "--optimizer": ("adamw", "adamw"),
        "--routes": ("gated,gated", ["gated", "gated"]),
        "--gate-warmup": ("1", 1),
        "--data": ("folder", "folder"),
        "--data-root": ("pictures", "pictures"),
        "--limit": ("64", 64),
        "--bad-images": ("skip", "skip"),
        "--image-size": ("24", 24),
        "--epochs": ("7", 7),
        "--batch-size": ("96", 96),
        "--lr": ("1e-3", 0.001),
        "--seed": ("9", 9),
        "--workers": ("0", 0),
        "--precision": ("bf16", "bf16"),
        "--tracker": ("tensorboard", "tensorboard"),
    }
    assert {named.flag for named in NAMED} == {*words, "--download"}
    arguments = [text for flag, (given, _) in words.items() for text in (flag, given)]
    shown = parsed("config", "show", "--download", *arguments)
    for named in NAMED:
        value = shown
        for key in named.key.split("."):
            value = value[key]
        assert value == words.get(named.flag, ("", True))[1], named.flag


@pytest.mark.parametrize("words", [["--bn", "shared"], ["--bn=shared"]], ids=" ".join)
def test_the_old_name_of_an_option_is_taken_with_a_warning(here: Path, words: list[str]) -> None:
    said = call("config", "show", "--json", *words)
    assert said.stderr == "ssl-dc: --bn is --norm now; the old name goes in 0.2\n"
    assert json.loads(said.stdout)["norm"]["name"] == "shared"
    assert "--bn" not in call("train", "--help").stdout


def test_config_validate_says_valid(here: Path) -> None:
    (here / "run.yaml").write_text("budget:\n  target: 0.1\n")
    assert done("config", "validate", "run.yaml") == "run.yaml: valid\n"


def test_config_validate_tells_every_error_with_its_line(here: Path) -> None:
    (here / "run.yaml").write_text("sed: 1\nbudget:\n  target: 7\n")
    text = refused("config", "validate", "run.yaml")
    assert "run.yaml:1: unknown key 'sed'; did you mean 'seed'?" in text
    assert "run.yaml:3: budget.target = 7" in text
    assert "nothing.yaml" in message("config", "validate", "nothing.yaml")


# wrong calls of train


@pytest.mark.parametrize("budget", ["1.5", "0", "-0.1", "nan", "much"])
def test_a_budget_outside_its_range_is_refused(budget: str) -> None:
    text = message("train", "--budget", budget)
    assert "--budget: budget.target = " in text
    assert "allowed: above 0, at most 1" in text


@pytest.mark.parametrize("data", [["--data", "digits"], []], ids=["data named", "data not named"])
def test_a_budget_below_the_floor_is_refused_naming_the_floor(data: list[str]) -> None:
    network = ["--width", "4", "--stem", "cifar", "--image-size", "8"]
    floor = parsed("cost", *data, *network)["ratio"]
    text = message("train", *data, "--budget", "0.001", *network)
    assert "budget.target = 0.001" in text
    assert f"{floor:.5f}" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--objective", "vicrg"], ["unknown objective 'vicrg'", "Did you mean 'vicreg'?"]),
        (["--backbone", "resnet"], ["unknown backbone 'resnet'", "resnet18"]),
        (["--set", "objective.invarance=1"], ["objective.invarance", "did you mean 'objective.invariance'?"]),
        (["--set", "invariance"], ["--set invariance"]),
        (["--config", "nothing.yaml"], ["nothing.yaml"]),
        (["--gating", "none", "--budget", "0.1"], ["budget.target", "none"]),
        (["--gating", "none", "--routes", "gated,dense"], ["routes", "none"]),
        (["--data", "folder"], ["--data-root"]),
        (["--data", "folder", "--data-root", "nowhere"], ["nowhere"]),
        (["--data", "digits", "--limit", "20", "--batch-size", "32"], ["training.batch_size", "32", "20"]),
        (["--data", "digits", "--precision", "fp16", "--width", "4"], ["training.precision", "fp16", "allowed: no, bf16"]),
    ],
)
def test_a_wrong_call_is_refused_with_one_message(arguments: list[str], said: list[str]) -> None:
    text = message("train", *arguments)
    for words in said:
        assert words in text


def test_several_errors_of_a_call_are_told_together() -> None:
    text = refused("train", "--budget", "7", "--epochs", "0", "--seed", "x")
    for words in ("--budget: budget.target = 7", "--epochs: training.epochs = 0", "--seed: seed = 'x'"):
        assert words in text


@pytest.mark.parametrize("made", ["", "train", "train/cat", "train/cat val/cat"])
def test_a_data_folder_without_images_is_refused(here: Path, made: str) -> None:
    (here / "data").mkdir()
    for folder in made.split():
        (here / "data" / folder).mkdir(parents=True)
    assert str(here / "data") in message("train", "--data", "folder", "--data-root", "data")


def test_an_existing_folder_is_refused_and_not_touched(here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "notes.txt").write_text("mine")
    assert "run" in message("train", "--data", "digits", *TINY, "--output", "run")
    (here / "file").write_text("mine")
    assert "file" in message("train", "--data", "digits", *TINY, "--output", "file")
    assert (here / "run" / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_a_failure(here: Path) -> None:
    (here / "file").write_text("mine")
    text = refused("train", "--data", "digits", *TINY, "--output", "file/run", status=1)
    assert "file/run" in text


def test_resuming_takes_no_other_options(trained: tuple[Path, Any]) -> None:
    assert "--seed" in message("train", "--resume", trained[0], "--seed", "1")
    assert "--output" in message("train", "--resume", trained[0], "--output", "other")
    assert "nowhere is not a run folder" in message("train", "--resume", "nowhere")


def test_a_loss_that_is_not_finite_is_a_failure_that_keeps_the_resume_points(here: Path) -> None:
    result = call(
        "train", "--data", "digits", *TINY, "--lr", "1e30", "--set", "training.checkpoint_every=1", "--output", "run"
    )
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    *_, last = result.stderr.splitlines()
    assert last.startswith("ssl-dc: step ")
    for words in ("not finite", "invariance", "Last resume point: run/checkpoints/step-0000", "optimizer.lr"):
        assert words in last
    assert list((here / "run" / "checkpoints").glob("step-*"))
    assert not (here / "run" / "model.safetensors").exists()


# cost


@pytest.mark.parametrize(
    ("arguments", "macs"),
    [
        (["--stem", "cifar", "--image-size", "32"], 703_560_448),
        (["--stem", "cifar", "--image-size", "32", "--set", "backbone.stem_padding=1"], 555_417_600),
        (["--stem", "imagenet", "--image-size", "96"], 333_103_104),
        (["--stem", "imagenet", "--image-size", "224"], 1_813_561_344),
    ],
)
@pytest.mark.parametrize("gating", [[], ["--gating", "none"]], ids=["gates", "no gates"])
def test_the_dense_cost_is_the_papers(arguments: list[str], macs: int, gating: list[str]) -> None:
    table = parsed("cost", "--backbone", "resnet18", *arguments, *gating)
    assert table["dense_macs"] == macs
    assert sum(layer["dense_macs"] for layer in table["layers"]) == macs


@pytest.mark.parametrize(
    ("arguments", "floor"),
    [
        (["--stem", "cifar", "--image-size", "32"], 0.01498),
        (["--stem", "imagenet", "--image-size", "96"], 0.07642),
        (["--stem", "imagenet", "--image-size", "224"], 0.07583),
    ],
)
def test_the_gated_cost_of_an_untrained_network_is_the_floor(arguments: list[str], floor: float) -> None:
    table = parsed("cost", "--backbone", "resnet18", *arguments)
    assert table["ratio"] == pytest.approx(floor, abs=5e-6)
    assert table["gated_macs"] == sum(layer["gated_macs"] for layer in table["layers"])
    assert table["ratio"] == pytest.approx(table["gated_macs"] / table["dense_macs"])


def test_cost_as_a_table_shows_the_same_numbers() -> None:
    text = done("cost", "--data", "cifar10")
    assert "703,560,448" in text
    assert "stages.layer4.1.conv2" in text
    assert "every gate shut" in text


def test_cost_of_a_run_is_what_its_held_out_images_pay(trained: tuple[Path, Any]) -> None:
    table = parsed("cost", trained[0])
    result = json.loads((trained[0] / "result.json").read_text())
    assert table["dense_macs"] == result["dense_macs"]
    assert table["ratio"] == pytest.approx(result["routes"]["gated"]["ratio"], abs=1e-9)
    assert "60 held-out images" in table["gated_is"]
    assert sum(layer["gated_macs"] for layer in table["layers"]) == pytest.approx(table["gated_macs"], rel=1e-3)


def test_cost_takes_a_run_or_options_not_both(trained: tuple[Path, Any]) -> None:
    assert "not both" in message("cost", trained[0], "--width", "8")
    assert "nowhere is not a run folder" in message("cost", "nowhere")


# a run from end to end


def test_training_prints_one_json_document_and_progress_elsewhere(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, said = trained
    printed = json.loads(said.stdout)
    assert printed.pop("run") == str(folder)
    assert printed == json.loads((folder / "result.json").read_text())
    assert set(printed["routes"]) == {"dense", "gated"}
    for reached in printed["routes"].values():
        assert 0 <= reached["knn1"] <= 100
        assert 0 <= reached["knn1_untrained"] <= 100
    assert printed["routes"]["dense"]["ratio"] == 1
    assert printed["routes"]["dense"]["macs"] == printed["dense_macs"]
    gated = printed["routes"]["gated"]
    assert gated["macs"] == pytest.approx(gated["ratio"] * printed["dense_macs"])
    assert printed["budget"] == 0.3
    assert "60 held-out images" in printed["measured_on"]
    assert "step 4/4" in said.stderr
    assert "Warning" not in said.stderr
    assert "--data folder" in said.stderr, "whoever names no data is told how to use their own"


def test_a_run_folder_holds_what_its_page_says(trained: tuple[Path, Any]) -> None:
    folder = trained[0]
    assert {path.name for path in folder.iterdir()} == RUN_FILES
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"]) for line in lines] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    for line in lines:
        terms = [value for name, value in line.items() if name.startswith("terms/")]
        assert line["loss"] == pytest.approx(sum(terms), rel=1e-5)
        assert {"lr", "embedding_std", "effective_rank", "cost_ratio"} <= set(line)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["ssl-dc"] == __version__
    assert {"torch", "numpy"} <= set(environment["versions"])
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]


def test_a_runs_config_trains_it_again(trained: tuple[Path, Any], here: Path) -> None:
    text = done("train", "--config", trained[0] / "config.json", "--output", "again")
    assert "kNN-1" in text
    assert "run: again" in text
    assert (here / "again" / "config.json").read_bytes() == (trained[0] / "config.json").read_bytes()
    assert len((here / "again" / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_run_without_output_goes_to_a_new_folder_under_runs(here: Path) -> None:
    for _ in range(2):
        done("train", "--data", "digits", *TINY, "--epochs", "1", "--gating", "none")
    names = sorted(path.name for path in (here / "runs").iterdir())
    assert names == ["digits-vicreg-none-seed0", "digits-vicreg-none-seed0-2"]


def test_resuming_a_finished_run_ends_at_once_with_the_same_result(trained: tuple[Path, Any], here: Path) -> None:
    shutil.copytree(trained[0], here / "run")
    result = json.loads(done("train", "--resume", "run", "--json"))
    assert result.pop("run") == "run"
    assert result == json.loads((trained[0] / "result.json").read_text())
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (here / "run" / name).read_bytes() == (trained[0] / name).read_bytes()


def test_evaluating_by_knn_gives_what_training_reported(trained: tuple[Path, Any]) -> None:
    result = json.loads((trained[0] / "result.json").read_text())
    evaluation = parsed("evaluate", trained[0])
    assert (evaluation["protocol"], evaluation["k"], evaluation["metric"]) == ("knn", 1, "euclidean")
    assert (evaluation["train_images"], evaluation["test_images"]) == (64, 60)
    for route in ("dense", "gated"):
        assert evaluation["routes"][route]["top1"] == result["routes"][route]["knn1"]
        assert evaluation["routes"][route]["ratio"] == pytest.approx(result["routes"][route]["ratio"])


def test_evaluating_by_cosine_votes(trained: tuple[Path, Any]) -> None:
    evaluation = parsed("evaluate", trained[0], "--metric", "cosine", "--k", "20")
    assert (evaluation["k"], evaluation["metric"]) == (20, "cosine")
    assert 0 <= evaluation["routes"]["gated"]["top1"] <= 100


def test_evaluating_by_a_linear_classifier(trained: tuple[Path, Any]) -> None:
    evaluation = parsed("evaluate", trained[0], "--protocol", "linear", "--seeds", "2")
    assert evaluation["seeds"] == 2
    assert evaluation["epochs"] == 100
    for score in evaluation["routes"].values():
        assert 0 <= score["top1"] <= 100
        assert score["std"] >= 0
    assert "linear" in done("evaluate", trained[0], "--protocol", "linear", "--seeds", "1")


def test_evaluating_what_is_no_run_is_refused(here: Path) -> None:
    assert "here is not a run folder" in message("evaluate", here)


def test_evaluating_a_run_that_has_not_ended_says_how_to_go_on(trained: tuple[Path, Any], here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "config.json").write_bytes((trained[0] / "config.json").read_bytes())
    assert "--resume run" in refused("evaluate", "run", status=1)


@pytest.mark.parametrize("command", ["evaluate", "cost"])
def test_a_run_on_unlabelled_images_is_told_what_evaluation_lacks_but_has_a_cost(here: Path, command: str) -> None:
    (here / "data" / "train").mkdir(parents=True)
    for number in range(8):
        Image.new("RGB", (8, 8), (31 * number, 90, 255 - 31 * number)).save(here / "data" / "train" / f"{number}.png")
    printed = parsed(
        *("train", "--data", "folder", "--data-root", "data", "--output", "run", "--workers", "0", "--epochs", "1"),
        *(
            "--batch-size",
            "4",
            "--width",
            "4",
            "--image-size",
            "8",
            "--stem",
            "cifar",
            "--set",
            "objective.expander_width=16",
        ),
    )
    assert {reached["knn1"] for reached in printed["routes"].values()} == {None}
    if command == "evaluate":
        assert "labels" in message("evaluate", "run")
    else:
        assert parsed("cost", "run")["ratio"] == pytest.approx(printed["routes"]["gated"]["ratio"], abs=0.02)


def test_cost_takes_the_width_of_the_network_not_of_the_demo_data() -> None:
    assert parsed("cost", "--backbone", "resnet18", "--stem", "cifar", "--image-size", "32")["dense_macs"] == 703_560_448
    demo = parsed("cost", "--data", "digits", "--image-size", "32")["dense_macs"]
    assert demo < 703_560_448 / 15, "a named data set brings its recipe"


# plugins


def test_plugins_list_has_every_part_and_what_was_left_out() -> None:
    listed = parsed("--no-plugins", "plugins", "list")
    assert {(part["kind"], part["name"]) for part in listed["parts"]} >= {("objective", "vicreg"), ("encoder", "double")}
    assert {part["distribution"] for part in listed["parts"]} == {"ssl-dc"}
    assert listed["left_out"] == []


def test_plugins_show_has_every_option_with_its_range() -> None:
    (shown,) = parsed("plugins", "show", "vicreg")
    options = {option["option"]: option for option in shown["options"]}
    assert options["objective.invariance"]["default"] == 25.0
    assert options["objective.invariance"]["allowed"] == "float, at least 0"
    assert options["objective.variance_over_views"]["allowed"] == "'sum' or 'mean'"
    assert [part["kind"] for part in parsed("plugins", "show", "shared")] == ["encoder", "norm"]


def test_plugins_show_of_an_unknown_part_names_the_nearest() -> None:
    assert "Did you mean 'vicreg'?" in message("plugins", "show", "vicrg")


def test_a_data_root_without_a_data_set_is_refused() -> None:
    assert "--data (cifar10, " in message("train", "--data-root", "nowhere")
