"""Makes the page of the checks from their docstrings: ``python -m ssl_dc.testing.reference``."""

from __future__ import annotations

from ssl_dc.plugins.kinds import KINDS
from ssl_dc.testing import any_part
from ssl_dc.testing.check import Check
from ssl_dc.testing.kit import checks

HEAD = """# What a part must do

`python -m ssl_dc.testing.reference` made this page from the docstrings of the checks.

`ssl_dc.testing` checks a part of any kind against what the rest of the program relies on. The built-in parts pass the
same checks.

## Run them

In the tests of your package, with a test case for each check:

<!-- not run: "spread" stands for a part of yours -->
```python
from ssl_dc.testing import conformance

test_spread = conformance("objective", "spread", settings={"temperature": 0.2})
```

On every part of an installed package, with its default options:

<!-- not run: PACKAGE stands for a package of yours; docs/plugin-from-nothing.md checks one -->
```sh
ssl-dc plugins check PACKAGE
```

As functions, without pytest:

```python
from ssl_dc import registry
from ssl_dc.testing import run_checks

for outcome in run_checks(registry().find("objective", "vicreg"), settings={"expander_width": 8}):
    print(outcome.name, outcome.state, outcome.message)
```

- `settings` are options to build the part with. The others keep their defaults. Small networks are checked in seconds.
- A check that fails says in one sentence what was expected and what was seen. If your part raises anything else, the check
  fails with the type and text of the error (under pytest, with its traceback).
- A check may not apply. A scheme without gates has no masks; a data set that is not on this machine has no images. The
  check then says why. Under pytest it is skipped.
- Everything runs on the CPU. When a check first needs two processes, they are started, and later checks use them too.

## What a part claims

- `compiles = True` on the options: `torch.compile` takes the part as one graph. The check uses `fullgraph=True` and the
  backend `aot_eager`, which traces and differentiates as the default backend does but makes no kernels. Without the claim
  the check does not apply.
- `views = None` on an objective: it takes any number of views from 2. Without it, an objective takes two views, and a run
  with more routes is refused.
- `trained_views = (0,)` on an objective: only the features of the first view get a gradient. Those of the second view are a
  target. Without it, the features of all views must get one. A momentum copy that is a target encodes the images itself,
  and requires no gradient.
- `heeds_threshold = False` on a gate: its mask does not depend on the threshold, so only the losses hold its budget.
  Without the claim, a gate that ignores its threshold is refused in the first step of a training.
- `least_batch = 128` on an objective: it needs so many images at once. The kit's batches, else of 8 images, are then of
  128, and a run with a smaller batch is refused before its first step.
"""


def conformance_reference() -> str:
    """The page, as Markdown."""
    sections = [
        HEAD,
        "## Every part",
        _list(list(map(Check, any_part.RECORD_AND_OPTIONS))),
        "Commands and watchers have no options. Only the first of these checks applies to them, and one that their record"
        " names no options.",
        "Parts of the kinds that have a section in a config also pass these:",
        _list(list(map(Check, any_part.CONFIG))),
    ]
    shared = {*any_part.RECORD, *any_part.RECORD_AND_OPTIONS, *any_part.CONFIG}
    for kind, row in KINDS.items():
        own = [check for check in checks(kind) if check.function not in shared]
        sections += [f"## {row.label[0].upper()}{row.label[1:]}", _list(own)]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _list(these: list[Check]) -> str:
    return "\n".join(f"- `{check.name}`: {check.promise}" for check in these)


if __name__ == "__main__":
    print(conformance_reference(), end="")
