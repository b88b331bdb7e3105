"""What a run will cost and what it can show, from plain facts about its model, its work and the machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evohydra.planning import power
from evohydra.planning.calibration import Calibrated
from evohydra.planning.cost import Asked, Cost, Shape, Speed, cost, language_rate, merge_seconds
from evohydra.planning.devices import Device
from evohydra.planning.engines import served_rate
from evohydra.planning.memory import Memory, Rooms, Sizes, memory
from evohydra.planning.power import Disagreement
from evohydra.planning.work import Work
from evohydra.scoring.benchmarks import Lengths
from evohydra.scoring.benchmarks.likelihood import benchmark_of
from evohydra.scoring.measures import measured_on

STARTING = 8.0  # seconds of importing libraries and of the report on a quiet core
WRITING = 1e9  # bytes a second that a disk reads and writes
USUAL_ANSWER = 1.5  # times the longest reference, as far as answers are not cut before


@dataclass(frozen=True)
class Model:
    """A model as a run holds it: `shape` of language models, bytes of the weights, how many `sources` and their bytes.

    shape: None where nothing is known of its speed. kept: bytes that tables and sources may take on the device.
    """

    shape: Shape | None
    bytes: float
    sources: int
    of_sources: float
    kept: float


@dataclass(frozen=True)
class Outlook:
    """What is said of a run. power and optimism are of the mean over benchmarks. speed: on the wall."""

    work: Work
    device: Device
    speed: Speed
    processor: Sequence[Cost]
    wall: Sequence[Cost]
    measured: bool
    memory: Memory
    apart: Disagreement
    smallest: float | None
    doubled: float | None
    fourfold: float | None
    optimism: float
    optimism_of_choice: float | None


def estimated(
    work: Work, model: Model, lengths: Mapping[str, Lengths], device: Device, batch: int, *, served: bool = False
) -> Speed:
    """How fast a run is by the device's figures; `served` by an engine that works on `batch` texts at once."""
    rate_of = served_rate if served else language_rate
    rates, unknown = {}, []
    for name in work.examples():
        found = lengths.get(measured_on(benchmark_of(name)))
        if found is None or model.shape is None:
            unknown.append(name)
            continue
        rates[name] = rate_of(model.shape, asked(found, name), device, batch, work.of_a_job(name))
    merge = merge_seconds(model.bytes, model.sources, device, model.kept >= model.of_sources)
    fixed = STARTING + 2 * model.of_sources / WRITING + 3 * model.bytes / WRITING
    return Speed(merge, rates, 0.0, fixed, unknown=tuple(unknown))


def asked(lengths: Lengths, name: str) -> Asked:
    """How an example is asked for the score of this name."""
    writes = lengths.writes and benchmark_of(name) == name
    longest = min(lengths.limit, USUAL_ANSWER * lengths.longest) if writes else lengths.longest
    answer = min(longest, USUAL_ANSWER * lengths.reference) if writes else lengths.reference
    return Asked(lengths.prompt, answer, longest, lengths.passes, writes, lengths.beams if writes else 1)


def outlook(
    work: Work,
    sizes: Mapping[str, Mapping[str, int]],
    speeds: tuple[Speed, Speed],
    held: Sizes,
    device: Device,
    rooms: Rooms,
    *,
    top: int,
    workers: Sequence[int],
    here: bool,
    download: float,
    found: Calibrated | None = None,
    weights: Mapping[str, float] | None = None,
) -> Outlook:
    """Put together. sizes: examples by split and benchmark. speeds: of the processor, and on the wall.

    weights: of benchmarks in the fitness; None: it is their mean.
    """
    names = list(sizes["test"])
    apart = found.apart if found is not None and set(found.apart.values) == set(names) else power.bounded(names)
    counting = [name for name in names if weights is None or weights[name]]
    scale = {name: 1.0 if weights is None else weights[name] * len(counting) for name in counting}
    values = {name: apart.values[name] * scale[name] ** 2 for name in counting}
    test, validation = ({name: sizes[split][name] for name in counting} for split in ("test", "validation"))
    searched = {name: _each(work, name, sizes["search"][name]) for name in counting}
    validated = any(validation.values())
    return Outlook(
        work,
        device,
        speeds[1],
        [cost(work, speeds[0], count) for count in workers],
        [cost(work, speeds[1], count, device.at_once) for count in workers],
        found is not None,
        memory(
            held,
            on_gpu=device.gpu,
            workers=1 if here else workers[0],
            here=here,
            rooms=rooms,
            download=download,
            peak=None if found is None else found.memory,
        ),
        apart,
        power.smallest_gain(test, values),
        power.smallest_gain({name: 2 * size for name, size in test.items()}, values),
        power.smallest_gain({name: 4 * size for name, size in test.items()}, values),
        power.optimism(searched, values, work.course.genomes),
        power.optimism(validation, values, top) if validated else None,
    )


def _each(work: Work, name: str, size: int) -> int:
    """The search examples of a benchmark that a genome is scored on, by whatever score."""
    wanted = work.stage("search").examples
    most = max((count.likely for score, count in wanted.items() if benchmark_of(score) == name), default=size)
    return max(1, min(size, round(most / max(1, work.course.genomes))))
