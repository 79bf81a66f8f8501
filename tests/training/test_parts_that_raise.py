"""A part that raises is named in one message: faults planted in a plugin that the command trains."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from helpers.planted_training import ENCODED, FLAT, IMAGE, LOSSES, MASK, NORM, STEP, TERMS, VIEW, Train, name_of


class Raising(NamedTuple):
    """A line of the sound plugin, what stands before or instead of it, and what is said of which kind of part."""

    old: str
    new: str
    kind: str
    said: str
    function: str
    more: tuple[str, ...] = ()


KABOOM = '            raise RuntimeError("kaboom")\n'
PENALTY = ("--budget.control=penalty",)
WORKERS = ("--training.workers=1",)
RAISING = {
    "an objective": Raising(
        TERMS,
        f"        if self.steps == 2:\n{KABOOM}{TERMS}",
        "objective",
        "step 3: {} raised RuntimeError: kaboom",
        "forward",
    ),
    "a helper of an objective": Raising(
        TERMS,
        f"        if self.steps == 2:\n            part(None, None, None)\n{TERMS}",
        "objective",
        "step 3: {} raised TypeError: part() takes from 1 to 2 positional arguments but 3 were given",
        "forward",
    ),
    "torch under an objective": Raising(
        TERMS,
        f"        if self.steps == 1:\n            z1 @ z2\n{TERMS}",
        "objective",
        "step 2: {} raised RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x4 and 8x4)",
        "forward",
    ),
    "an objective that ends the program": Raising(
        TERMS, "        raise SystemExit(0)\n", "objective", "step 1: {} raised SystemExit: 0", "forward"
    ),
    "an objective when it is bound": Raising(
        "        self.bound = True\n",
        '        raise ValueError("no such encoder")\n',
        "objective",
        "before the first step: {} raised ValueError: no such encoder",
        "bind",
    ),
    "an objective after its step": Raising(
        "        self.steps += 1\n",
        "        self.steps += None\n",
        "objective",
        "step 1: {} raised TypeError: ",
        "after_step",
    ),
    "a gate": Raising(MASK, '        raise KeyError("gate")\n', "gating", "step 1: {} raised KeyError: 'gate'", "forward"),
    "gating losses": Raising(
        LOSSES,
        "        return 1 / 0\n",
        "gating",
        "step 1: {} raised ZeroDivisionError: division by zero",
        "losses",
    ),
    "a norm": Raising(
        NORM,
        f"        if x.device.type == 'cpu':\n            raise OSError(28, 'No space')\n{NORM}",
        "norm",
        "step 1: {} raised OSError: [Errno 28] No space",
        "forward",
    ),
    "a norm whose cost is counted": Raising(
        NORM,
        "        return 1 / 0\n",
        "norm",
        "while the cost is counted: {} raised ZeroDivisionError: division by zero",
        "forward",
    ),
    "a backbone": Raising(
        FLAT, f"        assert not self.training\n{FLAT}", "backbone", "step 1: {} raised AssertionError (", "forward"
    ),
    "an encoder": Raising(
        ENCODED, "        raise NotImplementedError\n", "encoder", "step 1: {} raised NotImplementedError (", "forward"
    ),
    "an optimiser": Raising(
        STEP, '        raise RuntimeError("no step")\n', "optimizer", "step 1: {} raised RuntimeError: no step", "step"
    ),
    "views": Raising(VIEW, '        raise ValueError("view")\n', "views", "step 1: {} raised ValueError: view", "view"),
    "views in a worker": Raising(
        VIEW,
        f"        if torch.utils.data.get_worker_info():\n{KABOOM}{VIEW}",
        "views",
        "step 1: {} raised RuntimeError: kaboom",
        "view",
        WORKERS,
    ),
    "an image in a worker": Raising(
        IMAGE,
        f"        if torch.utils.data.get_worker_info():\n{KABOOM}{IMAGE}",
        "data",
        "step 1: {} raised RuntimeError: kaboom",
        "image",
        WORKERS,
    ),
    "an encoder in evaluation": Raising(
        ENCODED,
        f"        if not self.training:\n{KABOOM}{ENCODED}",
        "encoder",
        "evaluation: {} raised RuntimeError: kaboom",
        "forward",
        PENALTY,
    ),
    "an encoder in calibration": Raising(
        ENCODED,
        f"        if not self.training and len(images) == 16:\n{KABOOM}{ENCODED}",
        "encoder",
        "calibration after the last step: {} raised RuntimeError: kaboom",
        "forward",
    ),
}


@pytest.mark.parametrize("name", RAISING)
def test_a_part_that_raises_is_named_in_one_message_with_its_traceback_in_a_file(train: Train, name: str) -> None:
    raising = RAISING[name]
    status, said, file, run = train(raising.old, raising.new, *raising.more)
    assert status == 1, said
    assert "Traceback" not in said
    message = said.strip().splitlines()[-1]
    assert message.startswith(f"ssl-dc: {raising.said.format(name_of(raising.kind, file))}")
    assert f"{file}:" in message
    assert f", in {raising.function})" in message
    if run.exists():
        kept = (run / "traceback.txt").read_text()
        assert f"its traceback is in {run / 'traceback.txt'}" in message
        assert kept.startswith("Traceback (most recent call last):")
        assert f'File "{file}"' in kept
    else:
        assert not raising.said.startswith(("step", "calibration", "evaluation"))
    assert (run / "model.safetensors").exists() == raising.said.startswith("evaluation")


def test_a_lack_of_memory_is_not_blamed_on_the_part_that_met_it(train: Train) -> None:
    status, said, *_ = train(TERMS, f'        raise torch.OutOfMemoryError("CUDA out of memory.")\n{TERMS}')
    assert status == 1
    assert "ssl-dc: there is not enough memory for this: CUDA out of memory." in said
