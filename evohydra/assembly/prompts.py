"""Sources that were trained to be asked in a format of their own, where a benchmark asks otherwise."""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path

from evohydra.checks import shown
from evohydra.families import tokenizers
from evohydra.families.chat_templates import ChatTemplateError, EndlessTemplateError, rendered
from evohydra.families.declared import Source
from evohydra.merging.checkpoints import SourceError
from evohydra.scoring.benchmarks import AsksInWords, Benchmark
from evohydra.scoring.benchmarks.prompt_formats import CHAT, QUESTION, asks_as, marks

logger = logging.getLogger(__name__)


def doubts_about_prompts(
    sources: Mapping[str, Source], directories: Mapping[str, Path], benchmarks: Mapping[str, Benchmark]
) -> list[str]:
    """In a sentence for each benchmark, which sources it does not ask as they were trained to be asked.

    A merge is one model, so that one benchmark asks all models alike; what a source can do may then not be seen.
    """
    formats = {name: source.prompt for name, source in sources.items() if source.prompt}
    if not formats:
        return []
    known = {name: _of_template(directories[name]) if text == CHAT else text for name, text in formats.items()}
    found = []
    for benchmark in benchmarks.values():
        if isinstance(benchmark, AsksInWords):
            asked = benchmark.asked_as()
            unlike = {name: known[name] for name in formats if not _asked_so(asked, formats[name], known[name])}
            if unlike:
                found.append(_sentence(benchmark.name, unlike))
    return found


def _asked_so(asked: str | None, wanted: str, text: str | None) -> bool:
    """`asked` is None where a benchmark asks by chat templates."""
    if asked is None:
        return wanted == CHAT
    return text is not None and asks_as(asked, text)


def _of_template(directory: Path) -> str | None:
    """A question in the chat template of a source's tokenizer; None where that has none, or refuses it.

    EndlessTemplateError for a template that is beyond all bounds.
    """
    try:
        tokenizer = tokenizers.load(directory)
    except SourceError:  # the family says so, where it needs one
        return None
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": QUESTION}]
    make = functools.partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
    try:
        text = rendered(tokenizer, messages, lambda: str(make(messages)), add_generation_prompt=True)
    except EndlessTemplateError:
        raise
    except ChatTemplateError as error:
        logger.warning("what prompt=chat means for a source is not known: %s", error)
        return None
    return text.removeprefix(tokenizer.bos_token or "")


def _sentence(benchmark: str, unlike: Mapping[str, str | None]) -> str:
    told = ", ".join(f"{name} ({_told(text)})" for name, text in unlike.items())
    return (
        f"benchmark {benchmark!r} asks all models with one prompt, not as these sources were trained to be asked: "
        f"{told}. Their scores may be lower than published ones"
    )


def _told(text: str | None) -> str:
    return " ... ".join(map(shown, marks(text))) if text and marks(text) else "its chat template"
