"""A run is pushed to the Hub and loaded from it. The network is a stand-in on this machine; the client is the real one."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors import safe_open

import ssl_dc
from helpers.command_line import done, message, parsed
from ssl_dc.errors import ConfigError, RunError
from ssl_dc.hub.names import is_hub_name
from tests.hub.stand_in import StandIn, stand_in_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, with an empty cache, in an empty working directory."""
    with stand_in_hub() as hub:
        monkeypatch.chdir(tmp_path)
        answer_at(hub.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


def answer_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when it is set before the client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def assert_same(one: ssl_dc.Model, other: ssl_dc.Model) -> None:
    size = one.config.data.image_size
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.dense(images), other.dense(images))
    assert torch.equal(one.gated(images).features, other.gated(images).features)


@pytest.mark.long
def test_a_pushed_run_is_loaded_by_its_name(finished_run: ssl_dc.Run, hub: StandIn) -> None:
    said = done("push", finished_run.folder, "org/digits", "--private", "--message", "first", "--license", "mit")
    assert f"pushed: {hub.url}/org/digits/commit/" in said
    assert 'ssl_dc.load("org/digits")' in said
    assert hub.private == {"org/digits": True}
    assert hub.messages == ["first"]
    files = hub.branches["org/digits"]["main"]
    assert set(files) == {"config.json", "model.safetensors", "result.json", "README.md"}
    assert json.loads(files["result.json"]) == json.loads((finished_run.folder / "result.json").read_bytes())
    assert_same(finished_run.model, ssl_dc.load("org/digits"))


@pytest.mark.long
def test_branches_are_made_and_loaded(finished_run: ssl_dc.Run, hub: StandIn) -> None:
    ssl_dc.push(finished_run.folder, "org/digits", revision="try")
    ssl_dc.push(finished_run.folder, "org/digits", revision="try", message="again")
    assert not hub.branches["org/digits"]["main"]
    assert hub.messages == ["Push the run run with ssl-dc", "again"]
    assert_same(finished_run.model, ssl_dc.load("org/digits", revision="try"))
    with pytest.raises(ConfigError, match="no revision 'other'"):
        ssl_dc.load("org/digits", revision="other")
    with pytest.raises(ConfigError, match=r"org/digits is no model of ssl-dc's: it has no config\.json"):
        ssl_dc.load("org/digits")  # its main branch is empty


def test_a_public_model_is_no_place_for_a_private_push(finished_run: ssl_dc.Run, hub: StandIn) -> None:
    ssl_dc.push(finished_run.folder, "org/open", private=False)
    with pytest.raises(ConfigError, match="org/open is public"):
        ssl_dc.push(finished_run.folder, "org/open", private=True)
    assert len(hub.messages) == 1


def test_paths_of_this_machine_are_not_pushed(copied_run: Path, hub: StandIn) -> None:
    config = json.loads((copied_run / "config.json").read_text())
    config["data"]["root"] = config["training"]["init"] = config["training"]["watch_root"] = "/home/me/secret"
    config["training"] |= {"watch_every": 1, "watch_data": "folder"}
    (copied_run / "config.json").write_text(json.dumps(config))
    ssl_dc.push(copied_run, "me/digits")
    assert not any(b"secret" in content for content in hub.branches["me/digits"]["main"].values())
    assert ssl_dc.load("me/digits").config.data.root is None


def test_the_card_says_what_the_run_is(copied_run: Path, hub: StandIn, tmp_path: Path) -> None:
    point = {"macs": 1234567.0, "knn1": 51.25, "linear": 61.5, "linear_std": None, "milliseconds": 0.125}
    points = [{"route": "dense", "ratio": 1.0, **point}, {"route": "gated at 0.3", "ratio": 0.2981, **point}]
    curve = {"protocol": "curve", "runs": [{"run": "x", "test_images": 60, "points": points}]}
    (copied_run / "curve.json").write_text(json.dumps(curve))
    ssl_dc.push(copied_run, "org/digits", license="cc-by-4.0")
    (tmp_path / "card.md").write_bytes(hub.branches["org/digits"]["main"]["README.md"])
    card = ModelCard.load(tmp_path / "card.md")
    result = json.loads((copied_run / "result.json").read_text())
    metadata = card.data.to_dict()
    assert (metadata["license"], metadata["library_name"]) == ("cc-by-4.0", "ssl-dc")
    reached = {each.metric_name: each.metric_value for each in card.data.eval_results}
    assert reached == {
        f"kNN-1 top-1, {route} route": round(result["routes"][route]["knn1"], 2) for route in ("dense", "gated")
    }
    for route in ("dense", "gated"):
        row = result["routes"][route]
        assert f"| {route} | {row['knn1']:.2f} | {row['macs']:,.0f} | {row['ratio']:.4f} |" in card.text
    assert "| gated at 0.3 | 0.2981 | 1,234,567 | 51.25 | 61.50 | 0.125 |" in card.text
    assert "`digits`" in card.text
    images = json.loads((copied_run / "data.json").read_text())["images"]
    assert f"{images:,} images" in card.text
    (program,) = (block.partition("```")[0] for block in card.text.split("```python\n")[1:])
    assert 'ssl_dc.load("org/digits")' in program
    compile(program, "card", "exec")


def test_a_dry_run_shows_the_card_and_pushes_nothing(finished_run: ssl_dc.Run, hub: StandIn) -> None:
    said = parsed("push", finished_run.folder, "org/digits", "--dry-run")
    assert said["url"] is None
    assert "The licence of this model was not stated." in said["card"]
    assert hub.branches == {}


def test_weights_have_the_metadata_that_other_readers_ask_for(finished_run: ssl_dc.Run) -> None:
    with safe_open(finished_run.folder / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_a_folder_wins_over_a_name(finished_run: ssl_dc.Run, hub: StandIn) -> None:
    ssl_dc.push(finished_run.folder, "org/digits")
    Path("org/digits").mkdir(parents=True)
    with pytest.raises(ConfigError, match="org/digits is not a run folder"):
        ssl_dc.load("org/digits")
    for file in ("config.json", "model.safetensors"):
        Path("org/digits", file).write_bytes((finished_run.folder / file).read_bytes())
    hub.branches.clear()
    assert_same(finished_run.model, ssl_dc.load("org/digits"))


def test_what_the_hub_has_not_is_said_in_words(
    finished_run: ssl_dc.Run, hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"runs/typo is no folder here\. The Hub shows no model runs/typo to you"):
        ssl_dc.load("runs/typo")
    with pytest.raises(ConfigError, match="runs/typo is not a run folder"):
        ssl_dc.load(Path("runs/typo"))
    with pytest.raises(ConfigError, match="revision='a' is for a model on the Hub"):
        ssl_dc.load(finished_run.folder, revision="a")
    assert "write owner/name" in message("push", finished_run.folder, "digits")
    assert "is not a run folder" in message("push", "nowhere", "org/digits")
    assert "there is no such file" in message("push", finished_run.folder, "org/digits", "--curve", "none.json")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ConfigError, match="hf auth login"):
        ssl_dc.push(finished_run.folder, "org/digits")


@pytest.mark.long
def test_without_a_network_the_cache_is_read(
    finished_run: ssl_dc.Run, hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssl_dc.push(finished_run.folder, "org/digits")
    ssl_dc.load("org/digits")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        answer_at(f"http://127.0.0.1:{closed.getsockname()[1]}", monkeypatch)
        assert_same(finished_run.model, ssl_dc.load("org/digits"))
        with pytest.raises(
            RunError, match=r"org/other is no folder here\. The Hub cannot be reached, and org/other is not in its cache"
        ):
            ssl_dc.load("org/other")
        with pytest.raises(RunError, match="the Hub cannot be reached for org/other"):
            ssl_dc.push(finished_run.folder, "org/other")


def test_names() -> None:
    assert all(map(is_hub_name, ("org/name", "me/vit-b.16_x")))
    assert not any(map(is_hub_name, ("name", "a/b/c", "/a", "a/", "../b", "~/b", "a\\b", "./b")))


def test_a_file_that_is_no_curve_is_one_message(finished_run: ssl_dc.Run, tmp_path: Path) -> None:
    for text in ('{"protocol": "knn"}', '{"runs": []}', "[]"):
        (tmp_path / "wrong.json").write_text(text)
        said = message("push", finished_run.folder, "org/digits", "--dry-run", "--curve", tmp_path / "wrong.json")
        assert "wrong.json" in said
        assert "fault in the code" not in said
