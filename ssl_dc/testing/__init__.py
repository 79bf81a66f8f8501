"""The conformance kit: what every part of a kind must do, checked.

In a plugin's tests, this gives one test case a check::

    from ssl_dc.testing import conformance

    test_spread = conformance("objective", "spread", settings={"temperature": 0.2})

``ssl-dc plugins check PACKAGE`` runs the same checks on every part of an installed package, and they are a sequence of
plain functions for who wants them otherwise: :func:`checks`, :func:`run_checks`. The built-in parts pass them all.
"""

from __future__ import annotations

from ssl_dc.testing.check import Check, ConformanceError, DoesNotApplyError, Outcome, Subject
from ssl_dc.testing.kit import checks, conformance, run_checks

__all__ = [
    "Check",
    "ConformanceError",
    "DoesNotApplyError",
    "Outcome",
    "Subject",
    "checks",
    "conformance",
    "run_checks",
]
