"""Small versions of the published data sets, and an HTTP server on loopback that serves them with typical faults."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shardtrain.corpus.published import Dataset

TEXT_COLUMNS = {"yelp_full": 1, "yelp_polarity": 1, "yahoo_answers": 3}  # all other data sets have two
Files = dict[str, bytes]


def in_small(dataset: Dataset, url: str, packed: bytes, *, per_class: int = 4) -> Dataset:
    """Return the data set reduced to `per_class` training rows and half as many test rows per class."""
    archive = replace(
        dataset.archive,
        url=f"{url}/{dataset.archive.file_name}",
        num_bytes=len(packed),
        checksum=f"sha256:{hashlib.sha256(packed).hexdigest()}",
        unpacked_bytes=1 << 20,
    )
    rows = per_class * dataset.num_classes
    return replace(dataset, archive=archive, num_train=rows, num_test=rows // 2)


def rows_of(dataset: Dataset, split: str, per_class: int = 4) -> list[tuple[str, list[str]]]:
    """Return (label, text columns) of the rows of a split, sorted by class, with quotes, newlines and backslashes."""
    number = per_class if split == "train" else per_class // 2
    labels = ["neg", "pos"] if dataset.name == "imdb" else [str(label + 1) for label in range(dataset.num_classes)]
    columns = 1 if dataset.name == "imdb" else TEXT_COLUMNS.get(dataset.name, 2)
    return [
        (label, [f'{split} word{label} é "q" a\\nb \\"c\\" {place} column{column}' for column in range(columns)])
        for label in labels
        for place in range(number)
    ]


def files_of(dataset: Dataset, per_class: int = 4) -> Files:
    """Return the files in the archive of a data set, by path."""
    if dataset.name == "imdb":
        files = {"aclImdb/README": b"about", "aclImdb/imdb.vocab": b"word", "aclImdb/train/unsup/0_0.txt": b"word"}
        for split in ("train", "test"):
            for place, (label, texts) in enumerate(rows_of(dataset, split, per_class)):
                files[f"aclImdb/{split}/{label}/{place}_7.txt"] = texts[0].encode()
        return files
    top = dataset.archive.file_name.removesuffix(".tgz")
    files = {f"{top}/readme.txt": b"about", f"{top}/._train.csv": b"a Macintosh was here"}
    for split in ("train", "test"):
        content = io.StringIO(newline="")
        writer = csv.writer(content, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([label, *texts] for label, texts in rows_of(dataset, split, per_class))
        files[f"{top}/{split}.csv"] = content.getvalue().encode()
    if dataset.class_names:
        files[f"{top}/classes.txt"] = "\n".join(dataset.class_names).encode() + b"\n"
    return files


def packed(files: Files, *others: tarfile.TarInfo) -> bytes:
    """Pack a .tar.gz archive of files and of further members without content."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in others:
            archive.addfile(member)
    return content.getvalue()


@dataclass
class Site:
    """Content and behaviour of a server; `asked` collects the headers of each request.

    Attributes:
        url: base URL.
        files: content by path; other paths are answered with 404.
        ranges: whether range requests are supported.
        if_range: whether the header If-Range is respected, as HTTP requires.
        tags: whether an ETag is sent.
        time: value of Last-Modified; empty for none.
        cuts: for the following requests, the number of bytes after which the connection is closed.
        lengths: whether Content-Length is sent.
        status: status that is sent instead of a file, if not 0.
        moved: path -> URL to redirect to.
        meanwhile: called before each answer.
        hold: if set, a truncated answer waits for this event before the connection is closed.
    """

    url: str
    files: Files = field(default_factory=dict)
    ranges: bool = True
    if_range: bool = True
    tags: bool = True
    time: str = ""
    cuts: list[int] = field(default_factory=list)
    lengths: bool = True
    status: int = 0
    moved: dict[str, str] = field(default_factory=dict)
    meanwhile: Callable[[], object] | None = None
    hold: threading.Event | None = None
    asked: list[dict[str, str]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(dict(handler.headers.items()) | {"path": handler.path})
        if self.meanwhile is not None:
            self.meanwhile()
        content = self.files.get(handler.path.lstrip("/"))
        if handler.path in self.moved:
            handler.send_response(302)
            handler.send_header("Location", self.moved[handler.path])
            handler.end_headers()
            return
        if content is None or self.status:
            handler.send_error(self.status or 404)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"' if self.tags else ""
        validators = [(name, value) for name, value in (("ETag", tag), ("Last-Modified", self.time)) if value]
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        unchanged = not self.if_range or handler.headers.get("If-Range") in (None, *(value for _, value in validators))
        if self.ranges and asked and unchanged:
            start = int(asked[1])
        if start >= len(content) > 0:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        for name, value in validators:
            handler.send_header(name, value)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.lengths:
            handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        stop = start + self.cuts.pop(0) if self.cuts else len(content)
        with contextlib.suppress(ConnectionError):  # the client closed the connection
            handler.wfile.write(content[start:stop])
            handler.wfile.flush()
        if self.hold is not None and stop < len(content):
            self.hold.wait()


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    """Run a server on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        if site.hold is not None:
            site.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
