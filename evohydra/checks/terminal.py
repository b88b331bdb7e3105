"""Text for a terminal: what files of others say must not move its cursor, hide lines or fill it."""

import logging
import os
import re

MOST = 5000  # characters of a message
# Control characters but for the ends of lines and tabs; and those that turn the direction of text.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str, most: int = MOST) -> str:
    """`text` with control characters written out, and its middle left out where it is longer than `most`."""
    if len(text) > most:
        text = f"{text[: most // 2]} ... ({len(text) - most} characters left out) ... {text[-(most // 2) :]}"
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class HarmlessLog(logging.Formatter):
    """Lines of a log as `harmless` has them."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return harmless(super().format(record))


def log_to_terminal() -> None:
    """Let a command without a log of its own print its warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(HarmlessLog("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def quiet() -> None:
    """One progress display is enough; the libraries below have their own."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("lm_eval", "transformers", "datasets", "huggingface_hub", "matplotlib", "wandb"):
        logging.getLogger(name).setLevel(logging.ERROR)
