"""Networks drawn at random: the kernels give what the network gives in float64, and what the plan says in int8."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.kernel import int8_kernel, kernel, largest_weight
from ssl_dc.compiled.native_backend import NativeRunner
from ssl_dc.compiled.quantise import Recipe, quantise
from tests.helpers.compared_networks import Difference, Reference, difference_in_float32, difference_in_int8
from tests.helpers.random_networks import drawn_network
from tests.helpers.recorded_cases import recorded_cases

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("cc"), reason="this machine has no C compiler, hence no kernel"
)


class Compared(NamedTuple):
    """How a network was computed.

    Attributes:
        number: Which case.
        error: In float32 the largest error of a feature, as a share of the largest feature of the batch.
        decisions: In float32, how many decisions were compared.
        margins: For each of them that differs, the distance of its logit from the threshold (see :class:`Difference`).
        int8: Whether it was compared in int8, too, which knows ResNets only, and refuses gates without a rule.
        int8_decisions: How many decisions were compared in int8.
        wrong: What must not be, in either precision; empty if all is right.
    """

    number: int
    error: float
    decisions: int
    margins: list[float]
    int8: bool
    int8_decisions: int
    wrong: list[str]


@torch.no_grad()
def compared(number: int, seed: int) -> Compared:
    """Draw a network, and compare it in both precisions."""
    case = drawn_network(random.Random(f"{seed} {number}"))
    images, encoder = case.images(), case.encoder()
    plan = fuse(capture(encoder.backbone(case.route), case.route))
    executed = NativeRunner(plan, kernel(), case.threads)(images)
    int8 = Difference(0.0, 0, [], [])
    in_int8 = not case.in_torch and not case.has_blocks
    if in_int8:
        largest = 127 if number % 4 == 0 else largest_weight()
        recipe = Recipe(compensated=False, largest_weight=largest)  # how weights are rounded is not the kernel's
        exact = quantise(plan, images[:1], recipe=recipe)
        runner = NativeRunner(exact, int8_kernel(exact.largest_weight), case.threads)
        int8 = difference_in_int8(exact, images, *runner(images))
    float32 = difference_in_float32(plan, Reference(encoder, case.route, images), *executed)
    wrong = [f"case {number} of seed {seed}: {text}\n  {case}" for text in (*float32.wrong, *int8.wrong)]
    return Compared(number, float32.error, float32.decisions, float32.margins, in_int8, int8.decisions, wrong)


@pytest.mark.long
def test_a_hundred_random_cases_are_as_they_should_be() -> None:
    cases = [compared(number, seed=0) for number in range(76)]
    wrong = [text for case in cases for text in case.wrong]
    assert not wrong, "\n".join(wrong)
    assert len(cases) + sum(case.int8 for case in cases) >= 100
    assert sum(case.decisions for case in cases) > 40_000


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_thousands_of_random_cases_are_as_they_should_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count, seed = int(os.environ.get("SSL_DC_CASES", "1060")), int(os.environ.get("SSL_DC_SEED", "1"))
    record = Path(os.environ.get("SSL_DC_RECORD", tmp_path)) / f"networks-{seed}.jsonl"
    cases = recorded_cases(record, count, Compared, lambda number: compared(number, seed))
    margins = [margin for case in cases for margin in case.margins]
    in_int8, in_float32 = sum(case.int8_decisions for case in cases), sum(case.decisions for case in cases)
    wrong = [text for case in cases for text in case.wrong]
    with capsys.disabled():
        print(
            f"\nseed {seed}: {len(cases):,} networks in float32: worst error {max(case.error for case in cases):.1e},"
            f" {len(margins)} of {in_float32:,} decisions differ, at most {max(margins, default=0):.1e} from the threshold;"
            f" {sum(case.int8 for case in cases):,} of them in int8: {in_int8:,} decisions; {len(wrong)} wrong"
        )
    assert not wrong, "\n".join(wrong)
