"""Secrets are recognised by their names and their looks, and nothing else is; shown they are masked, compared they are
digests."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from evohydra.report.naming import differences, strategy_of
from evohydra.searching.hydra_files import mask_hydra_files
from evohydra.searching.json_lines import LedgerError
from evohydra.searching.masking import MASK, looks_like_a_secret, names_a_secret, with_digests, without_secrets
from evohydra.searching.secret_overrides import check_configuration, check_names, check_overrides
from tests.commands import carried_out, evohydra, files, workspace
from tests.contracts.discovery import composed, names

HF = "hf_" + "aB3" * 11 + "x"
WANDB = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    "key",
    ["token", "hf_token", "HF_TOKEN", "hfToken", "api_key", "apiKey", "apikey", "WANDB_API_KEY", "password",
     "db-password", "secret", "client_secret", "credential", "credentials", "auth", "http_auth",
     "authorization", "tracker.api_key",
     "api_keys", "access_tokens", "passphrase"],
)  # fmt: skip
def test_names_of_secrets(key: str) -> None:
    assert names_a_secret(key)


@pytest.mark.parametrize(
    "key",
    ["tokenizer", "max_new_tokens", "max_gen_toks", "token_ids", "pad_token_id", "pad_token", "eos_token",
     "image_token", "tokens", "tokenizer_name", "keys", "monkey", "author", "authors", "secretary",
     "keyword", "password_length", "sort_key", "image_key", "public_key", ""],
)  # fmt: skip
def test_names_of_other_things(key: str) -> None:
    assert not names_a_secret(key)


def test_no_key_of_the_configuration_that_comes_along_is_taken_for_a_secret() -> None:
    def keys(config: object) -> set[str]:
        if isinstance(config, dict):
            return {str(key) for key in config}.union(*map(keys, config.values()))
        return set().union(*map(keys, config)) if isinstance(config, list) else set()

    known = keys(composed())
    for name in names("benchmark"):
        known |= keys(composed(f"benchmark=[{name}]", *([f"benchmark.{name}.task=x"] if "lm_eval" in name else [])))
    assert {"tokenizer", "max_new_tokens"} <= known
    assert not {key for key in known if names_a_secret(key)}


@pytest.mark.parametrize(
    ("value", "key", "secret"),
    [
        (HF, "note", True), (WANDB, "note", True), (f"https://me:{HF}@host/x", "url", True),
        ("https://me:hush@host/x", "url", True), ("https://host/x", "url", False), ("hf_model", "note", False),
        (WANDB, "revision", False), (WANDB + "00", "note", False), (4, "note", False), ("shisa-7b", "path", False),
    ],
)  # fmt: skip
def test_looks_of_secrets(value: object, key: str, secret: bool) -> None:
    assert looks_like_a_secret(value, key) is secret


def test_what_is_shown_and_what_is_compared() -> None:
    config = {
        "tokenizer": "union",
        "n": [{"hf_token": HF, "max_new_tokens": 4}],
        "x": HF,
        "password": 4711,
        "secret": None,
    }
    shown, compared = without_secrets(config), with_digests(config)
    assert shown == {"tokenizer": "union", "n": [{"hf_token": MASK, "max_new_tokens": 4}], "x": MASK, "password": MASK,
                     "secret": None}  # fmt: skip
    assert compared["tokenizer"] == "union"
    assert compared["n"][0]["max_new_tokens"] == 4
    assert HF not in json.dumps(compared)
    assert compared["password"] == f"secret, scrypt {compared['password'].split()[-1]}"
    assert hashlib.sha256(b"4711").hexdigest() not in json.dumps(compared)  # found at once by trying
    assert with_digests(config) == compared
    assert with_digests({**config, "password": 4712})["password"] != compared["password"]


def test_lengths_of_answers_tell_strategies_apart_and_secrets_do_not() -> None:
    runs = {
        Path(name): (f"+g.max_new_tokens={length}", "tokenizer=union", "a=1", f"+hf_token={secret}")
        for name, length, secret in (("0", 4, "x"), ("1", 64, "y"))
    }
    told = differences(runs)
    assert told == {Path("0"): ("+g.max_new_tokens=4",), Path("1"): ("+g.max_new_tokens=64",)}
    assert [strategy_of(each) for each in told.values()] == ["max_new_tokens=4", "max_new_tokens=64"]


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("+n={password: hush, depth: 3}", "+n={password: (not shown), depth: 3}"),
        ("+n={a: {api_key: 'hu,sh'}, depth: 3}", "+n={a: {api_key: (not shown)}, depth: 3}"),
        ("+n={password: [hu, sh], depth: 3}", "+n=(not shown)"),
        (f"+n=[{HF}, 3]", "+n=[(not shown), 3]"),
        (f"+n={WANDB}", "+n=(not shown)"),
        (f"+model.revision={WANDB}", f"+model.revision={WANDB}"),
        ("g={max_new_tokens: 4, tokenizer: base}", "g={max_new_tokens: 4, tokenizer: base}"),
    ],
)
def test_overrides_are_shown_without_the_secrets_inside(override: str, shown: str) -> None:
    assert differences({Path("0"): (override,), Path("1"): ()}) == {Path("0"): (shown,), Path("1"): ()}


def test_another_tokenizer_is_another_run_and_no_secret_is_on_file(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "budget=6", "top=1", "baselines=null", "report=false", f"+service.hf_token={HF}"]
    carried_out([*arguments, "tokenizer=same"], tmp_path / "run")
    before = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    with pytest.raises(LedgerError, match="tokenizer was 'same', is now 'union'"):
        carried_out([*arguments, "tokenizer=union"], tmp_path / "run")
    other = [text.replace(HF, HF[:-1]) for text in arguments]
    with pytest.raises(LedgerError, match=r"own\.service\.hf_token has changed \(a secret\)"):
        carried_out([*other, "tokenizer=same"], tmp_path / "run")
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == before
    for name, content in files(tmp_path / "run").items():
        assert HF.encode() not in content, name


@pytest.mark.parametrize("several", [False, True])
def test_what_hydra_writes_holds_no_secret_and_stays_readable(several: bool, tmp_path: Path) -> None:
    """Of a run, and of a multirun, whose file names the jobs' overrides."""
    run, sweep = tmp_path / "sweep" / "0", tmp_path / "sweep" if several else None
    (run / ".hydra").mkdir(parents=True)
    given = ["+service.hf_token=" + HF, "+n={password: hush4711, depth: 3}", "tokenizer=base", "seed=1"]
    config = {"service": {"hf_token": HF}, "n": {"password": "hush4711", "depth": 3}, "tokenizer": "base", "pin": 1}
    settings = {"hydra": {"overrides": {"task": given}, "job": {"override_dirname": ",".join(given)}}}
    written = {"config": config, "overrides": given, "hydra": settings}
    for name, content in written.items():
        (run / ".hydra" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "sweep" / "multirun.yaml").write_text(yaml.safe_dump(settings))
    for _ in range(2):  # a run that goes on
        mask_hydra_files(run, sweep)
    looked_at = files(tmp_path / "sweep" if several else run)
    assert len(looked_at) == 3 + several
    for name, content in looked_at.items():
        assert HF.encode() not in content, name
        assert b"hush4711" not in content, name
    overrides = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text())
    assert overrides == [
        "+service.hf_token=not_shown",
        "+n={password: not_shown, depth: 3}",
        "tokenizer=base",
        "seed=1",
    ]
    assert len(OverridesParser.create().parse_overrides(overrides)) == 4  # a sweep's jobs are told apart by these
    shown = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    assert shown == {**config, "service": {"hf_token": MASK}, "n": {"password": MASK, "depth": 3}}


def test_a_configuration_without_secrets_keeps_its_bytes(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    file = tmp_path / ".hydra" / "config.yaml"
    file.write_text("seed:   1\ntokenizer: same  # a comment\n")
    mask_hydra_files(tmp_path)
    assert file.read_text() == "seed:   1\ntokenizer: same  # a comment\n"


OPAQUE = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    "override",
    [f"+hf_token={HF}", "+hf_token=short", f"tracker.api_key={WANDB}", f"+tracker.api_key={WANDB}", f"+note={HF}",
     f"+note={WANDB}", f"+url=https://me:{OPAQUE}@host/x", "hydra.job.env_set.CUDA_VISIBLE_DEVICES=0",
     f"+hydra.job.env_set.X={OPAQUE}", "+note=${oc.env:HF_TOKEN}", "+note=a${oc.env:MY_API_KEY,none}",
     f"+note=x{OPAQUE}y", "+a={api_key: abc}", f"+a=[{HF}]", f"+a={{b: {OPAQUE}}}", f"~note={HF}"],
)  # fmt: skip
def test_overrides_that_carry_secrets_are_refused_without_showing_them(override: str) -> None:
    with pytest.raises(ValueError, match="hf auth login") as refused:
        check_overrides(["merge=ties", override, "seed=1"], {"VAULT_PASSWORD": OPAQUE})
    assert str(refused.value).startswith(override.lstrip("+~").split("=")[0])
    assert not any(secret in str(refused.value) for secret in (HF, WANDB, OPAQUE, "short", "abc"))


@pytest.mark.parametrize(
    "override",
    [f"model.sources.a.revision={WANDB}", f"model.sources.a.path=/hub/snapshots/{WANDB}", f"+path=me/model@{WANDB}",
     "tokenizer=union", "tracker.api_key=null", "+hf_token=", "+note=${oc.env:HOME}", "--multirun", "benchmark=[a,b]",
     "+max_new_tokens=3", "run=abcdefgh"],
)  # fmt: skip
def test_other_overrides_are_none(override: str) -> None:
    check_overrides([override], {"VAULT_PASSWORD": OPAQUE, "SHORT_TOKEN": "run", "HOME": "abcdefgh"})


def test_the_directory_of_a_shell_is_no_secret() -> None:
    here = {"PWD": "/home/someone/runs", "OLDPWD": "/home/someone/before"}
    check_overrides(["hydra.run.dir=/home/someone/runs/a"], here)
    check_configuration({"model": {"path": "/home/someone/before/m"}}, here)
    with pytest.raises(ValueError, match="hf auth login"):
        check_overrides([f"+note={OPAQUE}"], {"DB_PWD": OPAQUE})


def test_no_value_of_a_secret_variable_stands_in_a_configuration() -> None:
    variables = {"VAULT_PASSWORD": OPAQUE, "ODD_NAME": HF, "HOME": "/home/someone"}
    check_configuration({"a": ["/home/someone/x", 3, None, True], "b": {"c": "x"}}, variables)
    for value in (OPAQUE, f"a {HF} b"):
        for place, config in (("a.b[1].c", {"a": {"b": [1, {"c": value}]}}), ("a", {"a": {value: 1}})):
            with pytest.raises(ValueError, match="hf auth login") as refused:
                check_configuration(config, variables)
            assert str(refused.value).startswith(f"{place}: ")
            assert value not in str(refused.value)


@pytest.mark.parametrize(
    "override",
    ["+note=${oc.env:ODD}", f"+note={HF}", f"+hf_token={OPAQUE}", f"hydra.job.env_set.X={OPAQUE}",
     f"tracker.api_key={WANDB}", "+note=${oc.env:VAULT_PASSWORD}"],
)  # fmt: skip
def test_the_command_writes_no_secret_to_any_file(override: str, tmp_path: Path) -> None:
    """In a process of its own: what Hydra writes, and when, is Hydra's."""
    done = evohydra("run=x", override, cwd=tmp_path, ODD=HF, VAULT_PASSWORD=OPAQUE)
    assert done.returncode == 1
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    said = (done.stdout + done.stderr).encode()
    assert not any(secret.encode() in written + said for secret in (HF, WANDB, OPAQUE))


@pytest.mark.parametrize("given", ["experiment=mine", "run=${oc.env:ODD}"])
def test_a_refused_run_leaves_no_secret_behind(given: str, tmp_path: Path) -> None:
    """A conf of one's own says the token that the environment has as well; a run is called by one."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    mine = f"# @package _global_\nnote: {{hf_token: {HF}, x: {OPAQUE}}}\ntracker: {{api_key: {WANDB}}}\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(mine)
    done = evohydra(
        "--config-dir=conf", "hydra.run.dir=outputs/x", given, cwd=tmp_path, HF_TOKEN=HF, ODD=HF, VAULT_PASSWORD=OPAQUE
    )
    assert done.returncode == 1
    assert "expected no secret" in done.stderr
    assert "Traceback" not in done.stderr
    made = [path for path in tmp_path.rglob("*") if "conf" not in path.relative_to(tmp_path).parts]
    written = b"".join(path.read_bytes() for path in made if path.is_file()) + " ".join(map(str, made)).encode()
    said = (done.stdout + done.stderr).encode()
    assert not any(secret.encode() in written + said for secret in (HF, WANDB, OPAQUE))


def test_a_directory_that_is_called_by_a_secret_is_refused(tmp_path: Path) -> None:
    check_names({"hydra.run.dir": tmp_path / "outputs" / "mine"}, {"VAULT_PASSWORD": OPAQUE})
    for name in (HF, OPAQUE):
        with pytest.raises(ValueError, match=r"hydra\.run\.dir: expected no secret") as refused:
            check_names({"hydra.run.dir": tmp_path / "outputs" / name}, {"VAULT_PASSWORD": OPAQUE})
        assert name not in str(refused.value)


def with_a_note(directory: Path) -> None:
    """A run that is refused leaves its directory where something else lies in it."""
    directory.mkdir(parents=True)
    (directory / "note.txt").touch()


@pytest.mark.parametrize("subdir", ["hydra_files", ".hydra"])
def test_secrets_are_masked_wherever_hydra_writes_its_files(subdir: str, tmp_path: Path) -> None:
    """Of a run that is refused for another reason; values of env_set, too."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    own = {
        "note": f"t {HF} http://joe:geheimnis77@h",
        "hf_token": HF[::-1],
        "hydra": {"job": {"env_set": {"X": "hush4711"}}},
    }
    with_a_note(tmp_path / "outputs" / "x")
    mine = "# @package _global_\n" + yaml.safe_dump(own)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(mine)
    done = evohydra(
        "--config-dir=conf", "run=x", f"hydra.output_subdir={subdir}", "experiment=mine", "budget=1", cwd=tmp_path
    )
    assert done.returncode == 1
    written = b"".join(path.read_bytes() for path in (tmp_path / "outputs").rglob("*") if path.is_file())
    assert b"output_subdir" in written
    assert not any(each.encode() in written for each in (HF, HF[::-1], "geheimnis77", "hush4711"))


@pytest.mark.parametrize("params", [{"note": f"{HF},b"}, {"+note": f"{HF},b"}, {"+note": "${oc.env:VAULT_PASSWORD},b"}])
def test_secrets_that_are_swept_are_refused_before_anything_is_written(params: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    mine = "# @package _global_\n" + yaml.safe_dump({"hydra": {"sweeper": {"params": params}}})
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(mine)
    done = evohydra("--config-dir=conf", "-m", "run=x", "experiment=mine", cwd=tmp_path, VAULT_PASSWORD=OPAQUE)
    assert done.returncode == 1
    assert "expected no secret among what is swept" in done.stderr
    written = b"".join(path.read_bytes() for path in tmp_path.glob("outputs/**/*") if path.is_file())
    said = (done.stdout + done.stderr).encode()
    assert not any(secret.encode() in written + said for secret in (HF, OPAQUE))


@pytest.mark.parametrize("run", ["''", ".", "../up", "a/../../b"])
def test_a_run_is_in_a_directory_of_its_own(run: str, tmp_path: Path) -> None:
    done = evohydra(f"run={run}", "tracker=none", cwd=tmp_path)
    assert done.returncode == 1
    assert "run: expected the name of a directory in outputs/" in done.stderr


def test_a_key_that_is_a_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="expected no secret as the name of a key"):
        check_configuration({"a": [{HF: 1}]}, {})


def test_addresses_with_passwords_are_not_shown(tmp_path: Path) -> None:
    """In the message, in the log and in its traceback."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    source = {"family": "evohydra.families.causal_lm.CausalLM", "path": "https://joe:geheimnis@host/repo"}
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(
        yaml.safe_dump({"sources": {"mine": source, "other": source}})
    )
    with_a_note(tmp_path / "outputs" / "x")
    done = evohydra("--config-dir=conf", "run=x", "model=mine", "benchmark=tiny_gsm_ja", cwd=tmp_path)
    assert done.returncode == 1
    log = (tmp_path / "outputs" / "x" / "evohydra.log").read_text()
    assert "@host/repo" in done.stderr
    assert "@host/repo" in log
    assert "geheimnis" not in done.stdout + done.stderr + log
