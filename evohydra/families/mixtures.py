"""Dense language models as mixtures of experts with the same answers: sparse upcycling (arXiv 2212.05055, section 2).

Each layer's MLP becomes that of every expert, and the router is 0, so that all experts weigh the same. Sources in this
form have common tensors, and an ordinary merge of them has another MLP in each expert: a mixture.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
import transformers
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PretrainedConfig

from evohydra.families import Aligned
from evohydra.families.loading import TOKEN_IDS
from evohydra.families.private_transformers import no_init_weights
from evohydra.families.refusals import refused
from evohydra.families.settings_files import LOCAL
from evohydra.files import read_json
from evohydra.merging.checkpoints import SourceError, TensorSource, first_few

MLP = re.compile(r"(.*\.layers\.\d+\.)mlp\.(gate_proj|up_proj|down_proj)\.weight")
# What is no setting of how a model computes, or has another meaning in a mixture.
OF_FILES = {"model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path"}


@dataclass(frozen=True)
class Form:
    """An architecture of mixtures in which the layers of a dense one have a place.

    experts, router: what comes behind the number of a layer in names of tensors; projections: how an expert's are
    called. chosen: keys of its configuration, with those of the number of experts and of how many answer a token.
    sized: the key that has the MLP's width, beside `intermediate_size`. biases: which tensors may have some.
    """

    model_type: str
    experts: str
    router: str
    projections: Mapping[str, str]
    count: str
    chosen: Mapping[str, object]
    sized: str | None = None
    biases: str = "(?!)"


MIXTRAL = Form(
    model_type="mixtral",
    experts="block_sparse_moe.experts",
    router="block_sparse_moe.gate.weight",
    projections=MappingProxyType({"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}),
    count="num_local_experts",
    chosen=MappingProxyType({}),
)
QWEN3 = Form(
    model_type="qwen3_moe",
    experts="mlp.experts",
    router="mlp.gate.weight",
    projections=MappingProxyType({name: name for name in ("gate_proj", "down_proj", "up_proj")}),
    count="num_experts",
    # The mixture's window is that of all layers; dense models with one in some of them are refused.
    chosen=MappingProxyType(
        {
            "decoder_sparse_step": 1,
            "norm_topk_prob": True,
            "mlp_only_layers": [],
            "use_sliding_window": False,
            "sliding_window": None,
        }
    ),
    sized="moe_intermediate_size",
    biases=r"self_attn\.\w+\.bias$",
)
FORMS: Mapping[str, Form] = MappingProxyType({"llama": MIXTRAL, "mistral": MIXTRAL, "qwen3": QWEN3})


class Upcycled:
    """A dense source as a mixture of `count` experts that are all its own MLP, with routers of zeros.

    `dense` are the shapes of what is stored.
    """

    def __init__(self, source: TensorSource, form: Form, count: int) -> None:
        self._source, self.dense = source, source.shapes
        self._dense: dict[str, str] = {}
        self._routers: dict[str, str] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in source.shapes.items():
            if (place := MLP.fullmatch(name)) is None:
                shapes[name] = shape
                continue
            for expert in range(count):
                own = f"{place[1]}{form.experts}.{expert}.{form.projections[place[2]]}.weight"
                shapes[own], self._dense[own] = shape, name
            if place[2] == "gate_proj":
                router = f"{place[1]}{form.router}"
                shapes[router], self._routers[router] = (count, shape[1]), name
        self.shapes: Mapping[str, tuple[int, ...]] = dict(sorted(shapes.items()))

    def read(self, name: str) -> Tensor:
        """The tensor `name`, in the source's own type."""
        if name in self._routers:
            return torch.zeros(self.shapes[name], dtype=self._source.read(self._routers[name]).dtype)
        return self._source.read(self._dense.get(name, name))


def upcycled(
    aligned: Aligned, config: PretrainedConfig, directory: Path, experts: int, experts_per_token: int
) -> Aligned:
    """Aligned dense sources as mixtures of so many `experts`; `config`, in `directory`, is the merge's.

    Raises SourceError for an architecture without a form, for tensors and settings that the form has no place for.
    """
    if not 1 <= experts_per_token <= experts:
        raise SourceError(
            f"experts_per_token: expected at least 1 and at most {experts}, the number of sources, each of which is an "
            f"expert, got {experts_per_token}"
        )
    form = FORMS.get(config.model_type)
    if form is None:
        raise SourceError(
            f"a mixture of experts: expected sources of one of the architectures {', '.join(FORMS)}, which have a form "
            f"of mixtures, got {config.model_type!r}"
        )
    if own := sorted(aligned.overlay.own):
        raise SourceError(
            f"a mixture of experts: expected sources whose layers are all computed alike, got other settings of "
            f"{', '.join(own)}"
        )
    shapes = aligned.tensors[aligned.files_from].shapes
    _check_tensors(form, config.model_type, shapes)
    changes = {**_changes(form, config, directory, experts, experts_per_token), **aligned.overlay.config}
    tensors = {name: Upcycled(source, form, experts) for name, source in aligned.tensors.items()}
    names = frozenset(tensors[aligned.files_from].shapes)
    return replace(aligned, tensors=tensors, overlay=replace(aligned.overlay, names=names, config=changes))


def _check_tensors(form: Form, model_type: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    biases = [name for name in shapes if name.endswith(".bias") and not re.search(form.biases, name)]
    if biases:
        raise SourceError(
            f"a mixture of experts: {form.model_type} has no place for biases that these {model_type} models have: "
            f"{first_few(sorted(biases))}"
        )
    if strange := [name for name in shapes if ".mlp." in name and not MLP.fullmatch(name)]:
        raise SourceError(
            f"a mixture of experts: expected layers with mlp.gate_proj, mlp.up_proj and mlp.down_proj, got "
            f"{first_few(sorted(strange))}"
        )


def _changes(form: Form, config: PretrainedConfig, directory: Path, experts: int, per_token: int) -> dict[str, object]:
    """The keys of config.json that make it the mixture's, with all that the dense model takes from its defaults.

    SourceError for a setting of the dense model that the mixture would compute otherwise.
    """
    kind = CONFIG_MAPPING[form.model_type]
    dense = {key: value for key, value in config.to_dict().items() if key not in OF_FILES}
    chosen = {
        form.count: experts,
        "num_experts_per_tok": per_token,
        **form.chosen,
        **({form.sized: config.intermediate_size} if form.sized else {}),
        **({"head_dim": config.head_dim} if getattr(config, "head_dim", None) else {}),
        **({"sliding_window": None} if getattr(config, "sliding_window", None) is None else {}),
    }
    written = {key: value for key, value in read_json(directory / "config.json").items() if key not in OF_FILES}
    shared = kind().to_dict().keys() & dense.keys() - chosen.keys()
    # What the dense class chooses where the file says nothing, the other class may choose otherwise.
    usual = kind(**{**written, **chosen}).to_dict()
    chosen |= {key: dense[key] for key in sorted(shared) if usual[key] != dense[key]}
    made = kind(**{**written, **chosen}).to_dict()
    unlike = [key for key in sorted(shared) if made[key] != dense[key]]
    if form is QWEN3 and "sliding_attention" in config.layer_types:
        unlike.append("layer_types")
    if unlike:
        raise SourceError(
            f"a mixture of experts: {form.model_type} cannot compute as these {config.model_type} models do, with "
            + ", ".join(f"{key}: {dense[key]!r}" for key in unlike)
        )
    architecture = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[kind].__name__
    return {"model_type": form.model_type, "architectures": [architecture], **chosen}


def mixture(directory: Path, device: torch.device, dtype: torch.dtype, changes: Mapping[str, object]) -> nn.Module:
    """A model as the configuration in `directory` with these `changes` says, to be written to: its weights are any."""
    written = {key: value for key, value in read_json(directory / "config.json").items() if key not in OF_FILES}
    chosen = {key: value for key, value in changes.items() if key not in OF_FILES}
    with refused(f"{directory}: expected a configuration that transformers can make a mixture of"):
        config = CONFIG_MAPPING[str(changes["model_type"])](**{**written, **chosen})
        with no_init_weights(), device:
            module = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        if (directory / "generation_config.json").is_file():
            module.generation_config = transformers.GenerationConfig.from_pretrained(directory, **LOCAL)
    for key in TOKEN_IDS:
        if key in changes:
            setattr(module.generation_config, key, changes[key])
    module.tie_weights()
    made: nn.Module = module.eval().requires_grad_(False)
    return made
