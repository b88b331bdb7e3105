"""Chat templates of strangers that fail, or never end, are one sentence; those that end are asked by as they are."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lm_eval.models.huggingface import HFLM

from evohydra.assembly.prompts import doubts_about_prompts
from evohydra.checks import trials
from evohydra.families import chat_templates, tokenizers
from evohydra.families.causal_lm import LiveCausalLM
from evohydra.families.chat_templates import ChatTemplateError, EndlessTemplateError, rendered
from evohydra.families.declared import Source
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.chat_templates import Prompts
from tests import tiny_models
from tests.test_taken_options import benchmark
from tests.test_taken_options import live as live
from tests.test_taken_options import root as root
from tests.test_visual_qa import benchmark as visual_qa
from tests.test_visual_qa import llava as llava
from tests.test_visual_qa import questions as questions
from tests.waiting import HANGS

NESTED = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
DOUBLED = "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<{{ m.content }}>{% endfor %}"
)
ASKED = [{"role": "user", "content": "1+1="}]


@pytest.fixture(autouse=True)
def _little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SECONDS", 1.0)
    monkeypatch.setattr(chat_templates, "_TRIED", set())


def written(directory: Path, template: str) -> Any:
    made = tiny_models.tokenizer()
    made.chat_template = template
    made.save_pretrained(directory)
    return tokenizers.load(directory)


def of(tokenizer: Any, messages: list[dict[str, str]] = ASKED) -> str:
    return rendered(tokenizer, messages, lambda: str(tokenizer.apply_chat_template(messages, tokenize=False)))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no') }}", r"refuses this prompt \(messages of user\): no$"),
        ("{% for %}", "refuses this prompt .*: Expected an expression"),
        ("{{ messages[5].content.x.y }}", "refuses this prompt .*: .* no element 5"),
        ("{{ 1 / 0 }}", "refuses this prompt .*: division by zero"),
        ("{{ 1 + 'a' }}", "refuses this prompt .*: unsupported operand"),
        ("{{ ''.__class__.__mro__ }}", "refuses this prompt .*: access to attribute"),
        ("{{ " + "(" * 150 + "1" + ")" * 150 + " + " * 1 + "'a' }}", "refuses this prompt|nested too deep"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "nested too deep"),
    ],
    ids=["raises", "syntax", "undefined", "zero", "types", "sandbox", "parentheses", "recursion"],
)
def test_a_template_that_fails_is_told_with_its_file_and_its_words(tmp_path: Path, template: str, reason: str) -> None:
    with pytest.raises(ChatTemplateError, match=reason) as told:
        of(written(tmp_path, template))
    assert str(told.value).startswith(f"the chat template in {tmp_path / 'chat_template.jinja'} ")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (NESTED, "takes more than 1 s"),
        ("{{ messages[0]['content'] * 10**11 }}", "takes more than 2 GiB of memory"),
        ("{{ (9 ** 9) ** 99999999 }}", "takes more than 1 s"),
        (DOUBLED, "takes more than"),
        ("{{ 'a'.center(10 ** 11) }}", "takes more than 2 GiB of memory"),
        ("{{ '%100000000000d' % 1 }}", "takes more than 2 GiB of memory|refuses this prompt"),
        ("{{ 'a' * 200000 }}", "makes more than 10[0-9]{4} characters of one prompt"),
    ],
    ids=["loops", "times", "power", "doubled", "centred", "format", "long"],
)
def test_a_template_that_is_beyond_all_bounds_is_ended(tmp_path: Path, template: str, reason: str) -> None:
    tokenizer = written(tmp_path, template)
    begin = time.monotonic()
    with pytest.raises(ChatTemplateError, match=reason):
        of(tokenizer)
    assert time.monotonic() - begin < HANGS


def test_a_template_that_never_ends_for_one_prompt_alone_is_ended_there(tmp_path: Path) -> None:
    """It was tried with another one: a loop in Python is ended in any thread, and the thread goes on."""
    tokenizer = written(
        tmp_path, "{% if messages[0].content == 'b' %}" + NESTED + "{% endif %}{{ messages[0].content }}"
    )
    assert of(tokenizer, [{"role": "user", "content": "a"}]) == "a"
    told: list[str] = []

    def ask() -> None:
        try:
            of(tokenizer, [{"role": "user", "content": "b"}])
        except EndlessTemplateError as error:
            told.append(str(error))
        told.append(of(tokenizer, [{"role": "user", "content": "c"}]))

    other = threading.Thread(target=ask)
    other.start()
    other.join(30)
    assert told[0].endswith("takes more than 1 s")
    assert told[1] == "c"
    ask()
    assert len(told) == 4


@pytest.mark.parametrize(
    "template",
    [
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}{{ m | tojson(indent=2) }}{% endfor %}",
        "{{ strftime_now('%Y') }}{{ bos_token }}{{ dict(a=1).a }}{{ namespace(b=2).b }}",
    ],
)
def test_what_templates_of_real_models_use_is_known_where_they_are_tried(tmp_path: Path, template: str) -> None:
    tokenizer = written(tmp_path, template)
    assert of(tokenizer) == tokenizer.apply_chat_template(ASKED, tokenize=False)
    variables = {"messages": ASKED, "bos_token": "<s>"}
    assert trials.tried("template", template=template, variables=variables) > 0


def ask_with(live: LiveCausalLM, root: Path, template: str, **options: object) -> list[Any]:
    live.tokenizer.chat_template = template  # type: ignore[attr-defined]
    asked = benchmark("sums", root, chat_template=True, **options)
    asked(live, "search", [0])
    return list(asked._asked(live, "search")[0])


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no') }}", r"refuses this prompt \(messages of user\): no; chat_template=false"),
        (NESTED, "takes more than 1 s; chat_template=false asks without it"),
    ],
)
def test_a_benchmark_that_asks_by_such_a_template_is_named(
    template: str, reason: str, root: Path, live: LiveCausalLM
) -> None:
    with pytest.raises(BenchmarkError, match=rf"benchmark 'sums': the chat template .*{reason}"):
        ask_with(live, root, template)


def test_a_system_prompt_is_not_left_out_where_the_template_has_no_place_for_it(root: Path, live: LiveCausalLM) -> None:
    assert ask_with(live, root, NO_SYSTEM)[0].args[0] == "<0+0=>"
    with pytest.raises(
        BenchmarkError, match=r"messages of system, user\): no system role \(benchmark.sums.system_prompt"
    ):
        ask_with(live, root, NO_SYSTEM, system_prompt="Sums.")


def test_a_task_s_own_system_message_is_left_out_with_a_warning(
    root: Path, live: LiveCausalLM, caplog: pytest.LogCaptureFixture
) -> None:
    live.tokenizer.chat_template = NO_SYSTEM  # type: ignore[attr-defined]
    lm: Any = SimpleNamespace(tokenizer=live.tokenizer, chat_template_args={})
    made = Prompts("sums", lm, True, None)
    history = [{"role": "system", "content": "Sums."}, *ASKED]
    assert [made(history), made(history)] == ["<1+1=>"] * 2
    (said,) = caplog.messages
    assert "benchmark 'sums' asks without the task's system message: the chat template" in said
    assert said.endswith("no system role")


def test_questions_about_images_by_such_a_template(llava: Any, questions: Path) -> None:
    asked = visual_qa(questions)
    assert len(asked(llava, "search")) == 6
    for template, reason in [
        ("{{ raise_exception('no') }}", "refuses this prompt .*: no;"),
        (NESTED, "more than 1 s;"),
    ]:
        llava.processor.chat_template = template
        with pytest.raises(BenchmarkError, match=rf"the chat template .*{reason} benchmark\.vqa\.prompt"):
            visual_qa(questions)(llava, "search")


def test_prompts_are_those_of_lm_eval(root: Path, live: LiveCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = "{% if add_generation_prompt %}[assistant]{% endif %}"
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}" + begun
    options = {"num_fewshot": 2, "fewshot_as_multiturn": True, "system_prompt": "Sums."}
    ours = ask_with(live, root, template, **options)[0].args[0]
    monkeypatch.setattr(
        "evohydra.scoring.benchmarks.lm_eval_benchmark.Prompts",
        lambda name, lm, *rest: HFLM.apply_chat_template.__get__(lm),
    )
    assert ours == ask_with(live, root, template, **options)[0].args[0]
    assert ours.startswith("[system]Sums.[user]")
    assert ours.endswith("[assistant]")


def test_a_source_whose_template_never_ends_is_refused_where_it_is_looked_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Asking:
        name = "some"

        def asked_as(self) -> str:
            return "1+1="

    def doubts(template: str) -> list[str]:
        written(tmp_path, template)
        return doubts_about_prompts({"one": Source("", "", prompt="chat")}, {"one": tmp_path}, {"some": Asking()})  # type: ignore[dict-item]

    with pytest.raises(EndlessTemplateError, match=r"chat_template.jinja takes more than 1 s$"):
        doubts(NESTED)
    assert "one (its chat template)" in doubts("{{ raise_exception('no') }}")[0]
    assert f"in {tmp_path / 'chat_template.jinja'} refuses this prompt (messages of user): no" in caplog.text
