"""The loaders that `reading.py` compares: each writes its own format from the same arrays and reads batches back.

A loader is a class with `needs` (modules that must be there), `prepare` and `batches`; imports are late, so that a
missing package is its own loader's problem. Batches are (x, y) of numpy arrays of `BATCH` rows; sparse rows are (data,
indices, indptr). What a loader does per row in Python is how that library is used; where it has a batched way, that is
taken.

    python tools/bench/reading_loaders.py prepare NAME SOURCE FOLDER
    python tools/bench/reading_loaders.py read NAME FOLDER --epochs 2

`read` pins itself to some cores, prints one JSON object, and ends with 3 where a package is missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 512
SHUFFLE_ROWS = 10_000  # of peers that shuffle in a buffer
BLOCK = 4096
SECONDS = 2.0  # later epochs are repeated until they took so long together
LOADERS: dict[str, type[Loader]] = {}
MISSING = 3  # exit code


class Loader:
    """One way to write and read rows; subclasses register themselves under their name."""

    name: str
    kind = "sequence"
    needs: tuple[str, ...] = ()
    package = ""  # that has an environment of its own
    shuffles = True

    def __init_subclass__(cls) -> None:
        LOADERS[cls.name] = cls

    def prepare(self, source: Path, folder: Path) -> None:
        """Write the rows in `source` to `folder`."""

    def open(self, folder: Path) -> Any:
        """What `batches` reads from."""
        return folder

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """One epoch."""
        raise NotImplementedError


def arrays(source: Path) -> dict[str, Any]:
    """The rows, mapped: x and y, or data, indices, indptr and y."""
    return {path.stem: np.load(path, mmap_mode="r") for path in source.glob("*.npy")}


class Ours(Loader):
    """Mapped shards."""

    name = "shardtrain window"
    shuffle = "window"
    verify = True

    def prepare(self, source: Path, folder: Path) -> None:
        """Shards of 100,000 rows."""
        from shardtrain.arrays.csr import Csr
        from shardtrain.shards.layout import Manifest, SplitEntry
        from shardtrain.shards.write import ShardShape, new_shard

        found = arrays(source)
        rows, classes = len(found["y"]), 14
        entries: list[Any] = []
        sparse = "indptr" in found
        features = int(found["shape"][1]) if sparse else found["x"].shape[1]
        for start in range(0, rows, 100_000):
            stop = min(start + 100_000, rows)
            x: Any
            if sparse:
                pointers = found["indptr"][start : stop + 1].astype(np.int64)
                first, last = int(pointers[0]), int(pointers[-1])
                x = Csr(
                    found["data"][first:last], found["indices"][first:last], pointers - first, (stop - start, features)
                )
            else:
                x, first, last = found["x"][start:stop], 0, 0
            shape = ShardShape(
                kind="ngram" if sparse else "sequence",
                rows=stop - start,
                num_features=features,
                nonzeros=last - first,
                num_classes=classes,
                vocabulary_size=features if sparse else 1 << 16,
            )
            with new_shard(folder / f"train-{len(entries):05}.h5", shape) as writer:
                writer.append(x, found["y"][start:stop], np.arange(start, stop))
            entries.append(writer.entry)
        split = SplitEntry(
            examples=rows,
            nonzeros=len(found["data"]) if sparse else 0,
            shards=tuple(entries),
            class_counts=tuple(np.bincount(found["y"], minlength=classes).tolist()),
        )
        manifest = Manifest(
            kind="ngram" if sparse else "sequence",
            num_features=features,
            seed=1,
            fingerprint="benchmark",
            files={},
            vocabulary_size=features if sparse else 1 << 16,
            class_names=tuple(f"class {i}" for i in range(classes)),
            splits={"train": split},
            vectorizer={},
        )
        from shardtrain.shards.manifest import write_manifest

        write_manifest(folder, manifest)

    def open(self, folder: Path) -> Any:
        """Open, and load what is compiled."""
        from shardtrain import open_shards

        if self.shuffle in ("window", "global"):
            import shardtrain.loader.gather

            pieces = [(np.zeros((2, 2), np.uint16), np.zeros(2, np.uint8))]
            shardtrain.loader.gather.Gatherer(pieces).take(np.arange(2), np.empty)
            self._compile_sparse(shardtrain.loader.gather.Gatherer)
        return open_shards(folder, verify=self.verify)

    def _compile_sparse(self, gatherer: Any) -> None:
        from shardtrain.arrays.csr import Csr

        x = Csr(np.zeros(2, np.float32), np.zeros(2, np.int32), np.arange(3, dtype=np.int32), (2, 2))
        gatherer([(x, np.zeros(2, np.uint8))]).take(np.arange(2), np.empty)

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """As training reads them."""
        for x, y in opened.train.batches(BATCH, seed=1, epoch=epoch, shuffle=self.shuffle):
            yield (x if isinstance(x, np.ndarray) else (x.data, x.indices, x.indptr)), y


def _variant(name: str, base: type[Loader], **values: Any) -> None:
    type(name, (base,), {"name": name, "__doc__": base.__doc__, **values})


for _mode in ("none", "blocks", "global"):
    _variant(f"shardtrain {_mode}", Ours, shuffle=_mode, shuffles=_mode != "none")
_variant("shardtrain window, not verified", Ours, verify=False)
for _mode in ("none", "blocks", "window", "global"):
    _variant(f"sparse shardtrain {_mode}", Ours, shuffle=_mode, kind="sparse", shuffles=_mode != "none")
_variant("sparse shardtrain window, not verified", Ours, verify=False, kind="sparse")


class OursCompressed(Ours):
    """Compressed shards, decoded chunk by chunk."""

    name = "shardtrain window, lz4"
    codec = "lz4"
    needs = ("hdf5plugin", "lz4.block")

    def prepare(self, source: Path, folder: Path) -> None:
        """Plain shards first, then `recompress`."""
        from shardtrain.pipeline.options import RecompressOptions
        from shardtrain.pipeline.recompress import recompress

        plain = folder / "plain"
        plain.mkdir()
        super().prepare(source, plain)
        recompress(plain, folder / "packed", RecompressOptions(compress=self.codec))
        shutil.rmtree(plain)

    def open(self, folder: Path) -> Any:
        """As plain ones."""
        return super().open(folder / "packed")


for _codec, _module in (("zstd", "zstandard"), ("blosc2", "blosc2")):
    _variant(f"shardtrain window, {_codec}", OursCompressed, codec=_codec, needs=("hdf5plugin", _module))
for _codec, _module in (("lz4", "lz4.block"), ("zstd", "zstandard"), ("blosc2", "blosc2")):
    _variant(
        f"sparse shardtrain window, {_codec}",
        OursCompressed,
        codec=_codec,
        needs=("hdf5plugin", _module),
        kind="sparse",
    )


class Memmap(Loader):
    """np.memmap, slices in order."""

    name = "np.memmap in order"
    shuffles = False

    def prepare(self, source: Path, folder: Path) -> None:
        """Plain .npy files."""
        for name, array in arrays(source).items():
            np.save(folder / f"{name}.npy", array)

    def open(self, folder: Path) -> Any:
        """Map them."""
        return arrays(folder)

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Views."""
        x, y = opened["x"], opened["y"]
        for start in range(0, len(y), BATCH):
            yield x[start : start + BATCH], y[start : start + BATCH]


class MemmapBlocks(Memmap):
    """np.memmap, 8 blocks of 4,096 rows at a time in a random order, mixed row by row: hand-written block shuffling."""

    name = "np.memmap blocks shuffled"
    shuffles = True

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Join, permute, cut."""
        x, y = opened["x"], opened["y"]
        rng = np.random.default_rng(epoch)
        blocks = rng.permutation(-(-len(y) // BLOCK))
        for group in range(0, len(blocks), 8):
            spans = [slice(block * BLOCK, (block + 1) * BLOCK) for block in blocks[group : group + 8]]
            window, labels = np.concatenate([x[span] for span in spans]), np.concatenate([y[span] for span in spans])
            order = rng.permutation(len(labels))
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                yield window[rows], labels[rows]


class H5pySlices(Loader):
    """h5py, a slice for each batch, in order."""

    name = "h5py slices in order"
    needs = ("h5py",)
    shuffles = False

    def prepare(self, source: Path, folder: Path) -> None:
        """One file with chunks of 4,096 rows."""
        import h5py

        found = arrays(source)
        with h5py.File(folder / "rows.h5", "w") as file:
            file.create_dataset("x", data=found["x"], chunks=(min(BLOCK, len(found["y"])), found["x"].shape[1]))
            file.create_dataset("y", data=found["y"])

    def open(self, folder: Path) -> Any:
        """Open the file."""
        import h5py

        return h5py.File(folder / "rows.h5")

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Slices."""
        for start in range(0, len(opened["y"]), BATCH):
            yield opened["x"][start : start + BATCH], opened["y"][start : start + BATCH]


class TfRecord(Loader):
    """tf.data over TFRecord files, rows shuffled in a buffer, parsed a batch at a time."""

    name = "tf.data TFRecord, buffer 10,000"
    needs = ("tensorflow",)

    def prepare(self, source: Path, folder: Path) -> None:
        """Rows as raw bytes: a record is x and then y."""
        import tensorflow as tf

        found = arrays(source)
        with tf.io.TFRecordWriter(str(folder / "rows.tfrecord")) as writer:
            for x, y in zip(found["x"], found["y"], strict=True):
                writer.write(x.tobytes() + y.tobytes())
        np.save(folder / "width.npy", found["x"].shape[1])

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Cut records as uint8."""
        import tensorflow as tf

        width = int(np.load(opened / "width.npy"))

        def parse(records: Any) -> Any:
            raw = tf.io.decode_raw(records, tf.uint8, fixed_length=2 * width + 1)
            return tf.bitcast(tf.reshape(raw[:, :-1], (-1, width, 2)), tf.uint16), raw[:, -1]

        data = tf.data.TFRecordDataset(str(opened / "rows.tfrecord")).shuffle(SHUFFLE_ROWS, seed=epoch)
        return iter(data.batch(BATCH).map(parse).prefetch(2).as_numpy_iterator())


class TfSaved(Loader):
    """tf.data saved batches, shuffled batch by batch, not row by row."""

    name = "tf.data saved batches"
    needs = ("tensorflow",)

    def prepare(self, source: Path, folder: Path) -> None:
        """`Dataset.save` of batches."""
        import tensorflow as tf

        found = arrays(source)
        data = tf.data.Dataset.from_tensor_slices((np.asarray(found["x"]), np.asarray(found["y"]))).batch(BATCH)
        data.save(str(folder / "saved"))

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Load and shuffle."""
        import tensorflow as tf

        return iter(tf.data.Dataset.load(str(opened / "saved")).shuffle(64, seed=epoch).prefetch(2).as_numpy_iterator())


class HuggingFace(Loader):
    """Hugging Face datasets: Arrow files, a global shuffle by an index."""

    name = "Hugging Face datasets, global shuffle"
    needs = ("datasets",)
    package = "datasets"

    def prepare(self, source: Path, folder: Path) -> None:
        """`save_to_disk`."""
        import datasets

        found = arrays(source)
        types = datasets.Features(
            {"x": datasets.Sequence(datasets.Value("uint16"), found["x"].shape[1]), "y": datasets.Value("uint8")}
        )
        rows = {"x": np.asarray(found["x"]), "y": np.asarray(found["y"])}
        datasets.Dataset.from_dict(rows, features=types).save_to_disk(str(folder / "arrow"))

    def open(self, folder: Path) -> Any:
        """Map it."""
        import datasets

        datasets.disable_progress_bars()
        return datasets.load_from_disk(str(folder / "arrow")).with_format("numpy")

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """`shuffle().iter()`."""
        for batch in opened.shuffle(seed=epoch).iter(BATCH):
            yield batch["x"], batch["y"]


def _stacked(samples: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """Batches of single rows, as a loader that knows only rows has to make them."""
    xs, ys = [], []
    for x, y in samples:
        xs.append(x)
        ys.append(y)
        if len(ys) == BATCH:
            yield np.stack(xs), np.array(ys, np.uint8)
            xs, ys = [], []
    if ys:
        yield np.stack(xs), np.array(ys, np.uint8)


def _litdata_row(row: tuple[Any, Any]) -> dict[str, Any]:
    return {"x": row[0], "y": int(row[1])}


class LitData(Loader):
    """litdata's StreamingDataset on local chunks, shuffled."""

    name = "litdata"
    needs = ("litdata",)
    package = "litdata"

    def prepare(self, source: Path, folder: Path) -> None:
        """`optimize` in one process."""
        import litdata

        found = arrays(source)
        rows = list(zip(found["x"], found["y"], strict=True))
        litdata.optimize(_litdata_row, rows, str(folder / "chunks"), num_workers=1, chunk_bytes="64MB")

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Rows, stacked."""
        import litdata

        data = litdata.StreamingDataset(str(opened / "chunks"), shuffle=True, seed=epoch)
        return _stacked((np.asarray(row["x"]), row["y"]) for row in data)


class Mosaic(Loader):
    """mosaicml-streaming's StreamingDataset on local MDS files, shuffled."""

    name = "mosaicml-streaming"
    needs = ("streaming",)
    package = "mosaicml-streaming"

    def prepare(self, source: Path, folder: Path) -> None:
        """MDS files of 64 MB."""
        from streaming import MDSWriter

        found = arrays(source)
        columns = {"x": f"ndarray:uint16:{found['x'].shape[1]}", "y": "uint8"}
        with MDSWriter(out=str(folder / "mds"), columns=columns, size_limit=1 << 26) as writer:
            for x, y in zip(found["x"], found["y"], strict=True):
                writer.write({"x": np.asarray(x), "y": y})

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Rows, stacked."""
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        data = StreamingDataset(local=str(opened / "mds"), shuffle=True, shuffle_seed=epoch + 1, batch_size=BATCH)
        return _stacked((row["x"], row["y"]) for row in data)


class WebDataset(Loader):
    """webdataset on tar files, shuffled in a buffer."""

    name = "webdataset, buffer 10,000"
    needs = ("webdataset",)
    package = "webdataset"

    def prepare(self, source: Path, folder: Path) -> None:
        """Tar files of 50,000 rows."""
        import webdataset

        found = arrays(source)
        with webdataset.ShardWriter(f"{folder}/rows-%05d.tar", maxcount=50_000, verbose=0) as writer:
            for number, (x, y) in enumerate(zip(found["x"], found["y"], strict=True)):
                writer.write({"__key__": f"{number:08}", "x.bin": x.tobytes(), "y.bin": y.tobytes()})

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Rows, stacked."""
        import webdataset

        files = sorted(str(path) for path in opened.glob("*.tar"))
        data = webdataset.WebDataset(files, shardshuffle=len(files), empty_check=False, seed=epoch).shuffle(
            SHUFFLE_ROWS
        )
        return _stacked((np.frombuffer(row["x.bin"], np.uint16), row["y.bin"][0]) for row in data)


class Grain(Loader):
    """grain on an ArrayRecord file, a global shuffle."""

    name = "grain on ArrayRecord, global shuffle"
    needs = ("grain", "array_record")
    package = "grain"

    def prepare(self, source: Path, folder: Path) -> None:
        """A record a row."""
        from array_record.python.array_record_module import ArrayRecordWriter

        found = arrays(source)
        writer = ArrayRecordWriter(str(folder / "rows.array_record"), "group_size:1")
        for x, y in zip(found["x"], found["y"], strict=True):
            writer.write(x.tobytes() + y.tobytes())
        writer.close()

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Rows, stacked."""
        import grain.python as grain

        rows = grain.MapDataset.source(grain.ArrayRecordDataSource(str(opened / "rows.array_record"))).shuffle(
            seed=epoch
        )
        return _stacked((np.frombuffer(row[:-1], np.uint16), row[-1]) for row in rows.to_iter_dataset())


class ScipyMemory(Loader):
    """scipy's csr_matrix in memory, rows gathered in a random order: no file is read."""

    name = "sparse scipy in memory, global shuffle"
    kind = "sparse"
    prepare = Memmap.prepare

    def open(self, folder: Path) -> Any:
        """Load all."""
        from scipy.sparse import csr_matrix

        found = {name: np.asarray(array).copy() for name, array in arrays(folder).items()}
        x = csr_matrix((found["data"], found["indices"], found["indptr"]), shape=found["shape"])
        return x, found["y"]

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Gather 32,768 rows at a time, which is what scipy is fastest at."""
        x, y = opened
        order = np.random.default_rng(epoch).permutation(len(y))
        for start in range(0, len(order), 64 * BATCH):
            rows = order[start : start + 64 * BATCH]
            window, labels = x[rows], y[rows]
            for first in range(0, len(rows), BATCH):
                pointers = window.indptr[first : first + BATCH + 1]
                span = slice(int(pointers[0]), int(pointers[-1]))
                part = window.data[span], window.indices[span], pointers - pointers[0]
                yield part, labels[first : first + BATCH]


class ScDataset(Loader):
    """scDataset over a backed AnnData file: blocks of 4,096 rows, mixed 16 batches at a time."""

    name = "sparse scDataset on AnnData"
    kind = "sparse"
    needs = ("scdataset", "anndata")
    package = "scdataset"

    def prepare(self, source: Path, folder: Path) -> None:
        """An .h5ad file."""
        import anndata
        import pandas as pd
        from scipy.sparse import csr_matrix

        found = arrays(source)
        x = csr_matrix((found["data"], found["indices"], found["indptr"]), shape=found["shape"])
        names = pd.DataFrame({"y": np.asarray(found["y"])}, index=[str(i) for i in range(x.shape[0])])
        anndata.AnnData(x, obs=names).write_h5ad(folder / "rows.h5ad")

    def open(self, folder: Path) -> Any:
        """Backed."""
        import anndata

        backed = anndata.read_h5ad(folder / "rows.h5ad", backed="r")
        return backed, backed.obs["y"].to_numpy()

    def batches(self, opened: Any, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Rows as (matrix, labels)."""
        from scdataset import BlockShuffling, scDataset

        backed, labels = opened
        data = scDataset(
            backed,
            BlockShuffling(BLOCK),
            seed=epoch,
            batch_size=BATCH,
            fetch_factor=16,
            fetch_callback=lambda source, rows: (source.X[np.sort(rows)], labels[np.sort(rows)]),
            batch_callback=lambda fetched, rows: (fetched[0][rows], fetched[1][rows]),
        )
        for x, y in data:
            yield (x.data, x.indices, x.indptr), y


NOT_COMPARED = {"annbatch": "its releases need a newer Python than 3.11, the oldest that is supported here"}


def digest(x: Any, y: Any, weights: Any) -> int:
    """The sum over rows of a hash of features and label: equal for equal multisets of rows, in whatever order."""
    if isinstance(x, tuple):
        data, indices, indptr = x
        terms = data.view(np.uint32).astype(np.uint64) * weights[indices]
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms)])
        rows = sums[indptr[1:]] - sums[indptr[:-1]]
    else:
        rows = (np.asarray(x).astype(np.uint64) * weights[: x.shape[1]]).sum(axis=1, dtype=np.uint64)
    mixed = (rows + np.asarray(y).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return int((mixed * np.uint64(0xBF58476D1CE4E5B9)).sum(dtype=np.uint64))


def touch(x: Any) -> int:
    """Look at a row's first value in each row of a batch, so that a lazy loader has to have them."""
    return int(x[2][-1]) if isinstance(x, tuple) else int(x[:, 0].sum())


def read(loader: Loader, folder: Path, epochs: int, check: bool) -> dict[str, Any]:
    """Time epochs, each over all rows; later ones until `SECONDS` are over; then one pass for the digest."""
    opened = loader.open(folder)
    seconds: list[float] = []
    rows = nonzeros = epoch = 0
    while epoch < epochs or (epochs > 1 and sum(seconds[1:]) < SECONDS):
        rows = nonzeros = 0
        began = time.perf_counter()
        for x, y in loader.batches(opened, epoch):
            rows += len(y)
            nonzeros += touch(x) if isinstance(x, tuple) else 0 * touch(x)
        seconds.append(time.perf_counter() - began)
        epoch += 1
    total, counted = 0, 0
    weights = np.random.default_rng(7).integers(0, 1 << 63, 1 << 16, np.uint64)
    for x, y in loader.batches(opened, epoch) if check else ():
        total = (total + digest(x, y, weights)) % (1 << 64)
        counted += len(y)
    return {
        "rows": rows,
        "nonzeros": nonzeros,
        "seconds": seconds,
        "digest": f"{counted}:{total:016x}" if check else "",
    }


def main() -> int:
    """Prepare or read one loader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "read"))
    parser.add_argument("name")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--no-check", action="store_true")
    args = parser.parse_args()
    loader = LOADERS[args.name]()
    for module in loader.needs:
        try:
            importlib.import_module(module)
        except ImportError as error:
            print(f"{module} ({error})", file=sys.stderr)
            return MISSING
    if args.what == "prepare":
        loader.prepare(*args.folders)
        return 0
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    found = read(loader, args.folders[0], args.epochs, not args.no_check)
    print(json.dumps({**found, "version": version(loader.package) if loader.package else ""}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
