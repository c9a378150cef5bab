"""Laws of what an evaluation does beside summing up: slices, weights, a file of wrong rows, thresholds."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss
from support.topics import TOPICS, write_corpus
from support.training import fit

from shardtrain.cli.main import main
from shardtrain.corpus.options import CorpusOptions
from shardtrain.errors import CorpusFormatError, ModelError, OutputExistsError, RunError, UsageError
from shardtrain.inference import errors_file as written
from shardtrain.inference import parts, units
from shardtrain.inference import slices as slicing
from shardtrain.inference.errors_file import COLUMNS, errors_file
from shardtrain.inference.evaluate import Evaluated, evaluate_corpus, measure
from shardtrain.inference.options import PredictOptions
from shardtrain.inference.predict_file import predict_file
from shardtrain.inference.rows import predict_rows
from shardtrain.inference.run import Run, load_run
from shardtrain.inference.slices import MISSING
from shardtrain.inference.thresholds import save_thresholds
from shardtrain.loader.shards import open_shards
from shardtrain.metrics import outputs
from shardtrain.metrics.thresholds import UNDECIDED, Rule, Thresholds
from shardtrain.models.options import MlpOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.schema import canonical_checksum
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import THRESHOLDS

NAMES = [str(number) for number in range(1, len(TOPICS) + 1)]
COUNTRIES = ["de", "fr", "uk", "", "7", "07", "nan"]  # spelled as they are: 7 and 07 are two


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with noisy labels, its shards, and a run."""
    root = tmp_path_factory.mktemp("watched")
    corpus = write_corpus(root / "corpus", tuple(TOPICS), 1500)
    rng = np.random.default_rng(1)
    for name in ("train.csv", "test.csv"):
        with open(corpus / name, newline="") as file:
            found = [[str(rng.integers(1, 4)) if rng.random() < 0.3 else y, *rest] for y, *rest in csv.reader(file)]
        with open(corpus / name, "w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(found)
    build(corpus, root / "shards", BuildOptions(workers=1))
    with open_shards(root / "shards") as shards:
        fit(shards, FitOptions(epochs=3, batch_size=32, mlp=MlpOptions(units=8)), out=root / "run")
    return root


@pytest.fixture
def run(root: Path) -> Any:
    """The run, without thresholds before and after."""
    (root / "run" / THRESHOLDS).unlink(missing_ok=True)
    yield load_run(root / "run")
    (root / "run" / THRESHOLDS).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def records(root: Path) -> list[dict[str, Any]]:
    """Records with a country and a weight; some have no country."""
    rng = np.random.default_rng(2)
    with open(root / "corpus" / "test.csv", newline="") as file:
        texts = [(y, " ".join(rest)) for y, *rest in csv.reader(file)]
    return [
        {
            "id": number,
            "text": f'{text}, "said"\n{number}' if number % 50 == 0 else text,
            "country": str(rng.choice(COUNTRIES)),
            "weight": float(rng.choice([0.0, 0.5, 3.0])),
            "label": label,
        }
        for number, (label, text) in enumerate(texts)
    ]


def write(records: list[dict[str, Any]], path: Path) -> Path:
    if path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({**each, "country": each["country"] or None}) + "\n" for each in records))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path, row_group_size=100)
    return path


def answers(run: Run, records: list[dict[str, Any]]) -> Any:
    return run.predict([each["text"] for each in records]).probabilities


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_slices_are_evaluations_of_their_rows(
    run: Run, records: list[dict[str, Any]], tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardtrain.inference.units.UNIT_BYTES", 1 << 12)
    monkeypatch.setattr(slicing, "_HELD", 200)
    found = evaluate_corpus(run, str(write(records, tmp_path / f"rows{suffix}")), by="country")
    assert {each.value for each in found.slices} == {name or MISSING for name in COUNTRIES}
    assert [each.metrics.rows for each in found.slices] == sorted((e.metrics.rows for e in found.slices), reverse=True)
    assert sum(each.metrics.rows for each in found.slices) == found.examples == len(records)
    for part in found.slices:
        mine = [each for each in records if (each["country"] or MISSING) == part.value]
        y, guess = [NAMES.index(each["label"]) for each in mine], answers(run, mine).argmax(axis=1)
        assert part.metrics.rows == len(mine)
        assert part.metrics.accuracy == pytest.approx(accuracy_score(y, guess))
        assert part.metrics.macro_f1 == pytest.approx(f1_score(y, guess, average="macro"))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_weights_are_those_of_the_rows(run: Run, records: list[dict[str, Any]], tmp_path: Path, suffix: str) -> None:
    found = evaluate_corpus(run, str(write(records, tmp_path / f"rows{suffix}")), weight="weight", by="country")
    y, weights = [NAMES.index(each["label"]) for each in records], [each["weight"] for each in records]
    probabilities = answers(run, records).astype(np.float64)
    expected = accuracy_score(y, probabilities.argmax(axis=1), sample_weight=weights)
    assert found.measured.metrics is not None
    assert found.metrics["accuracy"] == found.measured.metrics.accuracy == pytest.approx(expected)
    shares = probabilities / probabilities.sum(axis=1, keepdims=True)
    assert found.metrics["loss"] == pytest.approx(log_loss(y, shares, sample_weight=weights), rel=1e-5)
    assert sum(part.metrics.support.sum() for part in found.slices) == pytest.approx(sum(weights))


def test_bad_rows_shift_no_column(run: Run, records: list[dict[str, Any]], tmp_path: Path) -> None:
    path = write(records, tmp_path / "rows.csv")
    lines = path.read_text().splitlines(keepends=True)
    lines[40:40] = ["1,too,few\n"] * 3
    (tmp_path / "bad.csv").write_text("".join(lines))
    whole = evaluate_corpus(run, str(path), by="country")
    skipped = evaluate_corpus(run, str(tmp_path / "bad.csv"), CorpusOptions(on_bad_row="skip"), by="country")
    assert skipped.rejected_rows == 3
    assert [(each.value, each.metrics.accuracy) for each in skipped.slices] == [
        (each.value, each.metrics.accuracy) for each in whole.slices
    ]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"by": "land"}, "no column 'land'; found 'id', 'text', 'country'"),
        ({"by": "text"}, "'text' is the text of"),
        ({"weight": "country"}, "the weight in the column 'country' is '?[a-z]+'?"),
        ({"by": 9}, "no column 9"),
    ],
)
def test_what_is_no_column_is_refused(
    run: Run, records: list[dict[str, Any]], tmp_path: Path, how: dict[str, Any], said: str
) -> None:
    with pytest.raises((CorpusFormatError, UsageError), match=said):
        evaluate_corpus(run, str(write(records, tmp_path / "rows.csv")), **how)


def test_a_column_of_too_many_values_is_refused(
    run: Run, records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slicing, "MAX_SLICES", 20)
    with pytest.raises(UsageError, match="the column 'id' has more than 20 values, such as '0' and"):
        evaluate_corpus(run, str(write(records, tmp_path / "rows.csv")), by="id")
    with pytest.raises(CorpusFormatError, match="has no value in the column 'land' in its first"):
        evaluate_corpus(run, str(write(records, tmp_path / "rows.jsonl")), by="land")


def test_texts_without_columns_and_shards_are_refused(
    run: Run, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES:
        (tmp_path / "folder" / name).mkdir(parents=True)
        (tmp_path / "folder" / name / "a.txt").write_text("rain and wind")
    with pytest.raises(UsageError, match="has no columns besides label and text, so 'country' is none of them"):
        evaluate_corpus(run, str(tmp_path / "folder"), by="country")
    assert main(["evaluate", str(run.path), str(root / "shards"), "--by", "country"]) == 2
    assert "is a folder of shards, which have no columns, so --by has nothing to read" in capsys.readouterr().err


def read_errors(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows = pyarrow.parquet.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
    assert all(tuple(row) == COLUMNS for row in rows)
    numbers = ("row", "probability", "label_probability")
    return [{**row, **{name: float(row[name]) for name in numbers}} for row in rows]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_file_of_errors_has_every_wrong_row_of_a_corpus(
    run: Run, records: list[dict[str, Any]], tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "_GROUP_ROWS", 50)
    out = tmp_path / f"wrong{suffix}"
    with errors_file(out, run) as errors:
        found = evaluate_corpus(run, str(write(records, tmp_path / "rows.csv")), observers=[errors])
        assert not out.exists()
    probabilities = answers(run, records)
    y, guess = np.array([NAMES.index(each["label"]) for each in records]), probabilities.argmax(axis=1)
    wrong = np.flatnonzero(y != guess).tolist()
    assert errors.num_errors == len(wrong) == round((1 - found.metrics["accuracy"]) * len(records))
    rows = read_errors(out)
    assert [row["row"] for row in rows] == wrong
    for row, number in zip(rows, wrong, strict=True):
        assert row["text"] == records[number]["text"]
        assert (row["label"], row["predicted"]) == tuple(
            run.description.class_names[i] for i in (y[number], guess[number])
        )
        assert row["probability"] == pytest.approx(probabilities[number, guess[number]], abs=2e-6)
        assert row["label_probability"] == pytest.approx(probabilities[number, y[number]], abs=2e-6)


def test_the_file_of_errors_of_shards_has_the_texts_of_their_corpus(
    run: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(written, "_LOOKED_UP", 20)
    with open_shards(root / "shards") as shards:
        with errors_file(tmp_path / "wrong.jsonl", run, rows=(shards, "test")) as errors:
            measured = measure(run, shards, split="test", observers=[errors])
        rows = shards.split("test").num_examples
    found = read_errors(tmp_path / "wrong.jsonl")
    assert len(found) == errors.num_errors == round((1 - measured.logs["accuracy"]) * rows)
    texts = [row["text"] for row in found]
    predictions = run.predict(texts)
    assert predictions.labels == [row["predicted"] for row in found]
    assert [float(row) for row in predictions.probabilities.max(axis=1)] == pytest.approx(
        [row["probability"] for row in found], abs=2e-6
    )
    corpus, moved = root / "corpus", root / "moved"
    corpus.rename(moved)
    try:
        assert main(["evaluate", str(run.path), str(root / "shards"), "--errors", str(tmp_path / "none.csv")]) == 0
    finally:
        moved.rename(corpus)
    assert "texts of wrong rows are missing: " in capsys.readouterr().err
    assert {row["text"] for row in read_errors(tmp_path / "none.csv")} == {""}


def test_the_folder_of_the_file_of_errors_is_made(run: Run, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "of" / "mine" / "wrong.csv"
    assert main(["evaluate", str(run.path), str(root / "shards"), "--split", "test", "--errors", str(out)]) == 0
    assert out.is_file()


def test_files_of_errors_that_cannot_be_written_are_refused(run: Run, root: Path, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"exists; choose another errors|exists; choose another --errors"):
        errors_file(tmp_path / "there.csv", run).__enter__()
    with pytest.raises(UsageError, match=r"has to end in \.csv, \.jsonl, \.parquet"):
        errors_file(tmp_path / "wrong.txt", run).__enter__()
    with pytest.raises(UsageError, match="csv"):
        errors_file(tmp_path / "wrong.jsonl", run, csv_safe=True).__enter__()
    with open_shards(root / "shards", on_corrupt="skip") as shards, pytest.raises(UsageError, match="shift"):
        errors_file(tmp_path / "wrong.csv", run, rows=(shards, "test")).__enter__()
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.csv"]


def test_cells_of_errors_are_no_formulas_where_that_is_asked_for(run: Run, tmp_path: Path) -> None:
    rows = [{"label": label, "text": "=1+1 oven cake" if label != "2" else "oven"} for label in NAMES * 5]
    path, out = write(rows, tmp_path / "rows.csv"), tmp_path / "wrong.csv"
    with errors_file(out, run, csv_safe=True) as errors:
        evaluate_corpus(run, str(path), observers=[errors])
    texts = [row["text"] for row in read_errors(out)]
    assert "'=1+1 oven cake" in texts
    assert not any(text.startswith("=") for text in texts)


def test_thresholds_are_kept_to_by_everything_that_predicts(
    run: Run, root: Path, records: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = ["--choose-threshold", "precision>=0.8"]
    assert main(["evaluate", str(run.path), str(root / "shards"), *rule, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["thresholds"]
    (threshold,) = set(facts["values"])
    assert 0.8 <= facts["precision"] <= 1
    known = load_run(run.path)
    assert known.thresholds is not None
    assert known.thresholds.values == tuple(facts["values"])
    texts = [each["text"].replace("\n", " ") for each in records]
    predictions = known.predict(texts)
    decided = predictions.probabilities.max(axis=1) >= np.float32(threshold)
    assert 0 < decided.sum() < len(texts)
    names = [known.description.class_names[best] for best in predictions.probabilities.argmax(axis=1)]
    expected = [name if sure else UNDECIDED for name, sure in zip(names, decided, strict=True)]
    assert predictions.labels == expected
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    command = ["predict", str(run.path), "--input", str(tmp_path / "texts.txt")]
    for suffix in (".csv", ".jsonl", ".parquet"):
        out = tmp_path / f"out{suffix}"
        assert main([*command, "--output", str(out)]) == 0
        assert f"{len(texts):,} predictions, {int((~decided).sum()):,} undecided: " in capsys.readouterr().out
        if suffix == ".parquet":
            labels = pyarrow.parquet.read_table(out).column("label").to_pylist()
        elif suffix == ".jsonl":
            labels = [json.loads(line)["label"] for line in out.read_text().splitlines()]
        else:
            with open(out, newline="") as file:
                labels = [row["label"] for row in csv.DictReader(file)]
        assert labels == expected
    assert main([*command, "--no-threshold"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == names
    assert main(["predict", str(run.path), *texts[:3]]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == expected[:3]
    assert main(["evaluate", str(run.path), str(root / "shards"), "--split", "test", "--json"]) == 0
    tested = json.loads(capsys.readouterr().out)["thresholds"]
    with open_shards(root / "shards") as shards:
        y = shards.test.labels()
        rows = np.concatenate([known.classifier().classify_rows(x).probabilities for x, _ in shards.test.batches(512)])
    sure = rows.max(axis=1) >= np.float32(threshold)
    assert tested["coverage"] == pytest.approx(sure.mean())
    assert tested["precision"] == pytest.approx((rows.argmax(axis=1) == y)[sure].mean())
    assert main(["evaluate", str(run.path), str(root / "shards"), "--choose-threshold", "none"]) == 0
    assert load_run(run.path).predict(texts).labels == names


def save(run: Run, value: float) -> None:
    values = (value,) * len(run.description.class_names)
    chosen = Thresholds(rule=Rule.parse("max f1"), values=values, rows=1, coverage=1.0, precision=1.0)
    save_thresholds(run, chosen, data="rows")


def test_a_prediction_is_not_resumed_with_other_thresholds(
    run: Run, records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(records, tmp_path / "rows.csv")
    write_part, calls = parts.Input.write_part, iter(range(9))

    def stopped(*arguments: Any) -> Any:
        if next(calls) > 2:
            raise KeyboardInterrupt
        return write_part(*arguments)

    monkeypatch.setattr(units, "UNIT_BYTES", 1 << 12)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parts.Input, "write_part", stopped)
        with pytest.raises(KeyboardInterrupt):
            predict_file(run, path, tmp_path / "out.csv", PredictOptions(workers=1))
    assert (tmp_path / "out.csv.predicting").is_dir()
    save(run, 0.9)
    with pytest.raises(OutputExistsError, match="thresholds"):
        predict_file(run, path, tmp_path / "out.csv")
    save_thresholds(run, None, data="")
    assert predict_file(run, path, tmp_path / "out.csv").undecided == 0


def test_thresholds_per_class_and_their_limits(run: Run, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(run.path), str(root / "shards"), "--choose-threshold"]
    assert main([*command, "max f1 per class"]) == 0
    assert "(max f1 per class), saved with" in capsys.readouterr().out
    assert len(set(load_run(run.path).thresholds.values)) > 1  # type: ignore[union-attr]
    before = (run.path / THRESHOLDS).read_bytes()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("shardtrain.metrics.thresholds._best", lambda *_: None)
        assert main([*command, "precision>=1"]) == 1
    assert "no threshold gives precision>=1 on" in capsys.readouterr().err
    assert main([*command, "often"]) == 2
    assert main([*command, "max f1", "--split", "train"]) == 2
    assert (run.path / THRESHOLDS).read_bytes() == before
    assert main([*command, "max f1", "--split", "test"]) == 0
    assert "look better on it than they are" in capsys.readouterr().err


def test_damaged_thresholds_are_reported(run: Run) -> None:
    save(run, 0.5)
    path = run.path / THRESHOLDS
    content = path.read_bytes()
    for damaged in (content.replace(b"0.5", b"0.7"), content[:-9], content.replace(b"max f1", b"max f9"), b"{}"):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"thresholds\.json'.*choose again with"):
            run.predict(["oven"])
    record = json.loads(content)
    record.pop("checksum")
    for changed in ({"model_sha256": "0" * 64}, {"values": [0.5]}):
        other = {**record, **changed}
        path.write_text(json.dumps({**other, "checksum": canonical_checksum(other)}))
        with pytest.raises(RunError, match=r"is of another model|has 1 thresholds"):
            run.predict(["oven"])


@pytest.mark.parametrize("weight", ["1e101", "1e-101", "nan", "inf", "-1", "1_000", "much", ""])
def test_weights_that_sums_cannot_hold_are_refused(
    run: Run, records: list[dict[str, Any]], tmp_path: Path, weight: str
) -> None:
    path = write([{**each, "weight": weight if each["id"] == 9 else 1} for each in records], tmp_path / "rows.csv")
    with pytest.raises(
        CorpusFormatError, match=r"record 10: the weight in the column 'weight' is .*0 or a number from"
    ):
        evaluate_corpus(run, str(path), weight="weight")


@pytest.mark.parametrize("weight", ["1e100", "1e-100"])
def test_very_large_and_very_small_weights_change_nothing(
    run: Run, records: list[dict[str, Any]], tmp_path: Path, weight: str
) -> None:
    path = write([{**each, "weight": weight} for each in records], tmp_path / "rows.csv")
    plain, found = (evaluate_corpus(run, str(path), weight=each).measured.metrics for each in (None, "weight"))
    assert plain is not None
    assert found is not None
    names = run.description.class_names
    expected, record = (each.record(names, matrix=False) for each in (plain, found))
    for name in ("accuracy", "accuracy_interval", "matthews", "log_loss", "macro_f1", "macro_roc_auc"):
        assert record[name] == pytest.approx(expected[name], rel=1e-9), name


def test_rows_without_weight_are_not_measured(
    run: Run, records: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write([{**each, "weight": int(each["country"] != "de")} for each in records], tmp_path / "rows.csv")
    command = ["evaluate", str(run.path), str(path), "--weight", "weight", "--by", "country"]
    assert main([*command, "--json"]) == 0
    slices = {each["value"]: each for each in json.loads(capsys.readouterr().out)["slices"]}
    assert slices["de"].pop("value") == "de"
    assert slices["de"].pop("examples") > 0
    assert set(slices.pop("de").values()) == {None}
    assert all(each["accuracy"] is not None for each in slices.values())
    assert main(command) == 0
    assert any(line.split()[:4] == ["de", "-", "-", "-"] for line in capsys.readouterr().out.splitlines())
    path = write([{**each, "weight": 0} for each in records], tmp_path / "rows.csv")
    assert main([*command, "--errors", str(tmp_path / "wrong.csv")]) == 1
    assert "the weights in the column 'weight' are all 0" in capsys.readouterr().err
    assert not (tmp_path / "wrong.csv").exists()


def test_thresholds_are_chosen_with_the_weights_of_the_rows(
    run: Run, records: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probabilities = answers(run, records)
    y = np.array([NAMES.index(each["label"]) for each in records])
    right = probabilities.argmax(axis=1) == y
    weights = np.where(right, 1.0, 7.0)
    path = write(
        [{**each, "weight": weight} for each, weight in zip(records, weights.tolist(), strict=True)],
        tmp_path / "rows.csv",
    )
    command = ["evaluate", str(run.path), str(path), "--weight", "weight", "--json"]
    assert main([*command, "--choose-threshold", "precision>=0.8"]) == 0
    chosen = json.loads(capsys.readouterr().out)["thresholds"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)["thresholds"]
    decided = (probabilities.max(axis=1) >= np.float32(chosen["values"][0])) * weights
    assert 0.8 <= chosen["precision"] == pytest.approx((decided * right).sum() / decided.sum())
    assert chosen["coverage"] == pytest.approx(decided.sum() / weights.sum())
    for name in ("coverage", "precision", "precision_interval"):
        assert found[name] == pytest.approx(chosen[name])


def test_a_file_of_errors_replaces_nothing_that_is_read(
    run: Run, root: Path, records: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(records, tmp_path / "rows.csv")
    (tmp_path / "same.csv").hardlink_to(path)
    for data, errors in (
        (path, path),
        (path, tmp_path / "same.csv"),
        (root / "corpus", root / "corpus" / "test.csv"),
        (path, run.path / "history.csv"),
    ):
        before = errors.read_bytes()
        assert main(["evaluate", str(run.path), str(data), "--errors", str(errors), "--overwrite"]) == 2
        assert "would replace a file of '" in capsys.readouterr().err
        assert errors.read_bytes() == before


def test_groups_of_errors_are_bounded_by_their_texts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "_GROUP_CHARACTERS", 100)
    monkeypatch.setattr("shardtrain.inference.evaluate.EVALUATION_ROWS", 8)
    rows = [{"label": label, "text": "oven cake " * 20} for label in NAMES * 20]
    with errors_file(tmp_path / "wrong.parquet", run) as errors:
        evaluate_corpus(run, str(write(rows, tmp_path / "rows.csv")), observers=[errors])
    file = pyarrow.parquet.ParquetFile(tmp_path / "wrong.parquet")
    assert file.metadata.num_rows == errors.num_errors
    assert all(file.metadata.row_group(number).num_rows <= 8 for number in range(file.num_row_groups))


def test_thresholds_of_another_model_do_not_matter_to_comparisons_and_reports(
    run: Run, root: Path, tmp_path: Path
) -> None:
    (run.path / THRESHOLDS).write_text("{}")
    with open_shards(root / "shards") as shards:
        assert sum(len(y) for y, _ in predict_rows(run, shards)) == shards.validation.num_examples
    with pytest.raises(RunError):
        run.predict(["oven"])


@pytest.mark.parametrize("asked", [["--errors", "wrong.csv"], ["--weight", "weight"], ["--by", "country"]])
def test_what_needs_probabilities_is_refused_where_outputs_are_none(
    run: Run,
    records: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
) -> None:
    def refused(found: Any, num_classes: int) -> Any:
        raise ModelError("the model's outputs lie between 0 and 7")

    path = write(records, tmp_path / "rows.csv")
    monkeypatch.setattr(outputs, "class_probabilities", refused)
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", str(run.path.absolute()), str(path)]
    assert main(command) == 0
    assert "no metrics but those that the model was compiled with: the model's outputs" in capsys.readouterr().err
    assert main([*command, *asked]) == 1
    assert "need probabilities of each row, and the model's outputs lie" in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["rows.csv"]


def test_names_with_tabs_and_line_ends_stay_in_their_cell(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("a\tb", "x\ny", *(f"\u202e{number}" for number in range(run.description.num_classes - 2)))
    odd = replace(run, description=replace(run.description, class_names=names))
    monkeypatch.setattr("shardtrain.inference.run.load_run", lambda _: odd)
    assert main(["predict", str(run.path), *(f"{words[0]} {words[1]}" for words in TOPICS.values())]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.removesuffix("\n").split("\n")]
    assert [len(cells) for cells in lines] == [3] * len(TOPICS)
    assert {"a\\tb", "x\\ny"} >= {cells[0] for cells in lines if cells[0][0] != "\u202e"} != set()


def test_slices_of_many_classes_are_fewer(
    run: Run, records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write(records, tmp_path / "rows.csv"))
    monkeypatch.setattr(slicing, "MAX_COUNTS", len(COUNTRIES) * len(NAMES))
    assert len(evaluate_corpus(run, path, by="country").slices) == len(COUNTRIES)
    monkeypatch.setattr(slicing, "MAX_COUNTS", len(COUNTRIES) * len(NAMES) - 1)
    with pytest.raises(UsageError, match=r"more than 6 values, the most for 3 classes, such as"):
        evaluate_corpus(run, path, by="country")


def test_evaluated_values_have_no_slices_by_default(run: Run, records: list[dict[str, Any]], tmp_path: Path) -> None:
    found = evaluate_corpus(run, str(write(records, tmp_path / "rows.csv")))
    assert isinstance(found, Evaluated)
    assert found.slices == ()


def test_a_run_that_is_evaluated_on_what_it_was_trained_on_is_reported(
    run: Run, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "was trained on rows.csv, so its figures there are better than on other texts"
    train = tmp_path / "rows.csv"
    train.write_bytes((root / "corpus" / "train.csv").read_bytes())
    build(train, tmp_path / "shards", BuildOptions(workers=1))
    with open_shards(tmp_path / "shards") as shards:
        fit(shards, FitOptions(epochs=1, mlp=MlpOptions(units=4)), out=tmp_path / "run")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), str(train)]) == 0
    assert said in capsys.readouterr().err
    other = tmp_path / "other.csv"
    other.write_bytes(train.read_bytes())
    for model, data in ((tmp_path / "run", other), (run.path, train), (run.path, root / "corpus")):
        assert main(["evaluate", str(model), str(data)]) == 0
        assert "so its figures there" not in capsys.readouterr().err


def test_a_column_of_any_name_is_read(run: Run, records: list[dict[str, Any]], tmp_path: Path) -> None:
    renamed = [{**each, "a/b": each["country"]} for each in records]
    found = evaluate_corpus(run, str(write(renamed, tmp_path / "rows.parquet")), by="a/b")
    assert {each.value for each in found.slices} == {name or MISSING for name in COUNTRIES}
