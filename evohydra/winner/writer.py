"""The winner of a run on disk: its checkpoint, recipe and model card."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from evohydra.families import ADAPTERS, Family, LiveModel, Rules
from evohydra.families.sources import OpenSources
from evohydra.files import write_json
from evohydra.mergekit import writer as mergekit
from evohydra.merging.engine import Engine
from evohydra.recipe import Node, Stack
from evohydra.report.pictures import Sample, write_samples
from evohydra.winner.checkpoint_files import made_from, recipe_file
from evohydra.winner.formats import Format
from evohydra.winner.model_card import model_card

GPU_TOLERANCE = 0.02  # of the largest logit: kernels round differently there
# Where scales are in the weights, which are then rounded, instead of beside them.
FOLDED_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}


class WinnerError(RuntimeError):
    """A checkpoint that is not the model that was scored."""


@dataclass(frozen=True)
class WinnerWriter:
    """Writes merges and paths of the sources as checkpoints, and holds them against `live`, the model of the search."""

    sources: OpenSources
    licences: Mapping[str, str | None]
    family: Family
    live: LiveModel
    engine: Engine
    rules: Rules
    format: Format
    shard_bytes: int

    def __call__(
        self,
        node: Node,
        directory: Path,
        name: str,
        found: Mapping[str, Any],
        summary: Mapping[str, Any] | None,
        samples: Sequence[Sample] = (),
    ) -> dict[str, Any]:
        """Write `node` into `directory` as the model called `name`; returns the content of its recipe file.

        `found` says by which search, `samples` are pictures that it draws. Raises WinnerError where the checkpoint
        differs from the live model.
        """
        # On the CPU whatever the search ran on: anyone can then make the same bits again.
        engine = Engine(
            self.sources.tensors,
            device=torch.device("cpu"),
            dtype=self.engine.dtype,
            compile_kernels=self.engine.compile_kernels,
            cache_bytes=0,
        )
        self.live.become(node, self.engine)
        dtype = self.live.dtype
        weights = self.format.write(node, engine, self.family, self.sources, directory, dtype, self.shard_bytes)
        self._verify(node, directory)
        recipe = recipe_file(
            node, self.family, self.sources.files_from, self.format, engine.dtype, dtype, self.shard_bytes, found
        )
        recipe |= {**asdict(self.rules), "adapters": [asdict(each) for each in self.sources.form.adapters]}
        recipe |= {"warnings": list(self.sources.warnings), "weights": weights}
        recipe["made_from"] = made_from(node, self.sources.directories)
        write_json(directory / "recipe.json", recipe)
        notes = (
            self._mergekit(node, directory) + self._adapters() + write_samples(samples, directory) + self._warnings()
        )
        card = model_card(name, node, self.licences, summary, notes, self.family.library, self.family.task)
        (directory / "README.md").write_text(card)
        return recipe

    def _verify(self, node: Node, directory: Path) -> None:
        difference = self.format.verify(directory, self.family, self.live)
        scaled = isinstance(node, Stack) and any(hop.scale != 1 for hop in node.hops)
        allowed = FOLDED_TOLERANCE.get(self.live.dtype, 0.0) if scaled else 0.0
        if difference > max(allowed, GPU_TOLERANCE if self.live.device.type == "cuda" else 0.0):
            raise WinnerError(
                f"the written winner differs from the live model by {difference:.2g} of its largest logit"
            )

    def _mergekit(self, node: Node, directory: Path) -> str:
        """Write the configuration that makes mergekit do the same; why there is none, else."""
        try:
            if replace(self.rules, allow_other_base=False) != Rules():
                raise mergekit.NotExpressible("its sources were matched by token or completed, see recipe.json")
            if not self.family.known_to_mergekit:
                raise mergekit.NotExpressible(f"mergekit has no words for merges of the family {self.family.name}")
            types = [
                str(dtype).removeprefix("torch.") if dtype else None for dtype in (self.engine.dtype, self.live.dtype)
            ]
            (directory / "mergekit.yaml").write_text(mergekit.to_yaml(node, *types))
        except mergekit.NotExpressible as reason:
            return f"There is no `mergekit.yaml`: {reason}."
        return ""

    def _adapters(self) -> str:
        """How to use what is not in the weights."""
        kept = self.sources.form.kept
        if not kept:
            return ""
        calls = "".join(
            f'pipeline.load_lora_weights("{ADAPTERS}", weight_name="{file.name}", adapter_name="a{number}")\n'
            for number, file in enumerate(kept)
        )
        names, scales = [f"a{number}" for number, _ in enumerate(kept)], [*kept.values()]
        return (
            "\n\n## Adapters\n\nThe scores are with these LoRAs, which are beside the weights:\n\n"
            f"```python\n{calls}pipeline.set_adapters({names}, {scales})\n```\n"
        )

    def _warnings(self) -> str:
        warnings = "".join(f"- {warning}\n" for warning in self.sources.warnings)
        return f"\n\n## Warnings\n\n{warnings}" if warnings else ""
