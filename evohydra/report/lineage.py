"""Who comes from whom, over the generations of a run: a picture and a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evohydra.files import Plain, read_json
from evohydra.recipe import Node, digest, from_dict
from evohydra.report import style
from evohydra.report.blocks import Block, FigureBlock, Table
from evohydra.report.gathering import Job
from evohydra.searching.handed_on import KEPT
from evohydra.searching.keeping import parents

WINNER = "winner"


@dataclass(frozen=True)
class Model:
    """A model of the picture. generation: 0 of a source. fitness: on the search split, None of a source.

    parents: by name how much of it comes from each of the generation before; the shares sum to 1.
    """

    name: str
    generation: int
    fitness: float | None
    parents: Mapping[str, float]


def called(job: Job) -> dict[str, str]:
    """What the recipes that are sources of a run are called, by digest."""
    search = job.begun.identity.get("search")
    models = search.get("models") if isinstance(search, Mapping) else None
    recipes = [each for each in models or () if isinstance(each, Mapping) and each.get("node") in ("merge", "stack")]
    return {digest(from_dict({key: each[key] for key in each if key != "name"})): each["name"] for each in recipes}


def lineage(job: Job) -> list[Model]:
    """All models that generations handed on, the sources that they come from, and the winner; none of other runs."""
    handed_on: list[Sequence[Plain]] = []
    recipes: dict[str, Node] = {}
    while (file := job.directory / f"generation_{len(handed_on) + 1}" / KEPT).is_file():
        handed_on.append(read_json(file)["recipes"])
        recipes = {each["name"]: from_dict(each["recipe"]) for each in handed_on[-1]}
    if not handed_on or job.recipe is None or job.summary is None:
        return []
    found = [
        Model(each["name"], number, each["fitness"], each["parents"])
        for number, several in enumerate(handed_on, 1)
        for each in several
    ]
    sources = dict.fromkeys(name for each in found if each.generation == 1 for name in each.parents)
    fitness = job.summary["search"]["winner"]["score"]
    shares = job.summary.get("parents") or parents(job.recipe, recipes)  # those of earlier versions are trees
    last = Model(WINNER, len(handed_on) + 1, fitness, shares)
    return [*(Model(name, 0, None, {}) for name in sources), *found, last]


def lineage_blocks(job: Job | None) -> Iterator[Block]:
    """The picture, and what it shows as a table."""
    models = lineage(job) if job else []
    if not models:
        return
    yield FigureBlock(
        "lineage",
        lineage_figure(models),
        "Which recipes each generation handed on, and what they are made of: the thicker a line, the larger the share "
        "of that parent (by the magnitude of weights; of paths by hops). Numbers are the fitness on the search split.",
    )
    rows = [
        (each.name, str(each.generation), _score(each), ", ".join(f"{n} {s:.2f}" for n, s in each.parents.items()))
        for each in models
        if each.generation
    ]
    yield Table(("model", "generation", "score", "made of"), rows, "The same in numbers.", words=True)


def lineage_figure(models: list[Model]) -> style.Drawing:
    """Generations from left to right, a dot for each model, a line from each parent."""
    columns: dict[int, list[Model]] = {}
    for each in models:
        columns.setdefault(each.generation, []).append(each)
    tallest = max(map(len, columns.values()))
    figure = style.new_figure(1.0 + 0.55 * tallest, max(style.usual_width(), 1.2 * len(columns)))
    axes = figure.add_subplot()
    places = {
        (number, each.name): (number, (len(column) - 1) / 2 - place)
        for number, column in columns.items()
        for place, each in enumerate(column)
    }
    rows: list[tuple[object, ...]] = []
    for each in models:
        here = places[each.generation, each.name]
        for name, share in each.parents.items():
            there = places.get((each.generation - 1, name))
            if there is not None:
                pair = list(zip(there, here, strict=True))
                axes.plot(
                    *pair, color=style.MUTED, linewidth=0.4 + 5 * share, alpha=0.6, zorder=1, solid_capstyle="butt"
                )
            rows.append((each.name, each.generation, each.fitness, name, share))
        last = each.name == WINNER
        axes.scatter(*here, s=130 if last else 45, marker="*" if last else "o", color=style.colour(int(last)), zorder=2)
        axes.annotate(
            f"{each.name} {_score(each)}".strip(),
            here,
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    names = ["sources", *(f"generation {number}" for number in sorted(columns) if number)]
    axes.set_xticks(sorted(columns), names)
    axes.set_yticks([])
    axes.set(xlim=(-0.5, max(columns) + 0.5), ylim=(-tallest / 2 - 0.2, tallest / 2 + 0.3))
    axes.spines[:].set_visible(False)
    figure.shows(("model", "generation", "score on search", "parent", "share"), rows)
    return figure


def _score(model: Model) -> str:
    return "" if model.fitness is None else f"{model.fitness:.4f}"
