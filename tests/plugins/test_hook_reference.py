"""The reference page of the hooks is made from the code, and is current."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import done
from ssl_dc.plugins.hookspecs import hook_documentation, hook_specifications
from ssl_dc.plugins.kinds import KINDS, Kind
from ssl_dc.plugins.reference import hook_reference

PAGE = Path(__file__).parents[2] / "docs" / "hooks.md"


def test_the_page_is_what_the_command_prints() -> None:
    assert PAGE.read_text() == hook_reference(), "make it anew: ssl-dc plugins hooks > docs/hooks.md"
    assert done("plugins", "hooks") == hook_reference()


def test_every_kind_has_a_hook_of_its_own() -> None:
    hooks = [kind.hook for kind in KINDS.values()]
    assert len(set(hooks)) == len(hooks)
    assert {name for name in vars(hook_specifications()) if name.startswith("ssl_dc_")} == set(hooks)


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_every_hook_says_what_its_targets_are_and_what_they_are_called_with(kind: Kind) -> None:
    text = " ".join(hook_documentation(kind).split())
    assert f"`{kind.hook}() -> list[Part]`" in hook_reference()
    assert "Each target is a" in text
    assert "``" in text.partition("Each target")[2], "how it is called"
    assert f":class:`{kind.base.replace(':', '.')}`" in text or f"ssl_dc.{kind.base.partition(':')[2]}`" in text


def test_the_page_has_no_markup_of_docstrings_left() -> None:
    assert ":class:" not in hook_reference()
    assert "``" not in hook_reference().replace("```", "")
