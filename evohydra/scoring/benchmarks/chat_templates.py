"""The chat template that a benchmark asks by: the tokenizer's own, or the one of several that is named."""

from lm_eval.models.huggingface import HFLM

from evohydra.scoring.benchmarks import BenchmarkError


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
