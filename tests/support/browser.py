"""Drive a headless Chromium over a pipe with the DevTools protocol, without a driver or a port."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
HEIGHT = 900  # of the window, in pixels


@contextmanager
def running_browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile in the folder `profile`; skip the test if none is installed."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("Chromium is not installed; on Debian tools/install_chromium.sh installs it")
    commands_in, commands = os.pipe()
    messages, messages_out = os.pipe()
    shell = f'exec "$@" 3<&{commands_in} 4>&{messages_out}'  # the file descriptors that it expects
    process = subprocess.Popen(
        ["/bin/bash", "-c", shell, "chromium", found, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(commands_in, messages_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands_in)
    os.close(messages_out)
    with open(commands, "wb", buffering=0) as write, open(messages, "rb") as read, process:
        browser = Browser(write, read)
        try:
            yield browser
        finally:
            browser.send("Browser.close")
            read.read()  # until the browser has ended


class Browser:
    """A connection to a running browser."""

    def __init__(self, write: IO[bytes], read: IO[bytes]) -> None:
        self._write, self._read = write, read
        self._numbers = itertools.count(1)
        self._unread = b""
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events received meanwhile are appended to `events`."""
        number = next(self._numbers)
        command: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        self._write.write(json.dumps(command).encode() + b"\0")
        while True:
            message = self.receive()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def receive(self) -> dict[str, Any]:
        """Receive the next message."""
        while b"\0" not in self._unread:
            piece = self._read.read1(1 << 20)
            assert piece, "the browser ended"
            self._unread += piece
        content, _, self._unread = self._unread.partition(b"\0")
        message = json.loads(content)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, path: Path, *, width: int, dark: bool = False) -> Page:
        """Open a file in a window `width` pixels wide and wait until it is loaded."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.send(f"{domain}.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=HEIGHT, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.send("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        page.send("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.receive()
        return page


class Page:
    """An open page."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to the page."""
        return self._browser.send(method, self._session, **parameters)

    def run(self, script: str) -> Any:
        """Evaluate a JavaScript expression, which must not throw."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    @property
    def requests(self) -> list[str]:
        """URLs requested by the page so far, its own first."""
        self.run("0")
        sent = [event["params"] for event in self._browser.events if event["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    @property
    def complaints(self) -> list[str]:
        """Console messages, errors and policy violations so far."""
        self.run("0")
        wanted = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self._browser.events if event["method"] in wanted]

    def picture(self, *, whole: bool = True) -> bytes:
        """Take a PNG screenshot of the page, or of the visible part."""
        return base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def close(self) -> None:
        """Close the page."""
        self._browser.send("Target.closeTarget", targetId=self._target)
