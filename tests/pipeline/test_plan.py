"""Laws of `build --dry-run`: it writes nothing, and what it says is what the build then does."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from shardtrain.cli.main import main
from shardtrain.datasets.demo import write_demo
from shardtrain.errors import CorpusNotFoundError, ShardsExistError
from shardtrain.pipeline import build as job
from shardtrain.pipeline import plan as planning
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.plan import plan_build
from shardtrain.shards.layout import MEASURED


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, documents=600, classes=3, seed=2)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


BUILDS = {  # whether the corpus has a test split, and the options
    "n-grams": (True, {}),
    "n-grams of one file": (False, {}),
    "n-grams without validation": (False, {"validation_fraction": 0.0}),
    "n-grams validated by the test file": (True, {"validation": "test.csv"}),
    "the most frequent n-grams": (True, {"select": "none"}),
    "hashes": (False, {"vectorizer": "hashing", "max_features": 1 << 10}),
    "sequences": (True, {"vectorizer": "sequence"}),
}


@pytest.mark.parametrize(("tested", "options"), BUILDS.values(), ids=BUILDS)
def test_the_planned_passes_workers_and_disk_are_those_of_the_build(
    tested: bool, options: dict[str, Any], demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = []
    monkeypatch.setattr(job, "require_room", lambda space, amount: needed.append(amount))
    corpus = demo if tested else demo / "train.csv"
    chosen = BuildOptions(**options)
    plan = plan_build(corpus, tmp_path / "out", chosen)
    assert not (tmp_path / "out").exists()
    manifest = build(corpus, tmp_path / "out", chosen)
    measured = json.loads((tmp_path / "out" / MEASURED).read_text())
    assert plan.passes == tuple(measured["pass_seconds"])
    assert plan.workers == measured["workers"]
    assert needed == [plan.disk_bytes]
    part = manifest.build["parts"][0]
    assert plan.train.source == part["train"]
    assert (plan.validation and plan.validation.source) == part["validation"]
    assert (plan.test and plan.test.source) == part.get("test")
    documents = sum(split.documents for split in (plan.train, plan.validation, plan.test) if split)
    assert documents == part["documents"]


def test_a_plan_for_packed_files_measures_them_and_leaves_nothing(demo: Path, tmp_path: Path) -> None:
    packed = tmp_path / "corpus" / "train.csv.gz"
    packed.parent.mkdir()
    text = (demo / "train.csv").read_bytes() * 20  # more than what is looked at
    packed.write_bytes(gzip.compress(text))
    before = contents(tmp_path)
    plan = plan_build(packed, tmp_path / "out", BuildOptions(vectorizer="auto"))
    assert (plan.train.num_bytes, plan.train.units) == (len(text), None)
    assert plan.notes[0].startswith("train.csv.gz: CSV")
    both = [plan_build(packed, tmp_path / "out", BuildOptions(vectorizer=name)) for name in ("ngram", "sequence")]
    assert plan.disk_bytes == max(each.disk_bytes for each in both)
    assert contents(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_plan_refuses_what_the_build_refuses_and_takes_what_is_there(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(demo, out, BuildOptions(max_features=300))
    before = contents(out)
    refused = plan_build(demo, out, BuildOptions())
    assert refused.lines()[-1].startswith(f"would be refused: '{out}' already holds shards; choose another --out")
    assert main(["build", str(demo), "--out", str(out), "--dry-run"]) == 1
    assert plan_build(demo, out, BuildOptions(overwrite=True)).lines()[-1] == f"would write {out}; nothing was written"
    (tmp_path / "other files").mkdir()
    (tmp_path / "other files" / "x").touch()
    with pytest.raises(ShardsExistError, match="not shards"):
        plan_build(demo, tmp_path / "other files", BuildOptions())
    with pytest.raises(CorpusNotFoundError):
        plan_build(tmp_path / "nothing", tmp_path / "other", BuildOptions())
    assert "best 300" in plan_build(demo / "train.csv", out, BuildOptions(append=True)).vectorizer
    assert contents(out) == before


def test_the_command_prints_the_plan_and_fails_where_the_disk_is_too_small(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["build", str(demo), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "train.csv: CSV, " in said
    assert "600 documents in 1 unit" in said
    assert f"would write {tmp_path / 'out'}; nothing was written" in said
    assert main([*command, "--json", "--memory-limit", "512MiB"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["memory_limit"] == 512 << 20
    assert facts["enough_disk"] is True
    monkeypatch.setattr(planning, "room_of", lambda working: 10)
    assert main(command) == 1
    assert "not enough" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
