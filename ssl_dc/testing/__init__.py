"""The conformance kit: it checks what every part of a kind must do.

In a plugin's tests, this makes a test case of each check::

    from ssl_dc.testing import conformance

    test_spread = conformance("objective", "spread", settings={"temperature": 0.2})

``ssl-dc plugins check PACKAGE`` runs the same checks on every part of an installed package. :func:`checks` gives them as
plain functions, and :func:`run_checks` runs them without pytest. The built-in parts pass them all.
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
