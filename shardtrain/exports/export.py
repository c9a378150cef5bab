"""Export a run: choose what is written, and write it atomically.

A file is made in memory and committed. A SavedModel, which TensorFlow writes itself, is made in a folder beside the
output, which the next export to the same place removes after a kill, and renamed. What is there already is left alone,
but with `overwrite`; the same export again changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardtrain.engine.network import Network
from shardtrain.errors import ModelError, OutputExistsError
from shardtrain.exports import bundle_reader
from shardtrain.exports.bundle import bundle_content
from shardtrain.exports.onnx_graph import onnx_content, require_onnx
from shardtrain.exports.options import ExportOptions
from shardtrain.exports.weights_file import npz_content
from shardtrain.inference.run import Run
from shardtrain.runtime.atomic import commit_bytes, commit_folder, commit_json, make_folder
from shardtrain.runtime.jobs import Job, JobFolder
from shardtrain.runtime.locks import check_held
from shardtrain.runtime.progress import say
from shardtrain.runtime.storage import check_output_file, check_output_folder, remove, storage_errors
from shardtrain.training.run_folder import MODEL, RunFolder
from shardtrain.version import __version__

READER = Path(bundle_reader.__file__)  # the module that reads bundles, to be copied
RECORD = Path("assets.extra") / "shardtrain.json"  # in a SavedModel, where TensorFlow has room for files of others
_SAVED_MODEL = "saved_model.pb"
_STAGED, _REPLACED = "staged", "replaced"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        path: the file or folder.
        to: as what.
        num_bytes: of all its files.
    """

    path: Path
    to: str
    num_bytes: int


def export_run(run: Run, options: ExportOptions) -> Exported:
    """Write a run as something that other programs use.

    Args:
        run: with a model over n-grams, linear or mlp; for a bundle, made from text.
        options: as what, and where.

    Raises:
        ModelError: the model is another one, or cannot be written in this way.
        RunError: the run's files are damaged, or it has no vectorizer, which a bundle needs.
        OutputExistsError: something else is at the output.
        RunExistsError: the output is a file of the run.
        UsageError: the output cannot be written.
        MissingExtraError: the package onnx is needed and not installed.
        StorageError: a file could not be written.
    """
    out = options.path
    RunFolder(run.path).check_not_own(out, "--out")
    if options.to == "savedmodel":
        check_output_folder(out, "--out")
    else:
        check_output_file(out, "--out")
    if options.to == "onnx":
        require_onnx()
    network = _network_of(run, options.to)
    if run.thresholds is not None:
        say("the thresholds of the run are not exported: what is exported answers with the most probable class")
    if options.to == "savedmodel":
        return _export_folder(run, network, out, overwrite=options.overwrite)
    content = _CONTENTS[options.to](run, network, options)
    if out.exists() and not options.overwrite and not _holds(out, content):
        raise OutputExistsError(_exists(out))
    make_folder(out.parent)
    commit_bytes(out, content)
    return Exported(path=out, to=options.to, num_bytes=len(content))


def _network_of(run: Run, to: str) -> Network:
    """Load the network of a run; raise ModelError where its model is none."""
    network = run.load_network()
    if network is None:
        raise ModelError(
            f"the model of '{run.path}' is {run.config['model']} over {run.description.kind} features; --to {to} "
            "expects a linear or mlp model over n-grams: train one with `python -m shardtrain fit SHARDS --model mlp`, "
            f"or use '{run.path / MODEL}' with Keras"
        )
    return network


def _holds(path: Path, content: bytes) -> bool:
    return path.stat().st_size == len(content) and path.read_bytes() == content


def _exists(out: Path) -> str:
    return f"'{out}' exists already; choose another --out, or replace it with --overwrite"


def _bundle(run: Run, network: Network, options: ExportOptions) -> bytes:
    facts = {
        "shardtrain": __version__,
        "model": run.config["model"],
        "model_sha256": run.metrics["model_sha256"],
        "vectorizer": run.description.vectorizer,
    }
    return bundle_content(network, run.load_vectorizer(), run.description.class_names, options.weights, facts)


_CONTENTS: dict[str, Callable[[Run, Network, ExportOptions], bytes]] = {
    "bundle": _bundle,
    "numpy": lambda run, network, _: npz_content(network, run.description.class_names),
    "onnx": lambda run, network, _: onnx_content(network, run.description.class_names),
}


def _export_folder(run: Run, network: Network, out: Path, *, overwrite: bool) -> Exported:
    """Write a SavedModel; the folder appears by a rename, and one that it replaces until then stays."""
    record = {
        "shardtrain": __version__,
        "model_sha256": run.metrics["model_sha256"],
        "class_names": list(run.description.class_names),
    }
    target = out.resolve()
    make_folder(target.parent)
    folder = JobFolder(
        path=target.parent / f".{target.name}.exporting",
        owner=out,
        noun="SavedModel export",
        error=OutputExistsError,
        missing=OutputExistsError,
    )
    with folder.made_and_held():
        _tidy(folder.path, target)
        with folder.work(Job(record={"options": {"model": run.metrics["model_sha256"]}}), overwrite=True):
            try:
                if overwrite or not _is_there(target, out, record):
                    _replace(folder.path, network, record, target, out)
            finally:
                _tidy(folder.path, target)
    return Exported(path=out, to="savedmodel", num_bytes=_size(target))


def _tidy(working: Path, target: Path) -> None:
    """Remove what is half made, and move back a folder that was set aside and not replaced."""
    check_held(working)
    replaced = working / _REPLACED
    if replaced.is_dir() and not target.exists():
        with storage_errors(target, "rename"):
            replaced.rename(target)
    remove(replaced)
    remove(working / _STAGED)


def _is_there(target: Path, out: Path, record: dict[str, Any]) -> bool:
    """Return whether a folder is this export, whole; raise OutputExistsError where it holds anything else."""
    if not target.exists() or not any(target.iterdir()):
        return False
    try:
        found = json.loads((target / RECORD).read_bytes())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or {name: found.get(name) for name in record} != record:
        raise OutputExistsError(_exists(out))
    return bool(found.get("files") == _files(target))


def _files(folder: Path) -> list[str]:
    """Return the files of a SavedModel, but the record of them; their bytes and sizes differ from export to export."""
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [str(each) for each in found if each != RECORD]


def _replace(working: Path, network: Network, record: dict[str, Any], target: Path, out: Path) -> None:
    from shardtrain.exports.saved_model import write_saved_model

    if target.exists() and any(target.iterdir()) and not (target / _SAVED_MODEL).is_file():
        raise OutputExistsError(f"'{out}' holds other files than a SavedModel; choose another --out")
    staged = working / _STAGED
    write_saved_model(network, staged)
    make_folder((staged / RECORD).parent)
    commit_json(staged / RECORD, {**record, "files": _files(staged)})
    check_held(working)
    if target.exists() and any(target.iterdir()):
        with storage_errors(target, "rename"):
            target.rename(working / _REPLACED)
    commit_folder(staged, target)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
