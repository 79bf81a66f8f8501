"""``ssl-dc plugins``."""

from __future__ import annotations

from helpers.command_line import message, parsed


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
