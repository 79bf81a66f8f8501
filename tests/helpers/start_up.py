"""What a process does until it answers, counted: the same on a busy machine as on an idle one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

from helpers.command_line import run_python

PROGRAM = """
import json, sys

file, *words = sys.argv[1:]
before = set(sys.modules)
calls = 0

def count(frame, event, argument):
    global calls
    calls += 1

sys.setprofile(count)
try:
    if words:
        from ssl_dc.cli import main
        main(words, prog_name="ssl-dc")
    else:
        import ssl_dc
except SystemExit:
    pass
sys.setprofile(None)
with open(file, "w") as counted:
    json.dump({"calls": calls, "modules": sorted(set(sys.modules) - before)}, counted)
"""


class StartUp(NamedTuple):
    """What a process did.

    Attributes:
        calls: Calls of functions and returns from them, in Python and in C, imports included.
        packages: Packages that were imported and are not Python's own, by their first name.
        stdout: What it printed.
    """

    calls: int
    packages: set[str]
    stdout: str


def start_up(folder: Path, *words: str, **environment: str) -> StartUp:
    """Count what ``ssl-dc WORDS`` does; without words, what ``import ssl_dc`` does."""
    file = folder / "counted.json"
    said = run_python("-c", PROGRAM, file, *words, **environment)
    assert said.returncode == 0, said.stderr
    counted = json.loads(file.read_text())
    packages = {name.partition(".")[0] for name in counted["modules"]} - sys.stdlib_module_names
    return StartUp(counted["calls"], packages, said.stdout)
