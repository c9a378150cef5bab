"""HDF5 files that a reader must reject, by defect."""

from __future__ import annotations

import h5py
import numpy as np

VALUES = np.arange(4000, dtype=np.float32).reshape(100, 40)


def soft_link(file, folder):
    file["real"] = VALUES
    file["x"] = h5py.SoftLink("/real")


def soft_link_to_a_group(file, folder):
    file["real/x"] = VALUES
    file["g"] = h5py.SoftLink("/real")


def external_link(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = VALUES
    file["x"] = h5py.ExternalLink("other.h5", "x")


def external_storage(file, folder):
    (folder / "other.raw").write_bytes(VALUES.tobytes())
    file.create_dataset("x", VALUES.shape, "f4", external=[(str(folder / "other.raw"), 0, VALUES.nbytes)])


def virtual(file, folder):
    layout = h5py.VirtualLayout(VALUES.shape, "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", VALUES.shape)
    file.create_virtual_dataset("x", layout)


def compact(file, folder):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((4, 1))
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, space, properties)


def unknown_filter(file, folder):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((10, 40))
    properties.set_filter(65_000, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple(VALUES.shape), properties)


def numbers_of(kind):
    """Write numbers of a type without a NumPy equivalent: libhdf5 would convert them, but their raw bytes differ."""

    def create(file, folder):
        space = h5py.h5s.create_simple(VALUES.shape)
        h5py.Dataset(h5py.h5d.create(file.id, b"x", kind, space))[...] = VALUES % 2000

    return create


def twelve_bits():
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)
    return kind


def brain_float():
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_precision(16)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


def never_written(file, folder):
    """Declare 128 GiB in a file of a few KB."""
    file.create_dataset("x", (1 << 25, 1024), "f4", chunks=(1024, 1024))


def partly_written(file, folder):
    file.create_dataset("x", (100, 40), "f4", chunks=(10, 40))[:50] = VALUES[:50]


def contiguous_never_written(file, folder):
    file.create_dataset("x", (1 << 25, 1024), "f4")


def user_block(file, folder):
    file.close()
    with h5py.File(folder / "a.h5", "w", userblock_size=512) as again:
        again["x"] = VALUES


HOSTILE = {
    "a soft link": (soft_link, "is a soft link to '/real'"),
    "a soft link on the way": (soft_link_to_a_group, "'/g' in .* is a soft link to '/real'"),
    "an external link": (external_link, r"is an external link to 'x' in the file 'other\.h5'"),
    "external storage": (external_storage, r"keeps its values in the external file .*other\.raw"),
    "a virtual dataset": (virtual, "is a virtual dataset"),
    "compact storage": (compact, "is a compact dataset"),
    "an unknown filter": (unknown_filter, "has the filter 65000"),
    "values never written": (never_written, "in 32,768 pieces, 0 of which are in the file"),
    "values partly written": (partly_written, "in 10 pieces, 5 of which are in the file"),
    "contiguous values never written": (contiguous_never_written, "in 1 pieces, 0 of which are in the file"),
    "a user block": (user_block, "begins with a user block of 512 bytes"),
    "strings of variable length": (lambda file, _: file.create_dataset("x", data=["a", "bb"]), "of variable length"),
    "sequences of variable length": (
        lambda file, _: file.create_dataset("x", (3,), h5py.vlen_dtype(np.int32)),
        "of variable length",
    ),
    "references": (lambda file, _: file.create_dataset("x", (3,), h5py.ref_dtype), "holds references to objects"),
    "strings of fixed length": (lambda file, _: file.create_dataset("x", data=np.array([b"a"])), "has the type"),
    "truth values": (lambda file, _: file.create_dataset("x", data=np.array([True])), "has the type bool"),
    "records": (lambda file, _: file.create_dataset("x", (3,), [("a", "f4"), ("b", "i4")]), "has the type"),
    "complex numbers": (lambda file, _: file.create_dataset("x", (3,), "c8"), "has the type complex64"),
    "integers of 12 bits": (numbers_of(twelve_bits()), "in a non-standard format"),
    "floats of 16 bits with 8 in the exponent": (numbers_of(brain_float()), "in a non-standard format"),
    "a number alone": (lambda file, _: file.create_dataset("x", data=3.5), r"has the shape \(\)"),
    "no shape": (lambda file, _: file.create_dataset("x", data=h5py.Empty("f4")), "has the shape None"),
    "three dimensions": (lambda file, _: file.create_dataset("x", data=np.zeros((2, 2, 2))), "has the shape"),
    "a group": (lambda file, _: file.create_group("x"), "is not a dataset"),
    "no such name": (lambda file, _: file.create_group("other"), "has no '/x'; it has 'other'"),
}
