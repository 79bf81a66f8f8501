"""Parts that break their contract, and parts that raise, each planted in a plugin of one file that the command trains."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import ssl_dc
from helpers.command_line import call
from helpers.hand_made import Distance, Random, by_hand, sgd
from helpers.settings import SHORT
from helpers.training import assert_same_files
from ssl_dc.config import BudgetConfig, TrainingConfig
from ssl_dc.errors import ConfigError, PartError, PluginError
from ssl_dc.objectives.base import EncodedViews, Objective, ObjectiveOutput
from ssl_dc.routes import Route
from ssl_dc.trackers.base import Watcher
from ssl_dc.training.contract import Contract
from ssl_dc.training.trainer import Trainer

SOUND = (Path(__file__).parent / "planted.py").read_text()
KINDS = ("objective", "gating", "encoder", "backbone", "norm", "data", "views", "optimizer")
OPTIONS = [
    *(f"--{kind}.name=planted" for kind in KINDS),
    *("--budget=0.5", "--training.epochs=2", "--training.batch_size=8", "--training.workers=0", "--training.log_every=1"),
]
"""Two epochs of two steps."""

Train = Callable[..., tuple[int, str, Path, Path]]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Train]:
    """Trains by the plugin in which some lines are changed: exit status, standard error, the plugin's file, the run."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "planted_parts.py"

    def trained(old: str = "", new: str = "", *more: str) -> tuple[int, str, Path, Path]:
        assert SOUND.count(old) == 1 or not old, f"{old!r} is there {SOUND.count(old)} times"
        file.write_text(SOUND.replace(old, new) if old else SOUND)
        result = call("train", *OPTIONS, *more, "--plugin", file, "--output", tmp_path / "run")
        return result.exit_code, result.stderr, file, tmp_path / "run"

    yield trained
    sys.modules.pop(file.stem, None)
    while str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))


class Breach(NamedTuple):
    """A line of the sound plugin, what stands there instead, and what is said of which kind of part, and when."""

    old: str
    new: str
    kind: str
    said: str
    when: str = "step 1: "


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

BREACHES = {
    "features of another width": Breach(
        FLAT,
        f"{FLAT}        features = features[:, :7]\n",
        "backbone",
        "features must be floats (8, 8), by feature_dim, not float32 (8, 7)",
    ),
    "features of pixels": Breach(
        FEATURES,
        "        return self.conv2(hidden), masks\n",
        "backbone",
        "features must be floats (8, 8), by feature_dim, not float32 (8, 8, 3, 3)",
    ),
    "features alone": Breach(
        FEATURES,
        "        return self.conv2(hidden).mean(dim=(2, 3))\n",
        "backbone",
        "it must give features and a dict of masks, not float32 (8, 8)",
    ),
    "features without a gradient": Breach(
        FLAT,
        f"{FLAT}        features = features.detach()\n",
        "backbone",
        "the features of the gated route have no gradient",
    ),
    "masks that are kept": Breach(
        FEATURES,
        f"{FLAT}        return features, {{}}\n",
        "backbone",
        "the gated route gives no mask of the gate at hidden",
    ),
    "masks that nobody made": Breach(
        FEATURES,
        f"{FLAT}        return features, {{**masks, 'other': torch.ones(len(x), 1)}}\n",
        "backbone",
        "the gated route gives a mask of 'other', where it runs no gate",
    ),
    "masks of the dense route": Breach(
        FEATURES,
        f"{FLAT}        return features, masks or {{'hidden': torch.ones(len(x), 8)}}\n",
        "backbone",
        "the dense route gives a mask of 'hidden', where it runs no gate",
    ),
    "half of the cost": Breach(
        COST,
        """        cost = super().cost_model(image_size)
        layers = [ssl_dc.LayerCost(one.name, one.macs // 2, one.sites, one.gate) for one in cost.layers]
        return ssl_dc.CostModel(tuple(layers), cost.channels)
""",
        "backbone",
        "cost_model says that the dense route costs 5,265 MACs, and torch counts 10,530",
    ),
    "a layer that is not run": Breach(
        '("conv1", "conv2")',
        '("conv1", "conv3")',
        "backbone",
        "hidden is said to save 'conv3', a layer that the dense route does not run",
        when="",
    ),
    "a site without layers": Breach(
        '("conv1", "conv2")', "()", "backbone", "hidden names no layers that its gate saves", when=""
    ),
    "channels that are not counted": Breach(
        COST,
        "        return ssl_dc.CostModel(super().cost_model(image_size).layers, {'hidden': 16})\n",
        "backbone",
        "cost_model does not count the 8 channels of hidden",
        when="",
    ),
    "an encoder that cuts features": Breach(
        ENCODED,
        "        features, masks = super().forward(images, route)\n        return ssl_dc.Encoded(features[:, :4], masks)\n",
        "encoder",
        "features must be floats (8, 8), by feature_dim, not float32 (8, 4)",
    ),
    "an encoder of features alone": Breach(
        ENCODED,
        "        return super().forward(images, route).features\n",
        "encoder",
        "it must give features and a dict of masks, not float32 (8, 8)",
    ),
    "a norm that pools": Breach(
        NORM,
        "        return self.norm(x)[:, :, ::2]\n",
        "norm",
        "it must give (8, 6, 3, 3) as it is given, not float32 (8, 6, 2, 3)",
    ),
    "soft masks": Breach(
        MASK, "        return soft\n", "gating", "the mask at hidden must be 0 or 1, and has the value 0."
    ),
    "masks of another shape": Breach(
        MASK, "        return mask[:, :1]\n", "gating", "the mask at hidden must be floats (8, 8), not float32 (8, 1)"
    ),
    "masks of bools": Breach(
        MASK, "        return mask.bool()\n", "gating", "the mask at hidden must be floats (8, 8), not bool (8, 8)"
    ),
    "masks without a gradient": Breach(
        MASK, "        return mask\n", "gating", "the mask at hidden has no gradient, so its gate cannot learn"
    ),
    "a gate that says it is free": Breach(
        "        return self.layer.weight.numel()\n",
        "        return 0\n",
        "gating",
        "the gate at hidden says macs = 0, and torch counts 48",
    ),
    "masks that ignore the threshold": Breach(
        "(x.mean(dim=(2, 3))) - threshold)",
        "(x.mean(dim=(2, 3))))",
        "gating",
        "the gate at hidden gives the same mask at the thresholds -10,000 and 10,000",
    ),
    "masks that are always shut": Breach(
        "(soft >= 0.5).to(x.dtype)",
        "torch.zeros_like(soft)",
        "gating",
        "the gate at hidden shuts every entry of its mask for each of 8 images",
    ),
    "masks of one entry more": Breach(
        MASK,
        "        mask = torch.cat([mask, mask[:, :1]], dim=1)\n        soft = torch.cat([soft, soft[:, :1]], dim=1)\n"
        + MASK,
        "gating",
        "the mask at hidden must be floats (8, 8), not float32 (8, 9)",
    ),
    "losses in a list": Breach(
        LOSSES, "        return [distance]\n", "gating", "losses must be a dict of terms, not a list of 1"
    ),
    "a loss for each image": Breach(
        LOSSES,
        '        return {"budget": trace.ratio()}\n',
        "gating",
        "the loss term 'budget' must be a scalar of floats, not float32 (8,)",
    ),
    "a loss by the objective's name": Breach(
        LOSSES,
        '        return {"near": distance}\n',
        "gating",
        "its loss term 'near' has the name of one of the objective's terms",
    ),
    "a term that is missing": Breach(
        TERMS,
        '        del terms["spread"]\n' + TERMS,
        "objective",
        "weights name the term 'spread', which forward does not give",
    ),
    "a term without a weight": Breach(
        TERMS,
        '        terms["more"] = terms["near"]\n' + TERMS,
        "objective",
        "forward gives the term 'more', which has no weight in weights",
    ),
    "a term for each image": Breach(
        TERMS,
        '        terms["near"] = (z1 - z2).square().mean(dim=1)\n' + TERMS,
        "objective",
        "the loss term 'near' must be a scalar of floats, not float32 (8,)",
    ),
    "a term that is a number": Breach(
        TERMS,
        '        terms["near"] = terms["near"].item()\n' + TERMS,
        "objective",
        "the loss term 'near' must be a scalar of floats, not an instance of float",
    ),
    "terms alone": Breach(
        TERMS, "        return terms\n", "objective", "it must give an ssl_dc.ObjectiveOutput, not an instance of dict"
    ),
    "terms without a gradient": Breach(
        TERMS,
        "        terms = {name: term.detach() for name, term in terms.items()}\n" + TERMS,
        "objective",
        "none of its loss terms has a gradient, so nothing can learn from it",
    ),
    "a term and a view that get no gradient": Breach(
        'F.mse_loss(z1, z2), "spread": F.relu(1 - z1.std(dim=0)).mean()}',
        'F.mse_loss(z1, z2).detach(), "spread": F.relu(1 - z1.std(dim=0)).mean()}',
        "objective",
        "no gradient of its loss reaches the features of the second view (dense route); its terms without a gradient:"
        " 'near'",
    ),
    "features that get no gradient": Breach(
        "features.float() for features in views.features",
        "features.detach().float() for features in views.features",
        "objective",
        "no gradient of its loss reaches the features of the first view (gated route)",
    ),
    "a head that gets no gradient": Breach(
        "        z1, z2 = map(self.head, features)\n",
        "        z1, z2 = features\n",
        "objective",
        "no gradient of its loss reaches any of its own parameters",
    ),
    "one embedding": Breach(
        EMBEDDINGS,
        "        embeddings = [z1]\n",
        "objective",
        "embeddings must be 2 tensors (8, D), one for each view, not float32 (8, 4)",
    ),
    "embeddings of pixels": Breach(
        EMBEDDINGS,
        "        embeddings = [z1[:, :, None], z2]\n",
        "objective",
        "embeddings must be 2 tensors (8, D), one for each view, not float32 (8, 4, 1), float32 (8, 4)",
    ),
    "a weight that is no number": Breach(
        '"spread": 2.0', '"spread": float("nan")', "objective", "the weight of 'spread' must be a finite number, not nan"
    ),
    "views that do not exist": Breach(
        "trained_views = None", "trained_views = (0, 2)", "objective", "trained_views must be from 0 to 1, not (0, 2)"
    ),
    "views of another size": Breach(
        VIEW, "        return view[:, :6, :6]\n", "views", "a view must be float32 (3, 8, 8), not float32 (3, 6, 6)"
    ),
    "views of bytes": Breach(
        VIEW, "        return pixels\n", "views", "a view must be float32 (3, 8, 8), not uint8 (3, 8, 8)"
    ),
    "views that are images": Breach(
        VIEW, "        return image\n", "views", "a view must be float32 (3, 8, 8), not an instance of Image"
    ),
    "images in grey": Breach(
        IMAGE,
        '        return Image.fromarray(pixels).convert("L")\n',
        "data",
        "images must be PIL images of mode 'RGB', not one of mode 'L'",
    ),
    "images that are arrays": Breach(
        IMAGE,
        "        return pixels\n",
        "data",
        "images must be PIL images of mode 'RGB', not an instance of ndarray",
    ),
    "parameters that are left out": Breach(
        "    return SGD(parameters, lr=lr)\n",
        "    return SGD(parameters[1:], lr=lr)\n",
        "optimizer",
        "it leaves out 1 of the 12 trained parameters, such as encoder.net.stem.weight",
        when="",
    ),
    "parameters of its own": Breach(
        "    return SGD(parameters, lr=lr)\n",
        "    return SGD([*parameters, nn.Parameter(torch.zeros(1))], lr=lr)\n",
        "optimizer",
        "it holds 1 parameters that are not trained",
        when="",
    ),
    "no learning rate": Breach(
        "    return SGD(parameters, lr=lr)\n",
        "    return torch.optim.Optimizer(parameters, {})\n",
        "optimizer",
        "its parameter groups have no learning rate, 'lr', which the schedule sets",
        when="",
    ),
}
LABELS = {
    "gating": "gating scheme",
    "norm": "norm policy",
    "data": "data set",
    "views": "views recipe",
    "optimizer": "optimiser",
}


def name_of(kind: str, file: Path) -> str:
    return f"{LABELS.get(kind, kind)} 'planted' of {file}"


def test_the_plugin_is_sound_where_nothing_is_planted(train: Train) -> None:
    status, said, _, run = train()
    assert status == 0, said
    assert (run / "result.json").exists()


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_one_sentence_at_the_first_step_that_names_the_part(train: Train, name: str) -> None:
    breach = BREACHES[name]
    status, said, file, run = train(breach.old, breach.new)
    assert status == 2, said
    message = said.strip().splitlines()[-1]
    assert message.startswith(f"ssl-dc: {breach.when}{name_of(breach.kind, file)}: {breach.said}")
    assert "Traceback" not in said
    assert not (run / "metrics.jsonl").exists()
    assert not (run / "checkpoints").exists()
    assert run.exists() == bool(breach.when), "what shows before training leaves no folder"


def test_gates_that_warm_up_are_checked_at_the_first_step_in_which_they_act(train: Train) -> None:
    breach = BREACHES["soft masks"]
    status, said, file, _ = train(breach.old, breach.new, "--training.gate_warmup=1")
    assert status == 2
    assert f"ssl-dc: step 3: {name_of('gating', file)}: the mask at hidden must be 0 or 1" in said


def test_a_resumed_run_is_checked_again(train: Train) -> None:
    stop = '        if self.steps == 2 and not hasattr(self, "again"):\n            raise RuntimeError("stop here")\n'
    status, _, file, run = train(TERMS, stop + TERMS)
    assert status == 1
    assert [point.name for point in (run / "checkpoints").iterdir()] == ["step-00000002"]
    file.write_text(SOUND.replace(MASK, "        return soft\n"))
    sys.modules.pop(file.stem)
    result = call("train", "--resume", run, "--plugin", file)
    assert result.exit_code == 2
    assert f"ssl-dc: step 3: {name_of('gating', file)}: the mask at hidden must be 0 or 1" in result.stderr


# parts that raise


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


# parts composed by hand, which no registry knows


class Detached(Distance):
    def forward(self, views: EncodedViews) -> ObjectiveOutput:
        return super().forward(views._replace(features=[features.detach() for features in views.features]))


class Raises(Distance):
    def forward(self, views: EncodedViews) -> ObjectiveOutput:  # noqa: ARG002
        raise LookupError("by hand")


def test_a_part_without_a_record_is_called_by_its_class() -> None:
    trainer, _ = by_hand(Detached())
    with pytest.raises(PluginError, match=r"^step 1: the objective Detached: none of its loss terms has a gradient"):
        trainer.fit()
    trainer, _ = by_hand(Raises())
    with pytest.raises(
        PartError, match=r"^step 1: the objective Raises raised LookupError: by hand \(.*, in forward\)$"
    ) as caught:
        trainer.fit()
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.exit_status == 1


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ([torch.zeros(8, 3, 4, 4), torch.zeros(8, 3, 4, 6)], "must be floats (N, 3, 4, 4), not float32 (8, 3, 4, 6)"),
        ([torch.zeros(8, 3, 4, 4), torch.zeros(7, 3, 4, 4)], "must be floats (N, 3, 4, 4), not float32 (7, 3, 4, 4)"),
        ([torch.zeros(8, 3, 4, 4).byte()] * 2, "must be floats (N, 3, 4, 4), not uint8 (8, 3, 4, 4)"),
        ([torch.zeros(3, 4, 4)] * 2, "must be floats (N, 3, 4, 4), not float32 (3, 4, 4)"),
        ([[1.0], [2.0]], "must be floats (N, 3, 4, 4), not a list of 1"),
        (torch.zeros(2, 3, 4, 4), "a batch must be 2 views, not float32 (2, 3, 4, 4)"),
    ],
    ids=["wide", "fewer", "bytes", "one", "lists", "tensor"],
)
def test_a_loader_that_gives_other_views_is_told_at_the_first_step(batch: Any, said: str) -> None:
    with pytest.raises(PluginError) as caught:
        from_loader(Distance(), batch).fit()
    assert str(caught.value).startswith("step 1: the loader: ")
    assert said in str(caught.value)


def from_loader(objective: Objective, batch: Any) -> Trainer:
    """A trainer whose only batch is this one."""
    whole, encoder = by_hand()
    return Trainer(
        encoder=encoder,
        objective=objective,
        gating=whole.gating,
        optimizer=sgd,
        loader=[batch],
        image_size=4,
        training=TrainingConfig(epochs=1),
        budget=BudgetConfig(target=None),
        routes=(Route.DENSE, Route.DENSE),
    )


def test_fewer_images_at_once_than_the_objective_needs_are_refused_before_the_first_step() -> None:
    class OfMany(Distance):
        least_batch = 9

    said = r"^the objective OfMany takes 9 images or more at once, and gets 8: raise training\.batch_size"
    with pytest.raises(ConfigError, match=said):
        by_hand(OfMany())
    trainer = from_loader(OfMany(), [torch.zeros(8, 3, 4, 4)] * 2)
    before = {name: value.clone() for name, value in trainer.learner.state_dict().items()}
    with pytest.raises(ConfigError, match=said):
        trainer.fit()
    assert all(torch.equal(value, before[name]) for name, value in trainer.learner.state_dict().items())
    OfMany.least_batch = 8
    by_hand(OfMany())


def test_nothing_is_looked_at_after_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[int] = []

    class Counts(Watcher):
        def on_step_end(self, step: int) -> None:  # noqa: ARG002
            modules = trainer.learner.modules()
            hooks.append(sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules))

    trainer, _ = by_hand(gating=Random(), epochs=3)
    began: list[int] = []
    begin = Contract._check_cost
    monkeypatch.setattr(Contract, "_check_cost", lambda self, image: (began.append(1), begin(self, image)))
    trainer.fit(watchers=[Counts()])
    assert hooks == [0, 0, 0]
    assert began == [1]


def test_looking_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for norm in ("separate", "shared"):
        ssl_dc.train({**SHORT, "norm.name": norm}, output=tmp_path / f"{norm}-looked")
        with monkeypatch.context() as patched:
            patched.setattr(Contract, "watched", lambda *_arguments: nullcontext())
            patched.setattr(Contract, "check_drawn", lambda *_arguments: None)
            ssl_dc.train({**SHORT, "norm.name": norm}, output=tmp_path / norm)
        assert_same_files(tmp_path / norm, tmp_path / f"{norm}-looked")
