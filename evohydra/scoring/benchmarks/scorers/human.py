"""A person's choices: a page of pairs of pictures is written, choices are read back, and the run goes on."""

import csv
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evohydra.files import write_whole
from evohydra.scoring.benchmarks.images import digest
from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers import ScorerError
from evohydra.scoring.benchmarks.scorers.pairs_page import Pair, pairs_page

CHOICES = ("left", "right", "tie")


class ChoicesMissingError(ScorerError):
    """Pairs that nobody has chosen from yet: what to do."""


def human(directory: str | None = None) -> "Human":
    """A scorer whose page, references and choices are in `directory`, one for each study; ScorerError without one."""
    if not directory:
        raise ScorerError("directory: expected where to write the page and to read choices, got none")
    return Human(Path(directory))


class Human:
    """1 where the picture was preferred to the reference of the same prompt and seed, 0 where not, 0.5 for a tie.

    The reference is the first picture that was ever shown for the example; runs show the first source first. Equal
    pictures are ties without asking. Of several people, or several files of choices, the mean counts.
    """

    name = "human"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting: dict[str, Pair] = {}

    def identity(self) -> dict[str, object]:
        """Nothing beside its code: references and choices come while a run goes on."""
        return {}

    def show(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> None:
        """Put those pictures on the next page that nobody has judged."""
        choices = self._choices()
        for image, prompt in zip(images, prompts, strict=True):
            pair = self._pair(image, prompt)
            if pair is not None and pair.name not in choices:
                self._waiting[pair.name] = pair

    def ask(self) -> None:
        """Write the page of what waits. Raises ChoicesMissingError where anything does."""
        if not self._waiting:
            return
        waiting, self._waiting = sorted(self._waiting.values(), key=lambda pair: pair.name), {}
        page = self._directory / "pairs.html"
        write_whole(page, pairs_page(waiting).encode())
        raise ChoicesMissingError(
            f"{len(waiting)} pairs of pictures wait for a choice. Open {page.resolve()} in a browser, choose, put the "
            f"file that it saves (choices*.json, or a choices*.csv with the columns pair and choice) into "
            f"{self._directory.resolve()}, and give the same command again, with run=NAME of this run"
        )

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """(n,) scores; raises ChoicesMissingError where there are no choices yet."""
        self.show(images, prompts)
        self.ask()
        choices = self._choices()
        pairs = [self._pair(image, prompt) for image, prompt in zip(images, prompts, strict=True)]
        return np.array([0.5 if pair is None else mean(map(pair.score, choices[pair.name])) for pair in pairs])

    def _pair(self, image: Image.Image, prompt: Prompt) -> Pair | None:
        """The picture beside its reference, None where they are equal."""
        example = sha256(f"{prompt.seed} {prompt.text}".encode()).hexdigest()[:16]
        file = self._directory / "references" / f"{example}.png"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f".{example}.partial.png")
            image.save(temporary)
            temporary.replace(file)
            return None
        with Image.open(file) as opened:
            reference = opened.convert("RGB")
        image = image.convert("RGB")
        if digest(reference) == digest(image):
            return None
        name = sha256(f"{prompt.text} {digest(reference)} {digest(image)}".encode()).hexdigest()[:16]
        return Pair(name, prompt.text, reference, image)

    def _choices(self) -> dict[str, list[str]]:
        """What was chosen for each pair, in all files."""
        found: dict[str, list[str]] = {}
        for file in sorted(self._directory.glob("choices*")):
            for name, choice in _read(file):
                if choice not in CHOICES:
                    raise ScorerError(f"{file}: pair {name}: expected left, right or tie, got {choice!r}")
                found.setdefault(name, []).append(choice)
        return found


def _read(file: Path) -> list[tuple[str, object]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix == ".json":
            return list(json.loads(text).items())
        if file.suffix == ".csv":
            return [(row["pair"], row["choice"]) for row in csv.DictReader(text.splitlines())]
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise ScorerError(
            f"{file}: expected an object {{pair: choice}} in JSON, or CSV with the columns pair and choice, got "
            f"{type(error).__name__}: {error}"
        ) from error
    raise ScorerError(f"{file}: expected choices*.json or choices*.csv")
