"""An error in a config names key, value, place, what is allowed and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssl_dc.config import RunConfig, file_layer, override_layer, resolve
from ssl_dc.config.messages import allowed_values
from ssl_dc.errors import ConfigError
from ssl_dc.plugins.registry import did_you_mean


def error(*assignments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve([override_layer(assignments)])
    assert caught.value.exit_status == 2
    return str(caught.value)


def file_error(tmp_path: Path, text: str) -> str:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve([file_layer(file)])
    return str(caught.value).replace(str(file), "run.yaml")


@pytest.mark.parametrize(
    ("text", "place", "wrong", "meant"),
    [
        ("seed: 1\nobjective:\n  invarance: 2\n", "run.yaml:3", "objective.invarance", "objective.invariance"),
        ("budget:\n  trget: 2\n", "run.yaml:2", "budget.trget", "budget.target"),
        ("training:\n\n  epoch: 2\n", "run.yaml:3", "training.epoch", "training.epochs"),
        ("sed: 1\n", "run.yaml:1", "sed", "seed"),
        ("training:\n  lr: 1\n", "run.yaml:2", "training.lr", "optimizer.lr"),
        ("lr: 1\n", "run.yaml:1", "lr", "optimizer.lr"),
        ("objective:\n  name: barlow_twins\n  off_diag: 2\n", "run.yaml:3", "objective.off_diag", "objective.off_diagonal"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest_right_key(
    tmp_path: Path, text: str, place: str, wrong: str, meant: str
) -> None:
    message = file_error(tmp_path, text)
    assert message.startswith(f"{place}: unknown key '{wrong}'; did you mean '{meant}'?")
    assert "\n" not in message


def test_an_unknown_section_names_its_place_and_the_nearest_right_section(tmp_path: Path) -> None:
    message = file_error(tmp_path, "seed: 1\nbudgt:\n  target: 0.2\n")
    assert "unknown key 'budgt'" in message
    assert "did you mean 'budget'?" in message
    assert message.startswith(("run.yaml:2: ", "run.yaml:3: "))


def test_an_unknown_section_of_an_override_names_the_override() -> None:
    message = error("budgt.target=0.2")
    assert message.startswith("--set budgt.target: ")
    assert "did you mean 'budget" in message


@pytest.mark.parametrize("text", ["budgt: {}\n", "training:\n  optim: {}\n"])
def test_an_unknown_section_is_refused_though_it_is_empty(tmp_path: Path, text: str) -> None:
    assert "unknown key" in file_error(tmp_path, text)


def test_an_unknown_key_like_no_other_lists_what_there_is() -> None:
    message = error("budget.zzzzzz=1")
    assert "did you mean" not in message
    assert "target, grid, control" in message


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("budget.target=1.5", ["budget.target", "1.5", "above 0", "at most 1"]),
        ("budget.target=0", ["budget.target", "0", "above 0", "at most 1"]),
        ("budget.target=-1", ["budget.target", "-1", "above 0", "at most 1"]),
        ("budget.target=NaN", ["budget.target", "nan", "above 0", "at most 1"]),
        ("budget.control=strict", ["budget.control", "'strict'", "'adaptive'", "'penalty'"]),
        ("training.epochs=0", ["training.epochs", "0", "at least 1"]),
        ("training.epochs=1.5", ["training.epochs", "1.5", "at least 1"]),
        ("training.epochs=many", ["training.epochs", "'many'", "at least 1"]),
        ("training.batch_size=1", ["training.batch_size", "1", "at least 2"]),
        ("training.precision=fp8", ["training.precision", "'fp8'", "'no'", "'fp16'", "'bf16'"]),
        ("optimizer.momentum=0.5", ["optimizer.momentum", "beta1"]),
        ("optimizer.beta1=1", ["optimizer.beta1", "1", "at least 0", "below 1"]),
        ("seed=4294967296", ["seed", "4294967296", "at least 0", "below 4294967296"]),
        ("backbone.width=6", ["backbone.width", "6", "multiple of 4", "at least 4"]),
        ("backbone.stem=small", ["backbone.stem", "'small'", "'imagenet'", "'cifar'", "'strided'"]),
        ('routes=["gated"]', ["routes"]),
        ('routes=["gated","open"]', ["routes", "'open'", "'dense'", "'gated'"]),
        ("views.crop_scale=[0.9,0.1]", ["views.crop_scale", "0.9", "0.1", "smallest <= largest"]),
        ("data.std=[0,1,1]", ["data.std", "above 0"]),
        ("data.image_size=4", ["data.image_size", "4", "at least 8", "at most 1024"]),
        ("training.gate_warmup=60", ["gate_warmup", "60", "epochs"]),
        ("training.accumulation=3", ["accumulation", "3", "batch_size", "128"]),
    ],
)
def test_a_wrong_value_names_key_value_and_what_is_allowed(assignment: str, said: list[str]) -> None:
    message = error(assignment)
    assert "\n" not in message
    for words in said:
        assert words in message


def test_a_number_in_place_of_the_budget_section_is_the_target(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("budget: 0.25\n")
    assert resolve([file_layer(file)]).config == resolve([override_layer(["budget.target=0.25"])]).config
    assert error("budget=many").startswith("--set budget: budget.target = 'many'")


def test_a_reversed_range_of_budgets_is_told_the_right_way_round() -> None:
    message = error("budget.target=0.9:0.1")
    assert "budget.target = '0.9:0.1': the range 0.9:0.1 is reversed; write 0.1:0.9" in message
    assert "{" not in message


def test_a_wrong_value_in_a_file_names_its_line(tmp_path: Path) -> None:
    assert file_error(tmp_path, "seed: 1\nbudget:\n  target: 7\n").startswith("run.yaml:3: budget.target = 7")
    assert file_error(tmp_path, "views:\n  blur_p: [0, 2]\n").startswith("run.yaml:2: views.blur_p")


def test_a_wrong_value_of_an_option_names_the_option() -> None:
    assert error("budget.target=7").startswith("--set budget.target: budget.target = 7")


@pytest.mark.parametrize(
    ("assignment", "label", "near"),
    [
        ("objective=vicrg", "objective", "vicreg"),
        ("gating=dgnt", "gating scheme", "dgnet"),
        ("encoder=shred", "encoder", "shared"),
        ("backbone=resnet81", "backbone", "resnet18"),
        ("norm=seperate", "norm policy", "separate"),
        ("data=cifar", "data set", "cifar10"),
        ("views=standart", "views recipe", "standard"),
        ("optimizer=adam", "optimiser", "adamw"),
    ],
)
def test_an_unknown_part_names_the_nearest(assignment: str, label: str, near: str) -> None:
    message = error(assignment)
    assert f"unknown {label} '{assignment.partition('=')[2]}'" in message
    assert f"Did you mean '{near}" in message


@pytest.mark.parametrize(
    ("wrong", "question"),
    [
        ("resnet", " Did you mean 'resnet18', 'resnet34' or 'resnet50'?"),
        ("resnet20", " Did you mean 'resnet50'?"),
        ("resnte", " Did you mean 'resnet18', 'resnet34' or 'resnet50'?"),
        ("vit", " Did you mean 'vit1', 'vit2' or 'vit3'?"),
        ("", ""),
        ("mobile", ""),
    ],
)
def test_names_that_begin_alike_are_suggested_in_their_order(wrong: str, question: str) -> None:
    names = ["resnet18", "resnet34", "resnet50", "timm", "vit1", "vit2", "vit3", "vit4"]
    assert did_you_mean(wrong, names) == question


def test_an_unknown_part_in_a_file_names_its_line(tmp_path: Path) -> None:
    assert file_error(tmp_path, "seed: 1\nobjective:\n  name: vicrg\n").startswith("run.yaml:3: unknown objective 'vicrg'")
    assert file_error(tmp_path, "seed: 1\nobjective: vicrg\n").startswith("run.yaml:2: unknown objective 'vicrg'")


@pytest.mark.parametrize("value", ["[vicreg]", "{a: b}", "3", "true", "null"])
def test_a_parts_name_that_is_no_text_is_refused(tmp_path: Path, value: str) -> None:
    message = file_error(tmp_path, f"objective:\n  name: {value}\n")
    assert message.startswith("run.yaml:2: ")
    assert "objective" in message


def test_a_part_given_as_a_list_is_refused(tmp_path: Path) -> None:
    assert file_error(tmp_path, "objective: [vicreg]\n").startswith("run.yaml:1: ")


@pytest.mark.parametrize("section", ["training", "budget", "objective"])
def test_a_section_without_content_says_nothing(tmp_path: Path, section: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"{section}:\n")
    assert resolve([file_layer(path)]) == resolve()


def test_several_errors_are_told_together(tmp_path: Path) -> None:
    message = file_error(
        tmp_path,
        "seed: -1\nobjective: vicrg\nbudget:\n  target: 7\n  contrl: penalty\ntraining:\n  epochs: 0\n"
        "optimizer:\n  name: lars\n  lr: 0\n",
    )
    head, *lines = message.splitlines()
    assert "6 errors" in head
    assert len(lines) == 6
    for line_number, words in [
        (1, "seed"),
        (2, "vicrg"),
        (4, "budget.target"),
        (5, "budget.contrl"),
        (7, "training.epochs"),
        (10, "optimizer.lr"),
    ]:
        assert any(f"run.yaml:{line_number}: " in line and words in line for line in lines), (line_number, words)


@pytest.mark.parametrize(
    ("section", "name", "words"),
    [
        ("training", "epochs", "int, at least 1"),
        ("training", "precision", "'no' or 'fp16' or 'bf16'"),
        ("training", "init", "Path | None"),
        ("training", "checkpoint_minutes", "float | None, above 0"),
        ("budget", "grid", "tuple[float, ...] | None"),
    ],
)
def test_what_is_allowed_is_told_in_words_of_the_user(section: str, name: str, words: str) -> None:
    assert allowed_values(RunConfig.model_fields[section].annotation.model_fields[name]) == words
