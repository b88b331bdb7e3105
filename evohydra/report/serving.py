"""A report that follows its runs, in a browser on this machine: python -m evohydra.report RUN --serve."""

import logging
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from urllib.parse import unquote, urlsplit

from evohydra.report.blocks import Section
from evohydra.report.contents import contents
from evohydra.report.gathering import gather, runs_below
from evohydra.report.page import page
from evohydra.report.writing import title

logger = logging.getLogger(__name__)
HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost", "[::1]")  # by which a browser may ask: others are another site's
FOLLOWED = ("ledger.jsonl", "scores.jsonl", "workers.jsonl", "run.json", "summary.json", "evohydra.log")
SECONDS = 3  # between two looks
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data: 'self'; script-src 'self'; connect-src 'self'"
FOLLOW = """
const script = document.currentScript, shown = script.dataset.stamp;
setInterval(async () => {
  try { if (await (await fetch("/stamp")).text() !== shown) location.reload(); } catch (gone) {}
}, Number(script.dataset.milliseconds));
"""


class Report:
    """The page of all runs at or below `directories`, made again when one of them has written something."""

    def __init__(self, directories: Sequence[Path], target: Path) -> None:
        self.target = target
        self._directories = directories
        self._made = ("", "")
        self._lock = threading.Lock()

    def stamp(self) -> str:
        """Another text whenever a file of a run has changed."""
        runs = [run for directory in self._directories for run in runs_below(directory)]
        found = [file.stat() for run in runs for name in FOLLOWED if (file := run / name).is_file()]
        return "-".join(f"{each.st_mtime_ns:x}.{each.st_size:x}" for each in found) or "nothing"

    def page(self) -> str:
        """The report as it is now, with a script that loads it again; made only where something has changed."""
        with self._lock:
            stamp = self.stamp()
            if self._made[0] != stamp:
                follow = f'<script src="/follow.js" data-stamp="{stamp}" data-milliseconds="{1000 * SECONDS}"></script>'
                self._made = (stamp, self._now().replace("</body>", f"{follow}</body>"))
            return self._made[1]

    def _now(self) -> str:
        try:
            jobs = gather(self._directories)
            if jobs:
                return page(title(jobs, self.target), contents(jobs, self.target))
            told = "No genome has been scored yet."
        except Exception as error:  # a file that is being written, or was edited
            logger.debug("the report could not be made", exc_info=True)
            told = f"The files of the run cannot be read now ({type(error).__name__}: {error})."
        return page("evohydra", [Section("The runs", [told])])


class Handler(BaseHTTPRequestHandler):
    """Answers with the report at /, its stamp at /stamp, and with pages that lie beside it."""

    report: Report

    def do_GET(self) -> None:
        """One answer. Requests under another name than this machine's come from other sites, and are refused."""
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in NAMES:
            self.send_error(403, "ask by 127.0.0.1 or localhost")
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/stamp":
            self._answer(self.report.stamp().encode(), "text/plain")
        elif path == "/follow.js":
            self._answer(FOLLOW.encode(), "text/javascript")
        elif path == "/":
            self._answer(self.report.page().encode(), "text/html")
        elif (file := self._beside(path)) is not None:
            self._answer(file.read_bytes(), "text/html")
        else:
            self.send_error(404)

    def _beside(self, path: str) -> Path | None:
        """A page below the report's directory; nothing else is shown."""
        root = self.report.target.resolve()
        try:
            file = (root / path.lstrip("/")).resolve()
        except (OSError, ValueError):
            return None
        return file if file.suffix == ".html" and file.is_relative_to(root) and file.is_file() else None

    def _answer(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        """Nothing is printed for each request."""
        logger.debug(format, *values)


class Server(ThreadingHTTPServer):
    """Says nothing of a browser that left before its answer was written, as one does that loads the page again."""

    def handle_error(self, request: "socket | tuple[bytes, socket]", client_address: object) -> None:
        """Called where a request could not be answered."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def make_server(directories: Sequence[Path], target: Path, port: int) -> ThreadingHTTPServer:
    """A server on this machine alone, at `port` (0: any that is free). OSError where the port is taken."""
    handler = type("Handler", (Handler,), {"report": Report(directories, target)})
    return Server((HOST, port), handler)


def serve(directories: Sequence[Path], target: Path, port: int = 0) -> None:
    """Serve until Ctrl-C. Nothing is written into the runs."""
    with make_server(directories, target, port) as server:
        print(f"http://{HOST}:{server.server_address[1]}/ shows the report and follows it; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
