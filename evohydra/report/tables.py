"""The summary of a run as a table for people."""

from collections.abc import Iterator, Mapping

from rich.table import Table
from rich.text import Text

from evohydra.files import Plain
from evohydra.pages import in_markdown
from evohydra.report.each_benchmark import cells, several
from evohydra.searching.fitness.likelihood_scale import ENOUGH, LOW

BINDING = 0.2  # share of a winner's numbers at the ends of their ranges, from which on it is said


def rows(test: Plain) -> Iterator[tuple[str, Plain]]:
    """What was scored on test with its interval: sources, base, uniform merge, baselines, winner."""
    for name, score in test["sources"].items():
        yield f"source {name}", score
    if test.get("base"):
        yield "base", test["base"]
    if test.get("uniform"):
        yield "uniform merge", test["uniform"]
    for name, score in test["baselines"].items():
        yield f"{name} at its defaults", score
    yield "winner", test["winner"]


def summary_table(summary: Plain, benchmarks: str) -> Table:
    """Every model on the test split with its 95 % interval, and of several benchmarks the mean of each."""
    table = Table(title=Text(f"{benchmarks}, test split: score and 95 % interval"), title_justify="left")
    each = several(score for _, score in rows(summary["test"]))
    for heading in ("model", "score", "95 % interval", "examples", *each):
        table.add_column(Text(heading), justify="left" if heading == "model" else "right")
    for name, score in rows(summary["test"]):
        style = "bold" if name == "winner" else ""
        if score["score"] is None:
            table.add_row(Text(name), "failed", Text((score.get("error") or "")[:100]), "", style=style)
            continue
        table.add_row(
            Text(name),
            f"{score['score']:.3f}",
            f"{score['low']:.3f} to {score['high']:.3f}",
            str(score["n"]),
            *cells(score, each),
            style=style,
        )
    return table


def unsearched_sentence(test: Plain) -> str | None:
    """Which merges that nobody searched for score as well as the winner or better; `test` as in summary.json.

    Where all models have one score, that nothing can be read from it.
    """
    alike = {score["score"] for _, score in rows({**test, "baselines": test["baselines"] or {}})}
    if len(alike) == 1 and alike != {None}:
        told = f"All models score {test['winner']['score']:.3f} on the test split, which tells nothing about them. "
        if alike == {1.0}:
            return f"{told}The benchmark is too easy for them."
        return f"{told}Compare the form of prompts, references and answers: blanks count."
    known = {"the base": test["base"], "the uniform merge": test["uniform"], **(test["baselines"] or {})}
    winner = test["winner"]["score"]
    scored = {name: score["score"] for name, score in known.items() if score and None not in (winner, score["score"])}
    found = {
        "Better": [f"{name} ({score:.3f})" for name, score in scored.items() if score > winner],
        "As good": [f"{name} ({score:.3f})" for name, score in scored.items() if score == winner],
    }
    return " ".join(f"{how} without this search: {', '.join(names)}." for how, names in found.items() if names) or None


def masks_sentences(test: Plain) -> Iterator[str]:
    """That the score of a merge without a search is a mean over random masks, and how far these lie apart."""
    for name, score in (test["baselines"] or {}).items():
        known = [each for each in (score.get("masks") or {}).values() if each is not None]
        if known:
            yield (
                f"{name} drops entries at random: its score is the mean over {len(known)} mask seeds, which give "
                f"{min(known):.3f} to {max(known):.3f}."
            )


def score_sentence(test: Plain) -> str | None:
    """The winner's score beside the best of all that it is compared with, base and merges without a search too.

    `test` as in summary.json; None where the winner or all others have failed.
    """
    scored = [(name, each) for name, each in rows({**test, "baselines": test["baselines"] or {}}) if name != "winner"]
    known = [(name, each["score"]) for name, each in scored if each["score"] is not None]
    winner = test["winner"]
    if winner["score"] is None or not known:
        return None
    name, best = max(known, key=lambda one: one[1])
    between = f"95 % {winner['low']:.3f} to {winner['high']:.3f}"
    return (
        f"The winner scores {winner['score']:.3f} on the test split ({between}). "
        f"The best of all that it is compared with is {name} with {best:.3f}."
    )


def p_value(p: float) -> str:
    """As readers of papers know it: none is 0."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def gain_sentence(gain: Plain) -> str:
    """The paired comparison of the winner with the best source in a sentence; sources that failed in another one."""
    if gain["difference"] is None:
        return (
            "There is no comparison of the winner with the best source: the winner or every source has failed on test."
        )
    return (
        f"The winner scores {gain['difference']:+.3f} against the best source, {gain['best_source']} "
        f"(95 % {gain['low']:+.3f} to {gain['high']:+.3f}, paired, p = {gain['p']:.4f})."
        + "".join(f" Source {name} failed on test and is not compared." for name in gain.get("failed", ()))
    )


def likelihood_sentence(agreed: Mapping[str, float]) -> str:
    """How well a search by log-likelihoods ranked its genomes; `agreed` as in summary.json."""
    low = agreed["high"] < LOW and agreed["n"] >= ENOUGH
    return (
        f"Likelihood ranks genomes as the metric does by {agreed['value']:.2f} (Spearman, 95 % {agreed['low']:.2f} to "
        f"{agreed['high']:.2f}, {agreed['n']:.0f} genomes)."
        + (" That is too low to search by: choose fitness=full." if low else "")
    )


def references_sentence(told: Plain) -> str:
    """How many examples have verified references; `told` as in summary.json."""
    each = [
        f"{of['solved']} of {of['asked']} examples of {name}, in {of['texts']} wordings"
        for name, of in told["benchmarks"].items()
    ]
    solved = f"Verified references: {told['models']} models have solved {'; '.join(each)}"
    used = [str(of["used"]) for of in told["benchmarks"].values() if of["used"]]
    if used:
        return f"{solved}. Genomes are scored by {' and '.join(used)} of these examples."
    return f"{solved}. That is too few to search by, so that genomes are scored by the metric."


def ends_sentence(ends: Plain) -> str:
    """How many numbers of the winner lie at the ends of their ranges; `ends` as in summary.json."""
    told = [
        f"{len(names)} {'is' if len(names) == 1 else 'are'} at the {end} (such as {names[0]})"
        for end, names in (("lower end", ends["lowest"]), ("upper end", ends["highest"]))
        if names
    ]
    return (
        f"Of the winner's {ends['numbers']} numbers {' and '.join(told)} of the range that was searched: where the "
        "method allows wider ranges, these may give more."
    )


def transfer_sentence(weight: float) -> str:
    """Whether an earlier run's genomes have helped the model of this search."""
    if weight > 0:
        return f"The earlier run's genomes are data of this search's model: its mean counts {weight:.2f} times."
    return "The earlier run's genomes do not rank this run's, so that the search's model goes without them."


def search_sentences(searched: Plain) -> Iterator[str]:
    """What is to be said of a search, `search` in summary.json."""
    if "transferred" in searched:
        yield transfer_sentence(searched["transferred"])
    if told := searched.get("references"):
        yield references_sentence(told)
    if agreed := searched.get("likelihood"):
        yield likelihood_sentence(agreed)
    if name := searched.get("known_as"):
        known = "the uniform merge" if name == "uniform" else f"source {name} alone"
        which = f"the {name}" if " " in name else known  # names of sources have no spaces
        yield f"The winner was known before this search: it is {which}. The search found nothing better."
        return
    ends = searched.get("at_the_ends")
    if ends and len(ends["lowest"]) + len(ends["highest"]) >= BINDING * ends["numbers"]:
        yield ends_sentence(ends)


def markdown(summary: Plain) -> str:
    """The same table for a model card."""
    each = several(score for _, score in rows(summary["test"]))
    heads = ["model", "score", "95 % interval", "examples", *map(in_markdown, each)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, score in rows(summary["test"]):
        if score["score"] is None:
            told = [f"failed: {in_markdown(score.get('error') or '')}", "", "", *("" for _ in each)]
        else:
            told = [f"{score['score']:.3f}", f"{score['low']:.3f} to {score['high']:.3f}", str(score["n"])]
            told += cells(score, each)
        lines.append("".join(f"| {cell} " if cell else "| " for cell in (in_markdown(name), *told)) + "|")
    return "\n".join(lines)
