"""Runs the checks of each kind of part, for a report or as tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.registry import Registered, registry
from ssl_dc.testing import any_part
from ssl_dc.testing.check import Check, ConformanceError, DoesNotApplyError, Outcome, Subject


def checks(kind: str) -> Sequence[Check]:
    """The checks of a kind: those of any part, then its own.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of part {kind!r}; there are: {', '.join(KINDS)}")
    return [Check(function) for function in (*any_part.checks_of(kind), *_own_checks(kind))]


def _own_checks(kind: str) -> Sequence[Callable[[Subject], None]]:
    """The checks of ``ssl_dc/testing/KIND.py``; none if there is no such file."""
    if find_spec(f"ssl_dc.testing.{kind}") is None:
        return ()
    functions: Sequence[Callable[[Subject], None]] = import_module(f"ssl_dc.testing.{kind}").CHECKS
    return functions


def run_checks(registered: Registered, settings: Mapping[str, Any] | None = None) -> list[Outcome]:
    """Run every check of a part's kind on it.

    Args:
        registered: The part.
        settings: Options to build it with. Small networks are checked faster.

    Returns:
        One outcome for each check, in order. If the part raises, the check has failed, with the type and text of the error.
    """
    subject = Subject(registered, settings or {})
    return [_outcome(check, subject) for check in checks(registered.kind)]


def _outcome(check: Check, subject: Subject) -> Outcome:
    try:
        check.run(subject)
    except ConformanceError as error:
        return Outcome(check.name, check.promise, "failed", str(error))
    except DoesNotApplyError as error:
        return Outcome(check.name, check.promise, "does not apply", str(error))
    except (Exception, SystemExit) as error:  # a part may raise anything, and the other checks must go on
        return Outcome(check.name, check.promise, "failed", f"{type(error).__name__}: {error}")
    return Outcome(check.name, check.promise, "passed")


def conformance(kind: str, name: str, settings: Mapping[str, Any] | None = None) -> Callable[[Check], None]:
    """A pytest function with a case for each check of a registered part. Assign it to a name that begins with ``test_``.

    Args:
        kind: The kind of the part.
        name: Its name.
        settings: Options to build it with. Small networks are checked faster.

    Raises:
        PluginError: If there is no such part, or its package was left out. The message says why.
    """
    import pytest  # not needed to run checks otherwise

    subject = Subject(registry().find(kind, name), settings or {})

    @pytest.mark.parametrize("check", checks(kind), ids=lambda check: check.name)
    def test(check: Check) -> None:
        try:
            check.run(subject)
        except ConformanceError as error:
            pytest.fail(f"{check.promise}\n{error}", pytrace=False)
        except DoesNotApplyError as error:
            pytest.skip(f"does not apply: {error}")

    return test
