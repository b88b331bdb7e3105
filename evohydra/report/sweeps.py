"""What the runs of a sweep have in common, and which tests compare their strategies, in sentences."""

from collections.abc import Iterator, Sequence

from evohydra.report import paired_tests
from evohydra.report.gathering import Job, by_group
from evohydra.report.score_figures import finished, too_few

WINNER, GENOME = "winner", "genome "  # labels of what is a run's own


def sweep_sentences(jobs: Sequence[Job]) -> Iterator[str]:
    """What the finished runs of several share, for which there are too few of them, and which tests were made."""
    done = finished(jobs)
    if len(done) < 2:
        return
    for group, members in by_group(done).items():
        if len(members) > 1:
            yield from _shared(members, f" of {group}" if group else "")
    yield from (sentence for _, sentence in too_few(jobs))
    if made := paired_tests.tests_made(paired_tests.strategies_against_each_other(jobs)):
        yield made


def broken_limits(done: Sequence[Job]) -> Iterator[str]:
    """Which finished runs of a sweep have no winner that keeps all limits; nothing where all have one, or no limits."""
    if broken := [job.name for job in done if not job.keeps_limits]:
        yield (
            f"NO GENOME KEEPS ALL LIMITS for sure in {len(broken)} of {len(done)} runs ({', '.join(broken)}): their "
            "winners are the genomes that lack least. Their scores do not compare with those of winners that keep them."
        )


def _shared(done: Sequence[Job], whose: str) -> Iterator[str]:
    """Whether they have the same examples in each split, and how often what all compare with was scored."""
    splits = [
        {name: each.get("splits") for name, each in known.items()}
        for job in done
        if (known := (job.begun.identity.get("scores") or {}).get("benchmarks"))
    ]
    if len(splits) == len(done):
        alike = all(each == splits[0] for each in splits)
        yield (
            f"All runs{whose} have the same examples in each split."
            if alike
            else f"The runs{whose} have the same test examples, and others to search or choose by."
        )
    lines = [
        line
        for job in done
        for line in job.finals
        if line["label"] != WINNER and not line["label"].startswith(GENOME) and line["scores"]
    ]
    scored = sum(not line["copied"] for line in lines)
    different = len({(line["recipe"], line["split"]) for line in lines})
    if lines and scored <= different:
        yield f"Sources, base and merges without a search were scored once for all runs{whose}."
    elif lines:
        yield (
            f"Sources, base and merges without a search were scored {scored} times for {different} different scorings"
            f"{whose}: by runs that were at work at the same time, with other settings, or with share_scores=false."
        )
