"""The format of the released EvoLLM-JP-v1-10B ("evomistral"): layers stored once, path and scales as tensors.

    python -m evohydra.winner.formats.shared DIRECTORY OUT

writes such a checkpoint as a plain Mistral, which everything loads. In this project `load` runs it as it is.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from evohydra.checks.terminal import harmless
from evohydra.families import Family, LiveModel, Overlay, WritesCheckpoints
from evohydra.families.causal_lm import CausalLM
from evohydra.families.comparison import Comparison
from evohydra.families.loading import compared
from evohydra.families.sources import OpenSources
from evohydra.families.tensor_sets import Renamed
from evohydra.files import read_json
from evohydra.merging.checkpoints import CheckpointReader, SourceError, TensorSource
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Hop, Node, Stack
from evohydra.winner.checkpoint_files import write_weights
from evohydra.winner.directories import whole_directory

PATH, SCALES = "model.input_layers", "model.input_scales"
RELEASED = {"model_type": "evomistral", "architectures": ["EvoMistralForCausalLM"]}
MISTRAL = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
OF_PATHS = ("num_hops", "auto_map")  # keys of config.json that a Mistral's has not
STORED = "stored"
SHARD_BYTES = 5 * 10**9


class Shared:
    """Paths through Mistral's layers with scales of the `branch` kind: all that the released code can run."""

    def check(self, node: Node, family: Family, sources: OpenSources) -> None:
        """ValueError for everything else."""
        file = sources.directories[sources.files_from] / "config.json"
        config = json.loads(file.read_text()) if file.is_file() else {}
        if not isinstance(node, Stack) or node.scaling != "branch" or config.get("model_type") != "mistral":
            what = f"paths with scaling={node.scaling}" if isinstance(node, Stack) else "merges"
            raise ValueError(
                "format=shared: expected paths (merge=dfs) with scaling=branch through the layers of Mistral models, "
                f"got {what} of {config.get('model_type')!r} models; format=plain writes all"
            )
        family.path_config(sources.directories, node)

    def write(
        self,
        node: Node,
        engine: Engine,
        family: Family,
        sources: OpenSources,
        directory: Path,
        dtype: torch.dtype,
        shard_bytes: int,
    ) -> str:
        """Weights, configuration, tokenizer; returns the fingerprint of the weights."""
        assert isinstance(node, Stack)
        visited = sorted({(hop.source, hop.layer) for hop in node.hops})
        places = [visited.index((hop.source, hop.layer)) for hop in node.hops]
        stored = replace(node, hops=tuple(Hop(source, layer) for source, layer in visited))
        beside = {PATH: torch.tensor(places), SCALES: torch.tensor([hop.scale for hop in node.hops])}
        written = write_weights(stored, engine, directory, dtype, shard_bytes, beside)
        changes = {**family.path_config(sources.directories, stored), **RELEASED, "num_hops": len(node.hops)}
        overlay = replace(sources.overlay, config={**sources.overlay.config, **changes})
        family.copy_files(sources.directories[sources.files_from], directory, dtype, overlay)
        return written

    def left_out(self, directory: Path) -> Mapping[str, object]:
        """Nothing."""
        return {}

    def verify(self, directory: Path, family: WritesCheckpoints, live: LiveModel) -> Comparison:
        """In what the checkpoint in `directory`, read back, differs from `live`: in weights, and in outputs."""
        return compared(load(directory, live.device, live.dtype), live)


def load(directory: Path, device: torch.device, dtype: torch.dtype) -> LiveModel:
    """A checkpoint of this format as a live model, its layers in memory once; SourceError for others."""
    with _as_mistral(directory) as mistral:
        live = CausalLM().live_model(mistral, device, dtype, Overlay(names=frozenset(_weights(directory).shapes)))
        live.become(_path(directory, mistral), Engine({STORED: _weights(directory)}, device=device))
    return live


def write_plain(directory: Path, target: Path) -> str:
    """Write a checkpoint of this format as a plain Mistral in its own type; returns the fingerprint of its weights."""
    family = CausalLM()
    with _as_mistral(directory) as mistral, whole_directory(target) as out:
        path, dtype = _path(directory, mistral), family.dtype(mistral)
        engine = Engine({STORED: _weights(directory)}, device=torch.device("cpu"))
        family.copy_files(mistral, out, dtype, Overlay(config=family.path_config({STORED: mistral}, path)))
        return write_weights(path, engine, out, dtype, SHARD_BYTES)


@contextmanager
def _as_mistral(directory: Path) -> Iterator[Path]:
    """The checkpoint under a configuration that transformers knows: a Mistral of the layers that are stored."""
    config = _config(directory)
    if config.get("model_type") != RELEASED["model_type"]:
        raise SourceError(
            f"{directory}: expected a checkpoint of model_type {RELEASED['model_type']!r}, got "
            f"{config.get('model_type')!r}"
        )
    plain = {key: value for key, value in config.items() if key not in OF_PATHS} | MISTRAL
    with TemporaryDirectory() as room:
        for file in directory.resolve().iterdir():
            if file.name != "config.json":
                (Path(room) / file.name).symlink_to(file)
        (Path(room) / "config.json").write_text(json.dumps(plain))
        yield Path(room)


def _config(directory: Path) -> dict[str, object]:
    try:
        return read_json(directory / "config.json")
    except (OSError, ValueError) as error:
        raise SourceError(f"{directory}: expected a config.json ({error})") from error


def _path(directory: Path, mistral: Path) -> Stack:
    """The path that is stored beside the layers; SourceError where it does not fit them."""
    reader, hops = CheckpointReader(directory), _config(directory).get("num_hops")
    for name in (PATH, SCALES):
        if reader.shapes.get(name) != (hops,):
            raise SourceError(f"{directory}: expected {name} of shape ({hops},), got {reader.shapes.get(name)}")
    places, factors = reader.read(PATH), reader.read(SCALES)
    if places.is_floating_point() or places.is_complex() or places.dtype == torch.bool:
        raise SourceError(f"{directory}: expected {PATH} as whole numbers, got {places.dtype}")
    if not factors.is_floating_point() or not factors.isfinite().all():
        raise SourceError(
            f"{directory}: expected {SCALES} as finite numbers, got {factors.dtype} {factors.tolist()[:8]}"
        )
    layers, scales = places.tolist(), factors.tolist()
    depth = CausalLM().depth(mistral)
    if strange := sorted({layer for layer in layers if not 0 <= layer < depth}):
        raise SourceError(f"{directory}: {PATH} names layers {strange}, of {depth} that are stored")
    path = tuple(Hop(0, int(layer), float(scale)) for layer, scale in zip(layers, scales, strict=True))
    return Stack((Checkpoint(STORED, str(directory)),), path, CausalLM().layout(mistral, _weights(directory).shapes))


def _weights(directory: Path) -> TensorSource:
    """The tensors of a Mistral in it."""
    reader = CheckpointReader(directory)
    return Renamed(reader, {name: name for name in reader.shapes if name not in (PATH, SCALES)})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m evohydra.winner.formats.shared", description="Write a plain checkpoint."
    )
    parser.add_argument("directory", type=Path, help="a checkpoint like EvoLLM-JP-v1-10B (model_type evomistral)")
    parser.add_argument("out", type=Path, help="directory to write; must not exist")
    arguments = parser.parse_args()
    if arguments.out.exists():
        sys.exit(f"{arguments.out} exists; give a directory that does not")
    try:
        written = write_plain(arguments.directory, arguments.out)
    except (ValueError, OSError) as error:
        sys.exit(harmless(str(error)))
    print(f"wrote {arguments.out} (sha256 of the tensors {written})")


if __name__ == "__main__":
    main()
