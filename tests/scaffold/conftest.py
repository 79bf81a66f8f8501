"""A package that was written is installed, as far as the registry can tell."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssl_dc.plugins.registry import registry


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The registry and the modules are as before, whatever was written and imported."""
    before = set(sys.modules)
    registry.cache_clear()
    yield
    registry.cache_clear()
    for module in set(sys.modules) - before:
        if module.startswith(("ssl_dc_", "test_new_", "test_spread")):
            del sys.modules[module]


@pytest.fixture
def install_package(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Installs the package of a folder, with a folder of metadata as pip writes it."""

    def install(package: Path) -> None:
        project = (package / "pyproject.toml").read_text()
        (distribution,) = re.findall(r'^name = "(.+)"$', project, re.MULTILINE)
        entry_points = re.findall(r'^\[project\.entry-points\.ssl_dc\]\n(\w+) = "(\w+)"$', project, re.MULTILINE)
        ((entry_point, module),) = entry_points
        info = package / f"{distribution.replace('-', '_')}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(f"[ssl_dc]\n{entry_point} = {module}\n")
        monkeypatch.syspath_prepend(str(package))
        registry.cache_clear()

    return install
