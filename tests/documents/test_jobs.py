"""What docs/jobs.md shows is what happens: each job on its own, from the data it ships and the run of the first."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest
from support.console import check, steps
from support.definitions import DOCS, link_definitions

TEXT = (DOCS / "jobs.md").read_text(encoding="utf-8")
JOBS = {part.partition("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]}
BLOCK = re.compile(r"```(console|python)\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first job was done."""
    folder = tmp_path_factory.mktemp("jobs")
    link_definitions(folder)
    with contextlib.chdir(folder):
        do(next(iter(JOBS)))
    return folder


def do(job: str) -> None:
    """Run the commands and the Python of a job in order; Python under the name of a file is written to it."""
    names: dict[str, object] = {"__name__": "jobs"}
    for kind, content, printed in BLOCK.findall(JOBS[job]):
        if kind == "console":
            for step in steps(f"## {job}\n```console\n{content}```"):
                check(*step, figures=True)
        elif named := re.match(r"# (\w+\.py)\n", content):
            Path(named[1]).write_text(content)
        else:
            with contextlib.redirect_stdout(io.StringIO()) as found:
                exec(compile(content, job, "exec"), names)
            assert found.getvalue() == printed


def test_they_are_twelve_and_the_table_names_each() -> None:
    assert len(JOBS) == 12
    anchors = {re.sub(r"[^\w -]", "", job.lower()).replace(" ", "-") for job in JOBS}
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) == anchors


@pytest.mark.parametrize("job", JOBS)
def test_a_job_shows_what_it_says(job: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = first
    if job != next(iter(JOBS)):  # which made it
        folder = tmp_path / "checkout"
        shutil.copytree(first, folder, symlinks=True)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        do(job)
    assert (folder / "runs" / "topics" / "metrics.json").is_file()
