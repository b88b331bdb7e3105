"""Sources of diffusion pipelines brought to the same components: which are merged, and who gives the others."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

from evohydra.families import Aligned, Overlay, Rules
from evohydra.families import noise_schedules as noise
from evohydra.families import pipeline_files as files
from evohydra.families.agreement import settings as settings_of
from evohydra.families.refusals import refused
from evohydra.families.settings_files import LOCAL
from evohydra.families.splitting import check_splitting
from evohydra.merging.checkpoints import Changed, SourceError, TensorSource, check_same_shapes, check_same_tensors

MERGE = "merge"
# Keys of a component's configuration that change nothing of what its weights mean.
INCIDENTAL = ("sample_size", "dropout", "upcast_attention", "force_upcast")
OF_LANGUAGE_MODELS = ("tokenizer", "missing", "config", "pad_vocabulary_to", "tokens_only", "tokens", "chat_template")


def aligned_components(
    kind: str,
    denoiser: str,
    directories: Mapping[str, Path],
    tensors: Mapping[str, TensorSource],
    base: str | None,
    rules: Rules,
) -> Aligned:
    """The sources with the same components of a pipeline of the class `kind`; see `Family.align`."""
    rules.check_unused(*OF_LANGUAGE_MODELS, why="expected the default, for diffusion models have `components` instead")
    folders = {name: files.folders(directory, denoiser) for name, directory in directories.items()}
    order = [*(name for name in directories if name != base), *([base] if base else [])]
    host = _host(kind, order, directories)
    needed = tuple(folders[host])
    merged = [c for c in needed if rules.components.get(c, MERGE if c == denoiser else "") == MERGE]
    owners = _owners(needed, order, folders, tensors, rules)
    schedules = noise.schedules(folders, tensors)
    doubts = noise.check_same_schedules(schedules, owners.get("scheduler"), "scheduler" in rules.components)
    check_same_settings(merged, folders)
    same = {name: files.only(source, merged) for name, source in tensors.items()}
    _check_present(merged, same)
    check_same_tensors(same)
    check_same_shapes(same)
    doubts = (*doubts, *check_same_tokenizers(merged, folders, order, rules.allow_other_splitting))
    copied = {c: tensors[owner] for c, owner in owners.items() if c not in merged}
    others = {c: files.only(source, [c]) for c, source in copied.items()}
    whole = {name: files.Joined([source, *others.values()]) for name, source in same.items()}
    overlay = Overlay(
        frozenset(whole[host].shapes),
        folders={c: folders[owner][c] for c, owner in owners.items()},
        merged=frozenset(merged),
        config=noise.changes(schedules.get(owners.get("scheduler", ""), {}), folders, owners.get("scheduler")),
    )
    outside = frozenset(name for source in others.values() for name in source.shapes)
    left_out = (*_left_out(directories), *_adapters_left_out(tensors, owners, merged), *doubts)
    return Aligned(whole, host, overlay, left_out, outside)


def nulls(directory: Path) -> list[str]:
    """The components that model_index.json says to be none."""
    return sorted(n for n, value in files.index_of(directory).items() if isinstance(value, list) and not any(value))


def without_components(kind: str, directory: Path) -> tuple[str, ...]:
    """In a sentence, how to load a pipeline without components that its class expects (SD3 without its T5)."""
    parameters = inspect.signature(getattr(files.diffusers(), kind).__init__).parameters
    expected = {name for name in parameters if name.startswith(("text_encoder", "tokenizer"))}
    absent = [name for name in nulls(directory) if name in expected]
    if not absent:
        return ()
    given = ", ".join(f"{name}=None" for name in absent)
    return (f"the pipeline has no {' and no '.join(absent)}: diffusers loads it with from_pretrained(..., {given})",)


def _host(kind: str, order: Sequence[str], directories: Mapping[str, Path]) -> str:
    """The first source that is a whole pipeline; SourceError where there is none, or one of another class."""
    classes = {name: files.pipeline_class(directories[name]) for name in order}
    other = {name: found for name, found in classes.items() if found not in (None, kind)}
    if strange := {name: found for name, found in other.items() if not _is_kind(found, kind)}:
        raise SourceError(f"expected pipelines of the class {kind}, got {strange}")
    whole = [name for name, found in classes.items() if found is not None]
    if not whole:
        raise SourceError(
            f"expected a source that is a whole {kind} (with {files.INDEX}), got only parts of one: {list(order)}"
        )
    return whole[0]


def _is_kind(found: str | None, kind: str) -> bool:
    """Whether a pipeline's class is a variant of `kind` that draws from text as it does (with code of its own)."""
    return found is not None and kind in found


def _owners(
    needed: Sequence[str],
    order: Sequence[str],
    folders: Mapping[str, Mapping[str, Path]],
    tensors: Mapping[str, TensorSource],
    rules: Rules,
) -> dict[str, str]:
    """Who gives each component: whom the rules name, of a tokenizer who gives its text encoder, else the first."""
    if unknown := sorted(set(rules.components) - set(needed)):
        raise SourceError(f"components: expected some of {sorted(needed)}, got {unknown}")
    having = {c: [n for n in order if c in folders[n] and _in(c, folders[n][c], tensors[n])] for c in needed}
    owners = {}
    for component in needed:
        encoder = component.replace("tokenizer", "text_encoder")
        wanted = rules.components.get(component, rules.components.get(encoder, MERGE))
        if not having[component]:
            raise SourceError(f"component {component!r}: expected a source that has it, got none")
        if wanted not in (MERGE, *having[component]):
            raise SourceError(
                f"components.{component}: expected merge or a source that has it ({', '.join(having[component])}), got "
                f"{wanted!r}"
            )
        if (
            wanted == MERGE
            and component in rules.components
            and not files.has_weights(folders[having[component][0]][component])
        ):
            raise SourceError(f"components.{component}: expected the name of a source, for it has no weights to merge")
        owners[component] = having[component][0] if wanted == MERGE else wanted
    return owners


def _in(component: str, folder: Path, tensors: TensorSource) -> bool:
    return not files.has_weights(folder) or any(name.startswith(f"{component}/") for name in tensors.shapes)


def _check_present(merged: Sequence[str], sources: Mapping[str, TensorSource]) -> None:
    for component in merged:
        lacking = [n for n, each in sources.items() if not any(t.startswith(f"{component}/") for t in each.shapes)]
        if lacking:
            raise SourceError(
                f"component {component!r} is to be merged: expected it of all sources, got none from {lacking}; "
                f"components.{component}=SOURCE copies it from one of the others"
            )


def check_same_settings(merged: Sequence[str], folders: Mapping[str, Mapping[str, Path]]) -> None:
    """Raise SourceError where merged components have settings under which weights mean other things."""
    for component in merged:
        settings = {name: _settings(parts[component]) for name, parts in folders.items() if component in parts}
        first, *others = settings
        for name in others:
            for key in sorted({*settings[first], *settings[name]} - set(INCIDENTAL)):
                ours, theirs = settings[first].get(key), settings[name].get(key)
                if ours != theirs and (ours or theirs):
                    raise SourceError(
                        f"{component} of source {name!r}: expected {key} as in {first!r}, {ours!r}, got {theirs!r}"
                    )


def _settings(folder: Path) -> dict[str, object]:
    if files.of_diffusers(folder):
        return files.settings(folder)
    kind = files.class_of(folder)
    with refused(f"{folder}: expected the configuration of a {kind.__name__}"):
        return settings_of(kind.config_class.from_pretrained(folder, **LOCAL))


def check_same_tokenizers(
    merged: Sequence[str],
    folders: Mapping[str, Mapping[str, Path]],
    order: Sequence[str],
    allow_other_splitting: bool = False,
) -> tuple[str, ...]:
    """In a sentence each, what is doubtful about tokenizers (`check_splitting`) of text encoders that are merged.

    Raises SourceError where their rows belong to different tokens, or the same text is other tokens.
    """
    said: tuple[str, ...] = ()
    for encoder in (c for c in merged if c.startswith("text_encoder")):
        component = encoder.replace("text_encoder", "tokenizer")
        loaded = {name: files.tokenizer(folders[name][component]) for name in order if component in folders[name]}
        if not loaded:
            continue
        known = {name: each.get_vocab() for name, each in loaded.items()}
        first, choices = next(iter(known)), f"components.{encoder}=SOURCE copies it from one of them"
        if different := [name for name in known if known[name] != known[first]]:
            raise SourceError(
                f"component {encoder!r} is to be merged, but {different} have another {component} than {first!r}; "
                f"{choices}"
            )
        said += check_splitting(loaded, first, choices, allow_other_splitting)
    return said


def _left_out(directories: Mapping[str, Path]) -> tuple[str, ...]:
    return tuple(
        f"{', '.join(left)} of source {name!r} is not in the merge"
        for name, directory in directories.items()
        if (left := [c for c in files.LEFT_OUT if any(_entry(files.index_of(directory), c))])
    )


def _adapters_left_out(
    tensors: Mapping[str, TensorSource], owners: Mapping[str, str], merged: Sequence[str]
) -> tuple[str, ...]:
    """In a sentence each, components that a source's LoRA changes, and that the merge has from another source."""
    sentences = []
    for name, source in tensors.items():
        changed = {tensor.split("/")[0] for tensor in source.changed} if isinstance(source, Changed) else set()
        for component in sorted(changed - set(merged)):
            if owners.get(component) != name:
                sentences.append(
                    f"the LoRA of source {name!r} changes its {component} too, which all have from "
                    f"{owners.get(component)!r}: that part is left out (components.{component}=merge merges it)"
                )
    return tuple(sentences)


def _entry(index: Mapping[str, object], component: str) -> Sequence[object]:
    found = index.get(component)
    return found if isinstance(found, list) else ()
