"""Files that change while a run goes on: no score of other weights, data or code is taken for one of this run."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

from evohydra.assembly.parts import Parts
from evohydra.assembly.workers import WorkerMaker
from evohydra.merging.checkpoints import SourceError
from evohydra.scoring.job import Evaluation, Job
from evohydra.scoring.worker import Worker
from evohydra.searching.json_lines import LedgerError
from tests.commands import built, carried_out, json_lines, workspace

Change = Callable[[Path], None]


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Those of a run on tiny models below `tmp_path`, which may be changed."""
    _, made = built([*workspace(tmp_path), "budget=6"], tmp_path / "run").make_executor.args  # type: ignore[attr-defined]
    assert isinstance(made, Parts)
    return made


def replaced(file: Path, content: bytes) -> None:
    """As editors, rsync and downloads do: another file in the place of this one."""
    other = file.with_name("other")
    other.write_bytes(content)
    other.replace(file)


def other_weights(directory: Path) -> None:
    file = directory / "one" / "model.safetensors"
    tensors = {name: tensor * 1.5 for name, tensor in load_file(file).items()}
    save_file(tensors, file.with_name("other"), metadata={"format": "pt"})
    file.with_name("other").replace(file)


def other_template(directory: Path) -> None:
    (directory / "one" / "chat_template.jinja").write_text("{{ messages[0].content }}")


def edited(name: str, old: bytes, new: bytes) -> Change:
    def change(directory: Path) -> None:
        (file,) = directory.glob(name)
        assert old in file.read_bytes()
        replaced(file, file.read_bytes().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_weights, r"sources\.one\.fingerprint has changed"),
        (other_template, r"sources\.one\.settings has changed"),
        (edited("task/sums.jsonl", b'"answer": "3"', b'"answer": "4"'), r"benchmark 'lm_eval', \w+ split: "),
        (edited("task/scoring.py", b"crc32", b"adler32"), r".*code\.scoring\.py has changed"),
        (edited("task/sums.yaml", b"{{question}}", b"{{question}} "), r"benchmark 'lm_eval'"),
    ],
)
def test_a_worker_that_begins_later_finds_what_the_driver_found(
    change: Change, said: str, parts: Parts, tmp_path: Path
) -> None:
    packed = pickle.dumps(WorkerMaker(parts))
    assert isinstance(pickle.loads(packed)(), Worker)
    change(tmp_path)
    with pytest.raises(LedgerError, match=rf"a worker that began now has found other .*\({said}"):
        pickle.loads(packed)()


def test_files_with_the_same_content_are_the_same(parts: Parts, tmp_path: Path) -> None:
    packed = pickle.dumps(WorkerMaker(parts))
    for file in (tmp_path / "one").iterdir():
        replaced(file, file.read_bytes())
    assert isinstance(pickle.loads(packed)(), Worker)


def test_weights_that_are_not_read_again_are_those_of_the_driver(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pickle.dumps(WorkerMaker(parts))
    monkeypatch.setattr("evohydra.families.sources.survey", lambda *_: pytest.fail("read again"))
    found = pickle.loads(packed)().sources
    assert found.surveys == parts.sources.surveys
    assert found.models == parts.sources.models


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("chat_template.jinja", "{{ messages[0].content }}"),
        ("generation_config.json", '{"do_sample": true}'),
        ("tokenizer_config.json", '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "1"}'),
    ],
)
def test_no_winner_has_files_that_no_genome_was_scored_with(file: str, content: str, tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "budget=6", "top=1", "baselines=null"]
    run = built(arguments, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        evaluate = Worker.evaluate

        def edited_meanwhile(worker: Worker, job: Job) -> Evaluation:
            (tmp_path / "one" / file).write_text(content)
            return evaluate(worker, job)

        patch.setattr(Worker, "evaluate", edited_meanwhile)
        before = (tmp_path / "one" / file).read_bytes() if (tmp_path / "one" / file).exists() else None
        with pytest.raises(
            SourceError, match=r"source 'one': configuration, tokenizer or templates in .*/one have changed"
        ):
            run(Console(file=io.StringIO()))
    assert not (tmp_path / "run" / "winner").exists()
    if before is None:
        (tmp_path / "one" / file).unlink()
    else:
        (tmp_path / "one" / file).write_bytes(before)
    scored = len(json_lines(tmp_path / "run" / "scores.jsonl"))
    carried_out(arguments, tmp_path / "run")
    assert len(json_lines(tmp_path / "run" / "scores.jsonl")) == scored
    assert (tmp_path / "run" / "winner").is_dir()


def test_a_model_that_is_made_after_its_files_have_changed(parts: Parts, tmp_path: Path) -> None:
    maker = WorkerMaker(parts)
    replaced(tmp_path / "one" / "tokenizer_config.json", b"{}")
    with pytest.raises(SourceError, match=r"'one': configuration, tokenizer or templates in .*/one have changed"):
        maker()


def test_weights_that_are_replaced_while_they_are_mapped_stay(parts: Parts, tmp_path: Path) -> None:
    worker = WorkerMaker(parts)()
    job = Job(parts.sources.models[0], "search", {"lm_eval": [0, 1]})
    before = worker.evaluate(job).scores
    other_weights(tmp_path)
    assert worker.evaluate(job).scores == before


def test_weights_that_are_written_to_while_they_are_mapped(parts: Parts, tmp_path: Path) -> None:
    worker = WorkerMaker(parts)()
    job = Job(parts.sources.models[0], "search", {"lm_eval": [0, 1]})
    worker.evaluate(job)
    with (tmp_path / "one" / "model.safetensors").open("r+b") as opened:
        opened.seek(-64, os.SEEK_END)
        opened.write(bytes(64))
    with pytest.raises(SourceError, match=r"source 'one': .*one/model\.safetensors was written to while it is in use"):
        worker.evaluate(job)
