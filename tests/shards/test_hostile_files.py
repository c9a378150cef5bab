"""Files made to mislead: everything but plain numbers where the manifest says is refused, with its own message.

The manifests are honest about the bytes, as those of an attacker would be: checksums agree, and `verify` must see more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.handmade import make_rows, write_shards

from shardtrain.cli.main import main
from shardtrain.errors import CorruptShardError, ShardsError
from shardtrain.loader.shards import open_shards
from shardtrain.report.summary import summarize_shards
from shardtrain.runtime.checksums import block_checksums
from shardtrain.shards import layout
from shardtrain.shards.layout import BLOCK_BYTES, Manifest
from shardtrain.shards.manifest import write_manifest
from shardtrain.shards.verify import verify_shards

ROOT = Path(__file__).resolve().parents[2]
SHARD = "train-00000.h5"


def faults_of(folder: Path) -> tuple[str, ...]:
    return verify_shards(folder, advance=lambda _: None, workers=2).faults


def reseal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest again, with the size and the checksums that the shard has now."""
    content = (folder / SHARD).read_bytes()
    split = manifest.splits["train"]
    shard = replace(split.shards[0], bytes=len(content), checksums=block_checksums(content, BLOCK_BYTES))
    write_manifest(folder, replace(manifest, splits={"train": replace(split, shards=(shard,))}))


def refill(file: h5py.File, name: str, **options) -> None:
    """The same values in a dataset of another make."""
    values = file[name][...]
    del file[name]
    file.create_dataset(name, data=values, **options)


def soft_link(file):
    file.move("y", "z")
    file["y"] = h5py.SoftLink("/document")


def soft_group(file):
    file.move("x", "w")
    file["x"] = h5py.SoftLink("/w")


def external_link(file):
    del file["y"]
    file["y"] = h5py.ExternalLink("/etc/passwd", "/y")


def external_storage(file):
    count = len(file["y"])
    del file["y"]
    file.create_dataset("y", (count,), "u1", external=[("/etc/passwd", 0, count)])


def virtual(file):
    count = len(file["y"])
    del file["y"]
    view = h5py.VirtualLayout((count,), "u1")
    view[:] = h5py.VirtualSource("elsewhere.h5", "y", (count,))
    file.create_virtual_dataset("y", view)


def unknown_filter(file):
    count = len(file["y"])
    del file["y"]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((count,))
    properties.set_filter(32_099, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file.id, b"y", h5py.h5t.STD_U8LE, h5py.h5s.create_simple((count,)), properties)


def compact(file):
    count = len(file["y"])
    del file["y"]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(file.id, b"y", h5py.h5t.STD_U8LE, h5py.h5s.create_simple((count,)), properties)


def of_type(dtype):
    def change(file):
        count = len(file["y"])
        del file["y"]
        file.create_dataset("y", (count,), dtype)

    return change


def endless(file):
    del file["y"]
    file.create_dataset("y", (1 << 37,), "u1", chunks=(1 << 20,))


def null(file):
    del file["y"]
    file.create_dataset("y", data=h5py.Empty("u1"))


def missing(file):
    del file["y"]


def group_instead(file):
    del file["y"]
    file.create_group("y")


def more(file):
    file["extra"] = np.arange(3)


def more_inside(file):
    file["x/extra"] = np.arange(3)


def moved(file):
    """The array that HDF5 has under the name is another one than the one at the manifest's offset."""
    file["other"] = file["y"][...] ^ 1
    del file["y"]
    file.move("other", "y")


HOSTILE = {
    "a soft link": (soft_link, "'/y' in '{}' is a soft link to '/document'"),
    "a soft link to a group": (soft_group, "'/x' in '{}' is a soft link to '/w'"),
    "an external link": (external_link, "in the file '/etc/passwd', which is not followed"),
    "external storage": (external_storage, "'/y' in '{}' keeps its values in the external file '/etc/passwd'"),
    "a virtual dataset": (virtual, "'/y' in '{}' is a virtual dataset"),
    "an unknown filter": (unknown_filter, "'/y' in '{}' has the filter 32099 (''), which is unsupported"),
    "a known filter": (
        lambda file: refill(file, "y", compression="gzip"),
        "'y' in '{}' has the filters deflate, the manifest says none",
    ),
    "a header": (compact, "'/y' in '{}' is a compact dataset"),
    "text of variable length": (of_type(h5py.string_dtype()), "'/y' in '{}' has values of variable length"),
    "text of fixed length": (of_type("S4"), "'/y' in '{}' has the type |S4; only plain numbers"),
    "values of variable length": (of_type(h5py.vlen_dtype("u1")), "'/y' in '{}' has values of variable length"),
    "references": (of_type(h5py.ref_dtype), "'/y' in '{}' holds references to objects"),
    "compound values": (of_type([("a", "u1"), ("b", "f4")]), "'/y' in '{}' has the type [('a'"),
    "arrays as elements": (of_type(np.dtype(("u1", (3,)))), "'/y' in '{}' has the type ("),
    "opaque bytes": (of_type("V7"), "'/y' in '{}' has the type |V7"),
    "no shape": (null, "'/y' in '{}' has the shape None"),
    "a shape that can grow": (lambda file: refill(file, "y", maxshape=(None,)), "'y' in '{}' is resizable to (None,)"),
    "128 GiB in some KiB": (endless, "'/y' in '{}' declares 137,438,953,472 values in"),
    "a missing array": (missing, "'{}' has no '/y'"),
    "a group": (group_instead, "'/y' in '{}' is not a dataset"),
    "one array more": (more, "'{}' holds ['extra'], which do not belong in a shard"),
    "one array more in a group": (more_inside, "'{}' holds ['x/extra'], which do not belong in a shard"),
    "another place": (moved, "'y' in '{}' is |u1 (40,) at byte "),
    "another type": (lambda file: refill(file, "y", dtype="<f8"), "'y' in '{}' is <f8 (40,)"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_verify_refuses(name, tmp_path):
    change, reason = HOSTILE[name]
    manifest = write_shards(tmp_path, make_rows("ngram", 40), [40])
    with h5py.File(tmp_path / SHARD, "r+") as file:
        change(file)
    reseal(tmp_path, manifest)
    faults = faults_of(tmp_path)
    assert len(faults) == 1
    assert reason.format(tmp_path / SHARD) in faults[0]


@pytest.mark.parametrize("name", ["an external link", "external storage", "a virtual dataset", "128 GiB in some KiB"])
def test_the_report_refuses(name, tmp_path):
    change, reason = HOSTILE[name]
    manifest = write_shards(tmp_path, make_rows("ngram", 40), [40])
    with h5py.File(tmp_path / SHARD, "r+") as file:
        change(file)
    reseal(tmp_path, manifest)
    with pytest.raises(ShardsError) as failure:
        summarize_shards(tmp_path, num_rows=0)
    assert reason.format(tmp_path / SHARD) in str(failure.value)


def change_values(folder: Path, manifest: Manifest, name: str, position: int, values) -> None:
    """Other values in an array of the file, with checksums to match."""
    where = manifest.splits["train"].shards[0].datasets[name]
    content = np.asarray(values, where.dtype).tobytes()
    with open(folder / SHARD, "r+b") as file:
        file.seek(where.offset + position * np.dtype(where.dtype).itemsize)
        file.write(content)
    reseal(folder, manifest)


IMPOSSIBLE = {
    "falling row pointers": ("ngram", "x/indptr", 10, [15, 2], "the row pointers of '{}' are invalid"),
    "row pointers that end too early": ("ngram", "x/indptr", 40, [3], "the row pointers of '{}' are invalid"),
    "a column that there is not": ("ngram", "x/indices", 5, [50], "'x/indices' in '{}' holds values from 0 to 50;"),
    "a negative column": ("ngram", "x/indices", 5, [-1], "'x/indices' in '{}' holds values from -1 to"),
    "columns that do not ascend": ("ngram", "x/indices", 4, [9, 9], "the columns of row 3 of '{}' do not ascend"),
    "a class that there is not": ("ngram", "y", 5, [3], "'y' in '{}' holds values from 0 to 3; they must be"),
    "another class": ("ngram", "y", 0, [1], "manifest.json' says 14 examples of class 0, the shards have 13"),
    "a word that there is not": ("sequence", "x", 9, [1 << 20], "'x' in '{}' holds values from 0 to 1,048,576;"),
    "a negative document": ("sequence", "document", 0, [-1], "'document' in '{}' holds values from -1 to 39"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_verify_names_values_that_cannot_be(name, tmp_path):
    kind, array, position, values, reason = IMPOSSIBLE[name]
    manifest = write_shards(tmp_path, make_rows(kind, 40), [40])
    assert faults_of(tmp_path) == ()
    change_values(tmp_path, manifest, array, position, values)
    (fault,) = faults_of(tmp_path)
    assert reason.format(tmp_path / SHARD) in fault


@pytest.mark.parametrize("shuffle", ["blocks", "window", "global"])
def test_sealed_row_pointers_that_fall_do_not_reach_the_kernels(shuffle, tmp_path):
    manifest = write_shards(tmp_path, make_rows("ngram", 40), [40])
    change_values(tmp_path, manifest, "x/indptr", 10, [1 << 30, 0])
    with open_shards(tmp_path) as shards, pytest.raises(CorruptShardError, match="row pointers"):
        list(shards.train.batches(8, shuffle=shuffle))


def test_no_plugin_is_looked_for_where_shards_are_given_to_libhdf5(tmp_path):
    write_shards(tmp_path, make_rows("ngram", 40), [40])
    code = (
        "import os; from pathlib import Path; from shardtrain.report.summary import summarize_shards\n"
        f"summarize_shards(Path({str(tmp_path)!r}), num_rows=0); print(os.environ['HDF5_PLUGIN_PRELOAD'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_PLUGIN_PRELOAD"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "::"


# The command


def test_the_command_says_what_was_checked_and_counts_all_bytes(tmp_path, capsys):
    write_shards(tmp_path, make_rows("sequence", 400_000), [300_000, 100_000])
    assert main(["verify", str(tmp_path), "--workers", "3"]) == 0
    told = capsys.readouterr()
    blocks = sum(-(-path.stat().st_size // layout.BLOCK_BYTES) for path in tmp_path.glob("*.h5"))
    assert told.out.startswith(f"{blocks} checksums in 2 files, ")
    assert "all as written" in told.out
    assert told.err.startswith("verifying: ")


def test_the_command_names_every_fault_and_ends_with_1(tmp_path, capsys):
    write_shards(tmp_path, make_rows("sequence", 90), [30, 30, 30])
    (tmp_path / "train-00000.h5").unlink()
    os.truncate(tmp_path / "train-00001.h5", 100)
    with open(tmp_path / "train-00002.h5", "r+b") as file:
        file.write(b"\0")
    assert main(["verify", str(tmp_path)]) == 1
    told = capsys.readouterr()
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert told.out == ""
    assert "train-00000.h5' is missing" in errors[0]
    assert "train-00001.h5' is truncated" in errors[1]
    assert "train-00002.h5' is damaged: bytes [0, " in errors[2]
    assert errors[3] == f"error: 3 faults in '{tmp_path}'"


def test_no_threads_are_wrong_usage(tmp_path, capsys):
    write_shards(tmp_path, make_rows("sequence", 9), [9])
    assert main(["verify", str(tmp_path), "--workers", "0"]) == 2
    assert "--workers is 0" in capsys.readouterr().err


def test_a_pipe_in_the_place_of_a_shard_is_refused_and_not_waited_for(tmp_path):
    write_shards(tmp_path, make_rows("dense", 4), [4])
    (tmp_path / SHARD).unlink()
    os.mkfifo(tmp_path / SHARD)
    for io in ("map", "read"):
        with pytest.raises(CorruptShardError, match="the file has 0"):
            open_shards(tmp_path, io=io)
    assert len(faults_of(tmp_path)) == 1
