"""The audit of a winner: what its gain on test rests on, and what it survives. Cheap, and nothing is chosen by it."""

from collections.abc import Iterable, Mapping, Sequence

from evohydra.audit import gains
from evohydra.audit.asking import WINNER, Asking
from evohydra.audit.plan import AuditPlan
from evohydra.audit.texts import near_duplicates
from evohydra.files import Plain
from evohydra.scoring.benchmarks import Audited, Benchmark, Described, Draws, ShowsImages, Split
from evohydra.scoring.job import Scores

SEEN: tuple[Split, ...] = ("search", "test")  # splits that are compared
MOST_TEXTS = 3000  # of a split, that are compared with those of another


def audited(
    plan: AuditPlan,
    asking: Asking,
    scores: Mapping[str, Scores],
    sources: Sequence[str],
    best_source: str,
    scored: Iterable[Plain],
    unweighted: Mapping[str, Scores] | None = None,
) -> dict[str, object]:
    """All parts of the plan but for the reloaded checkpoint, as JSON data.

    scores: on test, of the winner and of the sources that have any, as their mean is the fitness. unweighted: the same
    as the benchmarks gave them; None: there are no weights. scored: lines of scores.jsonl, from which the answers at
    the limit are counted.
    """
    benchmarks, wanted = asking.benchmarks, set(plan.parts)
    found: dict[str, object] = {"best_source": best_source, "at_the_limit": at_the_limit(scored)}
    for change in ("length", "wording"):
        if change in wanted:
            changed = asking.changed(change, best_source)
            found[change] = {**changed, **_before(asking, changed, scores, best_source)}
    if "errors" in wanted:
        found["errors"] = asking.errors(best_source)
    if "difficulty" in wanted:
        plain = scores if unweighted is None else unweighted
        solved = {name: plain[name] for name in sources if name in plain}
        found["difficulty"] = gains.by_difficulty(plain[WINNER], solved)
    if "duplicates" in wanted:
        found["duplicates"] = _duplicates(benchmarks, scores[WINNER], scores[best_source])
    if "tenths" in wanted:
        found["tenths"] = gains.without_tenths(scores[WINNER], scores[best_source])
    found["not_checked"] = _not_checked(benchmarks)
    return found


def _before(asking: Asking, changed: Plain, scores: Mapping[str, Scores], source: str) -> dict[str, object]:
    """The gain without a change on the examples that were asked with it, where these are not all that there are.

    None of weighted benchmarks of which some were not asked.
    """
    names = [name for name in scores[WINNER] if name not in changed["not_checked"]]
    whole = len(names) == len(scores[WINNER]) or asking.weights is None
    count = asking.plan.examples
    if not names or not whole or all(len(scores[WINNER][name]) <= count for name in names):
        return {}
    winner, other = ({name: list(scores[model][name])[:count] for name in names} for model in (WINNER, source))
    return {"before": gains.gain(winner, other)["difference"]}


def at_the_limit(scored: Iterable[Plain]) -> dict[str, dict[str, dict[str, float]]]:
    """By split and model the share of answers that reached the limit of tokens, of those that were written.

    The order of lines means nothing. All genomes of the search count as one model. Models without answers are left out.
    """
    counts: dict[str, dict[str, list[int]]] = {}
    for line in scored:
        label = "genomes" if line["label"].startswith("genome ") else line["label"]
        for written, cut, tokens in (line.get("ends") or {}).values():
            of = counts.setdefault(line["split"], {}).setdefault(label, [0, 0, 0])
            of[0], of[1], of[2] = of[0] + written, of[1] + cut, of[2] + tokens
    return {
        split: {
            label: {"answers": n, "share": round(cut / n, 4), "mean_tokens": round(tokens / n, 2)}
            for label, (n, cut, tokens) in sorted(models.items())
        }
        for split, models in sorted(counts.items())
    }


def _duplicates(benchmarks: Mapping[str, Benchmark], winner: Scores, source: Scores) -> dict[str, object]:
    """For each benchmark the test examples that are nearly search examples or shots, and the gain without them."""
    found: dict[str, object] = {}
    for name, benchmark in benchmarks.items():
        sizes = {split: benchmark.size(split) for split in SEEN}
        if isinstance(benchmark, ShowsImages) or not isinstance(benchmark, Described | Draws) or name not in winner:
            continue
        asked = {split: _texts(benchmark, split, sizes[split]) for split in SEEN}
        shots = benchmark.shots() if isinstance(benchmark, Audited) else []
        others = {"search": asked["search"], **({"shots": shots} if shots else {})}
        near = near_duplicates(asked["test"], others)
        places: set[int] = set().union(*(each.pop("places") for each in near.values()))  # type: ignore[arg-type]
        rest = [at for at in range(len(winner[name])) if at not in places]
        if places and rest:
            parts = [{name: [scores[name][at] for at in rest]} for scores in (winner, source)]
            near["gain_without"] = gains.gain(*parts)
        found[name] = near
    return found


def _texts(benchmark: Described | Draws, split: Split, size: int) -> list[str]:
    """What the first examples of a split with `size` of them ask."""
    if isinstance(benchmark, Draws):
        return [example.text for example in benchmark.examples(split)[:MOST_TEXTS]]
    return [benchmark.describe(split, place)[0] for place in range(min(MOST_TEXTS, size))]


def _not_checked(benchmarks: Mapping[str, Benchmark]) -> list[str]:
    """In sentences, what the audit has not looked at, since a benchmark does not let it."""
    said = []
    for name, benchmark in benchmarks.items():
        reason = "its models write no texts" if not isinstance(benchmark, Audited) else benchmark.lacks("none")
        if isinstance(benchmark, Draws):
            said.append(
                f"Of {name} length, wording and errors were not checked: its models draw pictures. The written "
                "pipeline was compared with the live one by the pixels of a small picture, and not by scores."
            )
            said.append(
                f"One scorer judged the pictures of {name} in the search and on test. If the winner draws what pleases "
                "this scorer alone, the scores do not show it: look at the pictures (pictures-*.png)."
            )
        elif reason:
            said.append(f"Of {name} length, wording, errors and the checkpoint read anew were not checked: {reason}.")
        if isinstance(benchmark, ShowsImages):
            said.append(
                f"Near duplicates among the images of {name} were not looked for; none is in two splits pixel by pixel."
            )
    return said
