"""What tests of all rooms share."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

# The networks of the tests are so small that a second thread only waits; on a busy machine it costs tenfold. Set before
# torch is imported, and inherited by every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"

# To compile UMAP takes longer than to lay out the few points of the tests without. Set before numba is imported.
os.environ["NUMBA_DISABLE_JIT"] = "1"

# The width of whatever terminal the suite was started in must not decide where tables break.
os.environ.pop("COLUMNS", None)

# A shell script starts its background jobs deaf to Ctrl-C, and so the suite, if it is one; its tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import pytest

import helpers.forked  # noqa: F401  # its server also serves the two processes of ssl_dc.testing
import ssl_dc
from helpers.settings import SHORT, TINY
from ssl_dc.bench import timing
from ssl_dc.plugins.discovery import BUILT_IN, Plugin, installed_plugins

REPOSITORY = Path(__file__).parent.parent

# What Python compiles is kept. Otherwise each process of the suite compiles all tests, and each that a test starts too.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# between turns of a benchmark the suite need not rest: none of its tests depends on a time that was measured
timing.PAUSE = 0.0

# no example may take too long: on a busy machine any may
hypothesis.settings.register_profile("any speed", deadline=None)
hypothesis.settings.load_profile("any speed")


def is_whole_suite(config: pytest.Config) -> bool:
    """Whether no file or folder was named."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


def pytest_configure(config: pytest.Config) -> None:
    """Leave long tests out of the whole suite, unless -m asks for others. A file or a test that is named runs whole."""
    usual = config.getini("addopts")
    if is_whole_suite(config) and config.option.markexpr == usual[usual.index("-m") + 1]:
        config.option.markexpr += " and not long"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes run the tests: for the whole suite one more than processors, none besides this one for a part.

    One more, because tests wait for the disk and for processes that they start. Each takes seconds to start, and 2 GiB.
    """
    return min((os.cpu_count() or 1) + 1, 8) if is_whole_suite(config) else 0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without a search for garbage, and keep modules and tests out of every later one: each took half a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@cache
def first_backward() -> None:
    """Start torch's autograd before anything is compiled: else it starts threads, and refuses to work in forked tests."""
    import torch

    torch.ones(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a CUDA device where there is none."""
    import torch  # not at the top: with pytest-xdist the process that hands out the tests has no need of it

    first_backward()
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; torch finds none here")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images (SSL_DC_TEST_DATA, or ../shared/data beside the repository), or a skip."""
    folder = Path(os.environ.get("SSL_DC_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real images are not at {folder}; set SSL_DC_TEST_DATA to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> ssl_dc.Run:
    """A run of two steps, for all tests; those that change its folder take a copy."""
    return ssl_dc.train(SHORT, output=tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session")
def run_of_eight_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs of four steps, for all tests; those that change it take a copy."""
    return ssl_dc.train(TINY, output=tmp_path_factory.mktemp("eight") / "run").folder


@pytest.fixture(scope="session")
def dense_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without gates, for all tests: it has the files of any other, and goes on in half the time."""
    settings = {**SHORT, "gating.name": "none", "routes": ["dense", "dense"]}
    return ssl_dc.train(settings, output=tmp_path_factory.mktemp("dense") / "run").folder


@pytest.fixture
def copied_run(finished_run: ssl_dc.Run, tmp_path: Path) -> Path:
    """A copy of the folder of :func:`finished_run`, to be changed."""
    return Path(shutil.copytree(finished_run.folder, tmp_path / "copied"))


@pytest.fixture
def timed_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A static network is timed for a moment only: what is looked at is not its speed."""
    monkeypatch.setattr("ssl_dc.bench.static_comparison.SECONDS", 0.1)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Plugin]]]:
    """Installs fake distributions (name to {entry point: source of its module}); gives their plugins and the built-in ones.

    Not those that are really installed where the tests run.
    """
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # tests look whether a call writes anything here

    def put(distributions: Mapping[str, Mapping[str, str]]) -> list[Plugin]:
        for distribution, modules in distributions.items():
            info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
            lines = []
            for entry_point, source in modules.items():
                module = f"fake_{distribution}_{entry_point}".replace("-", "_")
                (site / f"{module}.py").write_text(source)
                lines.append(f"{entry_point} = {module}\n")
            (info / "entry_points.txt").write_text("[ssl_dc]\n" + "".join(lines))
        return [plugin for plugin in installed_plugins() if plugin.distribution in {BUILT_IN, *distributions}]

    yield put
    for module in [name for name in sys.modules if name.startswith("fake_")]:
        del sys.modules[module]
