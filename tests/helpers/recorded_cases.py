"""Many cases that are kept in a file as they end, so that a run that was ended goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

Case = TypeVar("Case", bound=NamedTuple)
"""How a case ended; its first field is its number."""


def recorded_cases(record: Path, count: int, kind: Callable[..., Case], run: Callable[[int], Case]) -> list[Case]:
    """All cases. Those that the record holds already are taken from there; the others are run and added to it.

    Args:
        record: A file of JSON lines; it is made if it is not there.
        count: Of the numbers from 0 to this, each is a case.
        kind: Makes a case from its fields.
        run: Runs the case with this number.
    """
    record.touch()
    cases = [kind(*json.loads(line)) for line in record.read_text().splitlines()]
    done = {case[0] for case in cases}
    with record.open("a") as file:
        for number in range(count):
            if number not in done:
                cases.append(run(number))
                file.write(json.dumps(cases[-1]) + "\n")
                file.flush()
    return cases
