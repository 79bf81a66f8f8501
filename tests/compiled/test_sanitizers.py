"""The kernels, built with sanitizers, run random networks without a report."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="this needs GCC's sanitizers on Linux"),
]
CASES = int(os.environ.get("SSL_DC_SANITIZER_CASES", "40"))
SANITIZERS = {
    "address": ("-fsanitize=address", "libasan.so"),
    "undefined": ("-fsanitize=undefined -fno-sanitize-recover=all", None),
    "thread": ("-fsanitize=thread", "libtsan.so"),
}
"""For each sanitizer the flags, and the library that must be there before Python starts."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("file", ["kernel.c", "kernel_bf16.c", "kernel_int8.c"])
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_random_networks_give_no_report(sanitizer: str, file: str) -> None:
    flags, library = SANITIZERS[sanitizer]
    environment = os.environ | {
        "CC": "gcc",
        "OMP_NUM_THREADS": "1",
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",  # Python and torch keep memory until they end
        "TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0",
    }
    if library is not None:
        asked = ["gcc", f"-print-file-name={library}"]
        path = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute():
            pytest.skip(f"GCC has no {library} here")
        environment["LD_PRELOAD"] = f"{Path(path).resolve()} libstdc++.so.6"  # or torch's exceptions find no place to go
    fixed_addresses = ["setarch", "-R"] if sanitizer == "thread" and shutil.which("setarch") else []
    call = [sys.executable, "-m", "tests.helpers.sanitized_kernel", file, str(CASES), *flags.split()]
    done = subprocess.run(
        [*fixed_addresses, *call],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert f"{CASES} cases, no report" in done.stdout
