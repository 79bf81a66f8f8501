"""timm loads an exported folder at every width and stem, without ssl-dc, and gives the dense route's features."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ssl_dc
from ssl_dc.errors import ConfigError
from ssl_dc.export.exported_file import export
from ssl_dc.routes import Route
from tests.export.test_export import model_of

timm = pytest.importorskip("timm")

PAGE = Path(__file__).parents[2] / "docs" / "export.md"

READER = """
import json, sys
from pathlib import Path
folder = sys.argv[1]
if (Path(folder) / "ssl_dc_resnet.py").is_file():
    sys.path.insert(0, folder)
    import ssl_dc_resnet
import timm, torch
from safetensors.torch import load_file, save_file
said = []
for folder in sys.argv[1:]:
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = load_file(f"{folder}/../images.safetensors")["images"]
    with torch.no_grad():
        save_file({"features": network(images)}, f"{folder}/../features.safetensors")
    stages = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True).eval()
    with torch.no_grad():
        maps = stages(images)
    config = timm.data.resolve_model_data_config(network)
    said.append({
        "features": network.num_features, "size": config["input_size"], "mean": config["mean"],
        "channels": [m.shape[1] for m in maps], "said_channels": stages.feature_info.channels(),
        "reductions": stages.feature_info.reduction(), "sides": [m.shape[-1] for m in maps],
        "without_us": "ssl_dc" not in sys.modules,
    })
print(json.dumps(said))
"""

CASES = [
    ("resnet18", 16, "cifar", None),
    ("resnet18", 16, "imagenet", None),
    ("resnet18", 64, "cifar", None),
    ("resnet18", 64, "imagenet", None),
    ("resnet18", 12, "cifar", 1),
    ("resnet34", 8, "strided", None),
    ("resnet50", 8, "cifar", None),
    ("resnet50", 16, "imagenet", 2),
]


def random_images(size: int) -> torch.Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.long
def test_timm_gives_the_features_of_the_dense_route(tmp_path: Path) -> None:
    models: list[ssl_dc.Model] = []
    folders = []
    for number, (backbone, width, stem, padding) in enumerate(CASES):
        settings = {"backbone.name": backbone, "backbone.width": width, "backbone.stem": stem}
        model = model_of(**settings, **{} if padding is None else {"backbone.stem_padding": padding})
        models.append(model)
        folder = tmp_path / str(number) / "dense-timm"
        folder.parent.mkdir()
        export(model, Route.DENSE, "timm", folder)
        save_file({"images": random_images(64)}, folder.parent / "images.safetensors")
        folders.append(folder)
        assert (folder / "ssl_dc_resnet.py").exists() == ((width, stem) != (64, "imagenet"))
    done = subprocess.run([sys.executable, "-c", READER, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for model, folder, said in zip(models, folders, json.loads(done.stdout), strict=True):
        features = load_file(folder.parent / "features.safetensors")["features"]
        expected = model.dense(random_images(64))
        assert float((features - expected).abs().max() / expected.abs().max()) < 1e-5
        assert said["without_us"]
        assert said["features"] == model.feature_dim
        assert said["size"] == [3, model.config.data.image_size, model.config.data.image_size]
        assert said["mean"] == list(model.config.data.mean)
        assert said["channels"] == said["said_channels"]
        assert all(
            abs(side - 64 / reduction) <= 2 for side, reduction in zip(said["sides"], said["reductions"], strict=True)
        )


def test_weights_that_are_not_those_of_the_network_are_refused_by_timm(tmp_path: Path) -> None:
    """The test above can fail: timm loads the tensors strictly, and one that is changed changes the features."""
    import timm

    model = model_of(**{"backbone.width": 64, "backbone.stem": "imagenet"})
    export(model, Route.DENSE, "timm", tmp_path / "dense")
    images = random_images(64)
    assert json.loads((tmp_path / "dense" / "config.json").read_text())["architecture"] == "resnet18"
    tensors = load_file(tmp_path / "dense" / "model.safetensors")
    save_file({**tensors, "bn1.bias": tensors["bn1.bias"] + 1}, tmp_path / "dense" / "model.safetensors")
    with torch.no_grad():
        changed = timm.create_model(f"local-dir:{tmp_path / 'dense'}", pretrained=True).eval()(images)
    assert float((changed - model.dense(images)).abs().max()) > 1e-3
    tensors.pop("bn1.bias")
    save_file(tensors, tmp_path / "dense" / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"bn1\.bias"):
        timm.create_model(f"local-dir:{tmp_path / 'dense'}", pretrained=True)


def test_what_timm_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="timm's networks have no gates: --format timm takes --route dense only"):
        export(model_of(), Route.GATED, "timm", tmp_path / "gated")
    config = tmp_path / "config.json"  # of a run
    config.write_text('{"seed": 0}')
    with pytest.raises(ConfigError, match="something else is there already"):
        export(model_of(), Route.DENSE, "timm", tmp_path)
    assert config.read_text() == '{"seed": 0}'
    assert not (tmp_path / "gated").exists()


def test_an_earlier_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "dense"
    export(model_of(), Route.DENSE, "timm", folder)
    assert (folder / "ssl_dc_resnet.py").exists()
    export(model_of(**{"backbone.width": 64, "backbone.stem": "imagenet"}), Route.DENSE, "timm", folder)
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_transformers_loads_the_folder_as_a_backbone(stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/export.md shows it. A model with norm statistics of its own would show that these are lost."""
    pytest.importorskip("transformers")
    model = model_of(**{"backbone.width": 64 if stem == "imagenet" else 16, "backbone.stem": stem, "data.image_size": 64})
    export(model, Route.DENSE, "timm", tmp_path / "timm")
    if stem == "cifar":
        monkeypatch.syspath_prepend(str(tmp_path / "timm"))
        monkeypatch.delitem(sys.modules, "ssl_dc_resnet", raising=False)
        importlib.import_module("ssl_dc_resnet")
    shown = next(
        text
        for text in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        if "TimmBackbone" in text
    )
    names = {"timm": timm, "images": None}
    exec(shown.replace("runs/RUN/dense-timm", str(tmp_path / "timm")).partition("maps =")[0], names)
    backbone = names["backbone"]
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = backbone(images).feature_maps
    assert len(maps) == 4
    assert torch.allclose(maps[-1].mean(dim=(2, 3)), model.dense(images), atol=1e-5)
