"""Searches whose sources are recipes that earlier ones have found (`continue`): nothing of them is written first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evohydra.assembly.composition import composed_before, given_before
from evohydra.checks import check_entries, check_name
from evohydra.families.rules import Rules
from evohydra.files import Plain, current, read_json
from evohydra.merging.checkpoints import SourceError
from evohydra.recipe import Checkpoint, Node, Stack, checkpoints, children, from_dict, with_checkpoints
from evohydra.searching.handed_on import KEPT
from evohydra.searching.identity import MIXTURE
from evohydra.winner.recipe_files import RecipeFile

CONTINUE = "continue"
DECIDED = ("tokenizer", "missing", "config", "pad_vocabulary_to")  # as recipe files have them, where `auto` chose
# Of a file of what a generation has kept.
OF_FILE: Plain = {"recipes": Sequence[object], "plain": Mapping[str, object], "file": Mapping[str, object]}
OF_RECIPE: Plain = {"name": str, "recipe": object}
OF_GENOME: Plain = {"genome": int, "fitness": float, "parents": Mapping[str, float]}
RESERVED = ("base", "uniform", "winner", "merged")
# What decides what the tensors of the sources are, and so what a recipe over them is.
ALIKE = (
    "tokenizer",
    "missing",
    "config",
    "pad_vocabulary_to",
    "components",
    "adapters",
    "dtype",
    "out_dtype",
    "allow_other_base",
)


@dataclass(frozen=True)
class Earlier:
    """A recipe that is a source. where: the run that found it. dtype, out_dtype, rules: of its merge, as on file."""

    name: str
    node: Node
    where: Path
    dtype: str | None
    out_dtype: str
    rules: Plain


@dataclass(frozen=True)
class Nested:
    """Recipes that are sources, by name, and the names of the sources that are so beside them.

    collapsed: linear merges of linear ones are one merge.
    """

    recipes: Mapping[str, Node] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    collapsed: bool = True


@dataclass(frozen=True)
class Continued:
    """What earlier runs have found: recipes, and the names of the sources beside them."""

    earlier: tuple[Earlier, ...] = ()
    beside: tuple[str, ...] = ()

    def as_found(self) -> Nested:
        """The recipes over sources that are not read yet."""
        return Nested({each.name: each.node for each in self.earlier}, self.beside)


NOTHING = Nested()


def continued(plain: Plain, given: Sequence[str] = ()) -> tuple[Plain, Continued]:
    """The configuration with the models of the earlier runs that `continue` names, and the recipes from there.

    Models that the command line names (`model=...` among the overrides `given`) are sources beside them. What decides
    what a recipe means (`ALIKE`) is the earlier runs', unless the command line gives it. ValueError for directories
    that are none of such runs, and for runs that do not fit together.
    """
    if not plain.get(CONTINUE):
        return plain, Continued()
    named = plain[CONTINUE]
    listed = [part for part in named.split("+") if part] if isinstance(named, str) else named
    if not isinstance(listed, list) or not listed or not all(isinstance(each, str) for each in listed):
        raise ValueError(
            f"continue: expected directories of runs, such as outputs/A+outputs/B or a list, got {named!r}"
        )
    directories = list(map(Path, listed))
    recipes: list[Earlier] = []
    models: dict[str, object] = {}
    settings: dict[str, object] = {}
    for directory in directories:
        found, before = _read(directory)
        recipes += found
        _join(models, _sources(before), f"{directory}: source")
        if not settings:
            settings = {key: before.get(key) for key in ALIKE}
        for key in ALIKE:
            if before.get(key) != settings[key]:
                raise ValueError(
                    f"continue: expected runs with the same {key}, got {settings[key]!r} of {directories[0]} and "
                    f"{before.get(key)!r} of {directory}"
                )
    names = [text.lstrip("+~").partition("=")[0] for text in given]
    own = {name.partition(".")[0] for name in names}
    if "experiment" in own and not any((directory / KEPT).is_file() for directory in directories):
        raise ValueError(
            f"experiment: its models and types would not be used beside {CONTINUE}, whose sources are those of the "
            "earlier runs; expected merge, optimizer, benchmark and budget by their own names"
        )
    if "model" in own and "model" not in names:
        told = next(name for name in names if name.startswith("model."))
        raise ValueError(
            f"{told}: the sources of {CONTINUE} are as the earlier runs have them; expected no other settings of "
            f"theirs, or model=NAME, which adds sources"
        )
    for key in ALIKE:
        if key in own and plain.get(key) != settings[key]:
            raise ValueError(
                f"{key}={plain.get(key)}: expected {settings[key]!r}, as the runs to continue have it; their recipes "
                "mean other models with another one"
            )
    beside = _sources(plain) if "model" in names else {}
    _join(models, beside, "model: source")
    _check_names([each.name for each in recipes], models)
    return {**plain, **settings, "model": {"sources": models}}, Continued(tuple(recipes), tuple(beside))


def _sources(plain: Plain) -> Plain:
    model = plain.get("model")
    sources = model.get("sources") if isinstance(model, Mapping) else None
    return sources if isinstance(sources, Mapping) else {}


def _join(models: dict[str, object], more: Plain, what: str) -> None:
    for name, spec in more.items():
        if models.setdefault(name, spec) != spec:
            raise ValueError(f"continue: {what} {name!r} is another one than in an earlier run of that name")


def _check_names(names: Sequence[str], models: Plain) -> None:
    for name in names:
        check_name(name, "continue")
        if name in RESERVED or name in models or names.count(name) > 1:
            raise ValueError(
                f"continue: expected runs whose names are those of nothing else, got {name!r} twice, or as the name of "
                f"a source ({', '.join(models)}) or a word of ours ({', '.join(RESERVED)}); rename the directory"
            )


def _read(directory: Path) -> tuple[list[Earlier], Plain]:
    """The recipes of a run, and its configuration: its winner, or what a generation has kept."""
    kept = directory / KEPT
    if kept.is_file():
        content: Plain = check_entries(str(kept), read_json(kept), OF_FILE)
        told = [check_entries(str(kept), each, OF_RECIPE, OF_GENOME) for each in content["recipes"]]
        nodes = [from_dict(each["recipe"], f"{kept}: {each['name']}") for each in told]
        return [
            _earlier(str(each["name"]), node, directory, content["file"])
            for each, node in zip(told, nodes, strict=True)
        ], content["plain"]
    recipe = current(directory, "recipe.json")
    if not recipe.is_file():
        raise ValueError(
            f"continue: expected the directory of a run that has ended, as outputs/NAME, got {directory}, which has no "
            "recipe.json"
        )
    parsed = RecipeFile.parse(read_json(recipe), str(recipe))
    found = _earlier(directory.resolve().name, parsed.node, directory, parsed.content)
    composed, where = composed_before(directory)
    plain: Plain = composed
    if plain.get(CONTINUE):  # then its own sources are those of the runs before
        plain = continued(plain, given_before(directory))[0]
    return [found], _placed(plain, where)


def _placed(plain: Plain, where: Path) -> Plain:
    """The configuration with relative paths of sources as they are from here."""
    if where == Path.cwd():
        return plain

    def moved(path: object) -> object:
        there = where / path if isinstance(path, str) else None
        return str(there) if there is not None and there.exists() and not Path(str(path)).exists() else path

    sources = {
        name: {key: moved(value) if key in ("path", "base", "adapter", "config") else value for key, value in s.items()}
        for name, s in _sources(plain).items()
        if isinstance(s, Mapping)
    }
    return {**plain, "model": {"sources": sources}}


def _earlier(name: str, node: Node, where: Path, file: Plain) -> Earlier:
    if _has_path(node):
        raise ValueError(
            f"continue: {where} found a path through layers, whose layers cannot be merged or visited again without "
            f"writing it; its checkpoint can: model=local model.sources.local.path={where}/winner"
        )
    if file.get(MIXTURE) is not None:
        raise ValueError(
            f"continue: {where} found a mixture of experts, whose tensors its dense sources do not have; expected runs "
            "that merged dense models"
        )
    dtype, out_dtype = file.get("dtype"), str(file.get("out_dtype"))
    if dtype != out_dtype:
        raise ValueError(
            f"continue: {where} merged in {dtype} and wrote {out_dtype}, so that its winner is not its merge, bit for "
            f"bit; take its checkpoint: model=local model.sources.local.path={where}/winner"
        )
    return Earlier(name, node, where, str(dtype), out_dtype, file)


def _has_path(node: Node) -> bool:
    return isinstance(node, Stack) or any(map(_has_path, children(node)))


def over(
    found: Continued, opened: Sequence[Checkpoint], rules: Rules, dtype: str, by_factors: Callable[[Node], bool]
) -> Nested:
    """The recipes over sources that have been read; SourceError where they are not those that they are of.

    opened: all checkpoints, the base too. rules, dtype: how these are aligned and merged here. by_factors: whether a
    recipe merges adapters as adapters here. ValueError where an earlier run did any of this otherwise.
    """
    known: dict[str, Node] = {each.name: each for each in opened}
    prints = {each.name: each.fingerprint for each in opened}
    recipes: dict[str, Node] = {}
    for each in found.earlier:
        for was in checkpoints(each.node):
            if prints.get(was.name) != was.fingerprint:
                raise SourceError(
                    f"continue: {each.where} was made from a source {was.name!r} with the fingerprint "
                    f"{was.fingerprint}, got {prints.get(was.name, 'no source of that name')}"
                )
        if each.dtype != dtype:
            raise ValueError(f"continue: {each.where} merged in {each.dtype}, this run merges in {dtype}; give dtype=")
        here = rules.to_dict()
        for key in DECIDED:
            if each.rules.get(key) != here[key]:
                raise ValueError(
                    f"continue: {each.where} was merged with {key}={each.rules.get(key)!r}, which is {here[key]!r} "
                    "with the sources of this run; give it in all runs"
                )
        recipes[each.name] = with_checkpoints(each.node, known)
        if by_factors(recipes[each.name]) != each.rules.get("by_factors", False):
            raise ValueError(
                f"continue: expected {each.where} to say by_factors, as adapters are merged by their factors here; its "
                "recipe is of an earlier version, which merged copies with other roundings. Search again, or take its "
                f"checkpoint: model=local model.sources.local.path={each.where}/winner"
            )
    return Nested(recipes, found.beside)
