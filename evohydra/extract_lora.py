"""python -m evohydra.extract_lora WINNER BASE rank=16 out=DIR: the PEFT adapter that is nearest to a model."""

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from evohydra.checks.terminal import harmless, log_to_terminal
from evohydra.families import Rules
from evohydra.families.adaptable import Module, adaptable
from evohydra.families.causal_lm import CausalLM
from evohydra.families.declared import BASE
from evohydra.families.sources import OpenSources, open_sources
from evohydra.families.tensor_sets import HEADS
from evohydra.families.vocabulary import embeddings_of
from evohydra.merging.checkpoints import first_few
from evohydra.merging.low_rank import LowRank
from evohydra.recipe import Checkpoint
from evohydra.winner.adapter_files import Adapter, write_adapter
from evohydra.winner.directories import check_replaceable, list_files, whole_directory

MODEL = "winner"
LOW_RANK, WHOLE, LEAVE = "low_rank", "whole", "leave"
EDGES = (LOW_RANK, WHOLE, LEAVE)  # a product of the same rank, all of them (modules_to_save), as in the base


@dataclass(frozen=True)
class Row:
    """What becomes of the tensors of one kind: how many have changed, the norm of that, and of what is left out."""

    kind: str
    tensors: int
    change: float
    left_out: float
    form: str


def extract(model: str, base: str, out: Path, rank: int, edges: str = LOW_RANK, overwrite: bool = False) -> list[Row]:
    """Write the adapter of `base` that is nearest to `model`, both directories or names of the hub, into `out`.

    Of every linear layer's change the product of this rank that is nearest to it (Eckart and Young); `edges` says what
    becomes of embeddings and head, see `EDGES`. What an adapter cannot change stays the base's: its rows say so. Raises
    SourceError for models that do not belong together, ArtifactError where `out` is not ours to replace.
    """
    if isinstance(rank, bool) or rank < 1:
        raise ValueError(f"rank: expected a whole number from 1 on, got {rank}")
    if edges not in EDGES:
        raise ValueError(f"edges: expected one of {', '.join(EDGES)}, got {edges!r}")
    if out.resolve() in (Path(model).resolve(), Path(base).resolve()):
        raise ValueError(f"out={out} is one of the two models, which the adapter would replace; give another directory")
    check_replaceable(out, overwrite)
    sources = open_sources((Checkpoint(MODEL, model),), Checkpoint(BASE, base), CausalLM(), Rules(config="allow"))
    if sources.overlay.config.keys() - {"tie_word_embeddings"}:
        raise ValueError(
            f"expected a model with the vocabulary of its base, got one that changes {sorted(sources.overlay.config)}"
        )
    with whole_directory(out, overwrite=overwrite) as directory:
        adapter, rows, modules = _nearest(sources, rank, edges)
        if not adapter.changes and not adapter.whole:
            raise ValueError(f"{model} differs from {base} in nothing that an adapter could change")
        write_adapter(adapter, directory, modules, base, None, "CAUSAL_LM")
        list_files(directory)
    return rows


def _nearest(sources: OpenSources, rank: int, edges: str) -> tuple[Adapter, list[Row], dict[str, Module]]:
    tensors, before = sources.tensors[MODEL], sources.tensors[BASE]
    modules = adaptable(sources.directories[BASE], tuple(tensors.shapes))
    adapter = Adapter()
    of_kinds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for name in tensors.shapes:
        after, published = tensors.read(name), before.read(name)
        if not after.is_floating_point() or torch.equal(after, published.to(after.dtype)):
            continue
        delta = after.float() - published.float()
        norm, module = float(delta.double().norm()), modules.get(name)
        at_edge = module is not None and (module.embedding or HEADS.search(name) is not None)
        form, left = LEAVE, norm
        if module is not None and at_edge and edges == WHOLE:
            adapter.whole[module] = tensors.read(name)
            form, left = WHOLE, 0.0
        elif module is not None and not (at_edge and edges == LEAVE):
            adapter.put_nearest(name, module, delta, rank)
            form, left = f"rank {adapter.changes[module].rank}", adapter.norms[name][1]
        for head in _tied_head(name, tensors.shapes, modules):
            if module in adapter.whole:
                adapter.whole[head] = tensors.read(name)
            elif module in adapter.changes:
                change = adapter.changes[module]  # (width, rows): the head's is (rows, width)
                adapter.changes[head] = LowRank(change.down.T.contiguous(), change.up.T.contiguous())
        of_kinds.setdefault((_kind(name), form), []).append((norm, left))
    rows = [
        Row(kind, len(each), _norm(norm for norm, _ in each), _norm(left for _, left in each), form)
        for (kind, form), each in of_kinds.items()
    ]
    return adapter, rows, modules


def _tied_head(name: str, shapes: Mapping[str, tuple[int, ...]], modules: Mapping[str, Module]) -> list[Module]:
    """The head of a model whose head is the embeddings `name`: PEFT adapts each of both for itself."""
    if name != embeddings_of(shapes) or any(map(HEADS.search, shapes)):
        return []
    return [module for tensor, module in modules.items() if tensor not in shapes]


def _norm(parts: Iterable[float]) -> float:
    return math.sqrt(sum(part**2 for part in parts))


def _kind(name: str) -> str:
    """The module of a tensor, without its place; of a bias that too."""
    *_, module, part = ["", *name.split(".")]
    return module if part == "weight" else f"{module}.{part}"


def table(rows: Sequence[Row]) -> str:
    """The rows as lines: what each kind's change is, and which share of its norm is left out."""
    lines = [f"{'kind':<26} {'tensors':>7} {'change':>9}  {'left out':>8}  as"]
    for row in sorted(rows, key=lambda each: -each.change):
        share = 100 * row.left_out / row.change
        lines.append(f"{row.kind:<26} {row.tensors:>7} {row.change:>9.3g}  {share:>6.2f} %  {row.form}")
    whole, left = _norm(row.change for row in rows), _norm(row.left_out for row in rows)
    total = sum(row.tensors for row in rows)
    lines.append(f"{'all':<26} {total:>7} {whole:>9.3g}  {100 * left / whole:>6.2f} %")
    if kept := [row.kind for row in rows if row.form == LEAVE]:
        lines.append(f"as in the base, for no adapter changes them here: {first_few(kept)}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m evohydra.extract_lora", description=__doc__)
    parser.add_argument("model", help="a directory, or OWNER/NAME on the hub: of what the adapter is to be nearest")
    parser.add_argument("base", help="the model that the adapter is for")
    parser.add_argument(
        "settings",
        nargs="+",
        metavar="KEY=VALUE",
        help="out=DIR, rank=NUMBER (default 16), edges=low_rank|whole|leave (embeddings and head; default low_rank)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace DIR, if evohydra has written it")
    given = parser.parse_args(arguments)
    log_to_terminal()
    try:
        settings = dict(_setting(each) for each in given.settings)
        rank = settings.get("rank", "16")
        if not rank.isdecimal():
            raise ValueError(f"rank: expected a whole number from 1 on, got {rank!r}")
        if "out" not in settings:
            raise ValueError("expected out=DIR, the directory to write")
        out = Path(settings["out"]).expanduser()
        with torch.inference_mode():
            rows = extract(given.model, given.base, out, int(rank), settings.get("edges", LOW_RANK), given.overwrite)
    except (ArithmeticError, ValueError, OSError, RuntimeError, MemoryError) as error:
        sys.exit(harmless(f"extract_lora: {error}"))
    print(table(rows))
    print(f"wrote {out}")


def _setting(item: str) -> tuple[str, str]:
    key, _, value = item.partition("=")
    if key not in ("out", "rank", "edges") or not value:
        raise ValueError(f"expected out=DIR, rank=NUMBER or edges=CHOICE, got {item!r}")
    return key, value


if __name__ == "__main__":
    main()
