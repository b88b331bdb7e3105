"""Diffusers folders: which components one holds, of which classes they are, and their tensors, read lazily."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from torch import Tensor

from evohydra.checks.libraries import optional
from evohydra.families import tokenizers
from evohydra.families.configurations import check_content
from evohydra.families.private_transformers import from_config
from evohydra.families.refusals import refused
from evohydra.families.settings_files import LOCAL
from evohydra.families.tensor_sets import BUFFERS, Renamed
from evohydra.files import read_json as read_object
from evohydra.hub.listing import chosen_weights
from evohydra.merging.checkpoints import PICKLES, CheckpointReader, SourceError, TensorSource

INDEX = "model_index.json"
# Components that are no part of drawing a picture from a text, and that a merge leaves out.
NOTHING: Mapping[str, object] = MappingProxyType({})
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
OF_VAE = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # older releases' names
WITHOUT_HEAD = "CLIPTextModel"
TEXT_MODEL = "text_model."


def diffusers() -> Any:
    """The package, which reports errors only: it and transformers comment on every component that they load."""
    found = optional("diffusers", "diffusion models", "evohydra[diffusion]")
    for library in (found, transformers):
        library.utils.logging.set_verbosity_error()
    return found


def folders(directory: Path, denoiser: str) -> dict[str, Path]:
    """The components of a diffusers folder by name, each with its own folder: also tokenizers and scheduler.

    A folder without model_index.json may hold some components only, or be a `denoiser` itself. Raises SourceError where
    it is none of these, or lacks a component that its model_index.json names.
    """
    index = _read_index(directory)
    if index is None:
        if _class(directory / "config.json", "_class_name"):
            return {denoiser: directory}
        found = {each.name: each for each in sorted(directory.iterdir()) if (each / "config.json").is_file()}
        if denoiser not in found:
            raise SourceError(
                f"{directory}: expected a diffusers folder ({INDEX} and a folder for each component), or one with a "
                f"folder {denoiser!r}, got {sorted(each.name for each in directory.iterdir())[:8]}"
            )
        return {name: place for name, place in found.items() if name not in LEFT_OUT}
    plain = {name: entry for name, entry in index.items() if not name.startswith("_")}  # _class_name may be a list too
    named = {name for name, entry in plain.items() if isinstance(entry, list) and any(entry)} - set(LEFT_OUT)
    if absent := sorted(name for name in named if not (directory / name).is_dir()):
        raise SourceError(f"{directory}: {INDEX} names the components {absent}, expected a folder for each, got none")
    return {name: directory / name for name in sorted(named)}


def pipeline_class(directory: Path) -> str | None:
    """The class that model_index.json names; None without one."""
    index = _read_index(directory)
    named = (index or {}).get("_class_name")
    return str(named[-1] if isinstance(named, list) else named) if index is not None else None


def index_of(directory: Path) -> dict[str, object]:
    """What model_index.json holds; nothing without one."""
    return _read_index(directory) or {}


def index_with(directory: Path, parts: Mapping[str, Path], kind: str) -> dict[str, object]:
    """The model_index.json of a pipeline of the class `kind` with these components; its other values as in `directory`.

    Components that are left out, and those that its own has not, are null.
    """
    own = {key: value for key, value in index_of(directory).items() if key != "_name_or_path"}
    index = {key: [None, None] if isinstance(value, list) else value for key, value in own.items()}
    index |= {name: _entry(name, folder) for name, folder in parts.items()} | {"_class_name": kind}
    return index | {"requires_safety_checker": False} if "requires_safety_checker" in index else index


def _entry(component: str, folder: Path) -> list[str]:
    if has_weights(folder):
        return ["diffusers" if of_diffusers(folder) else "transformers", class_of(folder).__name__]
    if component.startswith("tokenizer"):
        return ["transformers", type(tokenizer(folder)).__name__]
    return ["diffusers", type(scheduler(folder)).__name__]


def _read_index(directory: Path) -> dict[str, object] | None:
    file = directory / INDEX
    return read_json(file) if file.is_file() else None


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; SourceError for anything else, and for numbers that no configuration has."""
    try:
        data = read_object(file)
    except (OSError, ValueError) as error:
        raise SourceError(f"{file}: expected a JSON object, got {error}") from error
    check_content(file, data)
    return data


def of_diffusers(folder: Path) -> bool:
    """Whether a component with weights is of a class of diffusers, and not of transformers."""
    return "_class_name" in read_json(folder / "config.json")


def class_of(folder: Path) -> Any:
    """The class of a component with weights, by its config.json; SourceError where neither library has it."""
    config = read_json(folder / "config.json")
    listed = config.get("architectures")
    name = str(config.get("_class_name") or (listed[0] if isinstance(listed, list) and listed else None))
    library = diffusers() if "_class_name" in config else transformers
    found = getattr(library, name, None)
    model = library.ModelMixin if "_class_name" in config else library.PreTrainedModel
    if not (isinstance(found, type) and issubclass(found, model)):
        raise SourceError(f"{folder}/config.json: expected a class of models of {library.__name__}, got {name!r}")
    return found


def settings(folder: Path) -> dict[str, object]:
    """The configuration of a component of diffusers with all that its class adds by default, as JSON has it."""
    kind = class_of(folder)
    with torch.device("meta"), refused(f"{folder}: expected the configuration of a {kind.__name__}"):
        config = kind.from_config(read_json(folder / "config.json")).config
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    return dict(json.loads(json.dumps(plain)))


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor that a component of that configuration has."""
    kind = class_of(folder)
    with torch.device("meta"), refused(f"{folder}: expected the configuration of a {kind.__name__}"):
        if of_diffusers(folder):
            module = kind.from_config(read_json(folder / "config.json"))
        else:
            module = from_config(kind, kind.config_class.from_pretrained(folder, **LOCAL))
    kept = {current(name, folder.name, kind.__name__): tensor for name, tensor in module.state_dict().items()}
    return {name: tuple(tensor.shape) for name, tensor in kept.items()}


def scheduler(folder: Path, changes: Mapping[str, object] = NOTHING) -> Any:
    """The scheduler of that folder with these changes in its settings.

    Raises SourceError where diffusers has none of its class, or the class has no such setting.
    """
    name = str(read_json(folder / "scheduler_config.json").get("_class_name"))
    found = getattr(diffusers(), name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers().SchedulerMixin)):
        raise SourceError(f"{folder}/scheduler_config.json: expected a scheduler of diffusers, got {name!r}")
    kind: Any = found
    with refused(f"{folder}: expected the settings of a {name}"):
        made = kind.from_pretrained(folder, **changes)
    if ignored := sorted(key for key, value in changes.items() if made.config.get(key) != value):
        raise SourceError(
            f"{folder}: expected a scheduler with the setting {ignored[0]}={changes[ignored[0]]!r}, which the sources "
            f"were trained with, but {name} has none; choose another one (components.scheduler=SOURCE)"
        )
    return made


def scheduler_settings(folder: Path) -> dict[str, object]:
    """The settings of the scheduler of that folder with all that its class adds by default, as JSON has them."""
    return dict(json.loads(json.dumps(dict(scheduler(folder).config), default=str)))


def tokenizer(folder: Path) -> Any:
    """The tokenizer of that folder; SourceError where it cannot be read."""
    return tokenizers.load(folder)


def has_weights(folder: Path) -> bool:
    """Whether a component is a model, and not a tokenizer or a scheduler."""
    return (folder / "config.json").is_file() and not (folder / "tokenizer_config.json").is_file()


def stem(folder: Path) -> str:
    """How the weights of a component are called, without variant, shard and suffix."""
    return "diffusion_pytorch_model" if of_diffusers(folder) else "model"


def _class(file: Path, key: str) -> str | None:
    return read_json(file).get(key) if file.is_file() else None


class Components:
    """The tensors of several components, each under "<component>/<its name>"."""

    def __init__(self, parts: Mapping[str, TensorSource]) -> None:
        self._parts = parts
        self.shapes: Mapping[str, tuple[int, ...]] = {
            f"{name}/{tensor}": shape for name, part in sorted(parts.items()) for tensor, shape in part.shapes.items()
        }

    def read(self, name: str) -> Tensor:
        """The tensor `name`, as stored."""
        part, tensor = name.split("/", 1)
        return self._parts[part].read(tensor)


class Joined:
    """The tensors of several sources, no two of which have one of the same name."""

    def __init__(self, sources: Sequence[TensorSource]) -> None:
        self._where = {name: source for source in sources for name in source.shapes}
        self.shapes: Mapping[str, tuple[int, ...]] = {n: self._where[n].shapes[n] for n in sorted(self._where)}

    def read(self, name: str) -> Tensor:
        """The tensor `name`, from whoever has it."""
        return self._where[name].read(name)


def only(tensors: TensorSource, components: Collection[str]) -> TensorSource:
    """The tensors of these components."""
    return Renamed(tensors, {name: name for name in tensors.shapes if name.split("/")[0] in components})


class Published:
    """A component's tensors under the names of today: of older ones for VAEs, and with CLIP's prefix."""

    def __init__(self, tensors: TensorSource, component: str, kind: str) -> None:
        self._tensors = tensors
        self._names = {current(name, component, kind): name for name in tensors.shapes if not BUFFERS.search(name)}
        self.shapes: Mapping[str, tuple[int, ...]] = {new: tensors.shapes[old] for new, old in self._names.items()}

    def read(self, name: str) -> Tensor:
        """The tensor `name`, as stored; what older VAEs have as a convolution of one pixel is a matrix."""
        return self._tensors.read(self._names[name])


def current(name: str, component: str, kind: str) -> str:
    """The name that a tensor of a component of class `kind` has here."""
    if component == "vae" and ".attentions." in name:
        parts = name.split(".")
        return ".".join(OF_VAE.get(part, part) for part in parts)
    if kind == WITHOUT_HEAD and not name.startswith(TEXT_MODEL):
        return TEXT_MODEL + name
    return name


def open_folder(directory: Path, denoiser: str, variant: str | None) -> TensorSource:
    """The tensors of all components of a diffusers folder; `variant` as in diffusers ("fp16").

    Without one the files without a variant are read, or those of the only one that there is.
    """
    models = {name: place for name, place in folders(directory, denoiser).items() if has_weights(place)}
    parts = {name: _ComponentReader(place, stem(place), variant) for name, place in models.items()}
    return Components({name: Published(part, name, class_of(models[name]).__name__) for name, part in parts.items()})


class _ComponentReader(CheckpointReader):
    """The tensors of a component's folder: one file or shards, of one variant."""

    def __init__(self, directory: Path, stem: str, variant: str | None) -> None:
        self._stem, self._variant = stem, variant
        super().__init__(directory)

    def _index(self) -> dict[str, str]:
        known = {
            file.name: _variant(file.name, self._stem)
            for pattern in (f"{self._stem}*.safetensors", f"{self._stem}.safetensors.index*.json")
            for file in sorted(self.directory.glob(pattern))
            if "-of-" not in file.name
        }
        variants = sorted(set(known.values()), key=lambda each: each or "")
        wanted = self._variant
        if wanted is None and None not in variants and len(variants) == 1:
            wanted = variants[0]
        chosen = [file for file, variant in known.items() if variant == wanted]
        if not chosen:
            raise SourceError(self._nothing(wanted, variants))
        taken = sorted(set(chosen) & chosen_weights([file.name for file in self.directory.iterdir()])) or chosen
        if index := [file for file in taken if file.endswith(".json")]:
            return self._sharded(self.directory / index[0])
        return dict.fromkeys(self._open(taken[0]).keys(), taken[0])

    def _nothing(self, wanted: str | None, variants: Iterable[str | None]) -> str:
        expected = f"{self._stem}{f'.{wanted}' if wanted else ''}.safetensors"
        pickles = sorted(file.name for pattern in PICKLES for file in self.directory.glob(pattern))
        other = [each or "none" for each in variants]
        got = (
            f"the variants {other}"
            if other
            else f"pickles ({pickles[0]}), which model.sources.<name>.convert=weights_only converts"
            if pickles
            else "none"
        )
        return f"{self.directory}: expected the weights {expected} (or its shards), got {got}"


def _variant(file: str, stem: str) -> str | None:
    """That of a file called <stem>[.<variant>].safetensors or <stem>.safetensors.index[.<variant>].json."""
    rest = file.removeprefix(stem).removesuffix(".json").replace(".safetensors", "").replace(".index", "")
    return rest.removeprefix(".") or None
