"""A part that breaks its contract is named at the first step: faults planted in a plugin that the command trains."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest

from helpers.command_line import call
from helpers.planted_training import (
    COST,
    EMBEDDINGS,
    ENCODED,
    FEATURES,
    FLAT,
    IMAGE,
    LOSSES,
    MASK,
    NORM,
    SOUND,
    TERMS,
    VIEW,
    Train,
    name_of,
)


class Breach(NamedTuple):
    """A line of the sound plugin, what stands there instead, and what is said of which kind of part, and when."""

    old: str
    new: str
    kind: str
    said: str
    when: str = "step 1: "


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
