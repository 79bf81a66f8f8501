"""Configs and model folders with anything wrong in them: each works, or ends in one readable error; a few hundred a run.

Thousands of each with ``-m slow``.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, load_file, save

import ssl_dc
from helpers.command_line import call
from helpers.settings import SHORT
from ssl_dc.cli.messages import UNEXPECTED
from ssl_dc.config import resolve
from ssl_dc.errors import SslDcError
from ssl_dc.training.checkpoint import CheckpointStore
from ssl_dc.training.initial_weights import initial_weights

LONGEST_MESSAGE = 20_000
"""Characters."""


# configs


def keys(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    below = [keys(value, f"{prefix}{key}.") for key, value in tree.items() if isinstance(value, dict)]
    return [f"{prefix}{key}" for key in tree] + [key for some in below for key in some]


CONFIG = resolve().config.model_dump(mode="json")
TEXT = json.dumps(CONFIG, indent=1)
KEYS = st.one_of(
    st.sampled_from(keys(CONFIG)), st.text(st.characters(codec="utf-8"), max_size=12), st.just("a." * 500 + "b")
)
PLAIN = ["null", "nan", ".inf", "1e999", "9" * 400, "0x10", "2026-01-01", "yes", "~", "'", '"', "\t", "- -", "? ", "|", ">"]
YAMLS = ["!!python/object/apply:os.system [false]", "[[[[", "{{", "*a", "&a [*a]", "&a {b: *a}", "%YAML 9", "<<: {a: 1}"]
NAMES = [
    "vicreg",
    "dgnet",
    "none",
    "resnet18",
    "digits",
    "lars",
    "ssl-dc:vicreg",
    "os:system",
    "../../etc/passwd",
    "\u2028",
]
WORDS = st.sampled_from([*PLAIN, *YAMLS, *NAMES])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=12),
    WORDS,
)
VALUES = st.recursive(
    SCALARS,
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.text(max_size=5), deeper, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated_text(draw: st.DrawFn) -> str:
    text = TEXT
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 40))
        text = text[:at] + draw(st.one_of(st.just(""), WORDS, st.text(max_size=4))) + text[at + length :]
    return text


@st.composite
def settings_text(draw: st.DrawFn) -> str:
    chosen = draw(st.dictionaries(KEYS, VALUES, max_size=4))
    tree = json.loads(TEXT)
    for key, value in chosen.items():
        *sections, last = key.split(".")
        branch = tree
        for section in sections:
            if not isinstance(branch.get(section), dict):
                branch[section] = {}
            branch = branch[section]
        branch[last] = value
    return json.dumps(tree, indent=draw(st.sampled_from([None, 1])))


def assert_told(result: Result) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (0, 1, 2)
    assert UNEXPECTED not in result.stderr
    if result.exit_code:
        messages = [line for line in result.stderr.splitlines() if line.startswith(("ssl-dc: ", "Usage: "))]
        assert len(messages) == 1, result.stderr
        assert "Traceback" not in result.stderr
        assert len(result.stderr) < LONGEST_MESSAGE
        assert "\x1b" not in result.stderr


def config_file(folder: Path, run: Path, text: str) -> None:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    assert_told(call("config", "validate", path))


def overrides(folder: Path, run: Path, assignments: list[tuple[str, str, bool]]) -> None:
    words = [
        word
        for key, value, dotted in assignments
        for word in ([f"--{key}", value] if dotted else ["--set", f"{key}={value}"])
    ]
    assert_told(call("config", "show", *words))


def training(folder: Path, run: Path, assignments: dict[str, Any]) -> None:
    words = [f"--{key}={json.dumps(value)}" for key, value in {**SHORT, **assignments}.items()]
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    assert_told(call("train", "--data", "digits", *words, "--output", output))


SIZES = {
    "backbone.width",
    "objective.expander_width",
    "data.image_size",
    "training.epochs",
    "training.workers",
    "gating.hidden",
}
"""Not fuzzed where a training is run: they make it long, not wrong."""
RUN_KEYS = st.sampled_from(
    [key for key in keys(CONFIG) if key not in SIZES and "." in key and not key.startswith("data.root")]
)
EXTREMES = st.one_of(
    st.sampled_from(
        [0, 1, 2, 4, 31, 32, 1e-300, 1e-8, 0.5, 1.0, 1e8, 1e300, -1, True, None, [0, 0], [0, 1], [1, 0.5], [1e-9, 1e-9]]
    ),
    st.sampled_from(
        [[0, 0, 0], [1e-300, 1e-300, 1e-300], [1e300, 1e300, 1e300], "shared", "double", "none", "barlow_twins"]
    ),
    st.sampled_from(
        ["convnet_aig", "adamw", "penalty", "skip", "resnet34", "cifar", "strided", "imagenet", "bf16", ["gated", "gated"]]
    ),
    st.floats(allow_nan=False, allow_infinity=False),
)


# model folders


def truncated(content: bytes, number: int) -> bytes:
    return content[: number % len(content)]


def flipped(content: bytes, number: int) -> bytes:
    at, bit = divmod(number % (8 * len(content)), 8)
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


def flipped_header(content: bytes, number: int) -> bytes:
    length = 8 + int.from_bytes(content[:8], "little")
    return flipped(content[:length], number) + content[length:]


def inserted(content: bytes, number: int) -> bytes:
    at = number % len(content)
    return content[:at] + bytes([number % 256]) + content[at:]


def with_header(edit: Callable[[dict[str, Any], str, str], None]) -> Callable[[bytes, int], bytes]:
    """A file whose header is edited, given two names of tensors."""

    def edited(content: bytes, number: int) -> bytes:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        names = sorted(set(header) - {"__metadata__"})
        edit(header, names[number % len(names)], names[number // 7 % len(names)])
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return edited


def swap(header: dict[str, Any], one: str, two: str) -> None:
    header[one], header[two] = header[two], header[one]


def missing(header: dict[str, Any], one: str, _: str) -> None:
    del header[one]


def another(header: dict[str, Any], one: str, two: str) -> None:
    header[f"{one}.{two}"] = header.pop(one)


def reshape(header: dict[str, Any], one: str, two: str) -> None:
    header[one]["shape"] = [*header[one]["shape"], 1]


def enormous(header: dict[str, Any], one: str, two: str) -> None:
    header[one]["shape"] = [2**62, 2**62]


def elsewhere(header: dict[str, Any], one: str, two: str) -> None:
    header[one]["data_offsets"] = header[two]["data_offsets"]


def otherwise(header: dict[str, Any], one: str, two: str) -> None:
    header[one]["dtype"] = "I32"


def senseless(header: dict[str, Any], one: str, two: str) -> None:
    header[one] = two


def without_checksum(header: dict[str, Any], one: str, two: str) -> None:
    header["__metadata__"] = {"ssl_dc.sha256": two}


def rewritten(content: bytes, number: int) -> bytes:
    """A whole file of other tensors, without a checksum."""
    length = int.from_bytes(content[:8], "little")
    names = sorted(set(json.loads(content[8 : 8 + length])) - {"__metadata__"})

    tensors = load(content)
    for name in names[number % len(names) :: 5]:
        tensors[name] = [torch.zeros(0), torch.full_like(tensors[name], 7), tensors[name].double(), tensors[name][None]][
            number % 4
        ]
    return save(tensors)


DAMAGES = [truncated, flipped, flipped_header, inserted, rewritten] + [
    with_header(edit)
    for edit in (swap, missing, another, reshape, enormous, elsewhere, otherwise, senseless, without_checksum)
]
DAMAGED = st.tuples(st.sampled_from(DAMAGES), st.integers(0, 2**40))


def loaded(folder: Path) -> ssl_dc.Model | None:
    """The model of a folder; None where that ends in a readable error."""
    message = ""
    try:
        return ssl_dc.load(folder)
    except SslDcError as error:
        message = str(error)
    assert 0 < len(message) < LONGEST_MESSAGE
    return None


def weights(folder: Path, run: Path, damage: tuple[Callable[[bytes, int], bytes], int]) -> None:
    change, number = damage
    shutil.copy(run / "config.json", folder)
    (folder / "model.safetensors").write_bytes(change((run / "model.safetensors").read_bytes(), number))
    model = loaded(folder)
    if model is None or change is rewritten:  # values that another program wrote are not known here
        return
    for name, tensor in load_file(run / "model.safetensors").items():
        assert torch.equal(model.encoder.state_dict()[name], tensor), f"{name} was changed, and nobody noticed"


def config_of_a_model(folder: Path, run: Path, text: str) -> None:
    shutil.copy(run / "model.safetensors", folder)
    (folder / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    loaded(folder)


@st.composite
def mutated_config_of_a_model(draw: st.DrawFn) -> Callable[[str], str]:
    edits = draw(
        st.lists(
            st.tuples(st.floats(0, 1), st.integers(0, 8), st.one_of(WORDS, st.text(max_size=3))), min_size=1, max_size=3
        )
    )

    def mutate(text: str) -> str:
        for share, length, new in edits:
            at = int(share * len(text))
            text = text[:at] + new + text[at + length :]
        return text

    return mutate


def mutated_config(folder: Path, run: Path, mutate: Callable[[str], str]) -> None:
    config_of_a_model(folder, run, mutate((run / "config.json").read_text()))


def resume_point(folder: Path, run: Path, damage: tuple[str, tuple[Callable[[bytes, int], bytes], int]]) -> None:
    name, (change, number) = damage
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    shutil.copytree(run / "checkpoints", folder / "checkpoints")
    path = folder / "checkpoints" / "step-00000002" / name
    path.write_bytes(change(path.read_bytes(), number))
    found, problems = CheckpointStore(folder / "checkpoints").latest()
    if found is None:
        assert len(problems) == 1
        assert len(problems[0]) < 1000
        return
    right, _ = CheckpointStore(run / "checkpoints").latest()
    assert right is not None
    assert (found.step, found.values) == (right.step, right.values)
    for file, tensors in right.tensors.items():
        assert all(torch.equal(found.tensors[file][key], tensor) for key, tensor in tensors.items())


def weights_to_start_from(folder: Path, run: Path, damage: tuple[bool, Callable[[bytes, int], bytes], int]) -> None:
    zipped, change, number = damage
    stream = io.BytesIO()
    torch.save(load_file(run / "model.safetensors"), stream, _use_new_zipfile_serialization=zipped)
    path = folder / "weights.pth"
    path.write_bytes(change(stream.getvalue(), number))
    encoder = ssl_dc.load(run).encoder
    message = "it is loaded"
    try:
        initial_weights(path, encoder).load_into(encoder)
    except SslDcError as error:
        message = str(error)
    assert 0 < len(message) < LONGEST_MESSAGE


class Fuzz(NamedTuple):
    """What is fuzzed, with how many cases in the ordinary suite, and how many by hand."""

    cases: st.SearchStrategy[Any]
    property: Callable[[Path, Path, Any], None]
    quick: int
    many: int


ASSIGNMENT = st.tuples(
    KEYS.filter(lambda key: key and "=" not in key),
    st.one_of(WORDS, VALUES.map(lambda v: json.dumps(v)), st.text(max_size=8)),
    st.booleans(),
)
FUZZ = {
    "config text": Fuzz(st.one_of(st.text(st.characters(codec="utf-8")), mutated_text(), WORDS), config_file, 60, 3000),
    "config values": Fuzz(settings_text(), config_file, 60, 3000),
    "overrides": Fuzz(st.lists(ASSIGNMENT, max_size=4), overrides, 60, 3000),
    "trainings": Fuzz(st.dictionaries(RUN_KEYS, EXTREMES, min_size=1, max_size=3), training, 10, 1000),
    "weights": Fuzz(DAMAGED, weights, 120, 5000),
    "weights to start from": Fuzz(
        st.tuples(st.booleans(), st.sampled_from([truncated, flipped, inserted]), st.integers(0, 2**40)),
        weights_to_start_from,
        30,
        3000,
    ),
    "config of a model": Fuzz(mutated_config_of_a_model(), mutated_config, 60, 3000),
    "resume points": Fuzz(
        st.one_of(
            st.tuples(st.sampled_from(["learner.safetensors", "optimizer.safetensors"]), DAMAGED),
            st.tuples(
                st.just("progress.json"), st.tuples(st.sampled_from([truncated, flipped, inserted]), st.integers(0, 2**40))
            ),
        ),
        resume_point,
        60,
        3000,
    ),
}


def fuzz(name: str, count: int, folder: Path, run: Path) -> None:
    what = FUZZ[name]

    @settings(
        max_examples=count,
        deadline=None,  # the test's own time limit ends a case that hangs
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(what.cases)
    def holds(case: Any) -> None:
        what.property(folder, run, case)

    holds()


@pytest.mark.long
@pytest.mark.parametrize("name", FUZZ)
def test_anything_works_or_ends_in_one_readable_error(tmp_path: Path, finished_run: ssl_dc.Run, name: str) -> None:
    fuzz(name, FUZZ[name].quick, tmp_path, finished_run.folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FUZZ)
def test_thousands_of_anything_work_or_end_in_one_readable_error(
    tmp_path: Path, finished_run: ssl_dc.Run, name: str
) -> None:
    fuzz(name, FUZZ[name].many, tmp_path, finished_run.folder)
