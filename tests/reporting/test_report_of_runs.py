"""What the page of a report says, and what it says of what is not there."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssl_dc
from helpers.command_line import call, message, successful
from helpers.settings import SHORT, TWO_BY_TWO
from ssl_dc.reporting import live, measured
from ssl_dc.reporting.measured import MeasuredRun, ReportOptions, measure
from ssl_dc.reporting.page import Charts, Gallery, Section, Text
from ssl_dc.reporting.recorded import recorded_runs
from ssl_dc.reporting.report import page_of
from ssl_dc.reporting.run_sections import gates_section, map_section, prices_section, principal
from ssl_dc.run_folder import RunFolder
from ssl_dc.run_lock import sole_writer

FEW = ReportOptions(images=20, projection="pca")


def page(*folders: Path, options: ReportOptions = FEW) -> ssl_dc.ReportPage:
    return page_of(recorded_runs(folders), options)


def text_of(report: ssl_dc.ReportPage) -> str:
    """All sentences of a page."""
    blocks = [block for section in report.sections for block in section.blocks]
    return "\n".join(block.text for block in blocks if isinstance(block, Text))


def section(report: ssl_dc.ReportPage, title: str) -> Section:
    (found,) = (part for part in report.sections if part.title == title)
    return found


def points(report: ssl_dc.ReportPage, title: str) -> list[dict[str, Any]]:
    """The points of the chart of that title."""
    (chart,) = (chart for chart in report.charts if chart.title == title)
    (data,) = chart.spec["datasets"].values() if "datasets" in chart.spec else [chart.spec["data"]["values"]]
    return list(data)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> ssl_dc.Run:
    """A run that is trained for several budgets."""
    settings = {**TWO_BY_TWO, "budget.target": "0.3:0.9"}
    return ssl_dc.train(settings, output=tmp_path_factory.mktemp("several") / "several")


FORTY = ReportOptions(images=40, projection="pca")


@pytest.fixture(scope="module")
def report(finished_run: ssl_dc.Run) -> ssl_dc.ReportPage:
    """The page of the run, about 20 images."""
    return page(finished_run.folder)


@pytest.fixture(scope="module")
def report_of_forty(finished_run: ssl_dc.Run) -> ssl_dc.ReportPage:
    """The page of the run, about 40 images."""
    return page(finished_run.folder, options=FORTY)


@pytest.fixture(scope="module")
def found(finished_run: ssl_dc.Run) -> MeasuredRun:
    """What was measured of the run on 40 images."""
    return measure(RunFolder(finished_run.folder), FORTY)


def test_the_page_shows_the_metrics_of_the_run_as_they_were_logged(
    finished_run: ssl_dc.Run, report: ssl_dc.ReportPage
) -> None:
    logged = [json.loads(line) for line in (finished_run.folder / "metrics.jsonl").read_text().splitlines()]
    for name, title in (("loss", "Loss"), ("lr", "Learning rate"), ("terms/variance", "Loss term variance")):
        assert [(point["x"], point["y"]) for point in points(report, title)] == [
            (line["step"], line[name]) for line in logged
        ]


@pytest.mark.long
def test_each_logged_number_has_a_chart_also_one_that_nobody_foresaw(copied_run: Path) -> None:
    with (copied_run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "epoch": 1, "probe/dense/knn1": 71.5, "broken": NaN}\n{"step": 4, "los')
    report = page(copied_run)
    assert [(point["x"], point["y"]) for point in points(report, "probe, dense, knn1")] == [(3, 71.5)]
    assert "broken" not in [chart.title for chart in report.charts]


@pytest.mark.long
def test_what_is_watched_of_both_routes_shares_a_chart(copied_run: Path) -> None:
    with (copied_run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "epoch": 1, "watch/knn/dense": 60, "watch/knn/gated": 50.5}\n')
    found = points(page(copied_run), "kNN-1 while it learns, %")
    assert [(point["series"], point["y"]) for point in found] == [("copied, dense", 60), ("copied, gated", 50.5)]


def test_a_long_training_is_thinned_and_keeps_its_ends(copied_run: Path) -> None:
    lines = [json.dumps({"step": step, "epoch": 1, "loss": 1 / step}) for step in range(1, 5001)]
    (copied_run / "metrics.jsonl").write_text("\n".join(lines))
    report = page(copied_run)
    found = points(report, "Loss")
    assert len(found) == 250
    assert (found[0]["x"], found[-1]["x"]) == (1, 5000)
    (chart,) = (chart for chart in report.charts if chart.title == "Loss")
    assert "1 at step 1, 0.0002 at step 5,000; least 0.0002, greatest 1." in chart.summary
    assert len(chart.table.rows) == 40
    assert "metrics.jsonl has all" in chart.table.note


@pytest.mark.long
def test_accuracy_against_cost_has_each_budget_of_each_run(finished_run: ssl_dc.Run, several: ssl_dc.Run) -> None:
    report = page(finished_run.folder, several.folder, options=FORTY)
    curve = ssl_dc.evaluate(several.folder, "curve").as_json()["runs"][0]["points"]
    found = [point for point in points(report, "kNN-1, top-1 % against MACs an image") if point["series"] == "several"]
    assert [(point["x"], point["y"]) for point in found] == [(point["macs"], point["knn1"]) for point in curve]
    assert [point["large"] for point in found] == [True] + [False] * 7
    assert "Milliseconds were not measured" in text_of(report)


@pytest.mark.long
def test_features_are_computed_once_for_each_set_of_images(
    finished_run: ssl_dc.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    dense = ssl_dc.Model.dense

    def counted(self: ssl_dc.Model, images: Any) -> Any:
        seen.append(len(images))
        return dense(self, images)

    monkeypatch.setattr(ssl_dc.Model, "dense", counted)
    page(finished_run.folder)
    assert seen == [20, 20]  # the images that are looked at, and those that are learned from


def test_cost_and_gates_are_those_of_the_protocols(
    finished_run: ssl_dc.Run, found: MeasuredRun, report_of_forty: ssl_dc.ReportPage
) -> None:
    gates = ssl_dc.evaluate(finished_run.folder, "gates").as_json()
    assert found.gates().as_json()["sites"] == gates["sites"]
    assert found.cost().gated_macs == pytest.approx(gates["ratio"] * found.model.cost.dense_macs)
    shares = points(report_of_forty, "Gates by layer and class")
    first = gates["sites"][0]
    assert shares[0]["share"] == pytest.approx(np.mean(first["class_channel_rates"][0]))


def test_the_cheapest_and_the_dearest_images_of_a_class_are_so(
    found: MeasuredRun, report_of_forty: ssl_dc.ReportPage
) -> None:
    gallery = section(report_of_forty, "Cheapest and dearest images").blocks[1]
    assert isinstance(gallery, Gallery)
    shown = {heading: [float(picture.caption) for picture in pictures] for heading, pictures in gallery.rows}
    ratios = np.sort(found.ratios[found.labels == 3])
    each = min(5, len(ratios) // 2)
    assert shown["3: cheapest"] == pytest.approx(ratios[:each], abs=1e-4)
    assert shown["3: dearest"] == pytest.approx(ratios[::-1][:each], abs=1e-4)


def test_neighbours_are_the_nearest_by_float64(found: MeasuredRun) -> None:
    for route in found.shown_routes:
        x = found.features[route].features.astype(np.float64)
        distances = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
        np.fill_diagonal(distances, np.inf)
        near = found.neighbours(route, [0, 7], 5)
        assert near.tolist() == np.argsort(distances, axis=1, kind="stable")[[0, 7], :5].tolist()


def test_principal_components_keep_the_largest_spread() -> None:
    x = np.random.default_rng(0).normal(size=(50, 6)) * [1, 9, 1, 3, 1, 1]
    _, vectors = np.linalg.eigh(np.cov(x.T))
    expected = (x - x.mean(axis=0)) @ vectors[:, ::-1][:, :2]
    assert np.abs(principal(x.astype(np.float32))) == pytest.approx(np.abs(expected), abs=1e-4)


def test_the_map_has_the_image_of_each_point(report: ssl_dc.ReportPage) -> None:
    shown = points(report, "PCA, dense route")
    assert len(shown) == 20
    assert all(report.thumbnails[point["image"]].startswith("data:image/png;base64,") for point in shown)


@pytest.mark.long
def test_a_run_without_gates_is_shown_without_them(tmp_path: Path) -> None:
    run = ssl_dc.train({**SHORT, "gating.name": "none", "routes": ["dense", "dense"]}, output=tmp_path / "plain")
    said = text_of(page(run.folder))
    assert "This network has no gates, so every image costs the same." in said
    assert "Without gates every image costs the same." in said


@pytest.mark.long
def test_images_without_labels_are_shown_without_accuracy(tmp_path: Path, pictures: Path) -> None:
    settings = {key: value for key, value in SHORT.items() if key not in ("data.limit", "data.test_limit")}
    run = ssl_dc.train({**settings, "data.name": "folder", "data.root": str(pictures)}, output=tmp_path / "unlabelled")
    report = page(run.folder)
    assert "Accuracy is not shown: these images have no labels." in text_of(report)
    assert {cell["y"] for cell in points(report, "Gates by layer and class")} == {"all images"}
    assert {point["series"] for point in points(report, "PCA, gated route")} == {"all images"}
    assert all(point["about"].split()[0].endswith(".png") for point in points(report, "PCA, gated route"))
    assert str(pictures) not in report.as_html().replace(str(pictures), "", 1)  # only the config names the folder


@pytest.mark.long
def test_another_data_set_can_be_looked_at(finished_run: ssl_dc.Run, tmp_path: Path) -> None:
    few = ["--images", "20", "--projection", "pca", "-o", tmp_path / "report.html"]
    chosen = ["--eval-data", "digits", "--eval-data-set", "test_limit=30"]
    successful(call("report", finished_run.folder, *few, *chosen))
    assert "20 of 30 held-out images of digits" in (tmp_path / "report.html").read_text()
    gone = ["--eval-data", "folder", "--eval-data-root", tmp_path / "gone"]
    result = call("report", finished_run.folder, *few, *gone)
    assert result.exit_code == 2
    assert "(--eval-data-root) is not there" in result.stderr
    assert "belong to --eval-data" in message("report", finished_run.folder, "--eval-data-root", "somewhere")
    assert "give one of them" in message("report", finished_run.folder, *chosen, "--data-root", "somewhere")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures without labels."""
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(240):
        Image.fromarray(random.integers(0, 255, (12, 12, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def test_an_interrupted_run_is_shown_as_far_as_it_came(copied_run: Path) -> None:
    for name in ("model.safetensors", "result.json"):
        (copied_run / name).unlink()
    report = page(copied_run)
    said = text_of(report)
    assert "The training was interrupted. The last logged step is step 2 of 2." in said
    assert "The run has no trained model, so nothing is shown" in said
    assert points(report, "Loss")
    report.as_html()


def test_a_run_that_has_logged_nothing_is_shown(copied_run: Path) -> None:
    for name in ("model.safetensors", "result.json", "metrics.jsonl", "history.jsonl", "environment.json"):
        (copied_run / name).unlink()
    report = page(copied_run)
    assert "copied has logged no step yet." in text_of(report)
    assert report.charts == []
    report.as_html()


@pytest.mark.long
def test_images_that_have_gone_are_said(copied_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(model: ssl_dc.Model) -> None:
        raise ssl_dc.DataError("there is no folder gone")

    monkeypatch.setattr(measured, "own_splits", gone)
    assert "copied: there is no folder gone" in text_of(page(copied_run))


@pytest.mark.long
def test_a_line_that_is_half_written_is_told_once(copied_run: Path, tmp_path: Path) -> None:
    metrics = copied_run / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text(f"{lines[0]}\n{lines[1][:20]}")
    (copied_run / "result.json").write_text("{")
    few = ["--images", "8", "--projection", "pca"]
    said = successful(call("report", copied_run, "-o", tmp_path / "report.html", *few)).stderr
    assert said.count(f"copied: {metrics}: the last line, 2, was written only in part and is left out.") == 1
    assert said.count(f"{copied_run / 'result.json'} is damaged") == 1
    assert "the last line, 2, was written only in part" in text_of(page(copied_run))
    metrics.write_text(f"[]\n{lines[0]}\nx\n{lines[1]}\n")
    (run,) = recorded_runs([copied_run])
    assert run.damage == [f"{metrics}: line 1 and 1 more of 4 hold no JSON object and are left out."]
    assert [logged["step"] for logged in run.metrics] == [1, 2]
    with sole_writer(copied_run):  # while it trains, the last line may be in the writing
        assert recorded_runs([copied_run])[0].damage == ()


class Outline(HTMLParser):
    """The elements of a page, and what runs in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.mark.long
def test_text_from_files_is_text_in_the_page(copied_run: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    before = page(copied_run).as_html()
    result = json.loads((copied_run / "result.json").read_text())
    (copied_run / "result.json").write_text(json.dumps({**result, "advice": [evil], "measured_on": evil}))
    with (copied_run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "epoch": 1, evil: 1.0}) + "\n")
    after = page(copied_run).as_html()
    assert Outline(after).tags.count("script") == Outline(before).tags.count("script") + 1  # the new number's chart
    assert Outline(after).handlers == []


@pytest.mark.long
def test_a_damaged_result_does_not_keep_the_page_from_being_made(copied_run: Path) -> None:
    (copied_run / "result.json").write_text('{"routes": {"dense": {"knn1": "much"}, "gated": 3}, "findings": 5}')
    report = page(copied_run)
    report.as_html()
    faults = "findings is not a list of sentences; routes.dense.knn1 is not a number or null; routes.gated is not an object"
    assert f"{copied_run / 'result.json'} is damaged: {faults}." in text_of(report)


class Told(ssl_dc.Watcher):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)


@pytest.mark.long
def test_a_page_follows_a_training_and_ends_with_it(copied_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "live.html"
    held = sole_writer(copied_run)
    held.__enter__()
    waits: list[float] = []
    pages: list[str] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        pages.append(output.read_text())
        if len(waits) == 2:
            held.__exit__(None, None, None)

    told = Told()
    last = live.follow(copied_run, output, FEW, every=7, watchers=[told], wait=wait)
    assert waits == [7, 7]
    assert told.messages == ["copied: The run trains now. The last logged step is step 2 of 2."]  # not twice the same
    assert all('"refreshSeconds": 7' in each and "The run trains now." in each for each in pages)
    assert last.refresh_seconds is None
    assert '"refreshSeconds": null' in output.read_text()
    assert "The training has ended" in text_of(last)
    assert any(chart.title == "PCA, gated route" for chart in last.charts)


@pytest.mark.long
def test_the_command_writes_the_page(finished_run: ssl_dc.Run, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    said = successful(call("report", finished_run.folder, "-o", output, "--images", 20, "--projection", "pca", "--live"))
    assert said.stdout == f"report: {output}\n"
    assert "Report of run" in output.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere is not a run folder"),
        (["nowhere", "--images", "0"], "0 is not in the range x>=1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("report", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_said_before_anything_is_computed(finished_run: ssl_dc.Run) -> None:
    assert "there is no folder nowhere" in message("report", finished_run.folder, "-o", "nowhere/report.html")


@pytest.mark.parametrize("option", [{"images": 0}, {"projection": "tsne"}])
def test_a_wrong_argument_is_refused(finished_run: ssl_dc.Run, option: dict[str, Any]) -> None:
    with pytest.raises(ssl_dc.ConfigError, match="allowed"):
        ssl_dc.report(finished_run, **option)


def test_many_classes_are_named_by_their_points_and_shown_in_part(found: MeasuredRun) -> None:
    classes = tuple(f"class {number}" for number in range(30))
    many = replace(found, classes=classes, labels=np.arange(40) % 30)
    (_, charts) = map_section(many, "0", "pca", {}).blocks
    assert isinstance(charts, Charts)
    assert all("too many for colours" in chart.summary for chart in charts.charts)
    assert "class 29, image" in charts.charts[0].table.rows[29][0]
    (shown, _) = gates_section(many).blocks
    assert isinstance(shown, Charts)
    assert "20 of 30 classes are shown." in shown.charts[0].summary
    (text, gallery) = prices_section(many).blocks
    assert isinstance(text, Text)
    assert "The first 20 of 30 classes are shown." in text.text
    assert isinstance(gallery, Gallery)
    assert [heading for heading, _ in gallery.rows][:2] == ["class 0: cheapest", "class 0: dearest"]


def test_a_missing_library_is_named(finished_run: ssl_dc.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "altair", None)
    with pytest.raises(ssl_dc.ConfigError, match=r"pip install 'ssl-dc\[report\]'"):
        ssl_dc.report(finished_run)


@pytest.mark.long
def test_a_notebook_shows_the_page_in_a_frame(finished_run: ssl_dc.Run) -> None:
    shown = ssl_dc.report(finished_run, images=20, projection="pca", progress=False)._repr_html_()
    assert Outline(shown).tags == ["iframe"]
