"""What is said of data sets: at which commit they were read, and why they could not be."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.hub_data import check_commit, why_unread
from tests.commands import built, workspace

COMMIT, OTHER = "92a94fce6e63d9ac6596c35a67763e81e2f9488a", "b" * 40


@dataclass
class Read:
    """A data set as far as it says where its files are kept."""

    cache_files: list[dict[str, str]]


def kept_at(commit: str) -> list[Read]:
    """A data set of two splits that the datasets library has read at a commit."""
    return [Read([{"filename": f"/cache/SakanaAI___gsm8k-ja/default/0.0.0/{commit}/x.arrow"}])] * 2


class Api:
    """The hub, which knows where a branch is; None: it does not answer."""

    main: str | None = COMMIT

    def dataset_info(self, name: str, revision: str | None = None) -> SimpleNamespace:
        if self.main is None:
            raise ConnectionError("no route")
        return SimpleNamespace(sha=self.main)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Api]:
    own = type("Own", (Api,), {})
    monkeypatch.setattr(huggingface_hub, "HfApi", own)
    monkeypatch.setenv("EVOHYDRA_CACHE", str(tmp_path / "cache"))
    return own


def test_the_commit_of_a_data_set_is_told_and_none_of_local_files(
    hub: type[Api], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        check_commit("gsm8k_ja", "SakanaAI/gsm8k-ja", None, kept_at(COMMIT))
        mine = [Read([{"filename": f"/builds/{OTHER}/json/default-0f/0.0.0/ab/json-test.arrow"}]), Read([])]
        check_commit("mine", "json", None, mine)
    assert [record.getMessage() for record in caplog.records] == [f"gsm8k_ja: data set SakanaAI/gsm8k-ja@{COMMIT}"]


def test_data_of_another_commit_than_the_hubs_are_refused_with_and_without_a_network(hub: type[Api]) -> None:
    check_commit("gsm8k_ja", "SakanaAI/gsm8k-ja", None, kept_at(COMMIT))
    with pytest.raises(BenchmarkError, match=f"read from the cache at commit {OTHER}, but the hub has it at {COMMIT}"):
        check_commit("gsm8k_ja", "SakanaAI/gsm8k-ja", None, kept_at(OTHER))
    hub.main = None
    check_commit("gsm8k_ja", "SakanaAI/gsm8k-ja", None, kept_at(COMMIT))
    with pytest.raises(BenchmarkError, match=f"the hub, which does not answer now, had it last at {COMMIT}"):
        check_commit("gsm8k_ja", "SakanaAI/gsm8k-ja", None, kept_at(OTHER))


def test_a_pinned_commit_holds_without_a_network(hub: type[Api]) -> None:
    hub.main = None
    check_commit("gsm8k_ja", "SakanaAI/gsm8k-ja", COMMIT, kept_at(COMMIT))
    with pytest.raises(BenchmarkError, match=f"read from the cache at commit {OTHER}, but the task pins {COMMIT}"):
        check_commit("gsm8k_ja", "SakanaAI/gsm8k-ja", COMMIT, kept_at(OTHER))


def test_where_nothing_says_which_commit_it_should_be_the_one_that_is_read_is_said(
    hub: type[Api], caplog: pytest.LogCaptureFixture
) -> None:
    hub.main = None
    check_commit("gsm8k_ja", "SakanaAI/gsm8k-ja", None, kept_at(OTHER))
    assert f"the hub does not answer; data set SakanaAI/gsm8k-ja is read at commit {OTHER}" in caplog.text


def test_a_missing_column_is_no_missing_network(tmp_path: Path) -> None:
    arguments = workspace(tmp_path)
    rows = [{"frage": f"1 + {n} =", "answer": str(n + 1)} for n in range(99)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BenchmarkError, match=r"lacks a column that the task asks for: 'question' is undefined") as told:
        built([*arguments, f"benchmark.lm_eval.data_files={tmp_path / 'rows.jsonl'}"], tmp_path / "run")
    assert "network" not in str(told.value)


@pytest.mark.parametrize(("error", "expected"), [
    (KeyError("test"), "X has no split 'test', which the task asks for"),
    (ConnectionError("Couldn't reach 'X' on the Hub"), "X could not be read from the hub or its cache ("),
    (ValueError("no parquet"), "X could not be read (ValueError: no parquet). Give data that can be: LOCAL"),
])  # fmt: skip
def test_what_was_wrong_is_said(error: Exception, expected: str) -> None:
    assert why_unread("X", error, "LOCAL").startswith(expected)


def test_the_network_may_be_what_is_behind_an_error() -> None:
    error = ValueError("no data set")
    error.__cause__ = ConnectionError("no route")
    assert "Without a network give LOCAL" in why_unread("X", error, "LOCAL")
