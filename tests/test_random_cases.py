"""Configs, command lines, damaged runs and damaged parquet files, drawn at random and run as a user would.

Whatever they hold: no traceback, no death by a signal, no hang, one message, and no file touched outside. A few of each in
the ordinary suite; more by hand: ``SSL_DC_CASES=1000 SSL_DC_SEED=7 pytest -m slow -n 0 tests/test_random_cases.py``. With
``SSL_DC_RECORD=FOLDER`` each case becomes a line of a file in that folder, and a run that was ended goes on where it was.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

import ssl_dc
from helpers.recorded_cases import recorded_cases
from helpers.settings import TWO_BY_TWO
from helpers.strained import faults, fingerprint, strained
from ssl_dc.config import resolve
from ssl_dc.training.checkpoint import _checksum

Draw = random.Random


class Place(NamedTuple):
    """Where a case is tried.

    Attributes:
        inside: The working directory; anything may happen there.
        outside: A folder beside it, where nothing may.
        finished: A finished run, to be copied.
        half: A run that was stopped half-way, to be copied.
        parquet: A folder of whole parquet files, to be copied.
    """

    inside: Path
    outside: Path
    finished: Path
    half: Path
    parquet: Path


# what a user, or somebody who means ill, may write

NUMBERS = ["0", "1", "-1", "2", "3", "4", "7", "0.1", "0.5", "1e-3", "1e300", "-0.0", "nan", "inf", "1e999", "9" * 40]
TEXTS = [
    "",
    " ",
    "none",
    "vicreg",
    "dgnet",
    "~",
    "null",
    "[1, 2]",
    "{}",
    "{a: 1}",
    "true",
    "../..",
    "/",
    "\x1b[31m",
    "x" * 3000,
]
YAMLS = [
    "[[[[",
    "*a",
    "&a [*a]",
    "!!python/object/apply:os.system [false]",
    "? [a]",
    "<<: {a: 1}",
    "- -",
    "| ",
    "\u2028",
    "\x85",
]


def text(draw: Draw) -> str:
    alphabet = string.printable + "äß→\u2028\x85\x1b\u202e\U0001f600"
    return "".join(draw.choice(alphabet) for _ in range(draw.randrange(12)))


def value(draw: Draw) -> str:
    return draw.choice([draw.choice(NUMBERS), draw.choice(NUMBERS), draw.choice(TEXTS), draw.choice(YAMLS), text(draw)])


def keys(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, below in tree.items():
        yield f"{prefix}{key}"
        if isinstance(below, dict):
            yield from keys(below, f"{prefix}{key}.")


KEYS = list(keys(resolve().config.model_dump(mode="json")))


def small_training(draw: Draw) -> dict[str, Any]:
    """Settings of a training of two steps that may well be valid."""
    batch = draw.choice([2, 4, 8])
    settings = {
        "data.limit": 2 * batch,
        "data.test_limit": 10,
        "data.image_size": draw.randint(16, 130) if draw.random() < 0.5 else 16,
        "backbone.name": draw.choice(["resnet18", "resnet18", "resnet34", "resnet50"]),
        "backbone.width": 4 * draw.randint(1, 16) if draw.random() < 0.5 else 4,
        "backbone.stem": draw.choice(["imagenet", "cifar", "strided"]),
        "objective.name": draw.choice(["vicreg", "barlow_twins"]),
        "objective.expander_width": draw.choice([4, 16]),
        "gating.name": draw.choice(["dgnet", "dgnet", "convnet_aig", "none"]),
        "encoder.name": draw.choice(["shared", "double"]),
        "norm.name": draw.choice(["separate", "shared"]),
        "optimizer.name": draw.choice(["lars", "adamw"]),
        "budget.target": draw.choice([0.3, 0.6, 0.9, 1]),
        "training.batch_size": batch,
        "training.accumulation": draw.choice([1, 1, 1, 2]),
        "training.epochs": 1,
        "training.workers": draw.choice([0, 0, 0, 1]),
        "training.log_every": 1,
        "training.precision": draw.choice(["no", "no", "bf16"]),
        "tracker.name": draw.choice(["none", "none", "none", "tensorboard"]),
    }
    if draw.random() < 0.4:
        settings["backbone.stem_padding"] = draw.randrange(7)
    if settings["data.image_size"] * settings["backbone.width"] > 1000:  # what is valid must not take a minute
        side = max(16, 1000 // settings["backbone.width"])
        settings |= {"data.image_size": side, "data.limit": 4, "training.batch_size": 2, "data.test_limit": 2}
    if settings["gating.name"] == "none":
        settings.pop("budget.target")
    return settings


LONG = {
    "training.epochs",
    "training.compile",
    "data.limit",
    "data.image_size",
    "backbone.width",
    "training.batch_size",
    "data.root",
    "data.name",
}
"""Settings that are not drawn wildly where a training is run: they make it long, not wrong."""


def options(settings: dict[str, Any]) -> list[str]:
    return [f"--{key}={json.dumps(given) if not isinstance(given, str) else given}" for key, given in settings.items()]


def wild_options(draw: Draw, trained: bool) -> list[str]:
    words = []
    for _ in range(draw.randrange(3)):
        key = draw.choice([key for key in KEYS if not (trained and key in LONG)])
        words += draw.choice([[f"--{key}={value(draw)}"], ["--set", f"{key}={value(draw)}"]])
    return words


# configs


def a_config(draw: Draw, place: Place) -> list[list[str]]:
    tree: dict[str, Any] = {}
    for key, given in small_training(draw).items():
        section, _, last = key.partition(".")
        tree.setdefault(section, {})[last] = given
    for _ in range(draw.randrange(3)):
        section, _, last = draw.choice([key for key in KEYS if "." in key and key not in LONG]).partition(".")
        tree.setdefault(section, {})[last] = draw.choice(
            [value(draw), draw.uniform(-2, 2), draw.randint(-3, 9), None, [], {}]
        )
    written = json.dumps(tree, indent=draw.choice([None, 1]))
    for _ in range(draw.choice([0, 0, 0, 1, 2])):
        at, length = draw.randrange(len(written)), draw.randrange(8)
        written = written[:at] + draw.choice([value(draw), draw.choice(YAMLS), ""]) + written[at + length :]
    (place.inside / "c.yaml").write_text(written, encoding="utf-8", errors="surrogatepass")
    return [["config", "validate", "c.yaml"], ["train", "--config", "c.yaml", "--output", "run"]]


# command lines


def a_command(draw: Draw, place: Place) -> list[list[str]]:
    kind = draw.choice(["train", "train", "train", "evaluate", "export", "show", "cost", "cost", "plugins", "nonsense"])
    if kind == "train":
        words = ["train", *options(small_training(draw)), *wild_options(draw, trained=True), "--output", "run"]
        return [words, ["train", "--resume", "run"]] if draw.random() < 0.2 else [words]
    if kind == "show":
        return [["config", "show", *wild_options(draw, trained=False)]]
    if kind == "cost":
        return [["cost", *options(small_training(draw)), *wild_options(draw, trained=True)]]
    if kind == "plugins":
        verb = draw.choice(
            [["list"], ["show", value(draw)], ["show", "vicreg"], ["list", "--kind", value(draw)], ["hooks"]]
        )
        return [["plugins", *verb]]
    if kind == "nonsense":
        return [[draw.choice(["train", "evaluate", "cost", "export", text(draw)]), *(value(draw) for _ in range(3))]]
    shutil.copytree(draw.choice([place.finished, place.half]), place.inside / "run")
    if kind == "evaluate":
        protocol = draw.choice(["knn", "linear", "transfer", "tsne", "gates", "gates", value(draw)])
        own = {
            "knn": ["--k", "--metric"],
            "linear": ["--seeds", "--epochs", "--lr"],
            "transfer": ["--to"],
            "tsne": ["--seed"],
        }
        more = [draw.choice(own.get(protocol, ["--k"])), value(draw)] if draw.random() < 0.6 else []
        picture = (
            ["--output", draw.choice(["g.png", "g.svg", "nowhere/g.png", "g", value(draw)])] if draw.random() < 0.4 else []
        )
        return [["evaluate", "run", "--protocol", protocol, *more, *picture]]
    route = draw.choice(["dense", "gated", value(draw)])
    form = draw.choice(["torch", "torchvision", value(draw)])
    static = ["--static", value(draw)] if draw.random() < 0.4 else []
    return [
        ["export", "run", "--route", route, "--format", form, *static, "--output", draw.choice(["x", "x.pt2", "run", ""])]
    ]


# damaged run folders


def damaged(draw: Draw, content: bytes) -> bytes:
    if not content:
        return b"x"
    at = draw.randrange(len(content))
    flipped = content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
    return draw.choice(
        [content[:at], flipped, content[:at] + draw.randbytes(8) + content[at:], b"", content * 2, draw.randbytes(64)]
    )


def hostile_json(draw: Draw, content: bytes) -> bytes:
    """A record of a run with something else in it; a resume point's checksum fits it."""
    try:
        record = json.loads(content)
        if not isinstance(record, dict) or not record:
            return damaged(draw, content)
    except ValueError:
        return damaged(draw, content)
    branch, key = record, draw.choice(list(record))
    while isinstance(branch[key], dict) and branch[key] and draw.random() < 0.7:
        branch = branch[key]
        key = draw.choice(list(branch))
    branch[key] = draw.choice(
        [None, -1, 0, 10**30, 1e300, float("nan"), "", "x" * 1000, [], {}, [[]], True, "../../outside/precious", "\x1b[31m"]
    )
    if draw.random() < 0.2:
        del branch[key]
    if "checksum" in record:
        del record["checksum"]
        record["checksum"] = _checksum(record)
    return json.dumps(record).encode()


def put_instead(draw: Draw, path: Path, outside: Path) -> None:
    """Something else in the place of a file or folder."""
    kind = draw.choice(
        ["nothing", "FIFO", "socket", "folder", "loop", "link out", "link in", "device", "sparse", "hard link"]
    )
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    match kind:
        case "FIFO":
            os.mkfifo(path)
        case "socket":
            here = os.getcwd()
            os.chdir(path.parent)  # a socket's whole path must be short
            try:
                with socket.socket(socket.AF_UNIX) as made:
                    made.bind(path.name)
            finally:
                os.chdir(here)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "link out":
            path.symlink_to(outside / "precious")
        case "link in":
            path.symlink_to("config.json")
        case "device":
            path.symlink_to(draw.choice(["/dev/zero", "/dev/full", "/dev/null", "/dev/stdin"]))
        case "sparse":
            with path.open("wb") as file:
                file.truncate(2**33)
        case "hard link":
            path.hardlink_to(outside / "precious")


def a_damaged_run(draw: Draw, place: Place) -> list[list[str]]:
    folder = Path(shutil.copytree(draw.choice([place.finished, place.half]), place.inside / "run"))
    for _ in range(draw.choice([1, 1, 2, 3])):
        entries = sorted(path for path in folder.rglob("*") if not path.is_symlink())
        path = draw.choice(entries)
        if path.is_file() and path.stat().st_size < 2**24 and draw.random() < 0.6:
            content = path.read_bytes()
            path.write_bytes((hostile_json if path.suffix == ".json" else damaged)(draw, content))
        elif draw.random() < 0.7:
            put_instead(draw, path, place.outside)
        else:
            beside = path.with_name(
                draw.choice([".lock", ".config.json.partial", ".metrics.jsonl.partial", "step-99999999"])
            )
            if not beside.exists() and not beside.is_symlink():
                put_instead(draw, beside, place.outside)
    calls = [
        ["evaluate", "run"],
        ["train", "--resume", "run"],
        ["cost", "run"],
        ["export", "run", "--format", "torch", "--output", "x.pt2"],
        ["train", *options(TWO_BY_TWO), "--output", "run"],
        ["evaluate", "run", "--protocol", "gates"],
    ]
    return draw.sample(calls, 2)


# damaged parquet files


def picture(shade: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (9, 9), (shade, 255 - shade, 50)).save(stream, "png")
    return stream.getvalue()


def write_parquet(path: Path, draw: Draw | None = None) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    images: list[Any] = [{"bytes": picture(8 * number), "path": None} for number in range(16)]
    labels: list[Any] = [number % 2 for number in range(16)]
    names = ["image", "label"]
    compression = "snappy"
    if draw is not None:
        compression = draw.choice(["snappy", "gzip", "zstd", "none"])
        strange = draw.choice(["labels", "labels", "images", "images", "names", "empty", "more"])
        if strange == "labels":
            labels = draw.choice(
                [[2**62] * 16, [-1] * 16, [None] * 16, ["a", "\x1b[31m"] * 8, [1.5] * 16, [20_000_000] * 16]
            )
        elif strange == "images":
            images[draw.randrange(16)] = draw.choice(
                [{"bytes": b"", "path": None}, {"bytes": b"broken", "path": "x"}, None]
            )
        elif strange == "names":
            names = draw.choice(
                [["image", "image"], ["\x1b[31m", "label"], ["", ""], ["label", "image"], ["a" * 5000, "b"]]
            )
        elif strange == "empty":
            images, labels = [], []
    table = pa.Table.from_arrays([pa.array(images), pa.array(labels)], names=names)
    pq.write_table(table, path, compression=compression)


def a_damaged_parquet(draw: Draw, place: Place) -> list[list[str]]:
    folder = Path(shutil.copytree(place.parquet, place.inside / "data"))
    files = sorted(folder.rglob("*.parquet"))
    path = draw.choice(files)
    if draw.random() < 0.6:
        content = path.read_bytes()
        if draw.random() < 0.5:  # the footer, which says what is where
            cut = draw.randrange(max(1, len(content) - 800), len(content))
            content = content[:cut] + damaged(draw, content[cut:])
        else:
            content = damaged(draw, content)
        path.write_bytes(content)
    elif draw.random() < 0.7:
        write_parquet(path, draw)
    else:
        put_instead(draw, path, place.outside)
    settings = {
        **TWO_BY_TWO,
        "data.limit": None,
        "training.batch_size": 8,
        "training.epochs": 1,
        "data.bad_images": draw.choice(["stop", "skip"]),
    }
    settings.pop("data.limit")
    return [["train", "--data", "parquet", "--data-root", "data", *options(settings), "--output", "run"]]


# plans, weights to start from, longer runs, other data


def a_start(draw: Draw, place: Place) -> list[list[str]]:
    folder = Path(shutil.copytree(draw.choice([place.finished, place.half]), place.inside / "run"))
    shutil.copytree(place.parquet, place.inside / "data")
    if draw.random() < 0.4:
        path = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        path.write_bytes(damaged(draw, path.read_bytes()))
    train = ["train", *options(small_training(draw)), *wild_options(draw, trained=True)]
    data = ["--data-root", draw.choice(["data", "data", "run", value(draw)])]
    weights = draw.choice(["run", "run/model.safetensors", "run/config.json", "data", ".", value(draw)])
    longer = draw.choice(["1", "2", "3", "4", value(draw)])
    return draw.choice(
        [
            [[*train, "--dry-run"]],
            [[*train, "--dry-run", "--pictures", draw.choice(["1", "100", "1000000", value(draw)])]],
            [["train", "--data", draw.choice(["parquet", "folder", "arrow"]), *data, "--dry-run"]],
            [[*train, "--init", weights, "--output", "other"]],
            [["train", *options(TWO_BY_TWO), "--init", weights, "--output", "other"]],
            [["train", "--resume", "run", "--epochs", longer]],
            [
                [
                    "evaluate",
                    "run",
                    "--eval-data",
                    draw.choice(["parquet", "digits", "folder", value(draw)]),
                    "--eval-data-root",
                    data[1],
                ]
            ],
            [["evaluate", "run", *data]],
        ]
    )


KINDS: dict[str, tuple[Callable[[Draw, Place], list[list[str]]], int]] = {
    "configs": (a_config, 6),
    "command lines": (a_command, 10),
    "damaged runs": (a_damaged_run, 10),
    "damaged parquet files": (a_damaged_parquet, 6),
    "starts": (a_start, 8),
}
"""How each kind of case is drawn, and how many of them the ordinary suite tries."""


class StopAtTwo(ssl_dc.Watcher):
    def on_step_end(self, step: int) -> None:
        if step == 2:
            raise ssl_dc.RunError("stopped half-way")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A finished run, one that was stopped half-way, and a folder of parquet files."""
    folder = tmp_path_factory.mktemp("templates")
    ssl_dc.train(TWO_BY_TWO, output=folder / "finished")
    with pytest.raises(ssl_dc.RunError, match="half-way"):
        ssl_dc.train({**TWO_BY_TWO, "training.checkpoint_every": 1}, output=folder / "half", watchers=[StopAtTwo()])
    write_parquet(folder / "parquet" / "train" / "0.parquet")
    write_parquet(folder / "parquet" / "validation" / "0.parquet")
    return folder / "finished", folder / "half", folder / "parquet"


FRESH = 20
"""Every such case is called in new interpreters, the others in copies of this process."""


class Tried(NamedTuple):
    """How the calls of a case ended.

    Attributes:
        number: Which case.
        ends: Each call's first word and exit status.
        wrong: What must not have happened, with the call and its message.
    """

    number: int
    ends: list[str]
    wrong: list[str]


def tried(kind: str, number: int, seed: int, folder: Path, templates: Sequence[Path]) -> Tried:
    """Draw a case, call what it calls, and look what happened."""
    draw = random.Random(f"{seed} {kind} {number}")
    place = Place(folder / "inside", folder / "outside", *templates)
    shutil.rmtree(folder, ignore_errors=True)
    place.inside.mkdir(parents=True)
    place.outside.mkdir()
    (place.outside / "precious").write_text('{"precious": true}\n')
    calls = KINDS[kind][0](draw, place)
    before = fingerprint(place.outside)
    case = Tried(number, [], [])
    for words in calls:
        result = strained(words, place.inside, fresh=number % FRESH == FRESH - 1)
        wrong = faults(result)
        if fingerprint(place.outside) != before:
            wrong.append("something outside was touched")
        if others := {path.name for path in folder.iterdir()} - {"inside", "outside", "out", "err"}:
            wrong.append(f"something was put beside the working directory: {others}")
        case.ends.append(f"{words[0] if words[0].isalpha() else 'other'}: {result.status}")
        if wrong:
            called = " ".join(map(repr, words))[:600]
            case.wrong.append(f"{kind} {number} of seed {seed}: {'; '.join(wrong)}\n  {called}\n  {result.err[-1500:]}")
    return case


def run_cases(kind: str, count: int, seed: int, folder: Path, templates: Sequence[Path], record: Path) -> list[Tried]:
    """All cases; those that the record holds already are taken from there, the others are added to it."""
    return recorded_cases(record, count, Tried, lambda number: tried(kind, number, seed, folder, templates))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_random_cases_end_well_or_with_one_message(kind: str, tmp_path: Path, templates: Sequence[Path]) -> None:
    cases = run_cases(kind, KINDS[kind][1], 0, tmp_path / "case", templates, tmp_path / "record")
    wrong = [text for case in cases for text in case.wrong]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_many_random_cases_end_well_or_with_one_message(
    kind: str, tmp_path: Path, templates: Sequence[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    count, seed = int(os.environ.get("SSL_DC_CASES", "1000")), int(os.environ.get("SSL_DC_SEED", "1"))
    record = Path(os.environ.get("SSL_DC_RECORD", tmp_path)) / f"{kind.replace(' ', '-')}-{seed}.jsonl"
    cases = run_cases(kind, count, seed, tmp_path / "case", templates, record)
    wrong = [text for case in cases for text in case.wrong]
    counted = Counter(end for case in cases for end in case.ends)
    with capsys.disabled():
        print(f"\n{kind}, seed {seed}: {len(cases)} cases, {counted.total()} calls, {len(wrong)} wrong; {dict(counted)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
def test_the_driver_sees_what_must_not_happen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome_of(act: Callable[[], Any]) -> list[str]:
        monkeypatch.setattr("helpers.strained.main", lambda *_, **__: act())
        return faults(strained(["x"], tmp_path / "in"))

    (tmp_path / "in").mkdir()
    assert outcome_of(lambda: None) == []
    assert outcome_of(os.abort) == ["signal SIGABRT"]
    assert outcome_of(lambda: 1 / 0)[0] == "status 98"
    assert outcome_of(lambda: os._exit(2)) == ["no message"]
    monkeypatch.setattr("helpers.strained.IDLE_SECONDS", 0.2)
    assert outcome_of(lambda: os.read(os.pipe()[0], 1))[0] == "it hung"
    monkeypatch.setattr("helpers.strained.IDLE_SECONDS", 60)
    monkeypatch.setattr("helpers.strained.PROCESSOR_SECONDS", 1)

    def busy() -> None:
        while True:
            pass

    assert outcome_of(busy) == ["signal SIGXCPU"]
