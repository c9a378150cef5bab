"""Test reports in a real browser: they load and run nothing, and are readable on phone and desktop, light and dark.

The corpora are ag_news and dbpedia where available, and the demo corpus.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from itertools import islice, pairwise
from pathlib import Path

import pytest
from support.browser import Browser, Page, running_browser
from support.handmade import make_rows, write_shards
from support.resealing import write_config
from support.sampled import sampled

from shardtrain.cli.main import main
from shardtrain.datasets.demo import write_demo
from shardtrain.errors import ReportExistsError
from shardtrain.inference.run import load_run
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.report.markup import element
from shardtrain.report.report_file import write_report

READABLE = (Path(__file__).parents[1] / "support" / "readable.js").read_text()
AXE = Path(__file__).parents[2] / ".venv" / "axe" / "axe.min.js"
REAL = {"ag_news": 5, "dbpedia": 4}  # every n-th document is used
REPORTS = (
    "demo shards",
    "demo run",
    "sequences shards",
    *(f"{name} {kind}" for name in REAL for kind in ("shards", "run")),
)
CHARTS = {  # charts that a report must have, by the beginnings of their titles
    "shards": ["Class distribution", "Document lengths", "Most frequent", "Vocabulary coverage", "Passes", "Memory"],
    "run": [
        "Loss",
        "Accuracy",
        "ROC curve",
        "Precision-recall curve",
        "Accuracy and baseline",
        "Reliability diagram",
    ],
}


def subset(folder: Path, out: Path, every: int) -> Path:
    """Copy every `every`-th document of a published data set."""
    out.mkdir(parents=True)
    shutil.copy(folder / "classes.txt", out)
    for name in ("train.csv", "test.csv"):
        with open(folder / name, newline="", encoding="utf-8") as source, open(out / name, "w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(islice(csv.reader(source), 0, None, every))
    return out


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def reports(root: Path) -> dict[str, Path]:
    """Reports written so far, by corpus and kind."""
    return {}


def make(name: str, root: Path, reports: dict[str, Path], data: Path | None) -> None:
    """Build shards of a corpus, train on them, and write both reports."""
    corpus = root / "corpora" / name
    if name in REAL:
        assert data is not None
        subset(data / name, corpus, REAL[name])
    else:
        write_demo(corpus, documents=1500, classes=5, seed=3)
    sequences = BuildOptions(vectorizer="sequence", workers=1, max_length=60)
    build(corpus, root / f"{name}-shards", sequences if name == "sequences" else BuildOptions(workers=1))
    kinds = ["shards"]
    if name != "sequences":
        kinds.append("run")
        assert main(["fit", f"{root}/{name}-shards", "--out", f"{root}/{name}-run", "--epochs", "3"]) == 0
    for kind in kinds:
        reports[f"{name} {kind}"] = root / f"{name}-{kind}.html"
        assert main(["report", f"{root}/{name}-{kind}", "--out", str(reports[f"{name} {kind}"])]) == 0


@pytest.fixture(params=sampled(REPORTS, (2, 3, 6)))
def report(request: pytest.FixtureRequest, root: Path, reports: dict[str, Path]) -> Path:
    if request.param not in reports:
        name = request.param.split()[0]
        make(name, root, reports, request.getfixturevalue("data") if name in REAL else None)
    return reports[request.param]


@pytest.fixture
def demo_run(root: Path, reports: dict[str, Path]) -> Path:
    if "demo run" not in reports:
        make("demo", root, reports, None)
    return root / "demo-run"


@pytest.fixture(scope="module")
def opened(browser: Browser) -> Callable[[Path, int], Page]:
    """Returns the page of a report in a window of a width, opened when it is first asked for."""
    pages: dict[tuple[Path, int], Page] = {}

    def page(report: Path, width: int) -> Page:
        if (report, width) not in pages:
            pages[report, width] = browser.open(report, width=width)
        return pages[report, width]

    return page


@pytest.fixture(scope="module")
def browser(root: Path) -> Iterator[Browser]:
    with running_browser(root / "profile") as browser:
        yield browser


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("width", "dark"),
    sampled([(390, False), (390, True), (1280, False)], (1,), ["phone, light mode", "phone, dark mode", "desktop"]),
)
def test_a_report_is_readable_loads_nothing_and_logs_nothing(report, browser, width, dark):
    page = browser.open(report, width=width, dark=dark)
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    assert page.run(READABLE) == []
    assert page.requests == [report.resolve().as_uri()]
    assert page.complaints == []
    assert page.run("performance.getEntriesByType('resource').length") == 0
    assert page.run(f"matchMedia('(prefers-color-scheme: {'dark' if dark else 'light'})').matches")
    page.close()


def assert_accessible(report: Path, browser: Browser, modes: Iterable[tuple[int, bool]]) -> None:
    """Let axe-core look at a report in windows of some widths, in light or in dark mode."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed; tools/install_axe.sh installs it where there is npm")
    for width, dark in modes:
        page = browser.open(report, width=width, dark=dark)
        page.run("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        page.run(AXE.read_text(encoding="utf-8") + "; axe.version")
        found = page.run(
            "axe.run().then((found) => ({rules: found.passes.length, violations: found.violations.map((each) => "
            "[each.impact, each.id, each.nodes.map((node) => node.html.slice(0, 150))])}))"
        )
        assert found["rules"] > 20
        assert [each for each in found["violations"] if each[0] in ("serious", "critical")] == []
        assert page.requests == [report.resolve().as_uri()]
        page.close()


@pytest.mark.heavy
def test_axe_finds_nothing_serious_in_the_report_of_a_run(demo_run, reports, browser):
    assert_accessible(reports["demo run"], browser, [(390, True), (1280, False)])  # in `make soak` the others


@pytest.mark.heavy
@pytest.mark.parametrize("mode", sampled([((390, False),), ((1280, True),), ((390, True),), ((1280, False),)], ()))
def test_axe_finds_nothing_serious_in_a_report(report, mode, browser):
    assert_accessible(report, browser, [mode])


SIGNS = """(() => {
  const complaints = [];
  for (const region of document.querySelectorAll(".scroll")) {
    const signs = [...region.parentElement.querySelectorAll(".more span")].map((sign) => sign.checkVisibility());
    const scrolls = [region.scrollWidth > region.clientWidth, region.scrollHeight > region.clientHeight];
    const name = region.getAttribute("aria-label");
    if (String(signs) !== String(scrolls)) complaints.push(`${name} scrolls ${scrolls}, its signs say ${signs}`);
    region.focus();
    if (document.activeElement !== region) complaints.push(`${name} cannot be reached with the keyboard`);
  }
  return complaints;
})()"""


@pytest.mark.parametrize("width", sampled([390, 1280]))
def test_what_scrolls_says_so_and_is_reached_with_the_keyboard(report, opened, width):
    page = opened(report, width)
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run(SIGNS) == []


BROKEN = r"""(() => {
  const broken = [];
  for (const name of document.querySelectorAll(".name:not(.long, .pairs td *)")) {
    for (const node of name.childNodes) {
      if (node.nodeType !== 3) continue;
      for (const word of node.data.matchAll(/[\p{L}\p{N}]+/gu)) {
        const range = document.createRange();
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        const boxes = [...range.getClientRects()].filter((box) => box.width > 1);
        const level = getComputedStyle(name).writingMode === "horizontal-tb";
        const lines = new Set(boxes.map((box) => Math.round(level ? box.top : box.left)));
        if (lines.size > 1) broken.push(word[0]);
      }
    }
  }
  return broken;
})()"""


@pytest.mark.parametrize("width", sampled([390, 1280]))
def test_names_are_not_broken_within_a_word(report, opened, width):
    page = opened(report, width)
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = false })")
    assert " ".join(page.run(BROKEN)) == ""


def test_a_report_has_its_charts_with_tooltips_and_text_alternatives(report, opened):
    page = opened(report, 1280)
    titles = page.run(
        "[...document.querySelectorAll('figure')].map((f) => f.querySelector('figcaption h3').textContent)"
    )
    kind = report.stem.rpartition("-")[2]
    for title in CHARTS[kind]:
        assert any(found.startswith(title) for found in titles), title
    charts = page.run(
        "[...document.querySelectorAll('svg:not([aria-hidden])')].map((s) => "
        "[s.getAttribute('role'), s.getAttribute('aria-label'), "
        "s.querySelectorAll('title').length, s.querySelectorAll('rect, path, circle').length, "
        "s.getBoundingClientRect().height])"
    )
    assert len(charts) >= len(CHARTS[kind])
    for role, label, hints, marks, height in charts:
        assert role == "img"
        assert len(label) > 20
        assert hints > 0
        assert marks > 0
        assert height > 40


def test_a_report_is_accessible_to_screen_readers(report, opened):
    """Heading levels have no gaps, tables have captions and scopes, anchors resolve, ids are unique."""
    page = opened(report, 1280)
    levels = page.run("[...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.localName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.run("[...document.querySelectorAll('table')].every((t) => t.caption && t.caption.textContent)")
    assert page.run("[...document.querySelectorAll('th')].every((each) => ['row', 'col'].includes(each.scope))")
    assert page.run("[...document.querySelectorAll('a')].every((a) => document.querySelector(a.getAttribute('href')))")
    assert page.run("document.documentElement.lang") == "en"
    assert page.run("document.title").strip()
    ids = page.run("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))


HOSTILE = [
    "<script>document.title = 'taken'; alert(1)</script>",
    "</title></style></svg><img src=x onerror=alert(2)>",
    '" onmouseover="alert(3)" x="',
    "\u202egnp.exe\u2066 \x1b[31m & <b>bold</b> &lt;",
]


def test_a_hostile_corpus_stays_text(tmp_path, browser):
    rows = [
        {"label": label, "text": f"word{i} {'common ' * number} {label} 'x' <svg onload=alert(4)> https://a.test/x.png"}
        for i in range(40)
        for number, label in enumerate(HOSTILE)
    ]
    corpus = tmp_path / "<img src=y onerror=alert(5)>.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shards, run = tmp_path / "<script>alert(6)<‚script>", tmp_path / "run"
    build(corpus, shards, BuildOptions(workers=1, min_df=1))
    assert main(["fit", str(shards), "--out", str(run), "--epochs", "1", "--learning-rate", "1e-9"]) == 0
    for folder in (shards, run):
        out = tmp_path / f"{'run' if folder == run else 'shards'}.html"
        assert main(["report", str(folder), "--out", str(out)]) == 0
        page = browser.open(out, width=390)
        assert (
            page.run(
                "document.querySelectorAll('script, img, iframe, object, [onload], [onerror], [onmouseover]').length"
            )
            == 0
        )
        assert page.run("document.title") != "taken"
        assert page.complaints == []
        assert page.requests == [out.resolve().as_uri()]
        assert page.run(READABLE) == []
        text = page.run("document.body.textContent")
        assert HOSTILE[0] in text
        assert "\u202e" not in text
        assert "\\u202egnp.exe" in text
        page.close()


class Sources(HTMLParser):
    """Collects what a page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}" for name, value in attributes if name in ("src", "srcset", "data", "action")]
        self.loads += [str(value) for name, value in attributes if name in ("href", "xlink:href") and value[:1] != "#"]

    def handle_data(self, data: str) -> None:
        self.words += data


def parsed(path: Path) -> Sources:
    found = Sources()
    found.feed(path.read_text(encoding="utf-8"))
    return found


def test_a_report_is_one_small_file_without_external_resources(report):
    found = parsed(report)
    assert found.loads == ["data:,"]
    assert "@import" not in found.words
    assert "url(" not in found.words
    assert report.stat().st_size < 400_000


def test_a_report_of_a_run_agrees_with_its_files(demo_run, reports):
    words = parsed(reports["demo run"]).words
    run = load_run(demo_run)
    for shown in (f"{run.metrics['val_accuracy']:.2%}", f"{run.metrics['val_loss']:.4f}", *run.description.class_names):
        assert shown in words
    with open(demo_run / "history.csv", newline="") as file:
        for epoch in csv.DictReader(file):
            assert f"{float(epoch['val_loss']):.4f}" in words
    assert f"Accuracy {run.metrics['val_accuracy']:.2%} on " in words
    assert f"test accuracy{run.metrics['test_accuracy']:.2%}" in words
    assert f"tested once, on {run.metrics['test_examples']:,} rows" in words
    for version in run.config["versions"].values():
        assert version in words


def test_mistakes_are_shown_with_their_text_until_the_corpus_is_changed(root, demo_run, reports, tmp_path):
    with open(root / "corpora" / "demo" / "train.csv", newline="", encoding="utf-8") as file:
        texts = {" ".join(", ".join(row[1:]).split()).lstrip(", ") for row in csv.reader(file)}
    page = reports["demo run"].read_text(encoding="utf-8").partition('class="mistakes"')[2]
    items = re.findall(r'<p class="verdict">.*?</p><p dir="auto">(.*?)</p><ul class="reasons"', page, re.DOTALL)
    assert len(items) == page.count('class="verdict"') > 0
    for item in items:
        words = Sources()
        words.feed(item)
        shown = " ".join(words.words.removesuffix("…").split())
        assert any(text.startswith(shown) for text in texts)
    copy = Path(shutil.copytree(root / "demo-shards", tmp_path / "copy"))
    made = json.loads((copy / "build.json").read_text())
    for name in made["origins"][0]["files"]:
        made["origins"][0]["files"][name][1] += 1
    (copy / "build.json").write_text(json.dumps(made))
    write_report(demo_run, tmp_path / "report.html", shards=copy)
    words = parsed(tmp_path / "report.html").words
    assert "was changed after the shards were built. The terms of the rows' features are shown instead" in words


def test_a_run_whose_shards_are_gone_is_shown_without_them(demo_run, tmp_path, capsys):
    run = Path(shutil.copytree(demo_run, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    config["shards"] = str(tmp_path / "nowhere")
    write_config(run / "config.json", config)
    out = tmp_path / "report.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    words = parsed(out).words
    assert "if the shards were moved, name them with --shards" in words
    assert "Reliability diagram" not in words
    assert f"majority baseline{load_run(run).metrics['validation']['majority_accuracy']:.2%}" in words
    assert f"{load_run(run).metrics['val_loss']:.4f}" in words
    assert main(["report", str(run), "--out", str(out), "--shards", config["shards"]]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_slices_of_a_report_are_those_of_evaluate(root, demo_run, tmp_path, capsys):
    with open(root / "corpora" / "demo" / "test.csv", newline="", encoding="utf-8") as source:
        rows = [[*row, f"part {number % 3}"] for number, row in enumerate(csv.reader(source))]
    with open(tmp_path / "parts.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["label", "title", "text", "part"], *rows])
    given = ["--by", "part", "--data", str(tmp_path / "parts.csv")]
    assert main(["report", str(demo_run), *given, "--out", str(tmp_path / "report.html")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(demo_run), str(tmp_path / "parts.csv"), "--by", "part", "--json", "-q"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = page.partition('id="slices"')[2].partition("</section>")[0]
    shown = re.findall(
        r">(part \d)</span></th>.*?<td class=\"n\">([\d.]+)%</td>.*?<td class=\"n\">(\d+)</td></tr>", found
    )
    expected = json.loads(capsys.readouterr().out)["slices"]
    assert [(value, float(accuracy), int(count)) for value, accuracy, count in shown] == [
        (each["value"], round(100 * each["accuracy"], 1), each["examples"]) for each in expected
    ]
    assert len(shown) == 3
    for arguments, code, said in (
        ([demo_run, *given[:2]], 2, "--by is given without --data"),
        ([demo_run, *given[2:]], 2, "--data is given without --by"),
        ([root / "demo-shards", *given], 2, "--by is for the report of a run"),
        ([demo_run, "--by", "colour", *given[2:]], 1, "has no column 'colour'"),
    ):
        assert main(["report", *map(str, arguments), "--out", str(tmp_path / "other.html")]) == code
        assert said in capsys.readouterr().err
    assert not (tmp_path / "other.html").exists()


def test_shards_that_changed_since_training_are_noted(root, demo_run, tmp_path):
    copy = Path(shutil.copytree(root / "demo-shards", tmp_path / "copy"))
    write_demo(tmp_path / "more", documents=300, classes=5, seed=3)
    build(tmp_path / "more", copy, BuildOptions(workers=1, append=True))
    write_report(demo_run, tmp_path / "report.html", shards=copy)
    assert "These are not the shards that the run was trained on" in parsed(tmp_path / "report.html").words


@pytest.mark.parametrize(
    ("kind", "empty"),
    sampled(
        [(kind, empty) for kind in ("ngram", "sequence", "dense") for empty in (False, True)],
        (1, 2, 5),
        [f"{kind}, {rows}" for kind in ("ngram", "sequence", "dense") for rows in ("rows with features", "empty rows")],
    ),
)
def test_shards_without_vectorizer_build_json_and_validation_are_shown(kind, empty, tmp_path, browser):
    write_shards(tmp_path / "shards", make_rows(kind, 300, empty=empty), [200, 100])
    write_report(tmp_path / "shards", tmp_path / "report.html")
    page = browser.open(tmp_path / "report.html", width=390)
    assert page.run(READABLE) == []
    assert page.complaints == []
    assert "build.json is missing" in page.run("document.body.textContent")
    page.close()


def test_hashed_features_and_many_long_class_names_are_shown(tmp_path, browser):
    lines = [
        json.dumps({"label": f"{'a very long name of a class ' * 9}{i % 60}", "text": f"some words {i % 60} {i}"})
        for i in range(600)
    ]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    build(
        tmp_path / "corpus.jsonl", tmp_path / "shards", BuildOptions(vectorizer="hashing", max_features=256, workers=1)
    )
    assert main(["fit", str(tmp_path / "shards"), "--out", str(tmp_path / "run"), "--epochs", "1"]) == 0
    for folder, said in (("shards", "Not available for hashed features"), ("run", "all other classes")):
        write_report(tmp_path / folder, tmp_path / f"{folder}.html")
        page = browser.open(tmp_path / f"{folder}.html", width=390)
        assert page.run(READABLE) == []
        assert said in page.run("document.body.textContent")
        page.close()


def test_only_an_older_report_is_replaced(tmp_path, capsys):
    write_shards(tmp_path / "shards", make_rows("ngram", 30), [30])
    out = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "shards"), "--out", str(out)]) == 0
    first = out.read_bytes()
    assert "replaced" not in capsys.readouterr().err
    assert main(["report", str(tmp_path / "shards"), "--out", str(out)]) == 0
    assert f"the older report in '{out}' is replaced" in capsys.readouterr().err
    assert out.read_bytes() == first
    out.write_text("<html>my own page</html>")
    assert main(["report", str(tmp_path / "shards"), "--out", str(out)]) == 1
    assert "is not a report" in capsys.readouterr().err
    assert out.read_text() == "<html>my own page</html>"
    with pytest.raises(ReportExistsError):
        write_report(tmp_path / "shards", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "shards"]


def test_open_shows_the_report_in_the_browser_of_the_system(tmp_path, monkeypatch, capsys):
    write_shards(tmp_path / "shards", make_rows("ngram", 30), [30])
    shower = tmp_path / "shower"
    shower.write_text(f'#!/bin/sh\nprintf %s "$1" > "{tmp_path}/shown"\n')
    shower.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROWSER", f"{shower} %s")
    monkeypatch.setattr(webbrowser, "_browsers", {})  # as in a new process, in which it has not looked for browsers
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    assert main(["report", "shards", "--open", "--out", "a/b/report.html"]) == 0
    assert capsys.readouterr().out.endswith(" kB: a/b/report.html\n")  # its folder was made
    assert (tmp_path / "shown").read_text() == (tmp_path / "a" / "b" / "report.html").as_uri()


def test_folders_and_options_that_do_not_fit_are_named_in_one_line(tmp_path, capsys):
    write_shards(tmp_path / "shards", make_rows("ngram", 30), [30])
    (tmp_path / "empty").mkdir()
    cases = [
        ([tmp_path / "empty"], 1, "holds neither shards"),
        ([tmp_path / "nowhere"], 1, "does not exist"),
        ([tmp_path / "shards", "--shards", tmp_path], 2, "--shards is for the report of a run"),
        ([tmp_path / "shards", "--out", tmp_path], 2, "is a folder"),
        (
            [tmp_path / "shards", "--out", tmp_path / "shards" / "manifest.json" / "r.html"],
            2,
            "manifest.json' is a file",
        ),
    ]
    for arguments, code, said in cases:
        default = [] if "--out" in arguments else ["--out", tmp_path / "out.html"]
        assert main(["report", *map(str, [*arguments, *default])]) == code
        err = capsys.readouterr().err
        assert said in err
        assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "out.html").exists()


def test_a_damaged_shard_is_named_and_no_report_is_left(tmp_path, capsys):
    manifest = write_shards(tmp_path / "shards", make_rows("ngram", 3000), [3000])
    path = tmp_path / "shards" / manifest.splits["train"].shards[0].file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["report", str(tmp_path / "shards"), "--out", str(tmp_path / "report.html")]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_reporting_on_shards_never_imports_tensorflow(tmp_path):
    write_shards(tmp_path / "shards", make_rows("ngram", 30), [30])
    code = (
        "import sys\nfrom shardtrain.cli.main import main\n"
        f"main(['report', {str(tmp_path / 'shards')!r}, '--out', {str(tmp_path / 'out.html')!r}])\n"
        "print(sorted({'tensorflow', 'keras', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_text_and_attributes_cannot_become_markup():
    made = element("p", "<b>", element("b", "&", title='"<'), None, 3, class_="x")
    assert made == '<p class="x">&lt;b&gt;<b title="&quot;&lt;">&amp;</b>3</p>'
