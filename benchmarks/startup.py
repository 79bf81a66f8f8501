"""How long the command takes to answer, and how much it does until then.

    python benchmarks/startup.py [--rounds 20]

Each call runs in a process of its own, all calls in turn in each round. The first row is the bare interpreter.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

CALLS = {
    "python -c pass": "pass",
    "import ssl_dc": "import ssl_dc",
    **{
        f"ssl-dc {words}": f"from ssl_dc.cli import main; main({words.split()!r})"
        for words in ("--version", "--help", "train --help", "config show", "plugins list")
    },
}
COUNTING = """
import sys
calls = 0
def count(*_):
    global calls
    calls += 1
sys.setprofile(count)
try:
    exec(sys.argv[1])
except SystemExit:
    pass
sys.setprofile(None)
print(calls, len(sys.modules), file=sys.stderr)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(rounds):
        for name, code in CALLS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    print("| call | least, ms | median, ms | calls and returns | modules |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, code in CALLS.items():
        counted = subprocess.run([sys.executable, "-c", COUNTING, code], check=True, capture_output=True, text=True)
        calls, modules = map(int, counted.stderr.splitlines()[-1].split())
        least, median = (1000 * value for value in (min(seconds[name]), statistics.median(seconds[name])))
        print(f"| `{name}` | {least:.0f} | {median:.0f} | {calls:,} | {modules} |")


if __name__ == "__main__":
    main()
