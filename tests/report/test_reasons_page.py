"""Laws of the page of reasons: it loads nothing, is readable and accessible, marks what the table says, stays text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from support.browser import Browser, running_browser
from support.topics import TEXTS, TOPICS, write_corpus
from support.training import fit

from shardtrain.cli.main import main
from shardtrain.inference.explanations import Explanation, Reason
from shardtrain.inference.options import MOST_ON_PAGE
from shardtrain.inference.run import Run
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.report.reasons_page import reasons_page
from shardtrain.training.options import FitOptions

READABLE = (Path(__file__).parents[1] / "support" / "readable.js").read_text()
HOSTILE = "<script>alert(1)</script> & \u202egnp.exe \x1b[31m oven\n\n" + "x" * 80
MARKS = "[...document.querySelectorAll('mark')].map((each) => [each.textContent, each.className])"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("reasons")
    build(write_corpus(root / "corpus", tuple(TOPICS)), root / "shards", BuildOptions(workers=1))
    with open_shards(root / "shards") as shards:
        return fit(shards, FitOptions(model="linear", epochs=3, batch_size=16, learning_rate=0.05), out=root / "run")


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "reasons.html"
    words = ["predict", str(run.path), *TEXTS, "", HOSTILE, "--explain", "4", "--html", str(out), "--quiet"]
    assert main(words) == 0
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)], ids=["phone, dark mode", "desktop"])
def test_it_is_readable_loads_nothing_and_is_accessible(page: Path, browser: Browser, width: int, dark: bool) -> None:
    shown = browser.open(page, width=width, dark=dark)
    assert shown.run(READABLE) == []
    assert shown.requests == [page.resolve().as_uri()]
    assert shown.complaints == []
    assert shown.run("document.querySelectorAll('script, img, iframe').length") == 0
    levels = shown.run("[...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.localName[1]))")
    assert all(after - before <= 1 for before, after in pairwise([0, *levels]))
    assert shown.run("[...document.querySelectorAll('table')].every((t) => t.caption && t.caption.textContent)")
    assert shown.run("[...document.querySelectorAll('th')].every((each) => ['row', 'col'].includes(each.scope))")
    assert shown.run("document.querySelectorAll('[tabindex]').length") == len(TEXTS) + 2  # tables scroll by keyboard
    text = shown.run("document.body.textContent")
    assert "<script>alert(1)</script>" in text
    assert "\u202e" not in text
    shown.close()


def test_what_is_marked_are_the_terms_and_the_rows_below_lead_to_the_logit(
    run: Run, page: Path, browser: Browser
) -> None:
    found = run.explain([*TEXTS, "", HOSTILE], n=4)
    shown = browser.open(page, width=1280)
    rows = shown.run(
        "[...document.querySelectorAll('table')].map((t) => [...t.tBodies[0].rows].map((r) => "
        "[...r.cells].map((c) => c.textContent)))"
    )
    for explanation, cells in zip(found, rows, strict=True):
        numbers = [float(row[-1].replace("\u2212", "-")) for row in cells]
        assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=4e-4)
        assert numbers[-1] == pytest.approx(explanation.logit, abs=6e-5)
        for reason, row in zip(explanation.reasons, cells, strict=False):
            assert row[0] == f"“{reason.terms[0]}”"
            assert row[1] == ", ".join(f"{start}–{stop}" for start, stop in reason.places)
    shown.close()


def test_a_mark_says_which_way_and_how_much(tmp_path: Path, browser: Browser) -> None:
    text = "good bad plain"
    reasons = (
        Reason(terms=("good",), places=((0, 4),), contribution=4.0),
        Reason(terms=("bad",), places=((5, 8),), contribution=-0.9),
        Reason(terms=("plain",), places=((9, 14),), contribution=0.001),
    )
    whole = Explanation(
        label="a", predicted="a", probability=0.9, logit=3.1, method="exact", reasons=reasons, num_others=0,
        others=0.0, rest=0.099,
    )  # fmt: skip
    out = tmp_path / "page.html"
    out.write_text(reasons_page(tmp_path, [(text, whole)], more=False), encoding="utf-8")
    shown = browser.open(out, width=1280)
    assert shown.run(MARKS) == [["good", "for m3"], ["bad", "against m1"]]
    assert shown.run("document.querySelector('.text').textContent") == text
    lines = "[...document.querySelectorAll('mark')].map((m) => getComputedStyle(m).borderBottomStyle)"
    assert shown.run(lines) == ["solid", "dashed"]
    shown.close()


def test_it_shows_so_many_texts_and_says_that_there_are_more(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "new" / "page.html"
    texts.write_text("oven\n" * (MOST_ON_PAGE + 50))
    words = ["predict", str(run.path), "--input", str(texts), "--explain", "1", "--html", str(out), "--quiet"]
    assert main(words) == 0
    assert capsys.readouterr().out == f"the first {MOST_ON_PAGE} texts explained: {out}\n"
    assert out.read_text(encoding="utf-8").count("<section") == MOST_ON_PAGE
    assert f'<nav aria-label="Contents"><details><summary>All {MOST_ON_PAGE}</summary>' in out.read_text("utf-8")
    assert main(["predict", str(run.path), "oven", "--explain", "1", "--html", str(out)]) == 0  # a page is replaced
    assert capsys.readouterr().out == f"1 text explained: {out}\n"
    out.write_text("mine")
    assert main(words) == 1
    assert out.read_text() == "mine"
    assert "is not a report of shardtrain; choose another --html" in capsys.readouterr().err


def test_a_page_of_long_texts_ends_before_it_is_too_long(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shardtrain.cli.predict.MOST_CHARACTERS", 100)
    texts, out = tmp_path / "texts.txt", tmp_path / "page.html"
    texts.write_text(f"{'oven ' * 50}\n" + "oven cake\n" * 30)
    for lines, shown in ((31, 1), (30, 11)):
        texts.write_text("".join(texts.read_text().splitlines(keepends=True)[-lines:]))
        assert main(["predict", str(run.path), "--input", str(texts), "--explain", "2", "--html", str(out)]) == 0
        assert capsys.readouterr().out.startswith(f"the first {shown} text")
