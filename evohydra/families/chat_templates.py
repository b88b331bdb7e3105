"""Chat templates are programs of strangers: they are run within bounds, and what they refuse is one sentence."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from evohydra.checks import shown, trials
from evohydra.files import read_json, read_text

MOST_GROWTH = 100  # characters for each of the messages
MOST_ADDED = 100_000  # characters; the longest templates have some 10,000
LONGEST = 300  # characters of what a template says

Messages = Sequence[Mapping[str, object]]

_TRIED: set[tuple[str, str]] = set()  # templates, with the roles of the messages that they were tried with


class ChatTemplateError(ValueError):
    """A chat template that refuses messages, fails on them, or is beyond all bounds."""


class EndlessTemplateError(ChatTemplateError):
    """A chat template that is beyond all bounds of time, memory or length."""


def rendered(
    owner: object, messages: Messages, render: Callable[[], str], wanted: str | None = None, **more: object
) -> str:
    """What `render` makes of `messages` by the chat template of `owner`, a tokenizer or processor.

    The first time that a template meets messages of such roles it is tried in a process of its own, with bounds of time
    and memory; each rendering has bounds of time and length. wanted: the name of a template, where there are several.
    more: what else the template is given. Raises ChatTemplateError, which names the template's file and its words.
    """
    template = _text(owner, wanted)
    if template is None:  # transformers says that there is none
        return render()
    most = MOST_ADDED + MOST_GROWTH * sum(len(str(each)) for each in messages)
    try:
        _try_once(owner, template, messages, most, more)
        with trials.within(trials.SECONDS):
            text = render()
        _check_length(len(text), most)
    except trials.BeyondBoundsError as error:
        raise EndlessTemplateError(f"the chat template {_named(owner, template)} {error}") from error
    except MemoryError as error:
        raise EndlessTemplateError(f"the chat template {_named(owner, template)} takes too much memory") from error
    except RecursionError as error:
        raise ChatTemplateError(f"the chat template {_named(owner, template)} is nested too deep") from error
    except Exception as error:
        said = " ".join(str(error).split())[:LONGEST] or type(error).__name__
        raise ChatTemplateError(
            f"the chat template {_named(owner, template)} refuses this prompt ({_roles(messages)}): {said}"
        ) from error
    return text


def _try_once(owner: object, template: str, messages: Messages, most: int, more: Mapping[str, object]) -> None:
    key = (template, _roles(messages))
    if key in _TRIED:
        return
    special = {name: str(value) for name, value in _tokenizer(owner).special_tokens_map.items()}
    given = {**special, "tools": None, "documents": None, **more, "messages": [_plain(each) for each in messages]}
    with suppress(trials.FailedTrialError):  # the rendering itself says why, in the library's own words
        _check_length(trials.tried("template", template=template, variables=given), most)
    _TRIED.add(key)


def _plain(message: Mapping[str, object]) -> dict[str, object]:
    """A message as JSON: of a list only the kinds and the texts of its parts, which may hold pictures."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            {key: part.get(key) for key in ("type", "text") if key in part} if isinstance(part, Mapping) else str(part)
            for part in content
        ]
        return {"role": str(message.get("role")), "content": parts}
    return {key: value if value is None else str(value) for key, value in message.items()}


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise trials.BeyondBoundsError(f"makes more than {most} characters of one prompt")


def _roles(messages: Messages) -> str:
    """ "messages of system, user" """
    return f"messages of {', '.join(str(each.get('role')) for each in messages[:8])}"


def _tokenizer(owner: object) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = getattr(owner, "tokenizer", owner)
    return found


def _text(owner: object, wanted: str | None) -> str | None:
    """The template that is used; None where there is none."""
    known = getattr(owner, "chat_template", None)
    if isinstance(known, Mapping):
        known = known.get(wanted or "default")
    return known if isinstance(known, str) else None


def _named(owner: object, template: str) -> str:
    """In which file of the owner's directory a template is, and the template itself where none has it."""
    directory = Path(str(getattr(_tokenizer(owner), "name_or_path", "")))
    if directory.is_absolute():
        for file in (*sorted(directory.glob("*.jinja")), *sorted(directory.glob("additional_chat_templates/*.jinja"))):
            if _read(file) == template:
                return f"in {file}"
        for name in ("chat_template.json", "tokenizer_config.json", "processor_config.json"):
            if _holds(directory / name, template):
                return f"in {directory / name}"
    return shown(template)


def _read(file: Path) -> str | None:
    try:
        return read_text(file)
    except (ValueError, OSError):
        return None


def _holds(file: Path, template: str) -> bool:
    try:
        known = read_json(file).get("chat_template")
    except (ValueError, OSError):
        return False
    several = known if isinstance(known, list) else [{"template": known}]
    return any(isinstance(each, Mapping) and each.get("template") == template for each in several)
