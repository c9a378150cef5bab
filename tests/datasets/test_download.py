"""A download over HTTP ends with the server's file or with an error, whatever the connection and the server do."""

from __future__ import annotations

import http.client
import io
import os
import random
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
from support.published import Site, serving

from shardtrain.datasets.download import _Redirects, download, kept_bytes
from shardtrain.errors import DownloadError

SMALL = random.Random(1).randbytes(100_000)
LARGE = random.Random(2).randbytes(5 << 20)
CHANGED = random.Random(3).randbytes(100_000)  # as long, so that its size tells nothing
CUT = 70_000


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        site.files = {"small": SMALL, "large": LARGE}
        yield site


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "file"


def get(site: Site, target: Path, name: str = "small", max_bytes: int = 1 << 30) -> bytes:
    download(f"{site.url}/{name}", target, max_bytes=max_bytes)
    assert not list(target.parent.glob("*.partial"))
    return target.read_bytes()


def break_off(site: Site, target: Path, name: str = "small", at: int = CUT) -> str:
    """A download whose connection ends after `at` bytes; what the error says."""
    site.cuts = [at]
    with pytest.raises(DownloadError) as caught:
        get(site, target, name)
    assert not target.exists()
    assert target.with_name(f"{target.name}.partial").stat().st_size == at
    return str(caught.value)


def test_a_file_arrives_as_it_is_and_is_not_asked_for_again(site, target):
    assert get(site, target) == SMALL
    assert get(site, target) == SMALL
    assert len(site.asked) == 1


@pytest.mark.parametrize("tags", [True, False], ids=["with an ETag", "without"])
def test_a_broken_download_is_resumed_where_it_broke(site, target, tags):
    site.tags = tags
    message = break_off(site, target)
    for words in ("the server ended it 30,000 bytes too early", "70.0 kB are kept", "run the same command to resume"):
        assert words in message
    assert get(site, target) == SMALL
    assert site.asked[1]["Range"] == f"bytes={CUT}-"
    assert ("If-Range" in site.asked[1]) is tags


def test_a_connection_that_breaks_again_and_again_is_taken_up_as_long_as_that_gets_further(site, target):
    site.cuts = [2 << 20, 1 << 20, 3 << 18]
    with pytest.raises(DownloadError, match=r"3\.9 MB are kept"):
        get(site, target, "large")
    site.cuts = [1 << 20]
    assert get(site, target, "large") == LARGE
    ranges = [asked.get("Range") for asked in site.asked]
    starts = [2 << 20, 3 << 20, (3 << 20) + (3 << 18), (4 << 20) + (3 << 18)]
    assert ranges == [None, *(f"bytes={start}-" for start in starts)]


def test_a_server_that_sends_no_parts_and_breaks_at_the_same_place_is_given_up(site, target):
    site.ranges, site.cuts = False, [3 << 20] * 9
    with pytest.raises(DownloadError, match="broke: the server ended it"):
        get(site, target, "large")
    assert len(site.asked) == 2


def test_a_server_that_sends_no_parts_is_asked_for_all_and_gives_all(site, target, capsys):
    break_off(site, target)
    site.ranges = False
    assert get(site, target) == SMALL
    assert "from the beginning" in capsys.readouterr().err


def test_a_file_that_was_changed_meanwhile_is_not_joined_with_what_is_kept(site, target, capsys):
    break_off(site, target)
    site.files["small"] = CHANGED
    assert get(site, target) == CHANGED
    assert "has changed" in capsys.readouterr().err


def test_a_file_that_became_shorter_than_what_is_kept_is_had_anew(site, target):
    break_off(site, target)
    site.files["small"], site.if_range = CHANGED[: CUT // 2], False
    assert get(site, target) == CHANGED[: CUT // 2]
    assert [asked.get("Range") for asked in site.asked] == [None, f"bytes={CUT}-", None]


def test_what_is_kept_of_another_address_is_not_used(site, target):
    break_off(site, target)
    assert get(site, target, "large") == LARGE


def test_a_download_that_was_killed_when_all_had_arrived_is_complete(site, target):
    break_off(site, target)
    with open(target.with_name("file.partial"), "ab") as file:
        file.write(SMALL[CUT:])
    assert get(site, target) == SMALL
    assert [asked.get("Range") for asked in site.asked] == [None, f"bytes={len(SMALL)}-"]


def test_a_file_whose_length_is_not_told_arrives_too(site, target):
    site.lengths = False
    assert get(site, target) == SMALL


@pytest.mark.parametrize("told", [True, False], ids=["its length is told", "its length is not told"])
def test_a_file_longer_than_it_can_be_is_refused_and_nothing_of_it_is_kept(site, target, told):
    site.lengths = told
    with pytest.raises(DownloadError, match=r"1\.0 MB"):
        get(site, target, "large", max_bytes=1_000_000)
    assert kept_bytes(target) == 0


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "Not Found"), (403, "Forbidden"), (401, "Unauthorized"), (500, "try again later"), (503, "status 503")],
)
def test_a_refusal_is_said_in_words_and_keeps_what_was_there(site, target, status, words):
    break_off(site, target)
    site.status = status
    with pytest.raises(DownloadError, match=words):
        get(site, target)
    assert kept_bytes(target) == CUT
    site.status = 0
    assert get(site, target) == SMALL


def test_a_server_that_is_not_there_is_said_so(target):
    with serving() as site:
        url = site.url
    with pytest.raises(
        DownloadError, match=r"the download of http://127\.0\.0\.1:\d+/x broke: Connection refused; nothing is kept"
    ):
        download(f"{url}/x", target, max_bytes=1)
    assert not os.listdir(target.parent)


def test_a_server_that_sends_clients_in_a_circle_is_said_so(site, target):
    site.moved = {"/small": f"{site.url}/small"}
    with pytest.raises(DownloadError, match="which is not followed"):
        get(site, target)


def test_a_server_that_speaks_something_else_is_said_so(target):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1 << 16)
                client.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DownloadError, match=r"broke: 220 mail\.example"):
            download(url, target, max_bytes=1)
        thread.join()


def test_what_has_moved_is_found_and_goes_on_there(site, target):
    site.moved = {"/old": f"{site.url}/small"}
    site.cuts = [CUT]
    with pytest.raises(DownloadError):
        get(site, target, "old")
    assert get(site, target, "old") == SMALL
    assert site.asked[-1]["Range"] == f"bytes={CUT}-"


def test_what_has_moved_to_a_file_of_this_machine_is_refused(site, target):
    site.moved = {"/old": "file:///etc/hostname"}
    with pytest.raises(DownloadError, match="it redirects to 'file:///etc/hostname', which is not followed"):
        get(site, target, "old")
    assert kept_bytes(target) == 0


def test_an_encrypted_connection_is_not_left_for_a_plain_one():
    """No server: one that is trusted would need a certificate that this machine trusts."""
    request = urllib.request.Request("https://host.example/a")
    with pytest.raises(HTTPError) as caught:
        _Redirects().redirect_request(
            request, io.BytesIO(), 302, "Found", http.client.HTTPMessage(), "http://host.example/a"
        )
    caught.value.close()
