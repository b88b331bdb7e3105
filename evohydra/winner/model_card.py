"""The winner's model card."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from evohydra.files import Plain
from evohydra.hub.licences import common, known_to_the_hub, together
from evohydra.merging.statistics import named_by
from evohydra.pages import in_markdown
from evohydra.recipe import Checkpoint, Node, checkpoints
from evohydra.report.tables import gain_sentence, markdown, masks_sentences, unsearched_sentence
from evohydra.winner.snippets import loading

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
OF_SOURCES = "licences-of-the-sources"  # the name of a licence that is none of the hub's


@dataclass(frozen=True)
class Kind:
    """What a winner is, in the hub's words, and what is known of its sources.

    library: what loads it. task: what it does. format: in which it is written. licences: by the names of sources, None
    where nobody says one. languages: codes of what the sources are for. datasets: names of the hub, of what was asked.
    """

    library: str
    task: str
    format: str
    licences: Mapping[str, str | None]
    languages: Sequence[str] = ()
    datasets: Sequence[str] = ()


def model_card(name: str, recipe: Node, kind: Kind, summary: Mapping[str, object] | None, note: str) -> str:
    """Markdown with the front matter of the Hugging Face hub: sources, licences, scores, how to load and to rebuild.

    `summary` is that of the search, None for a recipe without one. `note` is Markdown; all else that comes from models
    and names is escaped here.
    """
    sources = {checkpoint.name: checkpoint for checkpoint in checkpoints(recipe)}
    licences = {source: kind.licences.get(source) for source in sources}
    based = {path for c in sources.values() for path in (c.path, c.adapter) if path and _is_on_the_hub(path)}
    data = ModelCardData(
        language=sorted(set(kind.languages)) or None,
        datasets=sorted(set(kind.datasets)) or None,
        base_model=sorted(based) or None,
        base_model_relation="merge" if based else None,
        tags=["merge", "evohydra"],
        library_name=kind.library,
        pipeline_tag=kind.task,
        model_name=name,
        eval_results=_results(summary, kind.task) or None,
        **_licence(licences),
    )
    load = loading(kind.library, kind.task, kind.format)
    rows = "\n".join(
        f"| {in_markdown(c.name)} | {in_markdown(_described(c))} | {in_markdown(licences[c.name] or 'unknown')} | "
        f"`{in_markdown((c.fingerprint or '')[:16])}` |"
        for c in sources.values()
    )
    card = ModelCard(f"""---
{data.to_yaml()}
---

# {in_markdown(name)}

{_found(summary)}; no gradient step was taken. `recipe.json` says exactly how it is made:
`python -m evohydra.rebuild recipe.json OUT` makes the same weights again, bit for bit{_from_files(recipe)}.

{_scores(summary)}{f"## Use{chr(10) * 2}{load}{chr(10) * 2}" if load else ""}## Sources

| name | checkpoint | licence | fingerprint |
|---|---|---|---|
{rows}

## Licence

{_followed(licences)}

{note}
""")
    return str(card)


def _from_files(recipe: Node) -> str:
    """What rebuilding takes besides the sources: files that do not come along with a winner."""
    if not named_by(recipe):
        return ""
    return (
        ". For that it needs what the sources have found in texts before the search: files that `statistics` of\n"
        "`recipe.json` names, which the run has kept. `--statistics DIRECTORY` says where they are"
    )


def _licence(licences: Mapping[str, str | None]) -> dict[str, str]:
    """`license` of the front matter: the one that all sources have, else `other`, which the section on it explains."""
    shared = common(licences)
    if shared and known_to_the_hub(shared):
        return {"license": shared}
    return {"license": "other", "license_name": _plain(shared or OF_SOURCES), "license_link": "README.md#licence"}


def _plain(name: str) -> str:
    """A name in the hub's letters."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or OF_SOURCES


def _followed(licences: Mapping[str, str | None]) -> str:
    """What follows for the merge, in sentences; no legal advice."""
    shared = common(licences)
    why = "The sources have different licences" if all(licences.values()) else "Not every source names a licence"
    told = (
        f"All sources are under {in_markdown(shared)}, and so is the merge."
        if shared
        else f"{why}: the merge falls under all of them."
    )
    points = "".join(f"- {in_markdown(each)}\n" for each in together(licences).together)
    return f"{told} What follows, as far as their names tell (this is no legal advice):\n\n{points}".rstrip()


def _is_on_the_hub(path: str) -> bool:
    """Whether `path` is a name of the hub, and no directory of this machine."""
    return HUB_NAME.fullmatch(path) is not None and not Path(path).exists()


def _described(source: Checkpoint) -> str:
    """Where a source is, and all that makes it another model than what is published there."""
    more = [
        f"adapter {source.adapter}" if source.adapter else "",
        f"variant {source.variant}" if source.variant else "",
        f"configuration {source.config}" if source.config else "",
        f"converted to {source.dtype}" if source.dtype else "",
    ]
    return ", ".join([f"{source.path}{f' @ {source.revision}' if source.revision else ''}", *filter(None, more)])


def _results(summary: Plain | None, task: str) -> list[EvalResult]:
    """The winner's score on the test split of each benchmark, as the hub shows scores."""
    if summary is None or summary["test"]["winner"]["score"] is None:
        return []
    score = summary["test"]["winner"]
    each = score.get("benchmarks") or dict.fromkeys(summary["data"], score["score"])
    return [
        EvalResult(
            task_type=task,
            dataset_type=name,
            dataset_name=name,
            dataset_split="test",
            metric_type="score",
            metric_value=value,
        )
        for name, value in each.items()
    ]


def _found(summary: Mapping[str, object] | None) -> str:
    project = "[evohydra](https://pypi.org/project/evohydra/)"
    if summary is None:
        return f"A merge by a given recipe, made with {project} without a search"
    return f"The best merge that {project} found among {summary['evaluations']} genomes"


def _scores(summary: Plain | None) -> str:
    if summary is None:
        return ""
    compared = " ".join(filter(None, [gain_sentence(summary["gain"]), unsearched_sentence(summary["test"])]))
    compared = " ".join([compared, *masks_sentences(summary["test"])])
    names = ", ".join(f"`{in_markdown(each)}`" for each in summary["data"])
    return f"""## Scores on the test split{f" of {names}" if names else ""}

{markdown(summary)}
{_by_benchmark(summary)}
{in_markdown(compared)} {_audit(summary)}Search, validation and test examples are disjoint. {_chosen(summary)}

"""


def _by_benchmark(summary: Plain) -> str:
    """The winner's score on each benchmark, where there are several."""
    each = summary["test"]["winner"].get("benchmarks") or {}
    if len(each) < 2:
        return ""
    rows = "".join(f"| {in_markdown(name)} | {value:.3f} |\n" for name, value in each.items())
    return f"\n| benchmark | winner |\n|---|---|\n{rows}"


def _audit(summary: Plain) -> str:
    """The limits of the search, and what the gain survives and what not; "" without both."""
    said = " ".join((*summary.get("guard", {}).get("said", ()), *summary.get("audit", {}).get("verdict", ())))
    return f"{in_markdown(said)} " if said else ""


def _chosen(summary: Plain) -> str:
    searched, validation = summary["search"]["winner"], summary["validation"]["winner"]["score"]
    search = " ".join(filter(None, [searched.get("measure"), f"{searched['score']:.3f}"]))
    if validation is None:
        return f"The winner is the best genome of the search ({search} there), without a validation split."
    return f"The winner was chosen on validation ({validation:.3f}) from the best genomes of the search ({search})."
