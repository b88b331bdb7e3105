"""Diffusion pipelines of diffusers: what families of them share."""

import itertools
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import torch

from evohydra.families import ADAPTERS, PUBLISHED, Aligned, LiveModel, Overlay, Part, Rules, lora, single_files
from evohydra.families import pipeline_files as files
from evohydra.families.comparison import Comparison, apart, differing, rounding
from evohydra.families.component_rules import aligned_components, nulls, without_components
from evohydra.families.denoiser_blocks import locations
from evohydra.families.live_diffusion import STEPS, LiveDiffusion, draw, load_beside, make_pipeline, parameters_of
from evohydra.families.loading import NOWHERE
from evohydra.families.rules import AUTO
from evohydra.families.settings_files import LOCAL
from evohydra.files import Plain
from evohydra.merging.checkpoints import SourceError, TensorSource
from evohydra.recipe import LayerNames, Stack
from evohydra.spaces.grouping import Location

SIDE_FILES = (".json", ".txt", ".model", ".jinja")
UNET = (
    "a path through layers needs layers of one width in a row, and the blocks of a UNet differ in width and resolution "
    "and are joined by skip connections"
)
TRANSFORMER = (
    "a path through layers needs layers of one kind in a row, and a diffusion transformer has blocks of several kinds, "
    "each shifted by the embedding of the time step"
)
NOTHING: Plain = MappingProxyType({})


class Diffusion:
    """A family of diffusers pipelines: `pipeline` is the class, `denoiser` the component that is merged.

    settings: arguments of the class beside components. why_no_paths: a sentence's part about its layers. original: what
    the names of each component begin with in the original layout; none: it is not written.

    Tensors are called "<component>/<name>". Of a source whose pipeline is whole everything can be used, of one that is
    a denoiser alone just that.
    """

    name: str
    pipeline: str
    denoiser: str
    takes: tuple[str, ...] = ()
    scored_as: tuple[str, ...] = ("diffusion",)
    known_to_mergekit = False
    library = "diffusers"
    task = "text-to-image"
    why_no_paths: str
    settings: Mapping[str, object] = NOTHING
    original: Mapping[str, str] = NOTHING

    def wanted(self, variant: str | None) -> tuple[str, ...]:
        """Configurations, tokenizers, and the weights of components in their folders."""
        suffix = f".{variant}" if variant else ""
        weights = (f"*/*model{suffix}.safetensors", f"*/*model{suffix}-*.safetensors", f"*model{suffix}.safetensors")
        unused = tuple(f"!{component}/*.safetensors" for component in files.LEFT_OUT)
        return ("*.json", "*/*.json", "*/*.txt", "*/*.model", *weights, *unused)

    def open(self, path: Path, directory: Path, variant: str | None = None) -> TensorSource:
        """The tensors of a diffusers folder, or of a single file in the original layout."""
        if path.is_file():
            return single_files.open_single(path, directory, self.denoiser)
        return files.open_folder(path, self.denoiser, variant)

    def adapted(self, tensors: TensorSource, adapter: Path) -> TensorSource:
        """The tensors with a LoRA in the formats of diffusers, PEFT or kohya."""
        return lora.AdaptedPipeline(tensors, adapter, self.denoiser)

    def align(
        self, directories: Mapping[str, Path], tensors: Mapping[str, TensorSource], base: str | None, rules: Rules
    ) -> Aligned:
        """Each source's own denoiser with the components of whom `rules` say, or else of the first one that has them.

        Raises SourceError for denoisers of different shapes or settings, and for components that nobody has.
        """
        if rules.tokenizer == AUTO:  # tokenizers go with their text encoders
            rules = replace(rules, tokenizer="same")
        aligned = aligned_components(self.pipeline, self.denoiser, directories, tensors, base, rules)
        shapes = aligned.tensors[aligned.files_from].shapes
        absent = without_components(self.pipeline, directories[aligned.files_from])
        aligned = replace(aligned, left_out=(*aligned.left_out, *absent))
        return replace(aligned, overlay=lora.with_adapters(aligned.overlay, rules.adapters, shapes, self.denoiser))

    def align_layers(
        self, directories: Mapping[str, Path], tensors: Mapping[str, TensorSource], first: str, rules: Rules
    ) -> Aligned:
        """Raises SourceError: there are no paths through layers here."""
        self._no_paths()

    def _no_paths(self) -> NoReturn:
        raise SourceError(f"merge=dfs: {self.why_no_paths}; choose merge=simplex or another method")

    def locations(
        self, directory: Path, names: tuple[str, ...], copied: frozenset[str] = frozenset()
    ) -> dict[str, Location | None]:
        """Where each tensor of a component sits, but for those of `copied`."""
        return locations(names, self.denoiser, copied)

    def dtype(self, path: Path) -> torch.dtype:
        """The type of the denoiser's tensors."""
        if path.is_file():
            return single_files.dtype(path)
        tensors = files.open_folder(path, self.denoiser, None)
        return next(tensors.read(name).dtype for name in tensors.shapes if name.startswith(f"{self.denoiser}/"))

    def layout(self, directory: Path, names: Collection[str] | None = None) -> LayerNames:
        """Raises SourceError: its layers are no plain list."""
        self._no_paths()

    def depth(self, directory: Path) -> int:
        """Raises SourceError: its layers are no plain list."""
        self._no_paths()

    def path_config(self, directories: Mapping[str, Path], path: Stack, chosen: bool = False) -> dict[str, object]:
        """Raises SourceError: its layers are no plain list."""
        self._no_paths()

    def live_model(
        self,
        directory: Path,
        device: torch.device,
        dtype: torch.dtype,
        overlay: Overlay = PUBLISHED,
        sources: Mapping[str, Path] = NOWHERE,
        prefix_bytes: int = 0,
    ) -> LiveDiffusion:
        """A pipeline of the components that `overlay` names, whose weights hold arbitrary numbers."""
        index = files.index_with(directory, overlay.folders, self.pipeline)
        arguments = {**index, **self.settings}
        pipeline = make_pipeline(self.pipeline, overlay.folders, arguments, device, dtype, overlay.config)
        parameters = parameters_of(pipeline, overlay)
        module = pipeline.components[self.denoiser]
        load_beside(pipeline, overlay.kept)
        return LiveDiffusion(pipeline, module, device, dtype, parameters, overlay.merged, overlay.fused, overlay.kept)

    def parts(self, overlay: Overlay) -> tuple[Part, ...]:
        """A folder for each component with weights."""
        models = {name: folder for name, folder in overlay.folders.items() if files.has_weights(folder)}
        return tuple(Part(f"{name}/", files.stem(folder)) for name, folder in models.items())

    def copy_files(self, directory: Path, target: Path, dtype: torch.dtype, overlay: Overlay = PUBLISHED) -> None:
        """model_index.json, and of each component all but its weights."""
        for component, folder in overlay.folders.items():
            (target / component).mkdir(exist_ok=True)
            for file in folder.iterdir():
                if file.is_file() and file.suffix in SIDE_FILES and not file.match("*.safetensors.index*.json"):
                    shutil.copyfile(file, target / component / file.name)
        if overlay.config:
            file = target / "scheduler" / "scheduler_config.json"
            file.write_text(json.dumps({**files.read_json(file), **overlay.config}, indent=2) + "\n")
        if overlay.kept:
            (target / ADAPTERS).mkdir(exist_ok=True)
        for file in overlay.kept:
            shutil.copyfile(file, target / ADAPTERS / file.name)
        index = files.index_with(directory, overlay.folders, self.pipeline)
        (target / files.INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def verify(self, directory: Path, live: LiveModel) -> Comparison:
        """In what the written pipeline differs from the live one, its pixels from the same noise."""
        assert isinstance(live, LiveDiffusion)
        absent = dict.fromkeys(nulls(directory))  # which diffusers wants to be told, of some
        written = files.diffusers().DiffusionPipeline.from_pretrained(directory, **absent, **LOCAL)
        load_beside(written, {directory / ADAPTERS / file.name: scale for file, scale in live.kept.items()})
        written.set_progress_bar_config(disable=True)
        ours, theirs = draw(live.pipeline), draw(written.to(live.device, live.dtype))
        models = {n: each for n, each in live.pipeline.components.items() if isinstance(each, torch.nn.Module)}
        unlike = [differing(written.components[name], model, f"{name}/") for name, model in models.items()]
        return Comparison(
            tuple(itertools.chain(*unlike)), apart(theirs, ours), rounding([*models.values()], live.dtype, STEPS)
        )
