"""Write the HTML report of a folder of shards or of a run, atomically."""

from __future__ import annotations

from pathlib import Path

from shardtrain.corpus.options import Column
from shardtrain.errors import ReportExistsError, ShardsNotFoundError, UsageError, command_line
from shardtrain.inference.run import load_run
from shardtrain.report.page import GENERATOR
from shardtrain.report.run_page import run_page
from shardtrain.report.shards_page import shards_page
from shardtrain.runtime.atomic import commit_bytes, make_folder
from shardtrain.runtime.progress import say
from shardtrain.runtime.storage import check_output_file
from shardtrain.shards.layout import MANIFEST, WORKING
from shardtrain.training.run_folder import CONFIG, METRICS

_MARK = f'<meta name="generator" content="{GENERATOR} '.encode()
_HEAD = 1 << 12  # leading bytes that are searched for the mark


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a run (finished or not) rather than shards.

    Raises:
        ShardsNotFoundError: it holds neither.
    """
    if (folder / CONFIG).is_file() or (folder / METRICS).is_file():
        return True
    if (folder / MANIFEST).exists() or (folder / WORKING).exists():
        return False
    if not folder.exists():
        raise ShardsNotFoundError(f"'{folder}' does not exist; name a folder of shards or of a run")
    raise ShardsNotFoundError(
        f"'{folder}' holds neither shards (no {MANIFEST}) nor a run (no {CONFIG}); build shards with "
        f"`{command_line('build', 'CORPUS', '--out', folder)}`, or name another folder"
    )


def check_report_file(out: Path, *, option: str = "--out") -> None:
    """Check that a report may be written to `out`, which an option names.

    Raises:
        ReportExistsError: `out` exists and is not a report.
        UsageError: `out` is a link, a folder or a device, or in a file.
    """
    check_output_file(out, option)
    if out.exists():
        with open(out, "rb") as file:
            if _MARK not in file.read(_HEAD):
                raise ReportExistsError(f"'{out}' exists and is not a report of shardtrain; choose another {option}")


def write_report(folder: Path, out: Path, *, shards: Path | None = None, by: tuple[Path, Column] | None = None) -> None:
    """Write the report of the shards or the run in `folder` to the file `out`, replacing an older report.

    The folder of `out` is made if it is missing.

    Temporary files in the folder of `out` take 15 bytes per row, plus the unpacked files of a compressed corpus.

    Args:
        folder: folder of finished shards or of a finished run.
        out: the HTML file.
        shards: for a run only, the shards whose validation rows are classified; None: the folder the run was
            trained on.
        by: for a run only, labelled raw text and a column of it, for each of whose values its rows are measured.

    Raises:
        CorpusError: the raw text cannot be read, or has no such column.
        ShardsError: the shards are missing or damaged.
        RunError: the run is unfinished or damaged.
        VectorizerError: the vectorizer is missing or damaged.
        ReportExistsError: `out` exists and is not a report.
        UsageError: `out` cannot be written, or `shards` is given although `folder` holds shards.
    """
    check_report_file(out)
    of_run = is_run(folder)
    make_folder(out.parent)
    if of_run:
        written = run_page(load_run(folder), shards, scratch=out.parent, by=by)
    elif by is not None:
        raise UsageError(f"--by is for the report of a run, and '{folder}' holds shards; omit it")
    elif shards is not None:
        raise UsageError(f"--shards is for the report of a run, and '{folder}' holds shards; omit it")
    else:
        written = shards_page(folder, scratch=out.parent)
    commit_page(out, written)


def commit_page(out: Path, page: str) -> None:
    """Write a page to the file `out`, whose folder is made if it is missing; report that an older one is replaced."""
    make_folder(out.parent)
    replaced = out.exists()
    commit_bytes(out, page.encode())
    if replaced:
        say(f"the older report in '{out}' is replaced")
