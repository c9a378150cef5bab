"""Write the valid inputs of the corpus: `python tests/fuzz/seed.py`, with the repository and tests on PYTHONPATH.

Finds are added by hand, named after what they found.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import h5py
import numpy as np
from scipy.sparse import csr_matrix, save_npz

from shardtrain.arrays.scratch import spill
from shardtrain.runtime.records import Records
from shardtrain.runtime.schema import ANYTHING
from shardtrain.training.checkpoint import packed, write_checkpoint

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden"


def put(target: str, name: str, content: bytes) -> None:
    (HERE / "corpus" / target).mkdir(parents=True, exist_ok=True)
    (HERE / "corpus" / target / name).write_bytes(content)


def main(folder: Path) -> None:
    put("records", "csv", b'\x00label,text\n1,"a ""b"",\nc"\n2,d\n1,e\n')
    put("records", "tsv", b"\x01label\ttext\nx\ta b\ny\tc\n")
    put("records", "fasttext", b"\x02__label__x a b\n__label__y c d\n")
    put("records", "lines", b"\x03a b\nc d\n")
    put("json_records", "lines", b'\x00{"label": 1, "text": "a\\u00e9"}\n{"label": 2, "text": "b"}\n')
    put("json_records", "array", b'\x01[{"label": "x", "text": "a"}, {"label": "y", "text": "b"}]')
    np.save(folder / "x.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    put("npy", "floats", (folder / "x.npy").read_bytes())
    np.savez(folder / "x.npz", x=np.eye(3, dtype=np.float32), y=np.arange(3))
    put("npz", "dense", (folder / "x.npz").read_bytes())
    save_npz(folder / "s.npz", csr_matrix(np.eye(3, dtype=np.float32)))
    put("npz", "sparse", (folder / "s.npz").read_bytes())
    spill(folder / "spilled", {"keys": np.arange(3, dtype=np.uint64), "y": np.zeros((2, 2))}, {"num_features": 2})
    put("scratch", "arrays", (folder / "spilled").read_bytes())
    for name in ("v1-ngram", "v2-dense", "v3-sequence", "v3-lists-zstd"):
        put("manifest", name, (GOLDEN / name / "manifest.json").read_bytes())
    files = ("vectorizer.json", "terms.json", "hashes.npy", "counts.npy", "columns.npy", "scores.npy")
    for number, name in enumerate(files):
        content = (GOLDEN / "v3-ngram" / "vectorizer" / name).read_bytes()
        put("vectorizer", name.partition(".")[0], bytes([number]) + content)
    write_checkpoint(folder / "c", packed({"a": np.arange(3), "b": [1, (2.5, None)], "c": np.float32(1)}))
    put("checkpoint", "state", (folder / "c").read_bytes()[:-16])
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=np.eye(4, dtype=np.float32), chunks=(2, 4), compression="gzip")
        file["y"] = np.arange(4, dtype=np.uint8)
        file["document"] = np.arange(4)
    put("hdf5", "dense", (folder / "x.h5").read_bytes())
    with h5py.File(folder / "s.h5", "w") as file:
        file["x/data"] = np.ones(3, np.float32)
        file["x/indptr"] = h5py.SoftLink("/y")
        file["y"] = h5py.ExternalLink("other.h5", "y")
    put("hdf5", "links", (folder / "s.h5").read_bytes())
    info = {"kind": "ngram", "num_features": 3, "vocabulary_size": 3, "class_names": ["a", "b"], "num_train": 2}
    info |= {"num_validation": 1, "vectorizer": "", "fingerprint": ""}
    config = {"format": "shardtrain-run", "version": 1, "model": "mlp", "options": {}, "description": info}
    metrics = {"val_accuracy": 0.5, "val_loss": 1, "epochs": 2, "best_epoch": 1, "model_sha256": "0" * 64}
    build = {"seconds": 1, "pass_seconds": {"a": 1}, "memory_limit": 1, "peak_memory_bytes": 1, "workers": 1}
    build |= {"resumed": False, "memory_curve": [[0, 1]], "origins": [{"read": {}, "files": {"a": [1, 2, "b"]}}]}
    job = {"options": {"seed": 1}, "corpus": {"a": [1, 2, "b"]}, "shardtrain": "1", "boot": "x"}
    for number, value in enumerate((config, metrics, build, job)):
        put("json_files", str(number), bytes([number]) + json.dumps(value).encode())
    with Records(folder / "task.records", ANYTHING) as records:
        records.add(0, {"rows": 1})
    put("json_files", "4", bytes([4]) + (folder / "task.records").read_bytes())


with tempfile.TemporaryDirectory() as made:
    main(Path(made))
