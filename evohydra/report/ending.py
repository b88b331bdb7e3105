"""What a run prints at its end."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from evohydra.files import Plain
from evohydra.report import near, say
from evohydra.report.front_table import front_table
from evohydra.report.tables import gain_sentence, masks_sentences, search_sentences, summary_table, unsearched_sentence

FILES = (
    ("winner", "the merged model"),
    ("winner-unverified", "the merged model, not verified"),
    ("recipe.json", "how to make it again"),
    ("summary.json", "all scores"),
    ("ledger.jsonl", "every genome"),
    ("answers.jsonl", "what each model answers"),
    ("report.html", "figures and tables; the figures are in figures/ too"),
)
PICTURES = (
    ("answers-*.html", "answers about held-out pictures"),
    ("pictures-*.png", "pictures of held-out prompts"),
)


def show_job(console: Console, directory: Path, name: str, summary: Plain) -> None:
    """A job of a sweep that has ended, in a line: the sweep's own end has the table of all."""
    scores = {split: summary[split]["winner"]["score"] for split in ("validation", "test")}
    told = ", ".join(f"{split} {'-' if score is None else f'{score:.3f}'}" for split, score in scores.items())
    kept = "" if summary.get("guard", {}).get("kept", True) else ", NO GENOME KEEPS ALL LIMITS"
    say(console, f"{name}: {told}, {summary['evaluations']} genomes{kept}; {near(directory)}")


def show_end(console: Console, directory: Path, titles: Sequence[str], summary: Plain) -> None:
    """The scores of a run that has ended, what there is to say of them, and where its files are."""
    console.print(summary_table(summary, ", ".join(titles)))
    for part in front_table(summary):
        console.print(part, highlight=False)
    say(console, gain_sentence(summary["gain"]), wrapped=True)
    if as_good := unsearched_sentence(summary["test"]):
        say(console, as_good, wrapped=True)
    for sentence in masks_sentences(summary["test"]):
        say(console, sentence, wrapped=True)
    for sentence in summary.get("guard", {}).get("said", ()):
        say(console, sentence, wrapped=True)
    for sentence in summary.get("audit", {}).get("verdict", ()):
        say(console, sentence, wrapped=True)
    for sentence in search_sentences(summary["search"]):
        say(console, sentence, wrapped=True)
    seconds = summary["seconds"]
    of_genomes = seconds["merge"] + seconds["evaluate"]
    forward = seconds["forward"] / max(of_genomes, 1e-9)
    console.print(
        f"{summary['evaluations']} genomes: {seconds['merge']:.1f} s to merge, {seconds['evaluate']:.1f} s to "
        f"evaluate ({forward:.0%} of both in forward passes), {seconds['other']:.1f} s else "
        "(optimizer, validation, test)",
        highlight=False,
    )
    for name, what in FILES:
        if (directory / name).exists():
            form = ", as a PEFT adapter" if (directory / name / "adapter_config.json").exists() else ""
            say(console, f"  {near(directory / name)}: {what}{form}")
    for files, what in PICTURES:
        for page in sorted(directory.glob(files)):
            say(console, f"  {near(page)}: {what}")
