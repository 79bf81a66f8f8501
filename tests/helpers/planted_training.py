"""Trainings by a plugin of one file, in some lines of which a fault is planted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from helpers.command_line import call

SOUND = Path(__file__).with_name("planted_parts.py").read_text()
"""The plugin without a fault. It has a part of each kind."""
KINDS = ("objective", "gating", "encoder", "backbone", "norm", "data", "views", "optimizer")
OPTIONS = [
    *(f"--{kind}.name=planted" for kind in KINDS),
    *("--budget=0.5", "--training.epochs=2", "--training.batch_size=8", "--training.workers=0", "--training.log_every=1"),
]
"""Two epochs of two steps."""

FEATURES = "        features = self.conv2(hidden).mean(dim=(2, 3))\n        return features, masks\n"
EMBEDDINGS = "        embeddings = [z1, z2]\n"
FLAT = "        features = self.conv2(hidden).mean(dim=(2, 3))\n"
COST = "        return super().cost_model(image_size)\n"
MASK = "        return mask + (soft - soft.detach()) if self.training else mask\n"
LOSSES = '        return {"budget": distance}\n'
TERMS = "        return ssl_dc.ObjectiveOutput(terms, embeddings)\n"
ENCODED = "        return super().forward(images, route)\n"
VIEW = "        return view + 0.1 * torch.rand(view.shape)\n"
NORM = "        return self.norm(x)\n"
IMAGE = "        return Image.fromarray(pixels)\n"
STEP = "        return super().step(closure)\n"
"""Lines of the plugin, each of which is there once."""

LABELS = {
    "gating": "gating scheme",
    "norm": "norm policy",
    "data": "data set",
    "views": "views recipe",
    "optimizer": "optimiser",
}


class Trained(NamedTuple):
    """What came of a training: its exit status, standard error, the file of the plugin, and the folder of the run."""

    status: int
    said: str
    file: Path
    run: Path


Train = Callable[..., Trained]
"""Trains in a folder of its own: what :func:`train_planted` takes after the folder."""


def train_planted(folder: Path, old: str = "", new: str = "", *more: str) -> Trained:
    """Train by the plugin in which some lines are others.

    Args:
        folder: Where the plugin's file and the run go.
        old: The lines; none are changed if it is empty.
        new: What stands there instead.
        more: More options of the command.
    """
    assert SOUND.count(old) == 1 or not old, f"{old!r} is there {SOUND.count(old)} times"
    file = folder / "planted_parts.py"
    file.write_text(SOUND.replace(old, new) if old else SOUND)
    result = call("train", *OPTIONS, *more, "--plugin", file, "--output", folder / "run")
    return Trained(result.exit_code, result.stderr, file, folder / "run")


def forget_plugin(folder: Path) -> None:
    """Forget the plugin of a folder, as if no training had imported it."""
    sys.modules.pop("planted_parts", None)
    while str(folder) in sys.path:
        sys.path.remove(str(folder))


def name_of(kind: str, file: Path) -> str:
    """How a message calls the part of a kind."""
    return f"{LABELS.get(kind, kind)} 'planted' of {file}"
