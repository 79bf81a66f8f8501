"""The kernel is kept where only its user can write, and what is loaded is what was checked."""

from __future__ import annotations

import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest

from ssl_dc.compiled.executor import Executor, compiled
from ssl_dc.compiled.kernel import kernel
from ssl_dc.errors import RunError, SlowerWarning
from ssl_dc.gating.base import no_gates
from ssl_dc.native import library as native_library
from ssl_dc.native import library_cache
from ssl_dc.routes import Route
from tests.compiled.test_executor import OwnBackbone

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("cc"), reason="this machine has no C compiler, hence no kernel"
)
ROOT = sys.platform != "win32" and os.geteuid() == 0
really_compile = native_library._compile


@cache
def compiled_once() -> bytes:
    """The library, compiled for all tests of this file once: that takes seconds."""
    return really_compile("cc", native_library.source_of("ssl_dc.compiled"))


@pytest.fixture
def compilations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An empty cache, and the compilations from then on."""
    counted: list[str] = []

    def compile_or_copy(compiler: str, source: bytes, flags: tuple[str, ...]) -> bytes:
        counted.append(compiler)
        return compiled_once()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(native_library.NO_KERNEL, raising=False)
    monkeypatch.setattr(native_library, "_compile", compile_or_copy)
    native_library._library.cache_clear()
    yield counted
    native_library._library.cache_clear()


def in_a_new_process() -> int:
    """Ask for the kernel as a new process would; some number of the kernel, which shows that it runs."""
    native_library._library.cache_clear()
    return kernel().vector


def kept(tmp_path: Path) -> Path:
    """The one file of the cache."""
    (file,) = (tmp_path / "cache" / "ssl-dc").iterdir()
    return file


@pytest.mark.long
def test_it_is_compiled_once_and_kept_for_its_user_alone(compilations: list[str], tmp_path: Path) -> None:
    assert in_a_new_process() == in_a_new_process() >= 4
    assert len(compilations) == 1
    assert kept(tmp_path).stat().st_mode & 0o777 == 0o600
    assert kept(tmp_path).parent.stat().st_mode & 0o777 == 0o700


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20_000])


def changed_in_one_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[9_000] ^= 1
    file.write_bytes(content)


def a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_link(file: Path) -> None:
    elsewhere = file.with_name("elsewhere")
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def a_link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def writable_by_others(file: Path) -> None:
    file.chmod(0o666)


def of_another_name(file: Path) -> None:
    other = file.with_name("kernel-0123456789abcdef.so")
    file.rename(other)
    content = other.read_bytes()
    file.write_bytes(content[: -library_cache.DIGEST_BYTES] + library_cache._digest(other.name, compiled_once()))


DAMAGE = [truncated, changed_in_one_bit, a_fifo, a_link, a_link_to_itself, writable_by_others, of_another_name]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_is_not_as_it_was_kept_is_compiled_again(
    damage: Callable[[Path], None], compilations: list[str], tmp_path: Path
) -> None:
    in_a_new_process()
    file = kept(tmp_path)
    whole = file.read_bytes()
    damage(file)
    assert in_a_new_process() >= 4
    assert len(compilations) == 2
    assert file.is_file()
    assert not file.is_symlink()
    assert file.read_bytes() == whole
    in_a_new_process()
    assert len(compilations) == 2


def test_a_folder_in_its_place_is_left_there(compilations: list[str], tmp_path: Path) -> None:
    in_a_new_process()
    file = kept(tmp_path)
    file.unlink()
    file.mkdir()
    for number in (2, 3):
        with pytest.warns(SlowerWarning, match=f"{file.name} cannot be written: Is a directory"):
            assert in_a_new_process() >= 4
        assert len(compilations) == number
    assert list(file.parent.iterdir()) == [file]  # no part of a file is left


def a_folder_that_others_can_write_to(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def a_link_to_a_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(parents=True)
    folder.symlink_to(folder.parent / "elsewhere")


def a_file_in_its_place(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("no folder")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (a_folder_that_others_can_write_to, "others can write there"),
        (a_link_to_a_folder, "cannot be opened as a folder"),
        (a_file_in_its_place, "cannot be opened as a folder"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_nothing_is_kept_in_a_folder_that_is_not_private(
    make: Callable[[Path], None], reason: str, compilations: list[str], tmp_path: Path
) -> None:
    make(tmp_path / "cache" / "ssl-dc")
    with pytest.warns(SlowerWarning, match=reason):
        assert in_a_new_process() >= 4
    assert len(compilations) == 1
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith((".kernel", "kernel"))]


def test_without_a_home_folder_it_is_not_kept(compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.warns(SlowerWarning, match="no home folder, and XDG_CACHE_HOME is not set"):
        assert in_a_new_process() >= 4


def test_on_a_full_disk_it_is_not_kept(compilations: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(library_cache.os, "rename", full)
    with pytest.warns(SlowerWarning, match="cannot be written: No space left on device"):
        assert in_a_new_process() >= 4
    assert list((tmp_path / "cache" / "ssl-dc").iterdir()) == []


def test_without_memory_files_it_is_loaded_from_a_temporary_file(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert in_a_new_process() >= 4


def test_a_library_that_cannot_be_loaded_leaves_torch_with_the_reason(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_library, "_compile", lambda *_: b"no library")
    executor = compiled(OwnBackbone(no_gates).eval(), Route.DENSE)
    assert executor.backend == "torch"
    assert "the compiled kernel cannot be loaded" in executor.why_torch


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-compiler", "cannot be compiled by 'no-such-compiler'"),
        ("false", "the C compiler 'false' refused the kernel: no message"),
        ("'", "No closing quotation"),
    ],
)
def test_a_compiler_that_fails_leaves_torch_with_the_reason(
    compiler: str, reason: str, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_library, "_compile", really_compile)
    monkeypatch.setenv("CC", compiler)
    executor = compiled(OwnBackbone(no_gates).eval(), Route.DENSE)
    assert executor.backend == "torch"
    assert reason in executor.why_torch


def test_without_a_temporary_folder_torch_runs_with_the_reason(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(native_library, "_compile", really_compile)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not-there"))
    executor = compiled(OwnBackbone(no_gates).eval(), Route.DENSE)
    assert executor.backend == "torch"
    assert "No such file or directory" in executor.why_torch


GRAVITON2 = """processor : 0
BogoMIPS : 243.75
Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimddp ssbs
CPU implementer : 0x41
CPU architecture : 8
CPU variant : 0x3
CPU part : 0xd0c
"""
GRAVITON3 = GRAVITON2.replace("asimddp", "asimddp sve bf16 i8mm").replace("0xd0c", "0xd40")
SKYLAKE = "processor : 0\nmodel name : Xeon\nflags : fpu avx avx2 fma avx512f\ncpu MHz : 2000.1\n"
HASWELL = "processor : 0\nmodel name : Xeon\nflags : fpu avx avx2 fma\ncpu MHz : 1500.3\n"


@pytest.mark.parametrize(("one", "other"), [(GRAVITON2, GRAVITON3), (SKYLAKE, HASWELL)], ids=["ARM", "x86"])
def test_processors_of_one_home_folder_have_kernels_of_their_own(
    one: str, other: str, compilations: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def on(text: str) -> None:
        monkeypatch.setattr(
            Path, "read_text", lambda path, **k: text if path == Path("/proc/cpuinfo") else read_text(path, **k)
        )
        in_a_new_process()

    on(one)
    on(other)
    assert len(compilations) == 2
    on(one.replace("processor : 0", "processor : 1").replace("2000.1", "2100.7"))  # the same processor, another core
    assert len(compilations) == 2
    assert len(list((tmp_path / "cache" / "ssl-dc").iterdir())) == 2


FOR_ANOTHER_PROCESSOR = """
int ssl_dc_runs_here(void) { return 0; }
int ssl_dc_vector(void) { __builtin_trap(); }
"""


def test_a_kept_kernel_that_does_not_run_on_this_processor_is_compiled_again(
    compilations: list[str], tmp_path: Path
) -> None:
    in_a_new_process()
    file = kept(tmp_path)
    whole = file.read_bytes()
    with library_cache.cache_folder() as folder:
        library_cache.keep_library(folder, file.name, really_compile("cc", FOR_ANOTHER_PROCESSOR.encode()))
    assert in_a_new_process() >= 4
    assert len(compilations) == 2
    assert file.read_bytes() == whole


def test_a_compiler_for_another_processor_leaves_torch_with_the_reason(
    compilations: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = really_compile("cc", FOR_ANOTHER_PROCESSOR.encode())
    monkeypatch.setattr(native_library, "_compile", lambda *_: library)
    executor = compiled(OwnBackbone(no_gates).eval(), Route.DENSE)
    assert executor.backend == "torch"
    assert "gave the kernel instructions that this processor does not have" in executor.why_torch
    assert list((tmp_path / "cache" / "ssl-dc").iterdir()) == []


LESS = ("qemu-x86_64", "-cpu", "Nehalem")
"""An x86 processor without AVX. The emulator shows programs the /proc/cpuinfo of the machine that it runs on."""


@pytest.mark.slow
@pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which(LESS[0]) or not shutil.which("gcc"),
    reason="this needs an x86-64 processor, GCC, and the emulator qemu-x86_64 (Debian's package qemu-user)",
)
def test_on_a_processor_without_its_instructions_a_kept_kernel_is_compiled_again(tmp_path: Path) -> None:
    """Two processors that their system describes alike, so that the kept kernel has the same name for both."""
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\nexec $HERE {shutil.which("gcc")} "$@"\n')
    compiler.chmod(0o755)
    library = "from ssl_dc.native.library import kernel_library; kernel = kernel_library('ssl_dc.compiled')"

    def run(processor: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
        environment = {"CC": str(compiler), "HERE": " ".join(processor), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        call = [*processor, sys.executable, "-c", code]
        return subprocess.run(call, env=os.environ | environment, capture_output=True, text=True, check=False)

    def vector(processor: tuple[str, ...]) -> int:
        done = run(processor, f"{library}; print(kernel.ssl_dc_vector())")
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    if vector(()) == 4:
        pytest.skip("this processor has no more than the emulated one")
    before = kept(tmp_path).read_bytes()
    (tmp_path / "kernel.so").write_bytes(before)
    asked = f"import ctypes; print(ctypes.CDLL({str(tmp_path / 'kernel.so')!r}).ssl_dc_runs_here())"
    assert [run(processor, asked).stdout for processor in ((), LESS)] == ["1\n", "0\n"]
    assert vector(LESS) == 4
    assert kept(tmp_path).read_bytes() != before
    assert vector(LESS) == 4


def test_where_the_system_does_not_describe_the_processor_the_compiler_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor : 0\n")
    here = native_library._processor("cc")
    assert "#define __" in here
    flags = tuple(flag for flag in native_library.FLAGS if not flag.startswith("-march"))
    monkeypatch.setattr(native_library, "FLAGS", flags)
    assert native_library._processor("cc -DANOTHER_PROCESSOR") != here


EVIL = """
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) { if (write(1, "EVIL\\n", 5) < 0) _exit(3); }
"""


def name_of_the_kernel() -> str:
    source = native_library.source_of("ssl_dc.compiled")
    return f"kernel-{native_library._fingerprint(source, 'cc')}.so"


def attack(shared: Path, evil: bytes, rounds: int, pause: float = 0.0) -> None:
    """Put evil code where the kernel of another user would be, behind a link and in a folder in turn."""
    time.sleep(pause)
    target, lair = shared / "ssl-dc", shared / "lair"
    lair.mkdir(mode=0o755)
    descriptor = os.open(lair, os.O_RDONLY)
    library_cache.keep_library(descriptor, name_of_the_kernel(), evil)  # as good as a real one but for its owner
    (lair / name_of_the_kernel()).chmod(0o644)
    for number in range(rounds):
        with suppress(OSError):  # while the other user's own folder is there, nothing can be put in its place
            if number % 2:
                target.symlink_to(lair)
                target.unlink()
            else:
                lair.rename(target)
                target.rename(lair)
    with suppress(OSError):
        shutil.copytree(lair, target)


def want_the_kernel(times: int) -> None:
    """Ask for the kernel as new processes would."""
    for _ in range(times):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SlowerWarning)
            assert in_a_new_process() >= 4
    os.write(1, b"sound\n")


class OtherUser:
    """A process of another user that does something; what it writes to standard output is kept."""

    def __init__(self, user: int, do: Callable[..., None], *arguments: object) -> None:
        reader, writer = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            status = 1
            try:
                os.dup2(writer, 1)
                os.close(reader)
                os.close(writer)
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
                do(*arguments)
                status = 0
            except BaseException:
                os.write(1, traceback.format_exc().encode())
            finally:
                os._exit(status)
        os.close(writer)
        self._reader = reader

    def output(self) -> str:
        with open(self._reader) as file:
            text = file.read()
        os.waitpid(self._process, 0)
        return text


@pytest.fixture
def evil(compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, bytes]]:
    """A folder that all users may enter, and a library that says so when it is loaded."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "evil.c").write_text(EVIL)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "evil.so", folder / "evil.c"], check=True)
    monkeypatch.setenv("CC", "cc")
    # Root's Python may be closed to the two users, so root imports beforehand and copies what they need of it.
    in_a_new_process()
    for room in ("ssl_dc.compiled", "ssl_dc.native"):
        for file in Path(str(files(room))).glob("*.[ch]"):
            shutil.copyfile(file, folder / file.name)
    monkeypatch.setattr(native_library, "files", lambda _: folder)
    yield folder, (folder / "evil.so").read_bytes()
    shutil.rmtree(folder)


def race_for_the_cache(
    folder: Path, evil: bytes, rounds: int, times: int, monkeypatch: pytest.MonkeyPatch, draw: random.Random
) -> str:
    """One user wants the kernel while another attacks the place where it is kept; who made the folder there first."""
    shared = Path(tempfile.mkdtemp(dir=folder))
    shared.chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    hostile = OtherUser(23_001, attack, shared, evil, rounds, draw.uniform(0, 0.04))
    victim = OtherUser(23_002, want_the_kernel, times)
    assert victim.output() == "sound\n"
    assert hostile.output() == ""
    assert OtherUser(23_002, want_the_kernel, 2).output() == "sound\n"
    return "the one who wants it" if (shared / "ssl-dc").stat().st_uid == 23_002 else "the other"


@pytest.mark.long
@pytest.mark.skipif(not ROOT, reason="only root can be two users")
def test_no_user_has_the_code_of_another_loaded(evil: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, library = evil
    draw = random.Random(0)
    for _ in range(8):  # each begins anew: whoever makes the folder first keeps it
        race_for_the_cache(folder, library, 400, 20, monkeypatch, draw)
    (folder / "own").mkdir(mode=0o777)
    (folder / "own").chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "own"))
    assert OtherUser(23_001, attack, folder / "own", library, 0).output() == ""
    assert OtherUser(23_001, want_the_kernel, 1).output().startswith("EVIL")  # loaded code does show


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not ROOT, reason="only root can be two users")
def test_hundreds_of_races_for_the_cache(
    evil: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(1)
    races = [race_for_the_cache(*evil, 100, 4, monkeypatch, draw) for _ in range(334)]
    assert len(set(races)) == 2, "each should be first at times"
    with capsys.disabled():
        print(f"\n{len(races)} races; the folder was made by {dict(Counter(races))}")


def test_an_unknown_backend_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="there is no backend 'gpu'; choose one of auto, native, torch"):
        compiled(OwnBackbone(no_gates).eval(), Route.DENSE, backend="gpu")


def test_a_backend_is_a_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_dc.compiled import backends
    from ssl_dc.compiled.torch_backend import TorchBackend

    class Other(TorchBackend):
        name = "other"

    class Absent(TorchBackend):
        name = "absent"

        def unavailable(self) -> str:
            return "this machine has no such processor"

    table = {backend.name: backend for backend in (Absent(), Other(), *backends.BACKENDS.values())}
    monkeypatch.setattr(backends, "BACKENDS", table)

    def built(backend: str) -> Executor:
        return compiled(OwnBackbone(no_gates).eval(), Route.DENSE, backend=backend)

    assert built("auto").backend == "other"
    assert built("auto").why_torch == "this machine has no such processor"
    assert built("torch").why_torch == "torch was asked for; torch was asked for; torch was asked for"
    with pytest.raises(RunError, match="no such processor"):
        built("absent")
