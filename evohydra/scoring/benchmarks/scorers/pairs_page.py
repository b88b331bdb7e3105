"""A page on which a person chooses between two pictures, again and again; it needs no network and saves a file."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from evohydra.pages import image_address, render

LARGEST = 768  # pixels of a side on the page


@dataclass(frozen=True)
class Pair:
    """A picture beside the reference for the same prompt and seed; `name` says nothing about which is which."""

    name: str
    prompt: str
    reference: Image.Image
    picture: Image.Image

    @property
    def reference_is_left(self) -> bool:
        """As good as random, and the same each time."""
        return int(self.name, 16) % 2 == 0

    def score(self, choice: str) -> float:
        """1 where `choice` is the picture, 0 where it is the reference, 0.5 for a tie."""
        if choice == "tie":
            return 0.5
        return float((choice == "right") == self.reference_is_left)


def pairs_page(pairs: Sequence[Pair]) -> str:
    """The page as HTML, with all pictures inside."""
    shown = [
        {
            "pair": pair.name,
            "prompt": pair.prompt,
            "left": _packed(pair.reference if pair.reference_is_left else pair.picture),
            "right": _packed(pair.picture if pair.reference_is_left else pair.reference),
        }
        for pair in pairs
    ]
    return render("pairs.html", pairs=shown)


def _packed(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((LARGEST, LARGEST))
    return image_address(small, "WEBP", quality=92)
