"""What a reader gets: text, a page without anything from elsewhere, a picture."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from bloomery.bench.endpoint.call import Call
from bloomery.bench.endpoint.load import Level
from bloomery.bench.endpoint.measuring import report
from bloomery.bench.endpoint.outcome import Outcome
from bloomery.bench.endpoint.plan import Plan, read_levels, read_limit, read_parameters
from bloomery.bench.endpoint.report import axes, charts, markdown, page, picture
from bloomery.bench.endpoint.surroundings import Share
from bloomery.bench.endpoint.workload import Workload
from bloomery.errors import ConfigurationError

HOSTILE = "<script>alert(1)</script> & co"


def calls(level: Level, failing: bool = False) -> list[Call]:
    slow = level.value / 10
    found = [
        Call(index, index, index + slow + 0.3, (index + slow, index + slow + 0.3), True, 2, 2, "endpoint")
        for index in range(30)
    ]
    return [*found, Call(31, 31, 32, failure="HTTP 503", reason=HOSTILE)] if failing else found


def made(name: str = "mine", **plan: Any) -> dict[str, Any]:
    levels = plan.pop("levels", tuple(Level("concurrency", value, 30) for value in (1, 2, 4)))
    outcomes = [Outcome(level, calls(level, failing=level.value == 4), Share(0.02, 0.1, True)) for level in levels]
    return report(Plan(name, Workload(), levels, **plan), outcomes, 12.5, "/metrics")


@pytest.fixture(scope="module")
def several() -> list[dict[str, Any]]:
    limit = read_limit("weights=1GB,bandwidth=2GB/s")
    return [made(limit=limit, price_per_hour=2.0), made(HOSTILE), made("third")]


def test_the_report_survives_json_and_names_its_best_level(several: list[dict[str, Any]]) -> None:
    found = json.loads(json.dumps(several[0]))
    assert found["schema"] == "bloomery.bench/1"
    best = next(level for level in found["levels"] if level["load"]["name"] == found["best_level"])
    assert found["throughput"] == best["throughput"]
    assert found["throughput"]["output_tokens_per_s"] == max(
        level["throughput"]["output_tokens_per_s"] for level in found["levels"]
    )
    assert [level["limit_output_tokens_per_s"] for level in found["levels"]] == [2, 4, 8]


def test_the_page_needs_nothing_from_elsewhere(several: list[dict[str, Any]]) -> None:
    html = page.render(several)
    assert not re.findall(r"(?:src|href)=|url\((?!#)|@import|https?://", html)
    assert "prefers-color-scheme:dark" in html


def test_names_and_errors_are_text_and_never_markup(several: list[dict[str, Any]]) -> None:
    html = page.render(several)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_the_page_has_its_data_with_it(several: list[dict[str, Any]]) -> None:
    data = re.search(r'<script type="application/json" id="reports">(.*?)</script>', page.render(several), re.DOTALL)
    assert data is not None
    assert json.loads(data[1]) == several


def test_the_picture_is_well_formed_and_follows_light_and_dark(several: list[dict[str, Any]]) -> None:
    svg = picture.render(several)
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert "prefers-color-scheme:dark" in svg
    titles = [each.text for each in root.iter() if each.get("class") == "title"]
    assert titles[:2] == ["Throughput", "Time to first token"]
    assert str(titles[-1]).startswith("Each request at")


def test_marks_stand_where_their_figures_are(several: list[dict[str, Any]]) -> None:
    plot = charts.throughput(several[:1])
    assert plot is not None
    root = ElementTree.fromstring(plot.svg())
    dots = [each for each in root.iter() if each.get("class") == "dot run0"]
    figures = [level["throughput"]["output_tokens_per_s"] for level in several[0]["levels"]]
    floor, top = plot.height - 48, 74
    for dot, value in zip(dots, figures, strict=True):
        share = (floor - float(dot.get("cy", ""))) / (floor - top)
        assert share * plot.y.ticks[-1] == pytest.approx(value, abs=plot.y.ticks[-1] / 200)


def test_every_run_is_in_every_comparison(several: list[dict[str, Any]]) -> None:
    text = markdown.render(several)
    for name in ("mine", "third"):
        assert text.count(name) >= 3
    assert "memory's limit" in page.render(several).replace("&#x27;", "'")
    assert charts.latency(several) is not None


def test_published_tables_of_several_runs_have_bars() -> None:
    level = (Level("concurrency", 1, 30),)
    reports = [made(name, levels=level, table=True) for name in ("DeepSpeed", "Accelerate")]
    assert "| DeepSpeed" in markdown.render(reports)
    titles = [plot.title for plot in charts.every(reports)]
    assert titles[:2] == ["Tokens per second", "Time to load"]
    assert "The published table" in page.render(reports)


def test_a_measurement_without_any_answer_is_still_a_report() -> None:
    level = Level("concurrency", 1, 1)
    outcome = Outcome(level, [Call(0, 0, 1, failure="timeout", reason="no answer")], Share(0, 0, False))
    found = report(Plan("dead", Workload(), (level,), price_per_hour=1.0), [outcome], None, "unknown")
    for text in (markdown.render([found]), page.render([found]), picture.render([found])):
        assert "dead" in text or "<svg" in text
    table = copy.deepcopy(found) | {"table": made(levels=(level,), table=True)["table"] | {"latency_ms": None}}
    table["table"]["tokens_per_s"] = None
    assert "dead" in page.render([table])


@pytest.mark.parametrize(("high", "last"), [(0.0, 1), (7.2, 8), (183, 200), (1000, 1000), (0.013, 0.015)])
def test_axes_end_at_round_numbers(high: float, last: float) -> None:
    scale = axes.Linear.to(high)
    assert scale.ticks[-1] == pytest.approx(last)
    assert scale.place(scale.ticks[-1]) == 1.0


def test_logarithmic_axes_hold_their_values() -> None:
    scale = axes.Logarithmic.over([0.7, 35, 420])
    assert scale.ticks[0] == 0.5
    assert scale.ticks[-1] == 500
    assert 0 < scale.place(0.7) < scale.place(35) < scale.place(420) < 1


def test_levels_of_the_command_line() -> None:
    def levels(**words: Any) -> list[tuple[str, int | None]]:
        defaults = {"sweep": None, "rate": None, "trace": None, "burstiness": 1.0, "requests": None, "seconds": None}
        return [(level.name, level.requests) for level in read_levels(**(defaults | words))]

    assert levels() == [("concurrency 1", 30), ("concurrency 2", 30), ("concurrency 4", 32), ("concurrency 8", 64)]
    assert levels(sweep="concurrency=2", rate="0.5") == [("concurrency 2", 30), ("rate 0.5", 30)]
    assert levels(sweep="3", seconds=5.0) == [("concurrency 3", None)]
    assert levels(sweep="8", requests=4) == [("concurrency 8", 8)]
    for wrong in ({"sweep": "0"}, {"rate": "fast"}, {"burstiness": 0.0}, {"sweep": "concurrency=1.5"}):
        with pytest.raises(ConfigurationError):
            levels(**wrong)


def test_sizes_and_parameters_of_the_command_line() -> None:
    assert read_limit("weights=352GB,bandwidth=12.4TB/s").tokens_per_second(4) == pytest.approx(4 * 12.4e12 / 352e9)
    assert read_limit("weights=1GiB,bandwidth=1GiB/s").tokens_per_second(1) == 1
    assert read_parameters(["top_k=5", "stop=END", "ignore_eos=null"]) == {
        "top_k": 5,
        "stop": "END",
        "ignore_eos": None,
    }
    for wrong in ("weights=1GB", "weights=0,bandwidth=1", "weights=1GB,bandwidth=x", "weights=1,bandwidth=1,more=1"):
        with pytest.raises(ConfigurationError, match="two sizes"):
            read_limit(wrong)
