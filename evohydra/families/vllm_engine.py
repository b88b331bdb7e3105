"""vLLM as the engine that runs the models of a search: in this process, with our merge inside its worker."""

import importlib.util
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from evohydra.families.serving import Answer, EngineError
from evohydra.families.vllm_adapters import Adapters, Genomes
from evohydra.families.vllm_worker import EXTENSION
from evohydra.merging.engine import Engine
from evohydra.recipe import Merge, Node

NAME = "vllm"
# Before vLLM is imported. The engine lives in this process: what it does then follows from the requests alone, and it
# ends with the process. Whatever the user has set stays.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
INVARIANT, HAS_INVARIANT = "VLLM_BATCH_INVARIANT", (9, 0)  # the same bits in any batch; compute capability from which
BITS = f"repeat on a CPU and with {INVARIANT}=1; else answers may differ where two tokens are nearly equal"
BITS_TOGETHER = "answers may differ where two tokens are nearly equal, also where a run goes on: with other batches"
ONE_TOKEN = 1  # an engine writes at least one, also where only the prompt is of interest
GIGABYTE = 1024**3


def is_installed() -> bool:
    """Whether this Python can import vLLM."""
    return importlib.util.find_spec(NAME) is not None


def invariance(on_cpu: bool) -> dict[str, str]:
    """The variable that asks vLLM for the same bits in any batch, where the GPU has that."""
    has = not on_cpu and torch.cuda.is_available() and torch.cuda.get_device_capability() >= HAS_INVARIANT
    return {INVARIANT: "1"} if has else {}


class VLLMEngine:
    """A `TextEngine`. The model is the one that config.json in `form` describes; its weights come with recipes.

    names, tied: of the tensors that it takes, see `MergeExtension.merge`. context, sequences: tokens of a text, and
    texts at once. memory: the share of a GPU that is for model and answers; cache_gb: of a CPU's memory that for keys
    and values. adapters: of genomes that come as `become_adapter`; None: all are merged.

    ValueError, with what vLLM says, where it cannot serve such a model, or lacks memory.
    """

    def __init__(
        self,
        form: Path,
        names: Sequence[str],
        tied: Mapping[str, str],
        dtype: torch.dtype,
        *,
        on_cpu: bool,
        context: int,
        sequences: int,
        memory: float,
        cache_gb: float,
        adapters: Adapters | None = None,
    ) -> None:
        for name, value in {**ENVIRONMENT, **invariance(on_cpu)}.items():
            os.environ.setdefault(name, value)
        import vllm  # takes half a minute

        self.context, self.seconds, self.tokens = context, 0.0, 0
        self._names, self._tied, self._dtype = tuple(names), dict(tied), dtype
        self._sampling = vllm.SamplingParams
        self._genomes = None if adapters is None else Genomes(adapters, dtype, self)
        self._base: Node | None = None  # which vLLM has now, where genomes are asked
        self._asked_as_adapter = False
        room = {"kv_cache_memory_bytes": int(cache_gb * GIGABYTE)} if on_cpu else {"gpu_memory_utilization": memory}
        try:
            self._llm = vllm.LLM(
                str(form),
                dtype=str(dtype).removeprefix("torch."),
                load_format="dummy",
                max_model_len=context,
                max_num_seqs=sequences,
                enforce_eager=on_cpu,
                generation_config="vllm",
                worker_extension_cls=EXTENSION,
                disable_log_stats=True,
                **room,
                **(adapters.options if adapters else {}),
            )
            self._call("evohydra_watch")
        except Exception as reason:  # vLLM has no types for what it refuses
            raise ValueError(
                f"backend=vllm: vLLM {vllm.__version__} cannot serve this model: {_in_words(reason)}. If it lacks "
                "memory, backend.context (tokens of a text), backend.sequences and backend.cache_gb (on a CPU) or "
                "backend.memory (on a GPU) say how much it takes. backend=transformers runs every model"
            ) from None

    def become(self, node: Node, engine: Engine) -> None:
        """The model of `node`, see `TextEngine`."""
        self._base, self._asked_as_adapter = None, False
        with _failing():
            if self._genomes is not None:
                self._genomes.drop()
            failure = self._call("evohydra_merge", engine, node, self._names, self._tied, self._dtype)
            forgotten = self._llm.reset_prefix_cache()
            self._llm.reset_mm_cache()
            self._call("evohydra_not_numbers")
        if not forgotten:
            raise EngineError("vLLM has not let go of the keys and values of the model before")
        if isinstance(failure, Exception):
            raise failure

    def become_adapter(self, node: Merge, engine: Engine, ahead: Sequence[Merge] = ()) -> None:
        """The base with the adapter that `node` is; those of `ahead` come next, and are asked the same."""
        assert self._genomes is not None
        assert node.base is not None
        if self._base != node.base:
            self.become(node.base, engine)
            self._base = node.base
        if not self._genomes.holds(node):
            self._genomes.load([node, *ahead], engine)
        self._asked_as_adapter = True
        self._genomes.ask_next(node)

    def log_probabilities(self, texts: Sequence[Sequence[int]]) -> list[list[tuple[float, bool]]]:
        """See `TextEngine`."""
        asked = self._sampling(temperature=0, max_tokens=ONE_TOKEN, prompt_logprobs=0, detokenize=False)
        found = []
        for text, told in zip(texts, self._answered(texts, asked, "likelihood"), strict=True):
            after = zip(text[1:], told.prompt_logprobs[1:], strict=True)
            found.append([(float(each[token].logprob), each[token].rank == 1) for token, each in after])
        return found

    def answers(
        self, prompts: Sequence[Sequence[int]], *, limit: int, stop: Sequence[str], ends: Sequence[int], penalty: float
    ) -> list[Answer]:
        """See `TextEngine`."""
        asked = self._sampling(
            temperature=0,
            max_tokens=1 if "" in stop else limit,  # an empty string is in every text
            stop=[string for string in stop if string],
            stop_token_ids=list(ends),
            ignore_eos=True,  # `ends` says which they are
            repetition_penalty=penalty,
            skip_special_tokens=False,  # stop strings may be special tokens
        )
        question = limit, tuple(stop), tuple(ends), penalty
        told = [each.outputs[0] for each in self._answered(prompts, asked, question)]
        self.tokens += sum(len(each.token_ids) for each in told)
        return [Answer(tuple(each.token_ids), each.finish_reason == "length" and "" not in stop) for each in told]

    def not_numbers(self) -> tuple[int, int]:
        """See `TextEngine`."""
        with _failing():
            found = self._call("evohydra_not_numbers")
        assert isinstance(found, tuple)
        bad, seen = found
        return int(bad), int(seen)

    def _answered(self, texts: Sequence[Sequence[int]], asked: object, question: object) -> list[Any]:
        """What vLLM tells of texts. Seconds are those of the call, which may have been for several genomes."""
        start = time.perf_counter()
        if self._genomes is None or not self._asked_as_adapter:
            told = self.told(texts, asked, None)
        else:
            told = self._genomes.told(texts, asked, (question, tuple(map(tuple, texts))))
        self.seconds += time.perf_counter() - start
        self.tokens += sum(map(len, texts))
        return told

    def told(self, texts: Sequence[Sequence[int]], asked: object, carried: Sequence[object] | None) -> list[object]:
        """What vLLM tells of texts, each with the adapter that it carries, if any."""
        given = [{"prompt_token_ids": list(text)} for text in texts]
        with _failing():
            return list(self._llm.generate(given, asked, use_tqdm=False, lora_request=carried))

    def add(self, number: int, directory: Path) -> object:
        """Load an adapter, after which its files are not needed any more."""
        from vllm.lora.request import LoRARequest

        request = LoRARequest(f"genome{number}", number, str(directory))
        with _failing():
            if not self._llm.llm_engine.add_lora(request):
                raise EngineError(f"vLLM has not taken the adapter of genome {number}")
        return request

    def remove(self, number: int) -> None:
        """Forget an adapter."""
        with _failing():
            self._llm.llm_engine.remove_lora(number)

    def _call(self, method: str, *given: object) -> object:
        (found,) = self._llm.collective_rpc(method, args=given)
        return found


@contextmanager
def _failing() -> Iterator[None]:
    """What goes wrong inside vLLM leaves an engine that nobody should ask again."""
    try:
        yield
    except EngineError:
        raise
    except Exception as reason:
        raise EngineError(f"vLLM has failed: {_in_words(reason)}") from None


def _in_words(reason: BaseException) -> str:
    return f"{type(reason).__name__}: {' '.join(str(reason).split())[:500]}".rstrip(".")
