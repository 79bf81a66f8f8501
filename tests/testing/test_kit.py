"""The kit itself: its checks are whole and documented, it reports instead of raising, and pytest shows its sentences."""

from __future__ import annotations

import dataclasses
import inspect
import random
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_dc.plugins.discovery import PLUGIN_FILES
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.registry import registry
from ssl_dc.testing import Subject, any_part, checks, conformance, run_checks
from ssl_dc.testing.reference import conformance_reference

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.mark.parametrize("kind", KINDS)
def test_checks_are_named_and_say_their_promise_in_one_line(kind: str) -> None:
    of_kind = checks(kind)
    assert len({check.name for check in of_kind}) == len(of_kind)
    for check in of_kind:
        assert check.promise.endswith("."), check.name
        assert "\n" not in check.promise, check.name


@pytest.mark.parametrize("kind", KINDS)
def test_no_check_is_left_out_of_its_list(kind: str) -> None:
    module = import_module(f"ssl_dc.testing.{kind}")
    written = {
        function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and list(inspect.signature(function).parameters) == ["subject"]
    }
    assert written == {check for check in module.CHECKS if check.__module__ == module.__name__}
    assert module.CHECKS


def test_no_check_of_any_part_is_left_out() -> None:
    written = {
        function
        for name, function in inspect.getmembers(any_part, inspect.isfunction)
        if function.__module__ == any_part.__name__
        and not name.startswith("_")
        and list(inspect.signature(function).parameters) == ["subject"]
    }
    assert written == {*any_part.RECORD, *any_part.RECORD_AND_OPTIONS, *any_part.CONFIG}


def test_the_page_is_made_from_the_checks() -> None:
    assert PAGE.read_text() == conformance_reference(), (
        "write it anew: python -m ssl_dc.testing.reference > docs/conformance.md"
    )


def test_another_kind_is_an_error_that_lists_the_kinds() -> None:
    with pytest.raises(ValueError, match=r"no kind of part 'loss'; there are: objective, .*watcher"):
        checks("loss")


def test_outcomes_are_in_the_order_of_the_checks_with_their_promises() -> None:
    outcomes = run_checks(registry().find("optimizer", "lars"))
    of_kind = checks("optimizer")
    assert [outcome.name for outcome in outcomes] == [check.name for check in of_kind]
    assert [outcome.promise for outcome in outcomes] == [check.promise for check in of_kind]
    assert {(outcome.state, outcome.message) for outcome in outcomes} == {("passed", "")}


def test_a_part_that_cannot_be_imported_is_failed_checks() -> None:
    good = registry().find("views", "standard")
    broken = dataclasses.replace(good, part=dataclasses.replace(good.part, target="ssl_dc.views.standard:Nothing"))
    failed = [outcome for outcome in run_checks(broken) if outcome.state == "failed"]
    assert {outcome.name for outcome in failed} >= {"is_a_views_recipe", "views_are_normalised"}
    assert all("PluginError" in outcome.message and "Nothing" in outcome.message for outcome in failed)


def test_options_that_need_settings_are_asked_for() -> None:
    outcomes = {outcome.name: outcome for outcome in run_checks(registry().find("protocol", "transfer"))}
    outcome = outcomes["it_reports_as_json_and_as_tables"]
    assert (outcome.state, outcome.message) == ("does not apply", "it needs settings of to")
    assert {outcome.state for outcome in outcomes.values()} == {"passed", "does not apply"}


def test_the_callers_random_states_are_left_alone() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    subject = Subject(registry().find("views", "standard"))
    (check,) = [check for check in checks("views") if check.name == "views_depend_on_torchs_seed_alone"]
    check.run(subject)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


PLUGIN = """
import ssl_dc
from ssl_dc.plugins.options import OptimizerOptions

class ClimbingOptions(OptimizerOptions):
    name: str = "climbing"
    lr: float = 0.1

def build(options, groups, lr):
    from torch.optim import SGD
    if options.lr_scaling == "linear":
        raise ZeroDivisionError("of its own")
    return SGD([p for group in groups for p in group.parameters], lr=lr, maximize=True)

@ssl_dc.hookimpl
def ssl_dc_optimizers():
    return [ssl_dc.Part(name="climbing", target="climb:build", options="climb:ClimbingOptions", summary="Climbs.")]
"""
AUTHORS_TESTS = """
from ssl_dc.testing import conformance

test_lars = conformance("optimizer", "lars")
test_climbing = conformance("optimizer", "climbing")
test_crashing = conformance("optimizer", "climbing", settings={"lr_scaling": "linear"})
test_no_gating = conformance("gating", "none")
"""


@pytest.fixture
def one_file_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin ``climb.py`` is asked for, as by ``--plugin``."""
    file = tmp_path / "climb.py"
    file.write_text(PLUGIN)
    monkeypatch.setenv(PLUGIN_FILES, str(file))
    monkeypatch.setattr(sys, "path", [*sys.path])
    registry.cache_clear()
    yield
    sys.modules.pop("climb", None)
    registry.cache_clear()


@pytest.mark.long
@pytest.mark.usefixtures("one_file_plugin")
def test_pytest_shows_a_case_a_check_and_one_sentence_for_each_that_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_parts=AUTHORS_TESTS)
    done = pytester.runpytest_inprocess("-v", "-rs", "-p", "no:cacheprovider")
    shown = done.stdout.str()
    outcomes = done.parseoutcomes()
    assert done.ret == 1, shown
    assert sum(outcomes[state] for state in ("passed", "failed", "skipped")) == 3 * len(checks("optimizer")) + len(
        checks("gating")
    )
    assert "test_lars[state_is_saved_whole] PASSED" in shown
    assert "test_climbing[steps_lower_the_loss] FAILED" in shown
    assert "Each of the first steps along the gradient of a sum of squares" in shown
    assert "expected step 1 to lower the square of the kernel" in shown
    assert "test_climbing[every_option_is_described] FAILED" in shown
    assert "saw none for lr" in shown
    assert "test_crashing[state_is_saved_whole] FAILED" in shown
    assert "climb.py:12: ZeroDivisionError" in shown, "the author's own error comes with its place"
    assert "does not apply: it gates nothing" in shown
    assert "raise ConformanceError" not in shown, "the kit's own code is not shown for a broken promise"


def test_only_the_function_that_makes_tests_imports_pytest() -> None:
    folder = Path(inspect.getfile(any_part)).parent
    importing = {
        (path.name, line.strip())
        for path in folder.glob("*.py")
        for line in path.read_text().splitlines()
        if re.match(r"\s*(import|from) _?pytest", line)
    }
    assert importing == {("kit.py", "import pytest  # not needed to run checks otherwise")}
    assert "import pytest" in inspect.getsource(conformance)
