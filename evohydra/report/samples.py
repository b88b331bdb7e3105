"""Pictures that a winner draws, with their scores, as its model card shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from evohydra.pages import in_markdown

Picture = tuple[Image.Image, Mapping[str, float]]  # and its scores


@dataclass(frozen=True)
class Sample:
    """A picture of the winner, with all that is needed to draw it again."""

    prompt: str
    seed: int
    settings: str
    image: Image.Image
    scores: Mapping[str, float]


def write_samples(samples: Sequence[Sample], directory: Path) -> str:
    """The pictures in samples/ below `directory`; returns what the model card says of them, in Markdown."""
    if not samples:
        return ""
    (directory / "samples").mkdir()
    rows = []
    for number, sample in enumerate(samples, start=1):
        sample.image.save(directory / "samples" / f"{number}.png")
        rows.append(
            f"| ![](samples/{number}.png) | {in_markdown(sample.prompt)} | {sample.seed} | {words(sample.scores)} |"
        )
    settings = "; ".join(dict.fromkeys(sample.settings for sample in samples))
    return (
        f"\n\n## Samples\n\nHeld-out prompts, not chosen by their looks; {settings}, and the noise of "
        '`generator=torch.Generator("cpu").manual_seed(SEED)`.\n\n'
        "| picture | prompt | seed | score |\n|---|---|---|---|\n" + "\n".join(rows)
    )


def words(scores: Mapping[str, float]) -> str:
    """Scores as they stand below a picture."""
    named = [f"{score:.3f}" if len(scores) == 1 else f"{name} {score:.3f}" for name, score in scores.items()]
    return ", ".join(named)
