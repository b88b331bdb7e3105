"""One tensor's names in the files of different releases."""

import re

# Releases of transformers put these around parts of a model, or leave them out: language_model.model.layers.0 and
# model.language_model.layers.0 are one tensor.
WRAPPERS = re.compile(r"(?:^|(?<=\.))(model|language_model|vision_model)\.")


def bare(name: str) -> str:
    """What all releases' names of one tensor have in common."""
    return WRAPPERS.sub("", name)
