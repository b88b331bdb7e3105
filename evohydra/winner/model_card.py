"""The winner's model card."""

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from evohydra.files import Plain
from evohydra.pages import in_markdown
from evohydra.recipe import Checkpoint, Node, checkpoints
from evohydra.report.tables import gain_sentence, markdown, unsearched_sentence

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def model_card(
    name: str,
    recipe: Node,
    licences: Mapping[str, str | None],
    summary: Mapping[str, object] | None,
    note: str,
    library: str,
    task: str,
) -> str:
    """Markdown with the front matter of the Hugging Face hub: sources, licences, scores and how to rebuild.

    `summary` is that of the search, None for a recipe without one. `task` is the hub's name of what the model does.
    `note` is Markdown; all else that comes from models and names is escaped here.
    """
    sources = {checkpoint.name: checkpoint for checkpoint in checkpoints(recipe)}
    data = ModelCardData(
        base_model=sorted({c.path for c in sources.values() if _is_on_the_hub(c.path)}) or None,
        tags=["merge", "evohydra"],
        library_name=library,
        pipeline_tag=task,
        model_name=name,
        eval_results=_results(summary, task) or None,
    )
    rows = "\n".join(
        f"| {in_markdown(c.name)} | {in_markdown(_described(c))} | {in_markdown(licences.get(c.name) or 'unknown')} | "
        f"`{in_markdown((c.fingerprint or '')[:16])}` |"
        for c in sources.values()
    )
    card = ModelCard(f"""---
{data.to_yaml()}
---

# {in_markdown(name)}

{_found(summary)}; no gradient step was taken. `recipe.json` says exactly how it is made:
`python -m evohydra.rebuild recipe.json OUT` makes the same weights again, bit for bit.

{_scores(summary)}## Sources

| name | checkpoint | licence | fingerprint |
|---|---|---|---|
{rows}

The merge falls under the licences of all of its sources.

{note}
""")
    return str(card)


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
            task_type=task, dataset_type=name, dataset_name=name, dataset_split="test", metric_type="score",
            metric_value=value,
        )
        for name, value in each.items()
    ]  # fmt: skip


def _found(summary: Mapping[str, object] | None) -> str:
    project = "[evohydra](https://pypi.org/project/evohydra/)"
    if summary is None:
        return f"A merge by a given recipe, made with {project} without a search"
    return f"The best merge that {project} found among {summary['evaluations']} genomes"


def _scores(summary: Plain | None) -> str:
    if summary is None:
        return ""
    compared = " ".join(filter(None, [gain_sentence(summary["gain"]), unsearched_sentence(summary["test"])]))
    return f"""## Scores on the test split

{markdown(summary)}

{in_markdown(compared)} {_audit(summary)}Search, validation and test examples are disjoint. {_chosen(summary)}

"""


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
