"""What an inference engine makes of a checkpoint; it is run by its path, in the Python that has the engine.

    PYTHON tests/engines/answering.py ENGINE MODEL QUESTIONS ANSWERS

ENGINE is transformers, vllm, ctranslate2 (MODEL: as its converter has written it) or llama.cpp (MODEL: a GGUF file).
QUESTIONS holds JSON data: `texts`, `prompts` (tokens), `limit` (tokens of an answer), `ends` (tokens that end one) and
`references` (the tokens of an answer for the first prompts). ANSWERS: `version`; `tokens` of the texts; `answers`,
greedy ones to the prompts, without what ended them; `likely`, the log-probability of each token of a reference.
"""

import importlib.metadata
import json
import os
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answers = dict[str, object]
Tokens = list[int]


def transformers(model: str, asked: "Asked") -> Answers:
    """Transformers, one prompt after the other. As in all engines here, the arithmetic is float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    answers, likely = [], []
    with torch.inference_mode():
        for prompt in asked.prompts:
            told = loaded.generate(
                torch.tensor([prompt]), max_new_tokens=asked.limit, do_sample=False, eos_token_id=asked.ends,
                pad_token_id=asked.ends[0],
            )  # fmt: skip
            answers.append(asked.without_end(told[0, len(prompt) :].tolist()))
        for prompt, reference in asked.pairs:
            logits = loaded(torch.tensor([prompt + reference])).logits[0].float().log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(reference) - 1)
            likely.append([float(logits[at, token]) for at, token in zip(places, reference, strict=True)])
    tokens = [tokenizer(text, add_special_tokens=True)["input_ids"] for text in asked.texts]
    return {
        "version": importlib.metadata.version("transformers"),
        "tokens": tokens,
        "answers": answers,
        "likely": likely,
    }


def vllm(model: str, asked: "Asked") -> Answers:
    """VLLM on a CPU, all prompts at once."""
    for name, value in {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams, __version__

    longest = max(len(prompt) for prompt in asked.prompts) + asked.limit
    llm = LLM(
        model, dtype="float32", max_model_len=max(longest, 64), enforce_eager=True, generation_config="vllm",
        kv_cache_memory_bytes=256 * 1024**2,
    )  # fmt: skip
    greedy = SamplingParams(temperature=0, max_tokens=asked.limit, stop_token_ids=asked.ends, ignore_eos=True)
    told = llm.generate([{"prompt_token_ids": each} for each in asked.prompts], greedy, use_tqdm=False)
    answers = [asked.without_end(list(each.outputs[0].token_ids)) for each in told]
    one = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    likely = []
    read = llm.generate(
        [{"prompt_token_ids": prompt + reference} for prompt, reference in asked.pairs], one, use_tqdm=False
    )
    for (_, reference), each in zip(asked.pairs, read, strict=True):
        known = each.prompt_logprobs[-len(reference) :]
        likely.append([found[token].logprob for token, found in zip(reference, known, strict=True)])
    tokenizer = llm.get_tokenizer()
    tokens = [tokenizer(text, add_special_tokens=True)["input_ids"] for text in asked.texts]
    return {"version": __version__, "tokens": tokens, "answers": answers, "likely": likely}


def ctranslate2(model: str, asked: "Asked") -> Answers:
    """CTranslate2; texts are its caller's business, it takes tokens."""
    import ctranslate2 as library

    names = json.loads((Path(model) / "vocabulary.json").read_text())
    generator = library.Generator(model, device="cpu", compute_type="float32", intra_threads=1)
    told = generator.generate_batch(
        [[names[token] for token in prompt] for prompt in asked.prompts], max_length=asked.limit, sampling_topk=1,
        include_prompt_in_result=False, end_token=asked.ends,
    )  # fmt: skip
    answers = [asked.without_end(list(each.sequences_ids[0])) for each in told]
    likely = []
    for prompt, reference in asked.pairs:
        import numpy as np

        logits = np.array(generator.forward_batch([prompt + reference], return_log_probs=True))[0]
        places = range(len(prompt) - 1, len(prompt) + len(reference) - 1)
        likely.append([float(logits[at, token]) for at, token in zip(places, reference, strict=True)])
    return {"version": library.__version__, "tokens": None, "answers": answers, "likely": likely}


def llama_cpp(model: str, asked: "Asked") -> Answers:
    """llama.cpp by xllamacpp. It tells probabilities of what it writes: a reference is asked for token by token."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.n_ctx, parameters.n_parallel, parameters.warmup = 1024, 1, False
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # F16 if it is not told
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(parameters)

    def told(path: str, **request: object) -> dict[str, object]:
        posted = urllib.request.Request(
            f"{server.listening_address}{path}", json.dumps(request).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(posted, timeout=300) as answer:
            found: dict[str, object] = json.loads(answer.read())
        return found

    greedy = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "cache_prompt": False, "return_tokens": True}
    tokens = [told("/tokenize", content=text, add_special=True, parse_special=True)["tokens"] for text in asked.texts]
    answers, likely = [], []
    for prompt in asked.prompts:
        found = told("/completion", prompt=prompt, n_predict=asked.limit, **greedy)["tokens"]
        assert isinstance(found, list)
        answers.append(asked.without_end(found))
    for prompt, reference in asked.pairs:
        row = []
        for place, token in enumerate(reference):
            whole = told(
                "/completion", prompt=prompt + reference[:place], n_predict=1, n_probs=asked.vocabulary, **greedy
            )
            row.append(_of_token(token, whole["completion_probabilities"]))
        likely.append(row)
    version = importlib.metadata.version("xllamacpp")
    return {"version": f"xllamacpp {version}", "tokens": tokens, "answers": answers, "likely": likely}


def _of_token(token: int, steps: Any) -> float:
    """The log-probability of a token at the only step that was told."""
    (step,) = steps
    return next(float(each["logprob"]) for each in step["top_logprobs"] if each["id"] == token)


class Asked:
    """What QUESTIONS holds."""

    def __init__(self, file: Path) -> None:
        given = json.loads(file.read_text())
        self.texts: list[str] = given["texts"]
        self.prompts: list[Tokens] = given["prompts"]
        self.limit: int = given["limit"]
        self.ends: Tokens = given["ends"]
        self.vocabulary: int = given["vocabulary"]
        self.pairs: list[tuple[Tokens, Tokens]] = list(zip(self.prompts, given["references"], strict=False))

    def without_end(self, answer: Tokens) -> Tokens:
        """The answer up to the token that ends it."""
        return answer[: next((place for place, token in enumerate(answer) if token in self.ends), len(answer))]


ENGINES: dict[str, Callable[[str, Asked], Answers]] = {
    "transformers": transformers, "vllm": vllm, "ctranslate2": ctranslate2, "llama.cpp": llama_cpp,
}  # fmt: skip


if __name__ == "__main__":
    engine, model, questions, answers = sys.argv[1:]
    Path(answers).write_text(json.dumps(ENGINES[engine](model, Asked(Path(questions)))))
