"""Layers: where settings come from, and how they are merged."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_dc.config.layers import Layer, file_layer, flattened, merged, nested, normalised, override_layer, uniform_layer
from ssl_dc.errors import ConfigError

NAMES = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=5)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers())
TREES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(NAMES, VALUES, max_size=4),
    lambda deeper: st.dictionaries(NAMES, VALUES | deeper.filter(bool), max_size=4),
    max_leaves=12,
)


def yaml_layer(tmp_path: Path, text: str) -> Layer:
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return file_layer(file)


def yaml_error(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        yaml_layer(tmp_path, text)
    assert caught.value.exit_status == 2
    return str(caught.value)


@settings(deadline=None, max_examples=50)
@given(TREES)
def test_flattening_and_nesting_are_inverse(tree: dict[str, Any]) -> None:
    assert nested(flattened(tree)) == tree


@pytest.mark.parametrize("keys", [("budget", "budget.target"), ("budget.target", "budget")])
def test_a_key_cannot_be_a_value_and_a_section(keys: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="budget"):
        nested(dict.fromkeys(keys, 1))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-2.5e+1", -25.0),
        ("3", 3),
        ("0.5", 0.5),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("'1e-3'", "1e-3"),
        ("[1, 2e-1, no]", [1, 0.2, "no"]),
    ],
)
def test_yaml_values_are_what_they_look_like(tmp_path: Path, text: str, value: Any) -> None:
    read = yaml_layer(tmp_path, f"key: {text}\n").values["key"]
    assert read == value
    assert type(read) is type(value)


def test_each_yaml_setting_knows_its_line(tmp_path: Path) -> None:
    layer = yaml_layer(tmp_path, "# a comment\nseed: 1\nbudget:\n  # another\n  target: 0.1\n\n  control: penalty\n")
    file = tmp_path / "run.yaml"
    assert layer.sources == {"seed": f"{file}:2", "budget.target": f"{file}:5", "budget.control": f"{file}:7"}


def test_a_duplicate_yaml_key_is_refused_with_its_line(tmp_path: Path) -> None:
    message = yaml_error(tmp_path, "seed: 1\nbudget:\n  target: 0.1\n  target: 0.2\n")
    assert message.startswith(f"{tmp_path / 'run.yaml'}:4: ")
    assert '"target"' in message
    assert "\n" not in message


def test_a_duplicate_section_is_refused_with_its_line(tmp_path: Path) -> None:
    assert yaml_error(tmp_path, "budget:\n  target: 0.1\nseed: 1\nbudget:\n  control: penalty\n").startswith(
        f"{tmp_path / 'run.yaml'}:4: "
    )


def test_a_dotted_key_and_the_same_key_in_its_section_are_refused(tmp_path: Path) -> None:
    message = yaml_error(tmp_path, "budget.target: 0.1\nbudget:\n  target: 0.2\n")
    assert "budget.target" in message


@pytest.mark.parametrize("text", ["- seed\n", "seed\n", "3\n"])
def test_what_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    message = yaml_error(tmp_path, text)
    assert message.startswith(f"{tmp_path / 'run.yaml'}: ")
    assert "mapping" in message
    assert "Commented" not in message, "the name of a class of the YAML library says nothing to a user"


@pytest.mark.parametrize("text", ["seed: [1\n", "seed: 1\n  budget: 2\n", "a: b: c\n", "seed: @1\n", "\tseed: 1\n"])
def test_what_is_not_yaml_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    message = yaml_error(tmp_path, text)
    assert message.startswith(f"{tmp_path / 'run.yaml'}:")
    assert message.removeprefix(f"{tmp_path / 'run.yaml'}:")[0].isdigit()


def test_yaml_that_would_make_a_python_object_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    with suppress(ConfigError):
        yaml_layer(tmp_path, f"seed: !!python/object/apply:os.mkdir ['{marker}']\n")
    assert not marker.exists()


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert yaml_layer(tmp_path, "").values == {}
    assert yaml_layer(tmp_path, "# only a comment\n").values == {}


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        file_layer(tmp_path / "nothing.yaml")
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        file_layer(tmp_path / "run.yaml")
    with pytest.raises(ConfigError):
        file_layer(tmp_path)


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", 0.001),
        ("seed=3", "seed", 3),
        ("data.download=true", "data.download", True),
        ("training.precision=no", "training.precision", "no"),
        ("budget.target=null", "budget.target", None),
        ("views.blur_p=[0, 0.2]", "views.blur_p", [0, 0.2]),
        ("data.root=/a=b", "data.root", "/a=b"),
        ("data.root=", "data.root", ""),
        (" seed =3", "seed", 3),
    ],
)
def test_an_override_is_json_or_else_text(assignment: str, key: str, value: Any) -> None:
    layer = override_layer([assignment])
    assert layer.values == {key: value}
    assert type(layer.values[key]) is type(value)
    assert layer.sources == {key: f"--set {key}"}


@pytest.mark.parametrize("assignment", ["seed", "=3", " =3", ""])
def test_an_override_needs_key_and_value(assignment: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        override_layer([assignment])


def test_the_last_of_equal_overrides_holds() -> None:
    assert override_layer(["seed=1", "seed=2"]).values == {"seed": 2}


def test_naming_a_part_as_a_sections_value_is_naming_it_in_the_section() -> None:
    layer = normalised(Layer({"objective": "vicreg", "seed": 1}, {"objective": "here", "seed": "there"}))
    assert layer == Layer({"objective.name": "vicreg", "seed": 1}, {"objective.name": "here", "seed": "there"})


def test_later_layers_rank_above_earlier_ones_and_bring_their_source() -> None:
    layers = [uniform_layer({"seed": 1, "budget.target": 0.1}, "a"), uniform_layer({"seed": 2}, "b")]
    whole = merged(layers)
    assert whole.values == {"seed": 2, "budget.target": 0.1}
    assert whole.sources == {"seed": "b", "budget.target": "a"}


@pytest.mark.parametrize(
    ("earlier", "later", "left"),
    [
        ({"objective.invariance": 1}, {"objective.name": "barlow_twins"}, {"objective.name": "barlow_twins"}),
        (
            {"objective.name": "barlow_twins", "objective.scale": 1},
            {"objective.name": "barlow_twins", "objective.off_diagonal": 2},
            {"objective.name": "barlow_twins", "objective.scale": 1, "objective.off_diagonal": 2},
        ),
        (
            {"objective.invariance": 1},
            {"objective.name": "vicreg"},
            {"objective.invariance": 1, "objective.name": "vicreg"},
        ),
        ({"gating.noise": 0}, {"objective.name": "barlow_twins"}, {"gating.noise": 0, "objective.name": "barlow_twins"}),
    ],
)
def test_a_layer_that_names_another_part_starts_its_section_afresh(
    earlier: dict[str, Any], later: dict[str, Any], left: dict[str, Any]
) -> None:
    whole = merged([uniform_layer(earlier, "a"), uniform_layer(later, "b")])
    assert whole.values == left
    assert set(whole.sources) == set(left)


@pytest.mark.parametrize("text", ["a: &a\n  <<: *a", "training: &t\n  <<: [*t]\n"])
def test_a_merge_key_that_names_itself_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="has no end"):
        file_layer(path)
