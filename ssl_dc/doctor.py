"""What this machine offers to ssl-dc: versions, devices, compiler, plugins, and what will be slow and why."""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from ssl_dc.compiled.backends import AUTO, choose
from ssl_dc.devices import available_devices
from ssl_dc.errors import RunError, SlowerWarning
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.plugins.registry import registry

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # it is only looked at
LEAST_SHARED_MEMORY = 256 * 2**20
"""Bytes that processes need to hand images to the training, at least."""


@dataclass(frozen=True)
class Diagnosis(Report):
    """What there is on this machine.

    Attributes:
        versions: The packages that ssl-dc needs, by name.
        optional: For each extra the packages that it brings: the version, or None if it is not installed.
        machine: The processor, its cores and threads, the memory.
        devices: The devices, the best one first, with a description.
        backend: The fastest backend of the compiled networks; None if there is none.
        passed_over: Each faster backend that cannot be used, and why.
        plugins: The distributions that bring parts, with their versions and the number of their parts.
        left_out: What was left out of each broken plugin, and why.
        slow: What will be slow, or will not work, and what to do about it: a sentence or two each.
    """

    versions: Mapping[str, str]
    optional: Mapping[str, Mapping[str, str | None]]
    machine: Mapping[str, str]
    devices: Mapping[str, str]
    backend: str | None
    passed_over: Mapping[str, str]
    plugins: Mapping[str, str]
    left_out: Mapping[str, str]
    slow: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return dict(vars(self))

    def tables(self) -> Sequence[ReportTable]:
        """A table of each kind of thing, and the findings below the last one."""
        compiled = [(self.backend or "none", "is used"), *self.passed_over.items()]
        plugins = [*self.plugins.items(), *((name, f"LEFT OUT: {reason}") for name, reason in self.left_out.items())]
        findings = "\n".join(f"- {sentence}" for sentence in self.slow) or "Nothing here will be slower than it must be."
        return [
            ReportTable("packages", ("package", "version"), list(self.versions.items())),
            ReportTable("optional packages", ("extra", "packages"), list(self._extras())),
            ReportTable("machine", ("what", "is"), list(self.machine.items())),
            ReportTable("devices", ("device", "is"), list(self.devices.items())),
            ReportTable("compiled networks", ("backend", "state"), compiled),
            ReportTable("plugins", ("distribution", "brings"), plugins, note=f"What will be slow, and why:\n{findings}"),
        ]

    def _extras(self) -> Iterator[tuple[str, str]]:
        for extra, packages in self.optional.items():
            missing = any(version is None for version in packages.values())
            listed = ", ".join(f"{name} {version or 'is not installed'}" for name, version in packages.items())
            yield extra, f"{listed}: pip install 'ssl-dc[{extra}]'" if missing else listed


def diagnose() -> Diagnosis:
    """Look at this machine. The kernel of the compiled networks is compiled if that was not done before."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SlowerWarning)
        try:
            backend, passed_over = choose(AUTO)
            name: str | None = backend.name
        except RunError as error:
            name, passed_over = None, {"all": str(error)}
    versions, optional = _packages()
    parts = registry()
    brought: dict[str, list[str]] = {}
    for part in parts.all():
        brought.setdefault(f"{part.distribution} {part.version}".strip(), []).append(part.part.name)
    diagnosis = Diagnosis(
        versions={"python": platform.python_version(), **versions},
        optional=optional,
        machine=_machine(),
        devices={device: _described(device) for device in available_devices()},
        backend=name,
        passed_over=passed_over,
        plugins={distribution: f"{len(names)} parts" for distribution, names in brought.items()},
        left_out={f"{broken.plugin} of {broken.distribution}": broken.reason for broken in parts.broken},
    )
    slower = [str(warning.message) for warning in caught if issubclass(warning.category, SlowerWarning)]
    return replace(diagnosis, slow=[*slower, *_slow(diagnosis)])


def _packages() -> tuple[dict[str, str], dict[str, dict[str, str | None]]]:
    """The packages that are needed, and for each extra but that of the tests those that it brings."""
    needed, extras = {"ssl-dc": metadata.version("ssl-dc")}, dict[str, dict[str, str | None]]()
    for text in metadata.requires("ssl-dc") or ():
        requirement = Requirement(text)
        if requirement.name == "ssl-dc":
            continue
        marker = str(requirement.marker or "")
        if "extra" not in marker:
            needed[requirement.name] = _version(requirement.name) or "is not installed"
            continue
        extra = marker.rpartition("extra == ")[2].strip("\"' )")
        if extra != "test":
            extras.setdefault(extra, {})[requirement.name] = _version(requirement.name)
    return needed, dict(sorted(extras.items()))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores for this process": str(cores),
        "threads of torch": str(torch.get_num_threads()),
        "memory": f"{memory / 2**30:.1f} GiB" if memory else "unknown",
        "C compiler": compiler or "none",
    }


def _described(device: str) -> str:
    if not device.startswith("cuda"):
        return "this machine's processor" if device == "cpu" else "Apple's GPU"
    properties = torch.cuda.get_device_properties(torch.device(device))
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def _slow(found: Diagnosis) -> Iterator[str]:
    """What will be slow, or will not work."""
    cores, threads = (int(found.machine[key]) for key in ("cores for this process", "threads of torch"))
    if next(iter(found.devices)) == "cpu":
        built = "" if torch.version.cuda or torch.version.hip else " This torch is built for CPUs only."
        yield (
            f"No GPU is found, so trainings run on {cores} CPU cores.{built} ssl-dc train --dry-run tells how long one"
            " takes."
        )
    for backend, reason in found.passed_over.items():
        yield f"The backend {backend!r} of compiled networks cannot be used, and the next one is slower: {reason}"
    if threads < cores:
        said = " OMP_NUM_THREADS is set." if "OMP_NUM_THREADS" in os.environ else ""
        yield f"torch uses {threads} of {cores} cores.{said}"
    if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free < LEAST_SHARED_MEMORY:
        yield (
            f"{SHARED_MEMORY} has less than {LEAST_SHARED_MEMORY // 2**20} MiB free. Processes that prepare images hand"
            " them over there: start the container with --shm-size=1g, or train with --workers 0."
        )
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 1.5 * cores:
        yield f"This machine is busy: {os.getloadavg()[0]:.1f} processes want its {cores} cores. Do not measure times now."
    for plugin in found.left_out:
        yield f"The plugin {plugin} is broken, and its parts are left out."
