"""Whether sources fit together, as a plan tells it: from headers, configurations, tokenizers and cards."""

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from evohydra.assembly.parts import Parts, chosen_sources
from evohydra.assembly.runs import Assembled
from evohydra.assembly.statistics import uncounted
from evohydra.families import tokenizers
from evohydra.families.sources import stored_types
from evohydra.hub.cards import card_of
from evohydra.hub.licences import OUR_OWN, of_card, of_directory, together
from evohydra.merging.checkpoints import SourceError
from evohydra.planning.fit import Fit, Published
from evohydra.recipe import Checkpoint
from evohydra.run import Run

UNREAD = (
    "whether all numbers are finite, and whether the sources are fine-tunes of their base: only reading them tells",
    "whether the method can merge these tensors: a little of each is merged before the run",
)
SUCH = 3  # genes that are named


def fit_of(made: Assembled, run: Run, *, unread: bool) -> Fit:
    """What was found of the sources; `unread`: their numbers were not looked at."""
    parts, found = made.parts, made.found
    opened = parts.sources
    shapes = opened.tensors[opened.files_from].shapes
    names = tuple(shapes)
    places = parts.family.locations(opened.directories[opened.files_from], names, opened.copied)
    merged = [name for name, place in places.items() if place is not None]
    licences = {node.name: _licence(node, found.paths[node.name], _declared(parts)) for node in found.nodes}
    return Fit(
        family=parts.family.name,
        files_from=opened.files_from,
        tokenizer=found.rules.tokenizer,
        sources=_published(made),
        merged=len(merged),
        copied=len(names) - len(merged),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        dtype=str(parts.out_dtype).removeprefix("torch."),
        left_out=tuple(dict.fromkeys((*found.warnings, *opened.warnings))),
        not_checked=(*UNREAD, *uncounted(parts.settings.merge)) if unread else (),
        licences=together(licences),
        axes=run.plan.space.axes,
        examples_of_genes=run.plan.space.names[:SUCH],
    )


def _declared(parts: Parts) -> dict[str, str | None]:
    """The licences that the configuration names."""
    return {name: source.licence for name, source in chosen_sources(parts.settings.model).items()}


def _licence(node: Checkpoint, place: Path, declared: Mapping[str, str | None]) -> str | None:
    """By the model's card, else by the configuration; None where neither tells."""
    if node.path.startswith("zoo://"):
        return OUR_OWN
    here = of_directory(place) or (of_card(text) if (text := card_of(node.path, node.revision)) else None)
    return here or declared.get(node.name)


def _published(made: Assembled) -> dict[str, Published]:
    found, opened = made.found, made.parts.sources
    ours = _vocabulary(opened.directories[opened.files_from])
    template = _template(opened.directories[opened.files_from])
    told = {}
    for node in found.nodes:
        source, directory = found.published[node.name], found.directories[node.name]
        theirs = _vocabulary(directory)
        unlike = None
        if theirs is not None and ours is not None:
            unlike = sum(ours.get(token) != row for token, row in theirs.items())
        own = _template(directory)
        told[node.name] = Published(
            path=node.path,
            parameters=sum(math.prod(shape) for shape in source.shapes.values()),
            types=dict(sorted(Counter(stored_types(source).values()).items())),
            tensors=len(source.shapes),
            tokens=None if theirs is None else len(theirs),
            other_tokens=unlike,
            chat_template=own is not None,
            same_chat_template=None if own is None or template is None else own == template,
            adapter=node.adapter,
        )
    return told


def _vocabulary(directory: Path) -> dict[str, int] | None:
    """Tokens and their rows; None where there is no tokenizer of transformers' at that place."""
    with suppress(SourceError, OSError, ValueError):
        if tokenizers.has_files(directory):
            return dict(tokenizers.load(directory).get_vocab())
    return None


def _template(directory: Path) -> object:
    with suppress(SourceError, OSError, ValueError):
        if tokenizers.has_files(directory):
            return tokenizers.load(directory).chat_template
    return None
