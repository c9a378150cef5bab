"""Download a file over HTTP and resume an interrupted download.

Received bytes are kept in `NAME.partial`, the server's ETag in `NAME.download`. The rest is requested with `Range`, and
with `If-Range` if there is an ETag, so that a file changed on the server is downloaded from the beginning. Without an
ETag two versions could be joined: callers compare the checksum of the whole file.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from shardtrain.errors import DownloadError
from shardtrain.runtime.atomic import PARTIAL, commit_bytes, commit_file, without_following
from shardtrain.runtime.progress import progress, say
from shardtrain.runtime.quantities import size
from shardtrain.runtime.storage import storage_errors
from shardtrain.version import __version__

ETAG = ".download"  # suffix of the file with the ETag
_TIMEOUT = 60  # seconds without a byte after which a connection counts as broken
_PIECE = 1 << 18  # bytes
_PROGRESS = 1 << 20  # bytes that an attempt must add for another one to follow

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')  # only these are valid in If-Range; RFC 9110, 13.1.5
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class _BrokenError(Exception):
    """A connection that could not be opened or ended early."""


def kept_bytes(target: Path) -> int:
    """Count the bytes of the finished file, or of an interrupted download of it."""
    return _size(target) or _size(target.with_name(target.name + PARTIAL))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def download(url: str, target: Path, *, max_bytes: int) -> None:
    """Download `url` to `target`, resuming an interrupted download; a finished `target` is kept as it is.

    Args:
        url: with http or https.
        target: in an existing folder.
        max_bytes: a longer file is refused and removed.

    Raises:
        DownloadError: no connection, an HTTP error, a file that is too long, or a connection that broke and made no
            progress when opened again; received bytes are kept.
        DiskFullError: no room; received bytes are kept.
    """
    if target.is_file():
        return
    partial = target.with_name(target.name + PARTIAL)
    reached = _size(partial)
    while True:
        try:
            _receive_rest(url, partial, target.with_name(target.name + ETAG), max_bytes)
            break
        except _BrokenError as broken:
            kept = _size(partial)
            if kept < reached + _PROGRESS:
                then = f"{size(kept)} are kept: run the same command to resume" if kept else "nothing is kept"
                raise DownloadError(f"the download of {url} broke: {broken}; {then}") from broken
            reached = kept
            say(f"the connection to {urlsplit(url).hostname} broke ({broken}); resuming at {size(kept)}")
    commit_file(partial, target)


def _receive_rest(url: str, partial: Path, etag: Path, max_bytes: int) -> None:
    """Complete `partial` with the bytes it lacks, or with all if the server does not send them separately."""
    position = _size(partial)
    headers = {"User-Agent": f"shardtrain/{__version__}", "Accept-Encoding": "identity"}
    if position:
        headers["Range"] = f"bytes={position}-"
        if etag.is_file() and _STRONG_ETAG.fullmatch(known := etag.read_text("latin-1")):
            headers["If-Range"] = known
    with _open(urllib.request.Request(url, headers=headers)) as response:
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status == HTTPStatus.OK:
            if position:
                say(f"{url} has changed, or its server cannot resume; it is downloaded from the beginning")
                partial.unlink()  # before its ETag is replaced
            commit_bytes(etag, response.headers.get("ETag", "").encode("latin-1"))
            _receive(response, partial, 0, max_bytes)
        elif response.status == HTTPStatus.PARTIAL_CONTENT and span and span[1] == str(position):
            _receive(response, partial, position, max_bytes)
        elif not position:
            raise DownloadError(f"{url} cannot be downloaded: unexpected answer to a request for all of it")
        elif not span or span[2] != str(position):  # else it was complete already
            partial.unlink()
            _receive_rest(url, partial, etag, max_bytes)


def _receive(response: Any, partial: Path, start: int, max_bytes: int) -> None:
    """Append the body of a response to the first `start` bytes of `partial`."""
    left = response.length  # None if the server does not state it
    total, name = None if left is None else start + left, partial.name.removesuffix(PARTIAL)
    if total is not None and total > max_bytes:
        partial.unlink(missing_ok=True)
        raise DownloadError(
            f"{response.url} has {size(total)}, at most {size(max_bytes)} are expected: it is not the published file"
        )
    with (
        storage_errors(partial, "write", kept="received bytes are kept"),
        open(partial, "ab", opener=without_following) as file,
        progress(f"download {name}", total=total, initial=start) as done,
    ):
        os.ftruncate(file.fileno(), start)  # unlike io.FileIO, it goes on after a signal
        while left != 0:
            try:
                piece = response.read1(_PIECE if left is None else min(_PIECE, left))
            except (http.client.HTTPException, OSError) as error:
                raise _BrokenError(_reason(error)) from error
            if not piece and left is None:
                return
            if not piece:
                raise _BrokenError(f"the server ended it {left:,} bytes too early")
            file.write(piece)
            file.flush()  # kept even if the process is killed
            done.add(len(piece))
            left = None if left is None else left - len(piece)
            if start + done.done > max_bytes:
                os.ftruncate(file.fileno(), 0)
                raise DownloadError(f"{response.url} has more than the expected {size(max_bytes)}")


@contextlib.contextmanager
def _open(request: urllib.request.Request) -> Iterator[Any]:
    """Open a request; a response that the range is outside the file (416) is not an error."""
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        response = error
    except (http.client.HTTPException, OSError) as error:
        raise _BrokenError(_reason(error)) from error
    with response:
        if response.status >= 300 and response.status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            to = response.headers.get("Location", "")[:200]
            why = f"it redirects to {to!r}, which is not followed" if to else f"the server answered '{response.reason}'"
            later = "; try again later" if response.status >= 500 else ""
            raise DownloadError(f"{request.full_url} cannot be downloaded: {why} (status {response.status}){later}")
        yield response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects as urllib does, to HTTP only, but never from an encrypted connection to a plain one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise HTTPError(newurl, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)  # URLError wraps another exception, or a text
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
