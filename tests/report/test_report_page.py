"""The page of a report: whole, self-contained, and safe with any text in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ssra_engine.cli import main
from ssra_engine.config import load_config
from ssra_engine.report.collect import collect
from ssra_engine.report.page import render
from ssra_engine.roles import fake_roles
from ssra_engine.run import run
from ssra_engine.simulate import simulate, write

_NASTY = "</script><script>alert(1)</script>\"'&<b onclick=x>]]> <!-- \u2028 小猫钓鱼"
_VOID = {"meta", "input"}


class _Elements(HTMLParser):
    """Elements with their attributes and own text; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in _VOID:
            self._open.append(len(self.found) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.found[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[self._open[-1]][2].append(data)

    def of(self, tag: str) -> Iterator[tuple[dict[str, str | None], str]]:
        return ((attrs, "".join(text)) for name, attrs, text in self.found if name == tag)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("page")
    write(simulate(60, 5), folder)
    config = load_config(overrides={"output.shard_documents": 20})
    run(config, [folder / "corpus.arrow"], fake_roles(config.grades), folder / "out")
    return collect(folder / "out", samples=6)


def _card() -> dict[str, Any]:
    quality = {
        "rows": 40,
        "accuracy": 0.75,
        "f1": [0.9, 0.1, 0.2, 0.9],
        "quadratic_kappa": 0.7,
        "calibration_error": 0.05,
        "reliability": [[10, 0.45, 0.4], [30, 0.9, 0.85]],
        "confusion": [[10, 1, 0, 0], [1, 2, 3, 0], [0, 0, 4, 1], [0, 0, 3, 15]],
    }
    return {"temperature": 1.2, "held_out": quality, "held_out_evened": quality}


def _evaluation(model: str) -> dict[str, Any]:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "queries": 3, "p": 0.02}
    nothing = {"value": None, "low": None, "high": None, "queries": 0}
    row = {"model": model, "variant": model, "against": model}
    row |= {"per_query": {"ndcg_linear@10": figure, "mrr": nothing}, "pooled": {"ap_mean": figure}}
    facts = {"split": "dev", "queries": 3, "documents": 5, "pairs": 9}
    facts |= {"mode": "judged", "confidence": 0.95}
    return {**facts, "results": [row], "comparisons": [row]}


def _audit(text: str) -> dict[str, Any]:
    share = {"right": 3, "of": 4, "low": 0.3, "high": 0.95}
    nothing = {"right": 0, "of": 0, "low": None, "high": None}
    target = {"target": 1, "all": share, "kept": share, "rejected": nothing, "predicted": share}
    kappa = {"annotators": [text, "Bo"], "pairs": 4, "agree": 0.75, "kappa": None, "weighted": 0.4}
    return {
        **{"file": text, "per_grade": 4, "seed": 0, "surest": 0.25, "labelled": 4, "no_grade": 1},
        **{"labels": ["0", "1", "-"], "by_target": {"1": [0, 3, 1]}, "targets": [target]},
        **{"by_predicted": {"1": [0, 3, 1]}, "annotators": {text: 4, "Bo": 4}, "kappa": [kappa]},
    }


def _accepted(text: str) -> list[dict[str, Any]]:
    refused = {"threshold": None, "reachable": 0.4359, "population": 90, "kept": 40}
    refused |= {"of_right": 3, "of_audited": 4, "accepted": 0}
    met = {**refused, "threshold": 0.25, "accepted": 1234, "reachable": None}
    promise = {"promise": True, "min_precision": 0.6, "confidence": 0.95, "jointly": False}
    judged = {"threshold": 0.5, "population": 9, "kept": 4, "right": 2, "judged": 3, "accepted": 5}
    estimate = {"promise": False, "min_precision": 0.6, "judged": 77, "grades": {"0": judged}}
    return [
        {**promise, "file": text, "grades": {"0": refused, "1": met}},
        {**estimate, "file": "b"},
    ]


def _strings(tree: Any) -> Any:
    """The tree with the nasty text in place of every text that comes from data."""
    if isinstance(tree, dict):
        return {key: _strings(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_strings(value) for value in tree]
    return _NASTY if isinstance(tree, str) else tree


def test_any_text_is_shown_as_it_is_and_runs_nothing(figures: dict[str, Any]) -> None:
    nasty = {
        **figures,
        "output": _NASTY,
        "config": _NASTY,
        "missing": {"engines": _NASTY},
        "score_model": _card(),
        "embedder": [_evaluation(_NASTY)],
        "audit": _audit(_NASTY),
        "accepted": _accepted(_NASTY),
        "frequent": _strings(figures["frequent"]) or [{"text": _NASTY, "least": 2, "most": 2}],
        "samples": [
            {**row, "query": _NASTY, "doc_id": _NASTY, "document": _NASTY}
            for row in figures["samples"]
        ],
        "provenance": {**figures["provenance"], "inputs": [_NASTY], "backbone": _NASTY},
    }
    elements = _Elements(render(nasty))
    scripts = list(elements.of("script"))
    assert [attrs for attrs, _ in scripts] == [{"type": "application/json", "id": "figures"}, {}]
    assert json.loads(scripts[0][1])["samples"][0]["query"] == _NASTY
    assert not any(name.startswith("on") for _, attrs, _ in elements.found for name in attrs)
    assert "b" not in {tag for tag, attrs, _ in elements.found if "onclick" in attrs}
    queries = [text for attrs, text in elements.of("td") if attrs.get("class") == "query"]
    assert queries == [_NASTY] * len(figures["samples"])
    assert _NASTY in [text for _, text in elements.of("pre")]


def test_it_needs_nothing_from_anywhere(figures: dict[str, Any]) -> None:
    page = render({**figures, "score_model": _card(), "embedder": [_evaluation("a")]})
    elements = _Elements(page)
    tags = {tag for tag, _, _ in elements.found}
    assert not tags & {"link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attrs, _ in elements.found:
        assert not {"src", "srcset", "action"} & set(attrs)
        assert (attrs.get("href") or "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page
    policy = next(attrs for attrs, _ in elements.of("meta") if "http-equiv" in attrs)
    assert policy["content"].startswith("default-src 'none'")
    ids = [attrs["id"] for _, attrs, _ in elements.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [str(attrs["href"])[1:] for attrs, _ in elements.of("a")]
    assert len(links) == 11
    assert set(links) <= set(ids)


def test_the_same_run_gives_the_same_page(figures: dict[str, Any]) -> None:
    assert render(figures) == render(json.loads(json.dumps(figures)))


def test_every_figure_of_the_funnel_is_on_the_page(figures: dict[str, Any]) -> None:
    text = render(figures)
    for part in figures["parts"]:
        for row in part["grades"].values():
            assert f"{row['kept']:,} of {row['generated']:,} kept" in text
    for grade, cost in figures["summary"]["cost"].items():
        kept = figures["summary"]["grades"][grade]["kept"]
        cells = (
            f"<td>{grade}</td><td>60</td><td>{kept:,}</td><td>{cost['samples_per_kept']:.2f}</td>"
        )
        assert cells in text
    assert "figures of a simulation" in text


def test_people_and_promises_are_on_the_page(figures: dict[str, Any]) -> None:
    assert "is not known" in render(figures)
    text = render({**figures, "audit": _audit("labels.csv"), "accepted": _accepted("accepted")})
    assert "Nobody has graded" not in text
    assert "the surest 25 % of each grade" in text
    assert '75 %<span class="soft below">30 % to 95 %</span>' in text
    assert "<td>labels.csv, Bo</td><td>4</td><td>75 %</td><td>–</td><td>0.40</td>" in text
    assert "<b>refused</b>; 43.5 % can be had" in text
    assert "<td>0.250</td><td>1,234</td><td>3 of 4</td>" in text
    assert "nothing is promised" in text


def test_figures_of_embedders_have_the_names_of_the_field(figures: dict[str, Any]) -> None:
    group = _evaluation("a")
    one = group["results"][0]["per_query"]["ndcg_linear@10"]
    group["results"][0]["per_query"] |= {"ap_ge2": one, "recall@5": one}
    text = render({**figures, "embedder": [group]})
    for name in ("nDCG@10, linear gains", "AP, grade 2 or higher", "recall@5"):
        assert f"<summary>{name}</summary>" in text
    assert "<summary>AP, mean over the grades, all pairs together</summary>" in text


def test_run_makes_it_and_report_makes_it_again(tmp_path: Path) -> None:
    def call(*arguments: str | Path) -> Any:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    write(simulate(30, 5), tmp_path)
    out = tmp_path / "out"
    made = call(
        *("run", "--input", tmp_path / "corpus.arrow", "--backend", "fake", "--output", out)
    )
    assert made.exit_code == 0, made.output
    assert str(out / "report.html") in made.stdout
    page = (out / "report.html").read_bytes()
    again = call("report", out, "--output", tmp_path / "again.html")
    assert again.exit_code == 0, again.output
    assert again.stdout == f"{tmp_path / 'again.html'}\n"
    assert (tmp_path / "again.html").read_bytes() == page
    assert json.loads(call("report", out, "--json").stdout)["summary"]["documents"] == 30
    wrong = call("report", tmp_path)
    assert wrong.exit_code == 2
    assert "not the output of a run" in wrong.stderr


def _in_browser(page: str, folder: Path) -> str:
    """The document as a headless browser has it once all scripts have run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000"),
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def test_a_browser_runs_our_script_and_no_other(figures: dict[str, Any], tmp_path: Path) -> None:
    foreign = '<script>document.title = "foreign"</script><b onclick="1">x</b></body>'
    found = _in_browser(render(figures).replace("</body>", foreign), tmp_path)
    assert f"{len(figures['samples'])} of {len(figures['samples'])} shown" in found
    assert "<title>foreign" not in found


def test_a_browser_filters_the_samples_on_a_phone_too(
    figures: dict[str, Any], tmp_path: Path
) -> None:
    # The policy of the page lets no script of a test run in it.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render(figures))
    kept = [row for row in figures["samples"] if row["fate"] == "kept" and row["target"] == 2]
    assert 0 < len(kept) < len(figures["samples"])
    probe = """<script>
      const set = (id, value) => {
        const control = document.getElementById(id);
        control.value = value;
        control.dispatchEvent(new Event("input"));
      };
      const visible = () => [...document.querySelectorAll(".samples tbody tr")]
        .filter((row) => row.getClientRects().length).length;
      const seen = [visible()];
      set("target", "2"); set("fate", "kept"); seen.push(visible());
      set("text", "no such words anywhere"); seen.push(visible());
      set("text", ""); set("target", ""); set("fate", "");
      const { clientWidth, scrollWidth } = document.documentElement;
      parent.postMessage(JSON.stringify([seen, clientWidth, scrollWidth]), "*");
    </script></body>"""
    (tmp_path / "phone.html").write_text(page.replace("</body>", probe), encoding="utf-8")
    # A browser window is wider than a phone, a frame in it need not be.
    frame = """<title></title><script>onmessage = (told) => { document.title = told.data; }</script>
      <iframe src="phone.html" style="width: 360px; height: 640px; border: 0"></iframe>"""
    (told,) = re.findall("<title>(.*?)</title>", _in_browser(frame, tmp_path))
    seen, inside, needed = json.loads(told)
    assert seen == [len(figures["samples"]), len(kept), 0]
    assert inside <= 360
    assert needed <= inside
