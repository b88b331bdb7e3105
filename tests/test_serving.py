"""The report that follows a run: what the server answers, to whom, and a real browser that follows it."""

import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from evohydra.report import serving
from evohydra.report.serving import make_server
from tests.browser import BROWSER, open_browser
from tests.saved_runs import save_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_run(tmp_path / "outputs" / "followed", "cmaes", 1, 0.4, genomes=12)


@pytest.fixture
def port(run: Path) -> Iterator[int]:
    with make_server([run], run, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def asked(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str, dict[str, str]]:
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


def test_it_is_the_report_of_the_run(run: Path, port: int):
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    status, page, headers = asked(port, "/")
    assert status == 200
    assert "evohydra: run followed" in page
    assert "<svg" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before  # nothing is written into the run


def test_it_is_made_again_only_where_something_has_changed(run: Path, port: int, monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(serving, "contents", lambda jobs, target: made.append(len(jobs[0].records)) or [])
    pages = [asked(port, "/")[1] for _ in range(2)]
    assert len(made) == 1
    assert pages[0] == pages[1]
    stamp = asked(port, "/stamp")[1]
    assert f'data-stamp="{stamp}"' in pages[0]
    ledger = run / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-3]))
    assert asked(port, "/stamp")[1] != stamp
    asked(port, "/")
    assert made[1] < made[0]


@pytest.mark.parametrize(
    "path", ["/ledger.jsonl", "/../secret.html", "/%2e%2e/secret.html", "/run.json", "/nowhere.html", "/%00.html"]
)
def test_nothing_else_is_shown(run: Path, port: int, path: str):
    (run.parent / "secret.html").write_text("secret")
    assert asked(port, path)[0] == 404


def test_a_link_that_leads_outside_is_not_followed(run: Path, port: int):
    (run.parent / "secret.html").write_text("secret")
    (run / "inside.html").symlink_to(run.parent / "secret.html")
    (run / "answers.html").write_text("answers")
    assert asked(port, "/inside.html")[0] == 404
    assert asked(port, "/answers.html")[:2] == (200, "answers")


def test_other_sites_are_refused(port: int):
    """A page of another site whose name leads to this machine (DNS rebinding) reads nothing."""
    assert asked(port, "/", host="evil.example")[0] == 403
    assert asked(port, "/stamp", host="localhost")[0] == 200


@pytest.mark.parametrize(
    ("error", "told"), [(BrokenPipeError(), False), (ConnectionResetError(), False), (KeyError(), True)]
)
def test_a_browser_that_leaves_is_nothing_to_tell(
    port: int,
    run: Path,
    error: Exception,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """It may be gone before its answer is written: no traceback of that fills a terminal."""

    def gone(*_: object) -> None:
        raise error

    monkeypatch.setattr(serving.Handler, "_answer", gone)
    with pytest.raises(HTTPException):
        asked(port, "/")
    assert ("Traceback" in capsys.readouterr().err) == told


def test_a_run_that_has_not_begun_and_files_that_make_no_sense(tmp_path: Path):
    empty = tmp_path / "<b>"
    empty.mkdir()
    report = serving.Report([empty], empty)
    shown = report.page()
    assert "No genome has been scored yet." in shown
    assert "prefers-color-scheme:dark" in shown  # as a report is, also on a phone
    assert 'name="viewport"' in shown
    assert "/follow.js" in shown
    odd = save_run(tmp_path / "odd", "cmaes", 1, 0.4, genomes=12)
    (odd / "run.json").write_text('{"<script>')
    assert "cannot be read now" in serving.Report([odd], odd).page()


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 360)])
def test_a_browser_follows(
    run: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, width: int
):
    monkeypatch.setattr(serving, "SECONDS", 0.2)
    with open_browser(tmp_path / "profile") as page:
        page.visit(f"http://127.0.0.1:{port}/", width=width, scheme=scheme)
        first = page.value("document.querySelector('script').dataset.stamp")
        assert page.complaints == []
        ledger = run / "ledger.jsonl"
        ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:-3]))
        page.wait_until_loaded(times=2)
        assert page.value("document.querySelector('script').dataset.stamp") != first
        assert page.value("document.querySelectorAll('svg').length") >= 3
        assert {address.split("/")[2] for address in page.requests if address.startswith("http")} == {
            f"127.0.0.1:{port}"
        }
