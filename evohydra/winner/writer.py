"""The winner of a run on disk: its checkpoint, recipe and model card."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from evohydra.families import ADAPTERS, Family, LiveModel, Rules
from evohydra.families.settings_files import differing_files
from evohydra.families.sources import OpenSources
from evohydra.files import write_json
from evohydra.hub.cards import card_beside, card_of
from evohydra.hub.commits import PICKLE, commit_of, commit_of_weights
from evohydra.hub.hashes import converted_pin
from evohydra.hub.licences import OUR_OWN, languages_of, of_card
from evohydra.mergekit import writer as mergekit
from evohydra.merging.engine import Engine
from evohydra.pages import in_markdown
from evohydra.recipe import Checkpoint, Node, Stack, checkpoints
from evohydra.report.samples import Sample, write_samples
from evohydra.scoring.worker import Worker
from evohydra.winner.directories import keep_own_files, list_files, whole_directory
from evohydra.winner.formats import FORMATS, Format
from evohydra.winner.model_card import Kind, model_card
from evohydra.winner.recipe_files import made_from, recipe_file

WINNER = "winner"  # where in a run's directory the checkpoint is
UNVERIFIED = "winner-unverified"  # where it is if it is not the live model; in summary and recipe the reason stands
RESULT = (WINNER, UNVERIFIED, "recipe.json", "summary.json", "answers-*.html", "pictures-*.png")  # of one winner
ZOO = "zoo://"  # what paths of models begin with that come along
REASON = "winner_unverified"  # under this key
# Of config.json, what mergekit sets itself or what changes nothing.
NOT_IN_A_CONFIGURATION = ("_name_or_path", "dtype", "torch_dtype", "transformers_version")
GPU_TOLERANCE = 0.02  # of the largest output: kernels round differently there
# Where scales are in the weights, which are then rounded, instead of beside them.
FOLDED_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}


class WinnerError(RuntimeError):
    """A winner that failed on test, or whose checkpoint is not the model that was scored: all is written.

    In the second case the checkpoint is written as `winner-unverified`.
    """


@dataclass(frozen=True)
class WinnerForm:
    """How a run's winner is written, as far as it is plain data.

    licences, languages: of the sources by name, as the configuration has them; the sources' own cards come first.
    datasets: names of the hub, of what the search asked.
    """

    licences: Mapping[str, str | None]
    rules: Rules
    format: Format
    shard_bytes: int
    languages: Mapping[str, Sequence[str]] = field(default_factory=dict)
    datasets: Sequence[str] = ()


def write_winner(
    worker: Worker,
    form: WinnerForm,
    run: Path,
    room: Path,
    node: Node,
    found: Mapping[str, object],
    summary: Mapping[str, object] | None,
    samples: Sequence[Sample] = (),
) -> str | None:
    """Write the winner with a worker's sources and model, see `WinnerWriter.into`."""
    return WinnerWriter(worker.sources, worker.family, worker.live, worker.engine, form).into(
        run, room, node, found, summary, samples
    )


@dataclass(frozen=True)
class WinnerWriter:
    """Writes merges and paths of the sources as checkpoints, and holds them against `live`, the model of the search."""

    sources: OpenSources
    family: Family
    live: LiveModel
    engine: Engine
    form: WinnerForm

    def into(
        self,
        run: Path,
        room: Path,
        node: Node,
        found: Mapping[str, object],
        summary: Mapping[str, object] | None,
        samples: Sequence[Sample] = (),
    ) -> str | None:
        """Write `node` as `winner` into `room`, from which it goes to the directory of the `run`; its recipe beside it.

        Where the checkpoint is not the live model it is kept as `winner-unverified` instead, and the reason returned.
        Raises SourceError where files that the winner takes have changed since they were read.
        """
        self.sources.check_settings()
        recipe: dict[str, Any] = {}
        for earlier in (WINNER, UNVERIFIED):
            keep_own_files(run / earlier)

        def final() -> Path:
            return room / (UNVERIFIED if REASON in recipe else WINNER)

        with whole_directory(room / WINNER, final, known_as=run / WINNER) as directory:
            recipe |= self(node, directory, run.name, found, summary, samples)
            list_files(directory)
        write_json(room / "recipe.json", recipe)
        reason: str | None = recipe.get(REASON)
        return reason

    def __call__(
        self,
        node: Node,
        directory: Path,
        name: str,
        found: Mapping[str, object],
        summary: Mapping[str, object] | None,
        samples: Sequence[Sample] = (),
    ) -> dict[str, object]:
        """Write `node` into `directory` as the model called `name`; returns the content of its recipe file.

        `found` says by which search, `samples` are pictures that it draws. Where the checkpoint is not the live model,
        recipe and model card say why.
        """
        # On the CPU whatever the search ran on: anyone can then make the same bits again.
        engine = self.engine.uncached(torch.device("cpu"))
        self.live.become(node, self.engine)
        dtype = self.live.dtype
        form = self.form
        weights = form.format.write(node, engine, self.family, self.sources, directory, dtype, form.shard_bytes)
        reason = self._verify(node, directory)
        recipe = recipe_file(
            node, self.family, self.sources.files_from, form.format, engine.dtype, dtype, form.shard_bytes, found
        )
        recipe |= {**form.rules.to_dict(), "adapters": [asdict(each) for each in self.sources.overlay.adapters]}
        recipe |= {"by_factors": True} if engine.adapters.used(node) else {}
        told = engine.statistics.told(node) if engine.statistics else {}
        recipe |= {"statistics": told} if told else {}
        recipe |= {"left_out": left_out} if (left_out := form.format.left_out(directory)) else {}
        commits = self._commits(checkpoints(node))
        recipe |= {"commits": commits} if commits else {}
        recipe |= {"warnings": list(self.sources.warnings), "weights": weights}
        recipe["made_from"] = made_from(node, self.sources.directories)
        recipe |= {REASON: reason} if reason else {}
        write_json(directory / "recipe.json", recipe)
        notes = (
            self._mergekit(node, directory) + self._adapters() + write_samples(samples, directory) + self._warnings()
        )
        notes = f"**Not exact**: {in_markdown(str(left_out['said']))}.\n\n{notes}" if left_out else notes
        notes = f"**Not verified**: {in_markdown(reason)}.\n\n{notes}" if reason else notes
        (directory / "README.md").write_text(model_card(name, node, self._kind(node), summary, notes))
        return recipe

    def _kind(self, node: Node) -> Kind:
        """What the card says of the winner's kind; licences and languages by the sources' cards, else as configured."""
        family, form = self.family, self.form
        licences, languages = dict(form.licences), dict(form.languages)
        for each in checkpoints(node):
            told = of_card(card := card_beside(self.sources.paths[each.name]) or "") or licences.get(each.name)
            if each.path.startswith(ZOO):
                told = OUR_OWN
            elif not told:  # then it is asked for
                told = of_card(card := card_of(each.path, each.revision) or card)
            licences[each.name] = told
            languages[each.name] = languages_of(card) or languages.get(each.name, ())
        spoken = [code for codes in languages.values() for code in codes]
        written_as = FORMATS.name_of(form.format)
        library = "peft" if written_as == "lora" else family.library
        return Kind(library, family.task, written_as, licences, spoken, form.datasets)

    def _verify(self, node: Node, directory: Path) -> str | None:
        """Why the checkpoint in `directory` is not the live model; None where it is."""
        try:
            found = self.form.format.verify(directory, self.family, self.live)
        except (ArithmeticError, ValueError, OSError, RuntimeError) as error:
            return f"the written winner could not be read back ({type(error).__name__}: {error})"
        scaled = isinstance(node, Stack) and any(hop.scale != 1 for hop in node.hops)
        on_gpu = self.live.device.type == "cuda"
        if not scaled and not on_gpu and found.weights:
            first, count = found.weights[0], len(found.weights)
            where = f"in the weights of {count} tensors, the first is {first}"
            return f"the written winner differs from the live model {where}"
        folded = FOLDED_TOLERANCE.get(self.live.dtype, 0.0) if scaled else 0.0
        allowed = max(found.rounding, folded, GPU_TOLERANCE if on_gpu else 0.0)
        if found.outputs <= allowed:
            return None
        return (
            f"the written winner differs from the live model by {found.outputs:.2g} of its largest output, where "
            f"rounding explains {allowed:.2g}"
        )

    def _mergekit(self, node: Node, directory: Path) -> str:
        """Write the configuration that makes mergekit do the same; why there is none, else."""
        try:
            if FORMATS.name_of(self.form.format) == "lora":
                raise mergekit.NotExpressible("mergekit writes no adapters")
            if self.form.rules.experts_per_token is not None:
                raise mergekit.NotExpressible(
                    "mergekit-moe has no words for experts that are merges, nor for routers whose rows have factors"
                )
            of_recipe = replace(self.form.rules, allow_other_base=False, allow_other_splitting=False, config="same")
            if of_recipe != Rules():
                raise mergekit.NotExpressible("its sources were matched by token or completed, see recipe.json")
            if not self.family.known_to_mergekit:
                raise mergekit.NotExpressible(
                    f"mergekit has no words, as far as evohydra knows, for merges of the family {self.family.name}"
                )
            types = [
                str(dtype).removeprefix("torch.") if dtype else None for dtype in (self.engine.dtype, self.live.dtype)
            ]
            text, note = mergekit.to_yaml(node, types[0], types[1]), ""
            if unlike := self._other_files(node):
                if mergekit.may_choose_donor(node):
                    text = mergekit.to_yaml(node, types[0], types[1], self.sources.files_from)
                else:
                    note = self._to_copy(node, unlike)
            (directory / "mergekit.yaml").write_text(f"# {' '.join(note.split())}\n{text}" if note else text)
        except mergekit.NotExpressible as reason:
            return f"There is no `mergekit.yaml`: {in_markdown(reason)}."
        return f"`mergekit.yaml` makes the same weights. {in_markdown(note)}" if note else ""

    def _other_files(self, node: Node) -> list[str]:
        """Files that are not the same where mergekit, if not told otherwise, may take them from."""
        places, ours = self.sources.directories, self.sources.files_from
        unlike = (differing_files(places[d], places[ours], NOT_IN_A_CONFIGURATION) for d in mergekit.donors(node))
        return sorted(set().union(*unlike))

    def _to_copy(self, node: Node, unlike: Sequence[str]) -> str:
        """In a sentence, what to copy from the winner, where mergekit cannot be told whose files to take."""
        ours = self.sources.files_from
        return (
            f"mergekit takes {', '.join(unlike)} from {' or '.join(mergekit.donors(node))}, where they are not "
            f"those of {ours}, which the merge was scored with: copy them from this directory over mergekit's."
        )

    def _commits(self, used: Iterable[Checkpoint]) -> dict[str, str]:
        """By name the commits of the hub that sources were read from, and as NAME.adapter those of their adapters.

        NAME.weights is the commit of a pull request whose weights stand beside the settings of the source's commit,
        NAME.converted a pickle of that commit, with its SHA-256, that was converted here.
        """
        found: dict[str, str | None] = {}
        for each in used:
            path = self.sources.paths[each.name]
            found[each.name] = commit_of(path, each.path)
            found[f"{each.name}.weights"] = commit_of_weights(path) if found[each.name] else None
            for file, hashed in converted_pin(path).items() if found[each.name] else ():
                found[f"{each.name}.{PICKLE}"] = f"{file}: {hashed}"
            if each.name in self.sources.adapters:
                found[f"{each.name}.adapter"] = commit_of(self.sources.adapters[each.name])
        return {name: commit for name, commit in found.items() if commit}

    def _adapters(self) -> str:
        """How to use what is not in the weights."""
        kept = self.sources.overlay.kept
        if not kept:
            return ""
        calls = "".join(
            f'pipeline.load_lora_weights("{ADAPTERS}", weight_name={json.dumps(file.name)}, adapter_name="a{number}")\n'
            for number, file in enumerate(kept)
        )
        names, scales = [f"a{number}" for number, _ in enumerate(kept)], [*kept.values()]
        return (
            "\n\n## Adapters\n\nThe scores are with these LoRAs, which are beside the weights:\n\n"
            f"```python\n{calls}pipeline.set_adapters({names}, {scales})\n```\n"
        )

    def _warnings(self) -> str:
        warnings = "".join(f"- {in_markdown(warning)}\n" for warning in self.sources.warnings)
        return f"\n\n## Warnings\n\n{warnings}" if warnings else ""
