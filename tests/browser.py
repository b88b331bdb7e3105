"""A real headless Chromium, driven over a pipe by its own protocol: what a page shows, says and asks for."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The protocol's pipe is at the file descriptors 3 and 4.
START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3), os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """One tab. `events` holds all that it has told so far: the protocol's names and parameters."""

    def __init__(self, to: io.FileIO, back: io.BufferedReader) -> None:
        self._to, self._back = to, back
        self._number, self._session, self._rest = 0, None, b""
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = self._back.read1(1 << 20)
            assert read, "the browser has gone"
            self._rest += read
        line, self._rest = self._rest.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(line)
        if "method" in answer:
            self.events.append((answer["method"], answer["params"]))
        return answer

    def open(self, file: Path, *, width: int, scheme: str) -> None:
        """Load a file at a window's width in CSS pixels, for readers who prefer `scheme` (light or dark)."""
        self.visit(file.resolve().as_uri(), width=width, scheme=scheme)

    def visit(self, address: str, *, width: int, scheme: str) -> None:
        """The same with what is at an address."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.send("Page.navigate", url=address)
        self.wait_until_loaded()

    def wait_until_loaded(self, times: int = 1) -> None:
        """Wait until a page has been loaded so often since `visit`."""
        while [name for name, _ in self.events].count("Page.loadEventFired") < times:
            self._receive()

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives."""
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """Errors and warnings of the console."""
        said = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [parameters for name, parameters in self.events if name in said]

    @property
    def requests(self) -> list[str]:
        """The addresses of all that was asked for."""
        return [parameters["request"]["url"] for name, parameters in self.events if name == "Network.requestWillBeSent"]


@contextmanager
def open_browser(profile: Path) -> Iterator[Page]:
    """A tab of a browser that keeps its files in `profile`."""
    assert BROWSER is not None
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()
    command = [
        sys.executable, "-c", START, str(to_read), str(back_write), BROWSER, "--headless=new", "--no-sandbox",
        "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
        f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    with (
        os.fdopen(to_write, "wb", buffering=0) as to,
        os.fdopen(back_read, "rb") as back,
        subprocess.Popen(
            command, pass_fds=(to_read, back_write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(profile)},
        ) as process,
    ):  # fmt: skip
        os.close(to_read)
        os.close(back_write)
        try:
            yield Page(to, back)
        finally:
            process.terminate()
