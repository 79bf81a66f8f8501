"""Every built-in part passes every check of its kind that applies to it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ssl_dc.plugins.discovery import BUILT_IN
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.registry import Registered, registry
from ssl_dc.testing import Check, DoesNotApplyError, Subject, checks
from ssl_dc.testing import protocol as testing_protocol
from ssl_dc.trackers import ACCELERATED

COMPILES = "compiles_whole_if_it_claims_to"
SMALL: dict[str, dict[str, Any]] = {
    "vicreg": {"expander_width": 8},
    "barlow_twins": {"expander_width": 8},
    "resnet18": {"width": 4, "stem": "cifar"},
    "resnet34": {"width": 4, "stem": "strided"},
    "resnet50": {"width": 4, "stem": "imagenet"},
    "linear": {"seeds": 1, "epochs": 2},
    "finetune": {"epochs": 1},
    "transfer": {"seeds": 1, "epochs": 2, "to": "digits", "to_limit": 40},
    "tsne": {"points": 20},
    "umap": {"points": 20},
}
NEEDS_IMAGES = {
    "there_are_images_to_train_and_to_test_on",
    "labels_are_numbers_of_classes",
    "images_are_pil_images_in_rgb",
    "an_index_is_always_the_same_image",
    "worker_processes_read_the_same_images",
    "a_limit_is_kept",
}
NEEDS_PARAMETERS = "training_masks_carry_a_gradient_to_every_parameter"
NEEDS_RULE = "a_pooled_rule_decides_as_the_gate_does"
NEEDS_GATES = {
    "the_threshold_has_an_effect",
    "masks_are_0_or_1",
    "masks_are_0_or_1_under_bf16",
    "evaluation_masks_are_deterministic_and_without_gradient",
    "training_masks_carry_a_gradient_to_every_parameter",
    "declared_cost_is_the_counted_cost",
    "a_pooled_rule_decides_as_the_gate_does",
    "each_image_may_have_thresholds_of_its_own",
    "a_higher_threshold_shuts_more",
    "losses_are_finite_scalars_with_a_gradient_to_every_mask",
    "it_can_be_held_to_a_budget",
    "it_trains_in_a_network",
    "state_is_saved_whole",
}
DOES_NOT_APPLY: dict[tuple[str, str], set[str]] = {
    ("data", "cifar10"): NEEDS_IMAGES,
    ("data", "cifar100"): NEEDS_IMAGES,
    ("data", "stl10"): NEEDS_IMAGES,
    ("gating", "none"): NEEDS_GATES | {COMPILES},
    ("gating", "dgnet"): {"without_gates_there_is_no_loss"},
    ("gating", "dgnet_spatial"): {"without_gates_there_is_no_loss", NEEDS_RULE},
    ("gating", "dgnet_dual"): {"without_gates_there_is_no_loss"},
    ("gating", "prefix"): {"without_gates_there_is_no_loss", NEEDS_PARAMETERS},
    ("gating", "random"): {"without_gates_there_is_no_loss", NEEDS_PARAMETERS, NEEDS_RULE, COMPILES},
    ("gating", "convnet_aig"): {"without_gates_there_is_no_loss"},
    ("protocol", "knn"): {"its_picture_is_drawn"},
    ("protocol", "linear"): {"its_picture_is_drawn"},
    ("protocol", "finetune"): {"its_picture_is_drawn"},
    ("protocol", "transfer"): {"its_picture_is_drawn"},
}

BUILT_INS = [registered for registered in registry().all() if registered.distribution == BUILT_IN]


def cases() -> Iterator[Any]:
    for registered in BUILT_INS:
        for check in checks(registered.kind):
            # the larger ResNets are made of the same blocks, and tracing them takes a quarter of a minute
            slow = check.name == COMPILES and registered.part.name in ("resnet34", "resnet50")
            # umap differs from tsne in what lays the points out, whose kernels take a quarter of a minute to be made
            slow |= registered.part.name == "umap" and check.function in testing_protocol.CHECKS
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(registered, check, id=f"{registered.kind}-{registered.part.name}-{check.name}", marks=marks)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of image files of two classes, grey ones and coloured ones, and the same as parquet."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(3):
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                mode, colour = ("L", 40 * number) if number == 0 else ("RGB", (9 * number, 50, 200))
                Image.new(mode, (12, 9), colour).save(path)
    return root


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two parquet files of images, as Hugging Face data sets keep them."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    root = tmp_path_factory.mktemp("parquet")
    for split, count in (("train", 5), ("test", 3)):
        rows = []
        for number in range(count):
            buffer = BytesIO()
            Image.new("L", (10, 10), 30 * number).save(buffer, "png")
            rows.append({"bytes": buffer.getvalue(), "path": None})
        image_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table = pa.table({"image": pa.array(rows, image_type), "label": [number % 2 for number in range(count)]})
        features = {"label": {"names": ["even", "odd"], "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(metadata), root / f"{split}.parquet")
    return root


@pytest.fixture(scope="module")
def webdataset(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in tar files, one a split."""
    root = tmp_path_factory.mktemp("webdataset")
    for split in ("train", "val"):
        with tarfile.open(root / f"{split}-0.tar", "w") as tar:
            for number, path in enumerate(sorted((images / split).rglob("*.png"))):
                for ending, content in (("png", path.read_bytes()), ("cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(f"{number:03}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))
    return root


@pytest.fixture(scope="module")
def arrow(parquet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as Hugging Face datasets saves them."""
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    root = tmp_path_factory.mktemp("arrow")
    splits = {
        name: datasets.Dataset.from_parquet(str(parquet / f"{name}.parquet"), cache_dir=str(root / "cache"))
        for name in ("train", "test")
    }
    datasets.DatasetDict(splits).save_to_disk(str(root / "set"))
    return root / "set"


@pytest.mark.parametrize(("registered", "check"), list(cases()))
def test_a_built_in_part_keeps_its_promise(
    registered: Registered, check: Check, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no data are
    name = registered.part.name
    settings = SMALL.get(name, {})
    if registered.kind == "tracker" and name in ACCELERATED:
        pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")
        monkeypatch.setenv("WANDB_MODE", "offline")  # nothing leaves this machine
        monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    if registered.kind == "data" and name in ("folder", "parquet", "arrow", "webdataset"):
        if name == "arrow":
            pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
        settings = {"root": request.getfixturevalue("images" if name == "folder" else name)}
    without = DOES_NOT_APPLY.get((registered.kind, name), set())
    if check.name in without:
        with pytest.raises(DoesNotApplyError):
            check.run(Subject(registered, settings))
    else:
        check.run(Subject(registered, settings))


def test_what_does_not_apply_is_said_of_checks_that_there_are() -> None:
    for (kind, name), without in DOES_NOT_APPLY.items():
        assert registry().has(kind, name)
        assert without <= {check.name for check in checks(kind)}


def test_built_in_parts_of_all_kinds_but_one_are_checked() -> None:
    """A watcher cannot be built in: it would watch every training."""
    assert {registered.kind for registered in BUILT_INS} == {*KINDS} - {"watcher"}


def test_parts_that_trace_say_so() -> None:
    tracing = {
        registered.kind
        for registered in BUILT_INS
        if registered.part.options is not None and registered.options_model().compiles
    }
    assert tracing == {"objective", "gating", "encoder", "backbone", "norm"}
