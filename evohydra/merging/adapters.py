"""LoRA adapters in PEFT's format, applied to a checkpoint's tensors as they are read (arXiv 2106.09685, eq. 3)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from evohydra.checks import Count, check, shown
from evohydra.checks.patterns import check_pattern, matches_whole
from evohydra.files import Plain, read_json
from evohydra.merging.checkpoints import CheckpointReader, SourceError, TensorSource
from evohydra.merging.low_rank import Adaptation, LowRank
from evohydra.merging.release_names import bare
from evohydra.recipe import Checkpoint

# Settings whose effect on the weights is not the plain low-rank product.
UNSUPPORTED = (
    "use_dora",
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
# Initialisations that change the base's weights too.
RESIDUAL = re.compile(r"pissa|olora|corda|loftq|lora_ga")
TYPES: Plain = {
    "peft_type": str,
    "r": Count,
    "lora_alpha": float,
    "rank_pattern": Mapping[str, Count] | None,
    "alpha_pattern": Mapping[str, float] | None,
    "use_rslora": bool | None,
    "fan_in_fan_out": bool | None,
}
PREFIX = "base_model.model."
HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|(?<!\.)head)\.weight$")
FACTOR = re.compile(r"\.lora_(embedding_)?([AB])(\.weight)?$")


@dataclass(frozen=True)
class _Change:
    """What becomes of a tensor, as names in the adapter: `whole` replaces it, `up` times `down` is added to it."""

    module: str = ""
    whole: str | None = None
    down: str | None = None
    up: str | None = None
    embedding: bool = False


class Adapted:
    """A checkpoint with a LoRA adapter merged in: W + scale * B A, computed when a tensor is read.

    The scale is alpha / r, or alpha / sqrt(r) where the adapter is rank-stabilised (arXiv 2312.03732, eq. 4). Modules
    that were trained whole (modules_to_save) replace the checkpoint's. All sums and roundings are PEFT's, so that on a
    CPU the results are those of merge_and_unload, bit for bit. The checkpoint's names may have another prefix than
    those of the model that was adapted. `tied` is the name of the embeddings where the head is tied to them: what an
    adapter says of one leaves the other as it was, as in the model that was trained and that PEFT runs. (Its
    merge_and_unload adds factors of one to both, which is another model.) Raises SourceError for adapters of another
    kind, for targets that the checkpoint lacks and for factors that do not fit them.
    """

    def __init__(self, checkpoint: TensorSource, directory: Path, tied: str | None = None) -> None:
        self.shapes: Mapping[str, tuple[int, ...]] = checkpoint.shapes
        self.adapter = AdapterFiles(directory)
        self._checkpoint = checkpoint
        self._config = _read_config(directory)
        self._input_first = _input_first(checkpoint.shapes)
        self._published_as: dict[str, str] = {}  # a head of its own that was the embeddings before
        self._changes: dict[str, _Change] = {}
        tied = tied if tied in checkpoint.shapes else None
        for name in self.adapter.shapes:
            module, part = _parsed(name)
            wanted = module if part == "whole" else f"{module}.weight"
            target = _target(wanted, self.shapes)
            if target is None and tied and HEAD.search(wanted):
                target = wanted.rpartition("model.")[2]
            if target is None:
                raise SourceError(
                    f"adapter {directory}: its target {module!r} is not in the checkpoint (nor are the experts of a "
                    "mixture that transformers fuses)"
                )
            change = self._changes.get(target, _Change())
            if part == "whole":
                self._changes[target] = replace(change, whole=name)
            else:
                factor = {part.removeprefix("embedding_"): name}
                embedding = part.startswith("embedding_")
                self._changes[target] = replace(change, module=module, embedding=embedding, **factor)
        if tied:
            self._part(tied)
        for target, change in self._changes.items():
            self._check(target, change, directory)

    def _part(self, embeddings: str) -> None:
        """Give the head rows of its own where it, or the embeddings to which it is tied, changes."""
        stored = next(filter(HEAD.search, self.shapes), None)
        head = stored or next(filter(HEAD.search, self._changes), "lm_head.weight")
        if not stored and (embeddings in self._changes or head in self._changes):
            self.shapes = dict(sorted({**self.shapes, head: self.shapes[embeddings]}.items()))
            self._published_as = {head: embeddings}

    def _check(self, target: str, change: _Change, directory: Path) -> None:
        sizes, shape = self.adapter.shapes, self.shapes[target]
        if change.whole and sizes[change.whole] != shape:
            raise SourceError(
                f"adapter {directory}: {change.whole!r} has shape {sizes[change.whole]}, expected {shape} as in the "
                "checkpoint (a resized vocabulary: merge the adapter with PEFT and give the result)"
            )
        if (change.down is None) != (change.up is None):
            raise SourceError(f"adapter {directory}: expected both factors lora_A and lora_B of {change.module!r}")
        if change.down is not None and change.up is not None:
            rank, width = sizes[change.down]
            promised = for_module(self._config.get("rank_pattern") or {}, change.module, self._config["r"])
            if rank != promised:
                raise SourceError(
                    f"adapter {directory}: the factors of {change.module!r} have rank {rank}, its adapter_config.json "
                    f"says {promised}, which the scale of their product depends on (PEFT refuses it too)"
                )
            product = (sizes[change.up][0], width)
            if self._transposed(change):
                product = product[::-1]
            if sizes[change.up][1] != rank or product != shape:
                raise SourceError(
                    f"adapter {directory}: the factors of {change.module!r} have shapes {sizes[change.up]} and "
                    f"{sizes[change.down]}, expected a product of shape {shape} (an adapter of another model?)"
                )

    def read(self, name: str) -> Tensor:
        """The adapted tensor, in the checkpoint's dtype."""
        change = self._changes.get(name, _Change())
        if change.whole is not None:
            weight = self.adapter.read(change.whole).to(self._published(name).dtype)
        else:
            weight = self._published(name)
        low = self._low_rank(change)
        return weight if low is None else low.added_to(weight)

    def factors(self, name: str) -> Adaptation | None:
        """The checkpoint's own tensor and its change; None for one that was trained whole."""
        change = self._changes.get(name, _Change())
        if change.whole is not None or not isinstance(self._checkpoint, CheckpointReader):
            return None
        return Adaptation(self._checkpoint, self._published_as.get(name, name), self._low_rank(change))

    def _published(self, name: str) -> Tensor:
        return self._checkpoint.read(self._published_as.get(name, name))

    def _low_rank(self, change: _Change) -> LowRank | None:
        if change.down is None or change.up is None:
            return None
        # PEFT loads factors of half precision as float32.
        down = self.adapter.read(change.down).float()  # (r, in)
        up = self.adapter.read(change.up).float()  # (out, r)
        return LowRank(up, down, self._scale(change.module), self._transposed(change), change.embedding)

    def _transposed(self, change: _Change) -> bool:
        return change.embedding or self._input_first

    def _scale(self, module: str) -> float:
        rank = for_module(self._config.get("rank_pattern") or {}, module, self._config["r"])
        alpha = for_module(self._config.get("alpha_pattern") or {}, module, self._config["lora_alpha"])
        return float(alpha) / (math.sqrt(rank) if self._config.get("use_rslora") else rank)


def _parsed(name: str) -> tuple[str, str]:
    """The module of an adapter's tensor, and what it is: down, up, embedding_down, embedding_up, or whole."""
    factor = FACTOR.search(name)
    if factor is None:
        return name.removeprefix(PREFIX).replace(".base_layer.", "."), "whole"
    part = "down" if factor.group(2) == "A" else "up"
    return name[: factor.start()].removeprefix(PREFIX), f"{factor.group(1) or ''}{part}"


def _target(name: str, known: Mapping[str, tuple[int, ...]]) -> str | None:
    """The tensor called `name`, or the only one whose name differs as those of releases do, or by what comes before.

    None where there is none.
    """
    if name in known:
        return name
    alike = [each for each in known if bare(each) == bare(name)]
    shorter = [each for each in known if name.endswith(f".{each}")]
    longer = [each for each in known if each.endswith(f".{name}")]
    found = alike or shorter or longer
    return found[0] if len(found) == 1 else None


def _input_first(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether matrices are stored as (in, out), as those of transformers' Conv1D are, whatever an adapter says of them.

    The length of a bias tells, beside a matrix that is not square.
    """
    for name, shape in shapes.items():
        bias = shapes.get(f"{name.removesuffix('.weight')}.bias")
        if name.endswith(".weight") and len(shape) == 2 and shape[0] != shape[1] and bias is not None:
            return bias == (shape[1],)
    return False


class AdapterFiles(CheckpointReader):
    """The tensors of adapter_model.safetensors."""

    def _index(self) -> dict[str, str]:
        if not (self.directory / "adapter_model.safetensors").is_file():
            raise SourceError(
                f"adapter {self.directory}: expected adapter_model.safetensors (pickles are never loaded)"
            )
        return dict.fromkeys(self._open("adapter_model.safetensors").keys(), "adapter_model.safetensors")


def _read_config(directory: Path) -> dict[str, Any]:
    file = directory / "adapter_config.json"
    try:
        config = read_json(file)
        kind = config["peft_type"]
        check("peft_type", str, kind)
        if kind == "LORA":
            config["r"], config["lora_alpha"]
            for key, type_ in TYPES.items():
                check(key, type_, config.get(key))
            for pattern in (*(config.get("rank_pattern") or ()), *(config.get("alpha_pattern") or ())):
                check_pattern(pattern, "a key of rank_pattern or alpha_pattern")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{file}: expected a PEFT LoRA configuration, got {error!r}") from error
    used = unsupported(config)
    if kind != "LORA" or config.get("bias", "none") != "none" or used:
        got = shown(kind) if kind != "LORA" else f"LORA with {used or config.get('bias')}"
        raise SourceError(f"{file}: only plain LoRA adapters are supported, got {got}; merge it with PEFT")
    return config


def unsupported(config: Plain) -> list[str]:
    """The settings of an adapter whose effect on the weights is not the plain low-rank product."""
    used = [key for key in UNSUPPORTED if config.get(key)]
    if RESIDUAL.search(str(config.get("init_lora_weights")).lower()):
        used.append(f"init_lora_weights={config['init_lora_weights']}")
    return used


def for_module(pattern: Mapping[str, float], module: str, default: float) -> float:
    """The value whose key ends the module's name, as in PEFT's rank_pattern and alpha_pattern."""
    for key, value in pattern.items():
        if matches_whole(rf"(.*\.)?({key})", module, "rank_pattern or alpha_pattern"):
            return value
    return default


def other_base_of_adapter(source: Checkpoint, adapter: Path) -> str | None:
    """In a sentence, that the `adapter` of a source was trained on a model of another name; None where it says none.

    Directories are compared by their last part, for copies lie elsewhere than what was trained on.
    """
    try:
        config = read_json(adapter / "adapter_config.json")
        named = str(config.get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError):
        return None
    if not named or _last(named) == _last(source.path):
        return None
    return (
        f"the adapter {source.adapter} of source {source.name!r} was trained on {named}, and is applied to "
        f"{source.path}"
    )


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2].lower()
