"""The chat template that a benchmark asks by: the tokenizer's own, or the one of several that is named."""

import copy
import logging
from dataclasses import dataclass, field

from lm_eval.models.huggingface import HFLM

from evohydra.families.chat_templates import ChatTemplateError, EndlessTemplateError, rendered
from evohydra.scoring.benchmarks import BenchmarkError

logger = logging.getLogger(__name__)

History = list[dict[str, str]]


def choose_template(name: str, lm: HFLM, wanted: bool | str) -> None:
    """Make lm-eval's model `lm` ask benchmark `name` by the template that is `wanted`: true, or a template's name.

    Raises BenchmarkError where its tokenizer (of models with images, the processor) has none, or none of that name.
    """
    owner = getattr(lm, "processor", None) or lm.tokenizer
    known = getattr(owner, "chat_template", None)
    key = f"benchmark {name!r}: chat_template={str(wanted).lower() if wanted is True else wanted}"
    if not known:
        raise BenchmarkError(
            f"{key}: expected a tokenizer with a chat template, the merge's has none; take chat_template=false, or say "
            "with prompt_format how to ask"
        )
    names = sorted(known) if isinstance(known, dict) else ["default"]
    if isinstance(wanted, str) and (wanted not in names or not isinstance(known, dict)):
        raise BenchmarkError(f"{key}: expected true, or the name of a template of the tokenizer, {names}")
    if wanted is True and "default" not in names:
        raise BenchmarkError(
            f"{key}: expected the name of one of the tokenizer's templates {names}, none is the default"
        )
    if isinstance(wanted, str) and owner is not lm.tokenizer:
        raise BenchmarkError(f"{key}: models with images are asked by their default template; expected true")
    if isinstance(wanted, str):
        lm.chat_template_args = {**lm.chat_template_args, "chat_template": wanted}


@dataclass
class Prompts:
    """Makes a prompt of a list of messages for benchmark `name`, as lm-eval's model `lm` does.

    lm-eval leaves the task's own system message out where the template refuses it; so is it here, with a warning. A
    `system_prompt` of the user is never left out. BenchmarkError for what the template refuses, and for one that is
    beyond all bounds.
    """

    name: str
    lm: HFLM
    wanted: bool | str
    system_prompt: str | None
    _told: set[str] = field(default_factory=set)

    def __call__(self, chat_history: History, add_generation_prompt: bool = True) -> str:
        """The prompt, see lm-eval's `apply_chat_template`."""
        try:
            return self._prompt(chat_history, add_generation_prompt)
        except ChatTemplateError as error:
            system = (
                f" (benchmark.{self.name}.system_prompt is the message of the system)" if self.system_prompt else ""
            )
            raise BenchmarkError(
                f"benchmark {self.name!r}: {error}{system}; chat_template=false asks without it"
            ) from error

    def _prompt(self, history: History, begun: bool) -> str:
        try:
            return self._rendered(history, begun)
        except EndlessTemplateError:
            raise
        except ChatTemplateError as error:
            rest = [each for each in history if each["role"] != "system"]
            if self.system_prompt or len(rest) == len(history):
                raise
            text = self._rendered(rest, begun)
            if str(error) not in self._told:
                self._told.add(str(error))
                logger.warning("benchmark %r asks without the task's system message: %s", self.name, error)
            return text

    def _rendered(self, history: History, begun: bool) -> str:
        lm, more = self.lm, {**self.lm.chat_template_args}
        processor = getattr(lm, "processor", None)

        def render() -> str:
            if processor is not None:  # the model makes parts of the messages first, in place
                return str(lm.apply_chat_template(copy.deepcopy(history), begun))
            given = {"continue_final_message": not begun, **more}
            return str(lm.tokenizer.apply_chat_template(history, tokenize=False, add_generation_prompt=begun, **given))

        arguments = {key: value for key, value in more.items() if key != "chat_template"}
        named = self.wanted if isinstance(self.wanted, str) else None
        owner = processor or lm.tokenizer
        return rendered(owner, history, render, named, add_generation_prompt=begun, **arguments)
