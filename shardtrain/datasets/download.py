"""Download a file over HTTP so that a broken download goes on, and never joins two versions of a file.

What has arrived is kept in `NAME.partial` with a note beside it of what the server said the file is: its ETag, time and
size. A request for the rest is made only if the server can tell versions apart (`If-Range`), and its answer has to
say the same, so a file that was changed meanwhile is had from the beginning. A broken connection is taken up again
at once as long as that gets further; waiting is left to the user. Only Python's own urllib is needed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from shardtrain.errors import DownloadError
from shardtrain.runtime.atomic import PARTIAL, commit_file, commit_json, full_disk_named
from shardtrain.runtime.progress import progress, say
from shardtrain.version import __version__

NOTE = ".download"  # added to a file's name: where it is from
_TIMEOUT = 60  # seconds without a byte, after which a connection counts as broken
_PIECE = 1 << 18  # bytes
_FURTHER = 1 << 20  # bytes that an attempt has to get further for another one to follow it

_REFUSALS = {
    401: "the server wants a password",
    403: "the server refuses",
    404: "it is not there",
    410: "it is not there any more",
}
_SPAN = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, kw_only=True)
class _Version:
    """Which version of which file a server sends; `total` is its size, if it is told."""

    url: str
    etag: str | None
    last_modified: str | None
    total: int | None

    @property
    def validator(self) -> str | None:
        """What `If-Range` can say: a strong ETag, else the time; RFC 9110, 13.1.5."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


class _BrokenError(Exception):
    """A connection that could not be made or did not last."""


def kept_bytes(target: Path) -> int:
    """Bytes of the finished file, or of a download to `target` that can go on; 0 if there is neither."""
    if target.is_file():
        return target.stat().st_size
    noted = _read_note(target.with_name(target.name + NOTE))
    return 0 if noted is None or noted.validator is None else _size(target.with_name(target.name + PARTIAL))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def download(url: str, target: Path, *, max_bytes: int) -> None:
    """Make `target` the file at `url`; what an interrupted download of it left beside `target` is used.

    Args:
        url: with http or https.
        target: in an existing folder; if it was downloaded from `url` before, nothing is done.
        max_bytes: a longer file is refused, and nothing of it is kept.

    Raises:
        DownloadError: the server is not reached, refuses, has another file than can be, or the connection breaks
            and does not get further when it is made again; what has arrived is kept if it can go on from there.
        DiskFullError: no room; what has arrived is kept.
    """
    partial, note = target.with_name(target.name + PARTIAL), target.with_name(target.name + NOTE)
    noted = _read_note(note)
    if target.is_file():
        if noted is not None and noted.url == url:
            return
        target.unlink()
    if noted is None or noted.url != url or noted.validator is None:
        partial.unlink(missing_ok=True)
    furthest = _size(partial)
    while True:
        try:
            _attempt(url, partial, note, max_bytes)
            break
        except _BrokenError as broken:
            kept, reached = kept_bytes(target), _size(partial)
            if reached < furthest + _FURTHER:
                on = f"{kept / 1e6:,.1f} MB are kept, and the same command goes on" if kept else "nothing is kept"
                raise DownloadError(f"the download of {url} broke: {broken}; {on}") from broken
            furthest = reached
            say(f"the connection to {urlsplit(url).hostname} broke ({broken}); going on at {kept / 1e6:,.1f} MB")
    commit_file(partial, target)


def _attempt(url: str, partial: Path, note: Path, max_bytes: int) -> None:
    """Get the rest of the file, or all of it where no rest can be had; `partial` is whole if this returns."""
    noted, position = _read_note(note), _size(partial)
    headers = {"User-Agent": f"shardtrain/{__version__}", "Accept-Encoding": "identity"}
    if noted is None or noted.validator is None:
        position = 0
    elif position and position == noted.total:
        return
    elif position:
        headers |= {"Range": f"bytes={position}-", "If-Range": noted.validator}
    with _opened(urllib.request.Request(url, headers=headers)) as response:
        start, version = _first_byte(response), _version(url, response)
        if start == 0 or (start == position and noted is not None and _same(noted, version)):
            if position and not start:
                say(f"{url} has changed, or its server sends no parts of files; it is downloaded from the beginning")
            _receive(response, partial, note, version, start, max_bytes)
            return
        if not position:
            raise DownloadError(f"{url} cannot be downloaded: the server answered {response.status} to a plain request")
    partial.unlink()
    say(f"{url} has changed since the download began; it is downloaded from the beginning")
    _attempt(url, partial, note, max_bytes)


def _receive(response: Any, partial: Path, note: Path, version: _Version, start: int, max_bytes: int) -> None:
    """Write what a response holds behind the first `start` bytes of `partial`, to the end of the file."""
    total = version.total
    if total is not None and total > max_bytes:
        partial.unlink(missing_ok=True)
        raise DownloadError(
            f"{version.url} has {total / 1e6:,.1f} MB, at most {max_bytes / 1e6:,.1f} MB are expected: it is not the "
            "file that was published"
        )
    with (
        full_disk_named(partial, kept="what has arrived is kept"),
        open(partial, "ab") as file,
        progress(f"download {partial.name.removesuffix(PARTIAL)}", total=total, initial=start) as done,
    ):
        file.truncate(start)
        if not start:
            commit_json(note, asdict(version))  # behind the truncation: it speaks of no older bytes
        for piece in _pieces(response, None if total is None else total - start):
            file.write(piece)
            file.flush()  # what has arrived is kept, however this ends
            done.add(len(piece))
            if start + done.done > max_bytes:
                file.truncate(0)
                raise DownloadError(f"{version.url} does not end after the {max_bytes / 1e6:,.1f} MB that are expected")


def _pieces(response: Any, left: int | None) -> Iterator[bytes]:
    """What arrives, as it does; no byte behind the last is waited for."""
    while left is None or left:
        try:
            piece = response.read1(_PIECE if left is None else min(_PIECE, left))
        except (http.client.HTTPException, OSError) as error:
            raise _BrokenError(_reason(error)) from error
        if not piece:
            if left is None:
                return
            raise _BrokenError(f"the server ended it {left:,} bytes too early")
        left = None if left is None else left - len(piece)
        yield piece


@contextlib.contextmanager
def _opened(request: urllib.request.Request) -> Iterator[Any]:
    """The response to a request, also one that says that the range is none of the file."""
    opener = urllib.request.build_opener(_Redirects)
    try:
        response = opener.open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        response = error
    except (URLError, http.client.HTTPException, OSError) as error:
        raise _BrokenError(_reason(error)) from error
    with response:
        if response.status // 100 == 3:
            where = response.headers.get("Location", "nowhere")[:200]
            raise DownloadError(
                f"{request.full_url} is not downloaded: it leads to {where!r}, where this does not follow"
            )
        if response.status >= 400 and response.status != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            what = _REFUSALS.get(response.status, "the server cannot send it now; try again later")
            raise DownloadError(f"{request.full_url} cannot be downloaded: {what} (status {response.status})")
        yield response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows as urllib does, to HTTP only, but never from an encrypted connection to a plain one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise HTTPError(newurl, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _first_byte(response: Any) -> int | None:
    """Position in the file of the first byte that a response holds, or None where it holds none of it."""
    if response.status == http.HTTPStatus.OK:
        return 0
    span = _SPAN.fullmatch(response.headers.get("Content-Range", ""))
    return int(span[1]) if response.status == http.HTTPStatus.PARTIAL_CONTENT and span else None


def _version(url: str, response: Any) -> _Version:
    headers = response.headers
    size = headers.get("Content-Length", "") if response.status == http.HTTPStatus.OK else ""
    if span := _SPAN.fullmatch(headers.get("Content-Range", "")):
        size = span[2]
    total = int(size) if size.isdecimal() and "Transfer-Encoding" not in headers else None
    return _Version(url=url, etag=headers.get("ETag"), last_modified=headers.get("Last-Modified"), total=total)


def _same(noted: _Version, version: _Version) -> bool:
    """Whether two responses may be of the same version: an answer to `If-Range` need not repeat all of it."""
    told = ((noted.etag, version.etag), (noted.last_modified, version.last_modified), (noted.total, version.total))
    return all(before == now for before, now in told if before is not None and now is not None)


def _read_note(note: Path) -> _Version | None:
    try:
        return _Version(**json.loads(note.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(inner, TimeoutError):
        return f"nothing came for {_TIMEOUT} seconds"
    strerror = inner.strerror if isinstance(inner, OSError) else None
    return strerror or str(inner) or type(inner).__name__
