"""Directories in the layout of sentence-transformers: where the encoder lies, and how a text becomes one vector."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from evohydra.families.agreement import told_of
from evohydra.families.sentence_checks import check_encoder, check_normalize, check_order, check_width
from evohydra.files import Plain, check_plain_file, parse_json, read_json, read_text
from evohydra.merging.checkpoints import SourceError

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"  # and how vectors are compared
# What it says of the encoder itself: how long a text may be, and whether it is in small letters.
OF_ENCODER = tuple(
    f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
)
KINDS = ("Transformer", "Pooling", "Normalize")  # of modules, without weights besides the encoder's
# As sentence-transformers called them until its version 6; several are put one behind the other in this order.
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLINGS = tuple(MODES.values())
SHORTEST = 3  # a token, and those that are put around every text


@dataclass(frozen=True)
class SentenceSettings:
    """How a text becomes a vector.

    pooling: of the tokens' last hidden states, one or several of `POOLINGS`, whose vectors stand one behind the other;
    longest: tokens of a text that are read, None where nothing is said; lower: whether texts are put in small letters
    first; prompt: what stands before every text, and prompt_pooled: whether its tokens count in the pooling; prompts:
    by name those for some uses (name, text); normalized: whether vectors are made one long; similarity: how vectors
    are compared.
    """

    pooling: tuple[str, ...] = ("mean",)
    longest: int | None = None
    lower: bool = False
    prompt: str = ""
    prompt_pooled: bool = True
    prompts: tuple[tuple[str, str], ...] = ()
    normalized: bool = False
    similarity: str = "cosine"


def backbone_of(directory: Path) -> Path:
    """The directory with the encoder's own files: `directory`, or the folder in it that modules.json names.

    Raises SourceError for a modules.json that is no list of modules.
    """
    folders = [folder for kind, folder in modules_of(directory) if kind == "Transformer"]
    return directory / folders[0] if folders and folders[0] else directory


def modules_of(directory: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module; none where there is no modules.json. Raises SourceError as `backbone_of`."""
    file = directory / MODULES
    if not file.exists():
        return []
    try:
        entries = parse_json(read_text(file), file)
    except (ValueError, OSError) as error:
        raise SourceError(str(error)) from error
    if not isinstance(entries, list) or not all(map(_is_module, entries)):
        raise SourceError(f"{file}: expected a list of modules, each with type and path, got {str(entries)[:200]}")
    modules = [(entry["type"].rpartition(".")[2], entry["path"].strip("/")) for entry in entries]
    for kind, folder in modules:
        if folder and (Path(folder).name != folder or folder == ".."):
            raise SourceError(f"{file}: expected the name of a folder beside it as the path of {kind}, got {folder!r}")
    return modules


def _check_kinds(directory: Path) -> None:
    """SourceError for modules that compute more than an encoder, pooling and normalisation."""
    kinds = [kind for kind, _ in modules_of(directory)]
    strange = [kind for kind in kinds if kind not in KINDS]
    if strange or (kinds and (kinds[0] != "Transformer" or kinds.count("Transformer") > 1)):
        raise SourceError(
            f"{directory / MODULES}: expected a Transformer and then modules of the kinds {', '.join(KINDS[1:])}, got "
            f"{', '.join(kinds)}: what others compute is not part of the encoder, and merges would be scored and "
            "written without it"
        )
    check_order(directory / MODULES, kinds)
    for kind, folder in modules_of(directory):
        file = directory / folder / "config.json"
        if kind == "Normalize" and folder and file.exists():
            check_normalize(file, read_json(file))


def _is_module(entry: object) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("type"), str) and isinstance(entry.get("path"), str)


def settings_of(directory: Path) -> SentenceSettings:
    """What the files in `directory` say; where they say nothing the mean over all tokens, as sentence-transformers has.

    Raises SourceError for files that say it in a way that is not known.
    """
    _check_kinds(directory)
    try:
        pooling, prompt_pooled = _pooling(directory)
        encoder = backbone_of(directory)
        file = next((encoder / name for name in OF_ENCODER if (encoder / name).exists()), encoder / OF_ENCODER[0])
        said = read_json(file) if file.exists() else {}
        longest, lower = check_encoder(file, said), said.get("do_lower_case", False)
        if not isinstance(lower, bool) or not (longest is None or _is_count(longest)):
            raise ValueError(
                f"{encoder}: expected max_seq_length as {SHORTEST} tokens or more and do_lower_case as true or false, "
                f"got {longest!r} and {lower!r}"
            )
        assert isinstance(longest, int | None)
        return SentenceSettings(
            pooling,
            longest,
            lower,
            _prompt(directory),
            prompt_pooled,
            _prompts(directory),
            any(kind == "Normalize" for kind, _ in modules_of(directory)),
            _similarity(directory),
        )
    except SourceError:
        raise
    except (ValueError, OSError) as error:
        raise SourceError(str(error)) from error


def _pooling(directory: Path) -> tuple[tuple[str, ...], bool]:
    folder = next((folder for kind, folder in modules_of(directory) if kind == "Pooling"), None)
    if folder is None:
        return SentenceSettings().pooling, True
    file = directory / folder / "config.json"
    entries: Plain = read_json(file)
    if "pooling_mode" in entries:
        named = entries["pooling_mode"]
        modes = (named,) if isinstance(named, str) else tuple(named) if isinstance(named, list) else ()
    else:
        modes = tuple(mode for key, mode in MODES.items() if entries.get(key)) or SentenceSettings().pooling
    if not modes or not all(mode in POOLINGS for mode in modes):
        raise ValueError(f"{file}: expected pooling by {', '.join(POOLINGS)}, got {entries.get('pooling_mode')!r}")
    pooled = entries.get("include_prompt", True)
    if not isinstance(pooled, bool):
        raise ValueError(f"{file}: include_prompt: expected true or false, got {pooled!r}")
    return modes, pooled


def _said(directory: Path) -> Plain:
    file = directory / PROMPTS
    said = read_json(file) if file.exists() else {}
    check_width(file, said)
    return said


def _prompt(directory: Path) -> str:
    said = _said(directory)
    name = said.get("default_prompt_name")
    if name is None:
        return ""
    prompts = said.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, Mapping) else None
    if not isinstance(prompt, str):
        raise ValueError(
            f"{directory / PROMPTS}: expected the text of the prompt {name!r} among its prompts, got {prompts!r}"
        )
    return prompt


def _prompts(directory: Path) -> tuple[tuple[str, str], ...]:
    """The prompts that are more than nothing, in the order of their names."""
    prompts = _said(directory).get("prompts") or {}
    if not isinstance(prompts, Mapping) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ValueError(f"{directory / PROMPTS}: prompts: expected a text for each name, got {str(prompts)[:200]}")
    return tuple(sorted((name, text) for name, text in prompts.items() if text))


def _similarity(directory: Path) -> str:
    said = _said(directory).get("similarity_fn_name") or SentenceSettings.similarity
    if not isinstance(said, str):
        raise ValueError(f"{directory / PROMPTS}: similarity_fn_name: expected a name, got {said!r}")
    return said


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= SHORTEST


def unlike(theirs: SentenceSettings, ours: SentenceSettings) -> dict[str, tuple[object, object]]:
    """By name both values of settings that differ."""
    pairs = {field.name: (getattr(theirs, field.name), getattr(ours, field.name)) for field in fields(theirs)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def copy_layout(directory: Path, target: Path) -> None:
    """Write modules.json, if there is one, and the modules' settings for a `target` whose encoder lies at the top."""
    file = directory / MODULES
    if not file.exists():
        return
    entries = json.loads(read_text(file))
    for entry, (kind, folder) in zip(entries, modules_of(directory), strict=True):
        settings = directory / folder / "config.json"
        if kind == "Transformer":
            entry["path"] = ""
        elif folder:
            (target / folder).mkdir(exist_ok=True)
            if settings.exists():
                check_plain_file(settings)
                (target / folder / "config.json").write_bytes(settings.read_bytes())
    (target / MODULES).write_text(json.dumps(entries, indent=2) + "\n")


def check_agreement(directories: Mapping[str, Path], owner: str, chosen: str) -> tuple[set[str], tuple[str, ...]]:
    """The sources whose files say that texts become vectors in another way than in `owner`, and a sentence on each.

    Raises SourceError where `chosen`, the option `config`, is "same".
    """
    ours = settings_of(directories[owner])
    saying = {name: settings_of(place) for name, place in directories.items() if modules_of(place)}
    differing = {name: found for name, theirs in saying.items() if (found := unlike(theirs, ours))}
    told = {name: f"source {name!r} has {told_of(found, owner)}" for name, found in differing.items()}
    if told and chosen == "same":
        raise SourceError(
            f"the sources make vectors of texts in different ways: {'; '.join(told.values())}. A merge has one way: "
            f"config=base or config=NAME gives it that of the base or of a source, config=allow that of {owner!r}"
        )
    return set(told), tuple(
        f"{each}: texts become vectors by the latter in merges, the source itself is scored with its own"
        for each in told.values()
    )
