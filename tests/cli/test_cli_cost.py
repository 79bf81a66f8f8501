"""``ssl-dc cost``: of a run, and of a network that options describe."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import ssl_dc
from helpers.command_line import Trained, done, message, parsed
from helpers.settings import config_of
from ssl_dc.evaluation.cost import cost_table


@pytest.mark.parametrize(
    ("arguments", "macs"),
    [
        (["--stem", "cifar", "--image-size", "32"], 703_560_448),
        (["--stem", "cifar", "--image-size", "32", "--set", "backbone.stem_padding=1"], 555_417_600),
        (["--stem", "imagenet", "--image-size", "96"], 333_103_104),
        (["--stem", "imagenet", "--image-size", "224"], 1_813_561_344),
    ],
)
@pytest.mark.parametrize("gating", [[], ["--gating", "none"]], ids=["gates", "no gates"])
def test_the_dense_cost_is_the_papers(arguments: list[str], macs: int, gating: list[str]) -> None:
    table = parsed("cost", "--backbone", "resnet18", *arguments, *gating)
    assert table["dense_macs"] == macs
    assert sum(layer["dense_macs"] for layer in table["layers"]) == macs


@pytest.mark.parametrize(
    ("arguments", "floor"),
    [
        (["--stem", "cifar", "--image-size", "32"], 0.01498),
        (["--stem", "imagenet", "--image-size", "96"], 0.07642),
        (["--stem", "imagenet", "--image-size", "224"], 0.07583),
    ],
)
def test_the_gated_cost_of_an_untrained_network_is_the_floor(arguments: list[str], floor: float) -> None:
    table = parsed("cost", "--backbone", "resnet18", *arguments)
    assert table["ratio"] == pytest.approx(floor, abs=5e-6)
    assert table["gated_macs"] == sum(layer["gated_macs"] for layer in table["layers"])
    assert table["ratio"] == pytest.approx(table["gated_macs"] / table["dense_macs"])


def test_the_cost_of_a_network_is_shown_at_a_budget_that_it_cannot_reach() -> None:
    network = ["--width", "4", "--stem", "cifar", "--image-size", "8"]
    assert parsed("cost", *network, "--budget", "0.001") == parsed("cost", *network)


def test_cost_as_a_table_shows_the_same_numbers() -> None:
    text = done("cost", "--data", "cifar10")
    assert "703,560,448" in text
    assert "stages.layer4.1.conv2" in text
    assert "every gate shut" in text


def test_cost_shows_the_gate_sites_and_what_their_masks_scale() -> None:
    table = parsed("cost", "--backbone", "resnet18", "--stem", "cifar", "--image-size", "32")
    assert [site["site"] for site in table["sites"]] == [
        f"stages.layer{stage}.{block}.hidden" for stage in range(1, 5) for block in range(2)
    ]
    assert [site["entries"] for site in table["sites"]] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert all(site["open_share"] is None for site in table["sites"])
    convolutions = sum(layer["dense_macs"] for layer in table["layers"] if layer["layer"].endswith((".conv1", ".conv2")))
    assert sum(site["dense_macs"] for site in table["sites"]) == convolutions
    text = done("cost", "--data", "cifar10")
    assert "Gate sites: 8" in text
    assert "How often gates are open depends on pictures" in text
    (heading,) = [line for line in text.splitlines() if line.startswith("site ")]
    assert heading.split() == ["site", "mask", "dense", "MACs", "of", "all"]
    assert "Gate sites" not in done("cost", "--data", "cifar10", "--gating", "none")


def test_cost_of_a_run_is_what_its_held_out_images_pay(trained: Trained) -> None:
    table = parsed("cost", trained.folder)
    result = json.loads((trained.folder / "result.json").read_text())
    assert table["dense_macs"] == result["dense_macs"]
    assert table["ratio"] == pytest.approx(result["routes"]["gated"]["ratio"], abs=1e-9)
    assert "60 held-out images" in table["gated_is"]
    assert sum(layer["gated_macs"] for layer in table["layers"]) == pytest.approx(table["gated_macs"], rel=1e-3)


def test_cost_takes_a_run_or_options_not_both(trained: Trained) -> None:
    assert "not both" in message("cost", trained.folder, "--width", "8")
    assert "nowhere is not a run folder" in message("cost", "nowhere")


def test_cost_takes_the_width_of_the_network_not_of_the_demo_data() -> None:
    assert parsed("cost", "--backbone", "resnet18", "--stem", "cifar", "--image-size", "32")["dense_macs"] == 703_560_448
    demo = parsed("cost", "--data", "digits", "--image-size", "32")["dense_macs"]
    assert demo < 703_560_448 / 15, "a named data set brings its recipe"


@pytest.mark.parametrize(("backbone", "gating"), [("resnet50", "dgnet"), ("resnet18", "dgnet_dual")])
def test_the_cost_of_a_layer_with_two_sites_is_the_mean_over_images(backbone: str, gating: str) -> None:
    """Not the product of the mean open shares: the masks of one image are alike."""
    settings = {"backbone.name": backbone, "backbone.width": 4, "gating.name": gating, "data.image_size": 32}
    config = config_of({**settings, "data.name": "digits", "budget.target": 0.9})
    cost = ssl_dc.Model.untrained(config).cost
    often = np.random.default_rng(0).random(64)  # some images open much, others little, at all sites
    masks = {site: np.random.default_rng(1).random((64, n)) < often[:, None] for site, n in cost.channels.items()}
    table = cost_table(config, cost, masks, "made up")
    per_image = cost.gated_macs({site: torch.from_numpy(mask).float() for site, mask in masks.items()})
    assert table.gated_macs == pytest.approx(float(per_image.mean()), rel=1e-6)
    assert sum(row.gated_macs for row in table.rows) == table.gated_macs
