"""Writes the report of a folder, whatever it holds, as one file that appears whole."""

from __future__ import annotations

from pathlib import Path

from shardtrain.errors import ReportExistsError, ShardsNotFoundError, UsageError
from shardtrain.pipeline.workspace import WORKING
from shardtrain.report.page import GENERATOR
from shardtrain.report.run_page import run_page
from shardtrain.report.shards_page import shards_page
from shardtrain.runtime.atomic import commit_bytes
from shardtrain.shards.layout import MANIFEST
from shardtrain.training.run_folder import CONFIG, METRICS, load_run

_MARK = f'<meta name="generator" content="{GENERATOR} '.encode()
_HEAD = 1 << 12  # bytes of a report in which its mark is


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run rather than shards, finished or not.

    Raises:
        ShardsNotFoundError: it holds neither.
    """
    if (folder / CONFIG).is_file() or (folder / METRICS).is_file():
        return True
    if (folder / MANIFEST).exists() or (folder / WORKING).exists():
        return False
    raise ShardsNotFoundError(
        f"'{folder}' holds neither shards (no {MANIFEST}) nor a run (no {CONFIG}); make shards with "
        f"`python -m shardtrain build CORPUS --out {folder}`, or name another folder"
    )


def check_output_file(out: Path) -> None:
    """Refuse a file that a report must not replace.

    Raises:
        ReportExistsError: it is there and no report.
        UsageError: its folder is not there.
    """
    if out.is_dir():
        raise UsageError(f"--out '{out}' is a folder; name a file, such as '{out / 'report.html'}'")
    if not out.parent.is_dir():
        raise UsageError(f"the folder of --out '{out}' does not exist; make it, or choose another --out")
    if out.exists():
        with open(out, "rb") as file:
            if _MARK not in file.read(_HEAD):
                raise ReportExistsError(f"'{out}' exists and is no report; choose another --out")


def write_report(folder: Path, out: Path, *, shards: Path | None = None) -> None:
    """Write the report of the shards or the run in `folder` to the file `out`; an older report is replaced.

    Scratch files lie beside `out` for the time being: 15 bytes a row, and a packed corpus unpacked.

    Args:
        folder: of finished shards or of a finished run.
        out: the HTML file.
        shards: of a run, those on whose validation rows it is measured; None: where they were when it was trained.

    Raises:
        ShardsError: there are no shards, or they are damaged.
        RunError: the run is not finished, or damaged.
        VectorizerError: a vectorizer is missing or damaged.
        ReportExistsError: `out` is there and no report.
        UsageError: `out` cannot be written, or `shards` are named for shards.
    """
    check_output_file(out)
    if is_run(folder):
        written = run_page(load_run(folder), shards, scratch=out.parent)
    elif shards is not None:
        raise UsageError("--shards is for the report of a run; leave it away")
    else:
        written = shards_page(folder, scratch=out.parent)
    commit_bytes(out, written.encode())
