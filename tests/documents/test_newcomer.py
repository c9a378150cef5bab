"""What docs/newcomer.md shows is what happens: its commands run one after the other, in one folder and one process."""

from __future__ import annotations

import zipfile
from pathlib import Path

from support.console import check, steps

from shardtrain import doctor

TEXT = (Path(__file__).parents[2] / "docs" / "newcomer.md").read_text(encoding="utf-8")


def test_they_are_twenty_and_more():
    assert len({heading for heading, _, _ in steps(TEXT)}) >= 20


def test_a_newcomer_sees_what_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    import keras
    import tensorflow as tf

    works = doctor.TensorFlow(tensorflow=tf.__version__, keras=keras.__version__)
    monkeypatch.setattr(doctor, "try_tensorflow", lambda python: works)  # in a process of its own; test_doctor has that
    with zipfile.ZipFile("reviews.xlsx", "w") as workbook:
        workbook.writestr("[Content_Types].xml", "")
    with zipfile.ZipFile("reviews.zip", "w") as archive:
        for name in ("a.csv", "b.csv"):
            archive.writestr(name, "good,Great.\n")
    Path("paper.pdf").write_bytes(b"%PDF-1.7\n")
    for step in steps(TEXT):
        check(*step)
