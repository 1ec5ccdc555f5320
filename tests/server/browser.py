"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_SECONDS = 120.0
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--mute-audio",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--window-size=820,900",
    "--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0", "--remote-allow-origins=*",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


class Page:
    """One page."""

    def __init__(self, devtools: Any) -> None:
        self._devtools, self._number = devtools, 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._devtools.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            reply = json.loads(self._devtools.recv(timeout=PATIENCE_SECONDS))
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return reply["result"]

    def js(self, expression: str) -> Any:
        """The value of an expression, as if the user had just clicked."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.js(condition):
            assert time.monotonic() < end, (condition, self.js("document.body.innerText"), self.js("window.facrt"))
            time.sleep(0.1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def browsing(url: str, microphone: Path, folder: Path) -> Iterator[Page]:
    """A browser on that page, with a WAV file, heard once, as its microphone."""
    assert CHROMIUM is not None
    audio = f"--use-file-for-fake-audio-capture={microphone}%noloop"
    command = [CHROMIUM, *FLAGS, audio, f"--user-data-dir={folder}", url]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file, end = folder / "DevToolsActivePort", time.monotonic() + PATIENCE_SECONDS
        while not port_file.is_file() or not port_file.read_text().strip():
            assert time.monotonic() < end, "Chromium does not start"
            time.sleep(0.1)
        port = port_file.read_text().split()[0]
        while True:
            tabs = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30).read())
            found = [tab for tab in tabs if tab["type"] == "page" and tab["url"].startswith(url)]
            if found:
                break
            assert time.monotonic() < end, tabs
            time.sleep(0.1)
        with connect(found[0]["webSocketDebuggerUrl"], max_size=None) as devtools:
            yield Page(devtools)
    finally:
        process.terminate()
        process.wait(timeout=30)
