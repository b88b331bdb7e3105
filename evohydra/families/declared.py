"""Source models as a configuration declares them, and the recipe nodes that they become; nothing is opened here."""

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evohydra.checks import check_name, check_settings
from evohydra.families import Rules
from evohydra.hub.mirrors import readable
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.finding import place
from evohydra.recipe import Checkpoint

BASE = "base"
STRICT = Rules()


@dataclass(frozen=True)
class Source:
    """A source as it stands in conf/model; paths are hub ids, directories or zoo://<name>.

    `base` may be a list: the same base under several names, of which the first is taken that can be read. Of diffusion
    models also single safetensors files, with `config`, a diffusers folder like them, and the `variant` of the files of
    a folder and its base ("fp16"). `convert`: whether pickles may be converted where there are no safetensors, of the
    base too; `sha256`: of files of the source that are pinned, by name, `base_sha256`: of the base's. `purpose`: words
    for what it is good at, by which benchmark=auto chooses. `prompt`: what it was trained to be asked with, with
    {question} in it, or "chat" for its own chat template.
    """

    path: str
    family: str
    base: str | Sequence[str] | None = None
    revision: str | None = None
    base_revision: str | None = None
    adapter: str | None = None
    dtype: str | None = None
    purpose: Sequence[str] | None = None
    prompt: str | None = None
    licence: str | None = None
    variant: str | None = None
    config: str | None = None
    base_variant: str | None = None
    convert: Literal["weights_only"] | None = None
    sha256: Mapping[str, str] | None = None
    base_sha256: Mapping[str, str] | None = None

    @property
    def bases(self) -> tuple[str, ...]:
        """The names of its base."""
        if self.base is None:
            return ()
        return (self.base,) if isinstance(self.base, str) else tuple(self.base)


def parse(name: str, fields: object) -> Source:
    """The source `name` of a configuration; SourceError for keys that no source has or needs, ValueError for values."""
    check_name(name, "model.sources")
    if not isinstance(fields, Mapping):
        raise SourceError(f"model.sources.{name}: expected a mapping with path and family, got {fields!r}")
    unknown = sorted(set(fields) - set(Source.__dataclass_fields__))
    if unknown:
        known = sorted(Source.__dataclass_fields__)
        raise SourceError(f"model.sources.{name}: unknown keys {unknown}; a source has {known}")
    if missing := [key for key in ("path", "family") if key not in fields]:
        raise SourceError(f"model.sources.{name}: expected path and family, there is no {' and no '.join(missing)}")
    check_settings(f"model.sources.{name}", Source, fields)
    if not str(fields["path"]).strip():
        raise SourceError(f"model.sources.{name}.path: expected a directory, a file or OWNER/NAME of the hub, got none")
    return Source(**fields)


def common_family(sources: Mapping[str, Source]) -> str:
    """The family of all sources, or the one of theirs that takes all the others' models; SourceError for others."""
    if not sources:
        raise SourceError("no source models: choose some, for example model=tiny_ja+tiny_math")
    if BASE in sources:
        raise SourceError(f"model.sources.{BASE}: no source may be called {BASE!r}, the name of the sources' base")
    families = {name: source.family for name, source in sources.items()}
    different = sorted(set(families.values()))
    for family in different:
        others = set(different) - {family}
        if not others or others <= set(_takes(family)):
            return family
    raise SourceError(f"sources of different families cannot be merged: {families}")


def _takes(family: str) -> tuple[str, ...]:
    """The families whose models the one of that dotted name takes; none where there is no such family."""
    try:
        takes = getattr(pkgutil.resolve_name(family), "takes", ())
    except (ImportError, AttributeError, ValueError):
        return ()
    return takes if isinstance(takes, tuple) else ()


def disagreement(sources: Mapping[str, Source]) -> str | None:
    """What the bases are that sources name, where it is not one; else None."""
    bases = {name: (source.bases[0], source.base_revision) for name, source in sources.items() if source.bases}
    if len({(place(path), revision) for path, revision in bases.values()}) < 2:
        return None
    named = ", ".join(f"{name} on {path}{f'@{rev}' if rev else ''}" for name, (path, rev) in bases.items())
    return f"the sources disagree on their base model: {named}. Task vectors need one common base"


def checkpoints(
    sources: Mapping[str, Source], rules: Rules = STRICT
) -> tuple[tuple[Checkpoint, ...], Checkpoint | None]:
    """The sources and their common base as recipe nodes; a source without a base takes that of the others.

    Where sources name different bases, raises SourceError, or takes the first one if `rules.allow_other_base`.
    """
    differing = disagreement(sources)
    if differing and not rules.allow_other_base:
        raise SourceError(f"{differing} (allow_other_base=true takes the first one)")
    having = [source for source in sources.values() if source.bases]
    if not having:
        return models(sources), None
    variant = next((source.base_variant for source in sources.values() if source.base_variant is not None), None)
    path, revision = readable(having[0].bases, having[0].base_revision, base_pins(sources))
    convert = next((source.convert for source in having if source.convert is not None), None)
    return models(sources), Checkpoint(BASE, path, revision, variant=variant, convert=convert)


def base_pins(sources: Mapping[str, Source]) -> Mapping[str, str]:
    """The SHA-256 of the base's files that are pinned, by name."""
    return next((source.base_sha256 for source in sources.values() if source.bases and source.base_sha256), {})


def models(sources: Mapping[str, Source]) -> tuple[Checkpoint, ...]:
    """The sources as recipe nodes."""
    return tuple(
        Checkpoint(n, s.path, s.revision, s.adapter, s.dtype, variant=s.variant, config=s.config, convert=s.convert)
        for n, s in sources.items()
    )
