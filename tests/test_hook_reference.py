"""The reference page of the hooks is made from the code, and is current."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ssl_dc.cli import main
from ssl_dc.plugins import hookspecs
from ssl_dc.plugins.reference import hook_reference
from ssl_dc.plugins.registry import HOOK_OF_KIND

PAGE = Path(__file__).parent.parent / "docs" / "hooks.md"


def test_the_page_is_what_the_command_prints() -> None:
    assert PAGE.read_text() == hook_reference(), "make it anew: ssl-dc plugins hooks > docs/hooks.md"
    assert CliRunner().invoke(main, ["plugins", "hooks"]).stdout == hook_reference()


def test_every_hook_is_specified_and_described() -> None:
    specified = {name for name in vars(hookspecs) if name.startswith("ssl_dc_")}
    assert specified == set(HOOK_OF_KIND.values())


@pytest.mark.parametrize("hook", HOOK_OF_KIND.values())
def test_every_hook_says_what_its_targets_are_given(hook: str) -> None:
    text = " ".join(getattr(hookspecs, hook).__doc__.split())
    assert f"`{hook}() -> list[Part]`" in hook_reference()
    assert "Each target is a" in text
    assert "``" in text.partition("Each target")[2], "how it is called"


def test_the_page_has_no_markup_of_docstrings_left() -> None:
    assert ":class:" not in hook_reference()
    assert "``" not in hook_reference().replace("```", "")
