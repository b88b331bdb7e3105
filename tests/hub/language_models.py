"""Tiny language models under the names of the published ones, with the quirks of their repositories."""

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from torch import Tensor

from tests.hub.repositories import PullRequest, Repository, folder
from tests.hub.server import Hub

MISTRAL, LLAMA = "mistralai/Mistral-7B-v0.1", "meta-llama/Llama-2-13b-hf"
SHISA, WIZARDMATH = "augmxnt/shisa-gamma-7b-v1", "WizardLMTeam/WizardMath-7B-V1.1"
ABEL, ARITHMO = "GAIR/Abel-7B-002", "upaya07/Arithmo2-Mistral-7B"
ELYZA, METAMATH = "elyza/ELYZA-japanese-Llama-2-13b-instruct", "meta-math/MetaMath-13B-V1.0"
WIZARDMATH_SAFE = "3a3082632fd2f75def2e54ae3286b4360c8d6aa2"  # the bot's commit, as on the hub
SPECIAL = ("<unk>", "<s>", "</s>")
PIECES = (
    *SPECIAL,
    *(f"<0x{byte:02X}>" for byte in range(256)),
    "▁",
    *map(chr, range(48, 58)),
    *map(chr, range(97, 123)),
)
ROWS = len(PIECES)
SIZES = {
    "vocab_size": ROWS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": False, "rms_norm_eps": 1e-5,
}  # fmt: skip
SHARD = "20KB"


def tokenizer(*added: str) -> Any:
    """Llama's kind: pieces, and the bytes of what has none; the `added` tokens come behind them."""
    backend = Tokenizer(models.BPE({p: i for i, p in enumerate(PIECES)}, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in added], special_tokens=True)
    if "[PAD]" in added:
        made.pad_token = "[PAD]"
    return made


def config(architecture: str, **changes: object) -> Any:
    kinds = {"mistral": transformers.MistralConfig, "llama": transformers.LlamaConfig}
    more = {"sliding_window": 4096} if architecture == "mistral" else {}
    return kinds[architecture](**{**SIZES, **more, **changes})


@functools.cache
def base_of(architecture: str) -> Any:
    """The base of all models of an architecture, in bfloat16."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        made = transformers.AutoModelForCausalLM.from_config(config(architecture))
        made.lm_head.weight[SPECIAL.index("</s>")] *= 20  # so that answers end after a few tokens
        return made.to(torch.bfloat16)


def fine_tuned(architecture: str, seed: int, more_rows: int = 0) -> Any:
    """A random step away from the base, with rows for added tokens."""
    model = copy.deepcopy(base_of(architecture)).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * 0.3 * max(float(parameter.std()), 0.02))
    if more_rows:
        model.resize_token_embeddings(ROWS + more_rows, mean_resizing=False)
    return model.to(torch.bfloat16)


def save_safe(model: Any, directory: Path, shard: str = SHARD) -> Path:
    """Safetensors and configuration."""
    model.save_pretrained(directory, max_shard_size=shard)
    return directory


def save_pickles(tensors: Mapping[str, Tensor], directory: Path, shards: int = 2) -> Path:
    """pytorch_model-0000N-of-0000M.bin with their index, as transformers wrote them."""
    directory.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    cut = -(-len(names) // shards)
    where = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = {name: tensors[name].clone() for name in names[number * cut : (number + 1) * cut]}
        where |= dict.fromkeys(part, file)
        torch.save(part, directory / file)
    size = sum(each.numel() * each.element_size() for each in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2))
    return directory


def save_settings(model: Any, directory: Path, *added: str, template: str | None = None) -> Path:
    """Configuration and tokenizer, of which transformers says LlamaTokenizer on the hub too."""
    model.config.save_pretrained(directory)
    own = tokenizer(*added)
    own.chat_template = template
    own.save_pretrained(directory)
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tokenizer_class": "LlamaTokenizer"}))
    if added:
        (directory / "added_tokens.json").write_text(json.dumps({token: ROWS + i for i, token in enumerate(added)}))
    return directory


def _frequencies(layers: int) -> dict[str, Tensor]:
    """Buffers that transformers once stored beside the weights."""
    return {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(layers)}


def _readme(name: str) -> dict[str, bytes | Path]:
    return {"README.md": f"# {name}\n".encode(), ".gitattributes": b"*.bin filter=lfs\n"}


def add_all(hub: Hub, root: Path) -> None:
    """Every published language model and its base."""
    add_bases(hub, root)
    _add_safe(hub, root, SHISA, 1, template="{% for m in messages %}{{ m.content }}{% endfor %}")
    _add_safe(hub, root, ARITHMO, 4)
    add_wizardmath(hub, root)
    _add_pickled(hub, root, ABEL, "mistral", 3, converted=None)
    _add_pickled(hub, root, ELYZA, "llama", 5, converted=2)
    _add_pickled(hub, root, METAMATH, "llama", 6, converted=1, added=("[PAD]",))


def add_bases(hub: Hub, root: Path) -> None:
    """Both bases: gated, with pickles beside safetensors; Llama 2's with the buffers that it was published with."""
    for name, architecture in ((MISTRAL, "mistral"), (LLAMA, "llama")):
        at, model = root / name, base_of(architecture)
        save_safe(model, save_settings(model, at))
        save_pickles(model.state_dict() | (_frequencies(2) if architecture == "llama" else {}), at)
        hub.add(Repository(name, gated=True)).commit({**folder(at), **_readme(name)})


def _add_safe(hub: Hub, root: Path, name: str, seed: int, template: str | None = None) -> None:
    at, model = root / name, fine_tuned("mistral", seed)
    save_safe(model, save_settings(model, at, template=template))
    hub.add(Repository(name)).commit({**folder(at), **_readme(name)})


def add_wizardmath(hub: Hub, root: Path) -> None:
    """Pickles on main, a row more for an added [PAD], and the bot's safetensors on a pull request."""
    at, model = root / WIZARDMATH, fine_tuned("mistral", 2, 1)
    save_pickles(model.state_dict(), save_settings(model, at, "[PAD]"))
    repository = hub.add(Repository(WIZARDMATH))
    repository.commit({**folder(at), **_readme(WIZARDMATH)})
    safe = folder(save_safe(model, root / "converted" / WIZARDMATH), ("config.json", "generation_config.json"))
    repository.propose(safe, PullRequest(4), WIZARDMATH_SAFE)


def _add_pickled(
    hub: Hub, root: Path, name: str, architecture: str, seed: int, converted: int | None, added: tuple[str, ...] = ()
) -> None:
    """Pickles on main, and perhaps the bot's safetensors on the pull request of that number."""
    at, model = root / name, fine_tuned(architecture, seed, len(added))
    buffers = _frequencies(2) if architecture == "llama" else {}
    save_pickles(model.state_dict() | buffers, save_settings(model, at, *added))
    repository = hub.add(Repository(name))
    repository.commit({**folder(at), **_readme(name)})
    if converted is not None:
        safe = folder(save_safe(model, root / "converted" / name), ("config.json", "generation_config.json"))
        repository.propose(safe, PullRequest(converted))
