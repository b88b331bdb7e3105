"""A task of lm-evaluation-harness on the live model, with its scores example by example."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from numpy.typing import NDArray

from evohydra.families import LiveModel
from evohydra.scoring.benchmarks import BenchmarkError, Change, CommonAnswer, GivenAnswer, Lengths, Split
from evohydra.scoring.benchmarks.chat_templates import Prompts, choose_template
from evohydra.scoring.benchmarks.contents import versions_of
from evohydra.scoring.benchmarks.images import text_of
from evohydra.scoring.benchmarks.likelihood import Per, Texts
from evohydra.scoring.benchmarks.lm_eval_asking import answer, changed, ends_of, given_answers, lacking
from evohydra.scoring.benchmarks.lm_eval_identity import PACKAGES, of_split, samples
from evohydra.scoring.benchmarks.lm_eval_metrics import chosen_metric, measure_of, scores_of
from evohydra.scoring.benchmarks.lm_eval_options import TaskOptions
from evohydra.scoring.benchmarks.lm_eval_references import (
    check_references,
    check_verifiable,
    of_choices,
    of_texts,
    of_written,
    read_with_references,
    refusal,
)
from evohydra.scoring.benchmarks.lm_eval_settings import FEWSHOT_SEED, check_filter, configure
from evohydra.scoring.benchmarks.lm_eval_shots import keep_shots_apart, shown_questions
from evohydra.scoring.benchmarks.lm_eval_words import answered, described, lengths_of
from evohydra.scoring.benchmarks.not_numbers import check_choices, check_log_likelihoods
from evohydra.scoring.benchmarks.parts import part_of_batches
from evohydra.scoring.benchmarks.private_lm_eval import by_document, set_instances
from evohydra.scoring.benchmarks.prompt_formats import QUESTION, wrap
from evohydra.scoring.benchmarks.sampling import DRAWS
from evohydra.scoring.benchmarks.served_lm import language_model
from evohydra.scoring.benchmarks.splits import Slice, check_disjoint
from evohydra.scoring.benchmarks.token_texts import TokenText

OF_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # the name of a data set there
TOLD = 32  # examples whose length is looked at


class LMEvalBenchmark:
    """One lm-eval task; its requests are built once a run. Tasks without images ask any language model."""

    families: tuple[str, ...] = ("causal_lm",)

    def __init__(
        self, name: str, tasks: Mapping[Split, Task], slices: Mapping[Split, Slice], options: TaskOptions
    ) -> None:
        self.name = name
        self._options = options
        self._lm: HFLM | None = None
        self._live: LiveModel | None = None
        self._requests: dict[Split, list[list[object]]] = {}
        self._answers: list[object] = []
        self._answered: list[Instance] = []
        self._tasks: dict[Split, Task] = {}
        self._indices = {
            split: slices[split].indices(len(task.eval_docs), options.shuffle, options.limit)
            for split, task in tasks.items()
        }
        self._shows_images = any(getattr(task, "MULTIMODAL", False) for task in tasks.values())
        if self._shows_images:
            self.families = ("vision_language",)
        texts = {s: [text_of(tasks[s].eval_docs[i]) for i in indices] for s, indices in self._indices.items()}
        check_disjoint(name, texts)
        for split, task in tasks.items():
            self._tasks[split] = copy.copy(task)  # shares the data, holds requests of its own
            configure(name, self._tasks[split], options)
        keep_shots_apart(name, self._tasks, self._indices)
        self._metric = chosen_metric(name, self._tasks, options.metric)
        self._measure = measure_of(self._tasks["search"], self._metric)
        check_filter(name, self._tasks, options.filter)

    @property
    def title(self) -> str:
        """The name, the test's task where the name does not say it, and what scores are where the metric does not."""
        task = str(self._tasks["test"].config.task)
        named = self.name if task in self.name else f"{self.name}: {task}"
        known = self._measure == self._metric
        return named if known else f"{named} ({self._measure} instead of {self._metric})"

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets of the hub that its splits are from."""
        paths = [str(task.config.dataset_path or "") for task in self._tasks.values()]
        return tuple(dict.fromkeys(path for path in paths if OF_HUB.fullmatch(path) and not Path(path).exists()))

    @property
    def generation(self) -> list[Mapping[str, object]]:
        """How answers are to be written: generation_kwargs of each split whose examples are answered in words."""
        written = [task for task in self._tasks.values() if task.OUTPUT_TYPE == "generate_until"]
        return [task.get_config("generation_kwargs") or {} for task in written]

    def size(self, split: Split) -> int:
        """The number of examples in `split`."""
        return len(self._indices.get(split, ()))

    def identity(self) -> dict[str, object]:
        """What the scores of a model depend on: each split's examples, the metric, and how it is asked."""
        options = self._options
        splits = {
            split: of_split(task, self._indices[split], FEWSHOT_SEED, options.system_prompt)
            for split, task in self._tasks.items()
        }
        sampled = any(samples(task) for task in self._tasks.values())
        packages = {*PACKAGES, *(("pillow",) if self._shows_images else ())}
        return {
            "kind": "lm_eval",
            "metric": self._metric,
            "measure": self._measure,
            "filter": options.filter,
            "chat_template": options.chat_template,
            "system_prompt": options.system_prompt,
            "fewshot_as_multiturn": options.fewshot_as_multiturn,
            **({} if options.prefix_cache else {"prefix_cache": False}),
            **({"prompt_format": options.prompt_format} if options.prompt_format else {}),
            **({"sampling": {"seed": options.sampling_seed, "draws": DRAWS}} if sampled else {}),
            "splits": {split: found for split, (found, _) in splits.items()},
            "versions": versions_of(packages.union(*(libraries for _, libraries in splits.values()))),
        }

    def __call__(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """The metric for each example of `split`, or of those at `examples` (n,); negated where lower is better."""
        asked = self._asked(live, split)
        return self._scores(split, asked if examples is None else [asked[place] for place in examples])

    def _scores(self, split: Split, requests: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        """The metric for each example, whose requests these are."""
        task = self._tasks[split]
        set_instances(task, (instance for each in requests for instance in each))
        for instance in task.instances:
            instance.resps, instance.filtered_resps = [], {}
        try:
            answer(self._lm, task)
        except AssertionError as error:  # lm-eval's way to refuse settings
            raise BenchmarkError(
                f"benchmark {self.name!r}: lm-eval refuses its settings for this model: {error} (the length of answers "
                f"is benchmark.{self.name}.generation_kwargs.max_gen_toks)"
            ) from error
        self._answered = list(task.instances)
        self._answers = [answer for instance in task.instances for answer in instance.resps]
        check_log_likelihoods(self._answers)
        check_choices([[a for one in requests for a in one.resps] for requests in by_document(task.instances)])
        scores = scores_of(self.name, task, self._metric, self._options.filter)
        assert len(scores) == len(requests)
        return scores

    def ends(self) -> tuple[int, int, int]:
        """How the answers of the last call have ended, see `Audited`."""
        return ends_of(self._lm, self._answered)

    def lacks(self, change: Change) -> str | None:
        """Why examples cannot be asked with this change, see `Audited`."""
        return lacking(self._tasks["test"], change, self._options.second_prompt)

    def shots(self) -> list[str]:
        """The questions of few-shot examples, see `Audited`."""
        return shown_questions(self._tasks["test"])

    def asked(
        self, live: LiveModel, split: Split, examples: Sequence[int], change: Change = "none"
    ) -> list[GivenAnswer]:
        """What the live model writes, see `Audited`."""
        task, asked = self._tasks[split], self._asked(live, split)
        requests = [changed(self._lm, task, asked[p], change, self._options.second_prompt) for p in examples]
        scores = self._scores(split, requests)
        texts = answered(task, self._metric, requests)
        return given_answers(self._lm, requests, texts, scores.tolist(), self._options.filter)

    def _asked(self, live: LiveModel, split: Split) -> list[list[object]]:
        """The requests for each example of a split."""
        if self._lm is None or self._live is not live:
            self._lm, self._live, self._requests = self._live_lm(live), live, {}
        if split not in self._requests:
            self._requests[split] = self._built_requests(self._lm, self._tasks[split], split)
        return self._requests[split]

    def part(
        self, live: LiveModel, split: Split, examples: Sequence[int] | None, index: int, count: int
    ) -> Sequence[int]:
        """The positions in part `index` of `count`: whole batches of prompts, where answers are generated."""
        asked = self._asked(live, split)
        return part_of_batches(self._lm, asked if examples is None else [asked[at] for at in examples], index, count)

    def common_answer(self) -> CommonAnswer | None:
        """The generated text that all answers of the last call are, see `TellsAnswers`."""
        texts = {answer.strip() if isinstance(answer, str) else None for answer in self._answers}
        text = texts.pop() if len(texts) == 1 else None
        return None if text is None else CommonAnswer(text, len(self._answers))

    def describe(self, split: Split, index: int) -> tuple[str, str]:
        """The prompt of example `index` of `split` without shots, and its target or right choice."""
        task = self._tasks[split]
        return described(task, task.eval_docs[self._indices[split][index]])

    def lengths(self, split: Split, tokens: Callable[[str], int]) -> Lengths:
        """How long the first examples of `split` are, see `TellsLengths`."""
        task = self._tasks[split]
        return lengths_of(task, [task.eval_docs[index] for index in self._indices[split][:TOLD]], tokens)

    def asked_as(self) -> str | None:
        """A prompt as it is asked, without shots; None where it is the tokenizer's chat template that makes it."""
        if self._options.chat_template:
            return None
        prompt, _ = self.describe("search", 0)
        return (self._options.prompt_format or QUESTION).replace(QUESTION, prompt)

    def answers(self, live: LiveModel, split: Split, examples: Sequence[int]) -> list[str]:
        """What the live model writes or chooses."""
        self(live, split, examples)
        return answered(self._tasks[split], self._metric, [self._requests[split][place] for place in examples])

    @property
    def complete_references(self) -> bool | None:
        """Whether references are all that a model should write, as choices are; None: not known."""
        choices = self._tasks["search"].OUTPUT_TYPE == "multiple_choice"
        return True if choices else self._options.complete_references

    def check_references(self) -> None:
        """BenchmarkError where an example of the search split has no right answer that a model can be asked for."""
        task = self._tasks["search"]
        check_references(self.name, task, self._metric, [task.eval_docs[index] for index in self._indices["search"]])

    def log_likelihoods(
        self, live: LiveModel, split: Split, examples: Sequence[int] | None, per: Per
    ) -> NDArray[np.float64]:
        """(n,): how likely the model finds the reference of each example, see `likelihood.Likely`."""
        task, asked = self._tasks[split], self._asked(live, split)
        chosen = asked if examples is None else [asked[place] for place in examples]
        if task.OUTPUT_TYPE == "multiple_choice":
            return of_choices(self._lm, task, chosen)
        return of_texts(self._lm, task, chosen, per, templated=bool(self._options.chat_template))

    def lacks_texts(self) -> str | None:
        """Why its examples cannot be read as texts, see `token_texts.GivesTexts`."""
        reason = refusal(self._tasks["search"])
        return None if reason is None else f"its task {reason}"

    def texts(self, live: LiveModel, split: Split, examples: Sequence[int]) -> list[TokenText]:
        """Examples with their first references, see `token_texts.GivesTexts`."""
        asked, templated = self._asked(live, split), bool(self._options.chat_template)
        chosen = [asked[place] for place in examples]
        return read_with_references(self.name, self._lm, self._tasks[split], chosen, templated=templated)

    def check_verifiable(self) -> None:
        """BenchmarkError where its metric does not say which of a model's answers are right."""
        check_verifiable(self.name, self._tasks["search"], self._metric)

    def written(self, live: LiveModel, split: Split, examples: Sequence[int]) -> tuple[list[str], list[float]]:
        """The answers of the live model and their scores, see `likelihood.Verifiable`."""
        scores = self(live, split, examples).tolist()
        return answered(self._tasks[split], self._metric, [self._requests[split][p] for p in examples]), scores

    def log_likelihoods_of(
        self, live: LiveModel, split: Split, examples: Sequence[int], per: Per, texts: Texts
    ) -> NDArray[np.float64]:
        """(n,): how likely the model finds the likeliest of `texts`, see `likelihood.Verifiable`."""
        asked = self._asked(live, split)  # which makes self._lm
        return of_written(self._lm, asked, examples, per, texts)

    def _live_lm(self, live: LiveModel) -> HFLM:
        if self._shows_images:
            from evohydra.scoring.benchmarks.live_vlm import LiveMultimodalLM  # takes seconds to import

            return LiveMultimodalLM(self.name, live, self._options.batch_size, self._options.sampling_seed)
        options = self._options
        return language_model(live, options.batch_size, options.sampling_seed, bool(options.prefix_cache))

    def _built_requests(self, lm: HFLM, task: Task, split: Split) -> list[list[object]]:
        """The requests of each example of `split`, in the order of the split; lm-eval keeps that of the data."""
        wanted = self._options.chat_template
        templated = bool(wanted)
        if templated:
            choose_template(self.name, lm, wanted)
        task.build_all_requests(
            samples=self._indices[split],
            system_instruction=self._options.system_prompt,
            apply_chat_template=templated,
            fewshot_as_multiturn=self._options.fewshot_as_multiturn,
            chat_template=Prompts(self.name, lm, wanted, self._options.system_prompt) if templated else None,
            tokenizer_name=lm.tokenizer_name if templated else "",
        )
        if self._options.prompt_format:
            wrap(task.instances, self._options.prompt_format, self.name)
        indices = self._indices[split]
        in_the_data = dict(zip(sorted(indices), by_document(task.instances), strict=True))
        return [in_the_data[index] for index in indices]
