"""Finds the plugins to load: installed distributions and single files, as far as the environment asks for them."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ssl_dc.errors import PluginError

BUILT_IN = "ssl-dc"
"""The distribution of the built-in parts. No other part takes their names."""

GROUP = "ssl_dc"
"""The entry point group of plugins."""

NO_PLUGINS = "SSL_DC_NO_PLUGINS"
"""Environment variable. Unless it is empty or 0, only the built-in parts and those of single files are loaded."""
ONLY_PLUGINS = "SSL_DC_PLUGINS"
"""Environment variable: the distributions whose plugins are loaded, separated by commas. If unset, all of them are."""
PLUGIN_FILES = "SSL_DC_PLUGIN_FILES"
"""Environment variable: plugins of one file each, separated as the paths of ``PATH`` are."""


@dataclass(frozen=True)
class Plugin:
    """Something that offers parts.

    Attributes:
        name: Name of the entry point, or of the file without its ending.
        distribution: The installed distribution that it comes from, or the path of the single file.
        version: Version of the distribution; empty for a file.
        load: Imports the plugin and returns its namespace, whose functions implement the hooks.
    """

    name: str
    distribution: str
    version: str
    load: Callable[[], Any]


def chosen_plugins() -> list[Plugin]:
    """The plugins that the environment asks for: built-in ones, then others by distribution and name, then single files.

    Raises:
        PluginError: If the environment asks for a distribution that brings no plugin.
    """
    wanted = _wanted()
    plugins = installed_plugins()
    if wanted is not None:
        there = {_normalised(plugin.distribution) for plugin in plugins}
        missing = [name for name in wanted if _normalised(name) not in there]
        if missing:
            others = sorted({plugin.distribution for plugin in plugins} - {BUILT_IN})
            raise PluginError(
                f"{ONLY_PLUGINS} names {', '.join(missing)}, which brings no plugin; distributions that do: "
                f"{', '.join(others) or 'none'}"
            )
        kept = {BUILT_IN, *map(_normalised, wanted)}
        plugins = [plugin for plugin in plugins if _normalised(plugin.distribution) in kept]
    return [*plugins, *map(file_plugin, _files())]


def installed_plugins() -> list[Plugin]:
    """Every entry point of the group ``ssl_dc``, the built-in ones first, then by distribution and name."""
    try:
        found = [_entry_point_plugin(entry_point) for entry_point in metadata.entry_points(group=GROUP)]
    except Exception:  # one package's list of entry points cannot be read, so look at each package alone
        found = [plugin for distribution in metadata.distributions() for plugin in _plugins_of(distribution)]
    return sorted(found, key=lambda plugin: (plugin.distribution != BUILT_IN, plugin.distribution, plugin.name))


def _entry_point_plugin(entry_point: metadata.EntryPoint) -> Plugin:
    return Plugin(
        name=entry_point.name,
        distribution=entry_point.dist.name if entry_point.dist else "unknown",
        version=entry_point.dist.version if entry_point.dist else "unknown",
        load=entry_point.load,
    )


def _plugins_of(distribution: metadata.Distribution) -> list[Plugin]:
    """The plugins of one package. If its list of entry points cannot be read: one plugin whose loading says why."""
    try:
        return [_entry_point_plugin(entry_point) for entry_point in distribution.entry_points.select(group=GROUP)]
    except Exception as error:  # the file may hold anything
        reason = f"its entry_points.txt cannot be read: {type(error).__name__}: {error}"

        def refuse() -> Any:
            raise ImportError(reason)

        return [Plugin("entry_points.txt", distribution.metadata["Name"] or "unknown", distribution.version, refuse)]


def file_plugin(path: Path) -> Plugin:
    """A plugin of one file, without packaging."""

    def load() -> Any:
        module = sys.modules.get(path.stem)
        if module is not None and getattr(module, "__file__", None) == str(path):
            return module
        # with python -m, the working directory is searched, and the file itself may be found by its name
        found = None if module is not None else importlib.util.find_spec(path.stem)
        if module is not None or (found is not None and found.origin != str(path)):
            raise ImportError(f"there is another module named {path.stem!r}; give the file another name")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # the plugin's records import it by name
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise
        # processes that prepare images import it by name too
        sys.path.append(str(path.parent))
        return module

    return Plugin(path.stem, str(path), "", load)


def _wanted() -> list[str] | None:
    """The distributions that the environment asks for besides the built-in one; None means all."""
    if os.environ.get(NO_PLUGINS, "0") not in {"", "0"}:
        return []
    if ONLY_PLUGINS not in os.environ:
        return None
    return [name.strip() for name in os.environ[ONLY_PLUGINS].split(",") if name.strip()]


def _files() -> list[Path]:
    return [Path(name).absolute() for name in os.environ.get(PLUGIN_FILES, "").split(os.pathsep) if name]


def _normalised(distribution: str) -> str:
    """The name of a distribution in the form in which packaging tools compare names."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
