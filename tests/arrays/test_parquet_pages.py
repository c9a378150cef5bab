"""The longest page of a Parquet file, whatever its pages are like, and files whose pages do not fit the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.comparing import assert_nothing_published

from shardtrain.arrays.parquet_pages import check_pages, longest_page
from shardtrain.errors import CorpusFormatError
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

WRITTEN: list[dict[str, Any]] = [
    {"compression": codec, "use_dictionary": dictionary, "data_page_version": version, "write_page_checksum": checksum}
    for codec in ("none", "zstd")
    for dictionary in (False, True)
    for version in ("1.0", "2.0")
    for checksum in (False, True)
]


def write_texts(path: Path, lengths: list[int], **how: Any) -> Any:
    texts = [
        f"{number:02} {'word ' * (length // 5)}".ljust(length, ".")[:length] for number, length in enumerate(lengths)
    ]
    table = pa.table({"label": [str(number % 2) for number in range(len(texts))], "text": texts})
    pq.write_table(table, path, **how)
    return pq.ParquetFile(path).metadata


@pytest.mark.parametrize("how", WRITTEN, ids=str)
def test_the_pages_of_a_column_make_up_its_bytes(how: dict[str, Any], tmp_path: Path) -> None:
    lengths = [10, 3000, 500, 70_000, 40, 900] * 4
    metadata = write_texts(
        tmp_path / "a.parquet", lengths, write_batch_size=4, data_page_size=1000, row_group_size=12, **how
    )
    page = longest_page(tmp_path / "a.parquet", metadata, {"text"}, 0)
    assert page is not None
    of_group = metadata.row_group(page.group).column(1).total_uncompressed_size
    assert page.column == "text"
    assert 70_000 < page.num_bytes < of_group
    one = write_texts(tmp_path / "b.parquet", lengths, **{**how, "use_dictionary": False})
    page = longest_page(tmp_path / "b.parquet", one, {"text"}, 0)
    assert page is not None
    assert sum(lengths) + 4 * len(lengths) <= page.num_bytes <= sum(lengths) + 4 * len(lengths) + 20  # levels
    assert longest_page(tmp_path / "b.parquet", one, {"text"}, page.num_bytes) is None
    assert longest_page(tmp_path / "b.parquet", one, {"label"}, page.num_bytes) is None


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_damaged_headers_of_pages_are_refused_or_read(place: int, tmp_path: Path) -> None:
    metadata = write_texts(tmp_path / "a.parquet", [500] * 50, use_dictionary=False)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    start = metadata.row_group(0).column(1).data_page_offset + place
    for value in (0, 0x1C, 0x3C, 0x7F, 0xFF):
        content[start : start + 3] = bytes([value] * 3)
        (tmp_path / "a.parquet").write_bytes(content)
        try:
            longest_page(tmp_path / "a.parquet", metadata, {"text"}, 0)
        except ValueError:
            with pytest.raises(CorpusFormatError, match=r"cannot be read as Parquet.*page"):
                check_pages(tmp_path / "a.parquet", metadata, {"text"}, 1)


def test_a_file_whose_pages_do_not_fit_the_memory_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    metadata = write_texts(tmp_path / "a.parquet", [600_000] * 100, compression="zstd", use_dictionary=False)
    with pytest.raises(
        CorpusFormatError,
        match=r"a\.parquet': the column 'text' has a page of 60\.0 MB in row .* 256MiB; give memory_limit 347MiB",
    ):
        build(tmp_path / "a.parquet", tmp_path / "out", BuildOptions(memory_limit=256 << 20))
    assert_nothing_published(tmp_path / "out")
    check_pages(tmp_path / "a.parquet", metadata, {"text"}, 512 << 20)
