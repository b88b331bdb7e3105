"""What a generation hands on: the name of its file, and the rules by which recipes are chosen."""

from typing import Literal

KEPT = "kept.json"
Rule = Literal["best", "diverse", "niche"]
