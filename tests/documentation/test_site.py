"""The site: what is made of the pages, and that Sphinx builds it without a warning."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from helpers.shown_code import REPOSITORY
from ssl_dc import __all__ as public_names
from ssl_dc.config import RunConfig
from ssl_dc.plugins.registry import registry

DOCS = REPOSITORY / "docs"


@pytest.fixture(scope="module")
def site_pages() -> ModuleType:
    specification = importlib.util.spec_from_file_location("site_pages", DOCS / "site_pages.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("link", "on_the_site"),
    [
        ("budget.md", "budget.md"),
        ("data.md#folders", "data.md#folders"),
        ("#here", "#here"),
        ("report/map.png", "report/map.png"),
        ("https://arxiv.org/abs/2301.09164", "https://arxiv.org/abs/2301.09164"),
        ("../SECURITY.md", "HOME/blob/main/SECURITY.md"),
        ("../plugins", "HOME/tree/main/plugins"),
        ("results/gpu/", "HOME/tree/main/docs/results/gpu"),
        ("results/cifar10-small/config.json", "HOME/blob/main/docs/results/cifar10-small/config.json"),
    ],
)
def test_links_to_what_the_site_has_not_lead_to_the_repository(site_pages: ModuleType, link: str, on_the_site: str) -> None:
    text = site_pages.with_links_into_the_repository(DOCS / "page.md", f"see [it]({link}).")
    assert text == f"see [it]({on_the_site.replace('HOME', site_pages.home())})."


def test_every_setting_is_in_the_reference(site_pages: ModuleType) -> None:
    text = site_pages.settings_reference()
    for section in ("budget", "training"):
        for name in RunConfig.model_fields[section].annotation.model_fields:
            assert f"- **`{section}.{name}`**, " in text
    for name in registry().find("gating", "dgnet").options_model().model_fields:
        assert f"- **`gating.{name}`**, " in text or name == "name"
    assert "### protocol `linear`" in text
    assert "- **`seed`**, by default `0`. " in text


def test_every_command_is_in_the_reference(site_pages: ModuleType) -> None:
    text = site_pages.command_reference()
    for name in registry().names("command"):
        assert f"## `ssl-dc {name}`" in text
    assert "### `ssl-dc plugins check`" in text


def test_every_public_name_is_in_a_reference(site_pages: ModuleType) -> None:
    text = site_pages.api_reference()
    documented = set(re.findall(r"^\.\. auto\w+:: ssl_dc\.(?:\w+\.)*(\w+)$", text, re.MULTILINE))
    assert {name for name in set(public_names) - documented if not name.endswith(("Options", "Config"))} == set()


def test_every_page_is_in_the_contents() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert {page for page in pages if not re.search(rf"^{re.escape(page)}$", index, re.MULTILINE)} == set()


@pytest.mark.slow
def test_sphinx_builds_it_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path / "site")]
    built = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "ten-minute tutorial" in home
