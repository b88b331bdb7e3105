"""Bytes: of the driver, of each worker, of a GPU, and on the disk; each as far as sizes tell, part by part."""

from collections.abc import Mapping
from dataclasses import dataclass, field

CUDA = 600_000_000  # a process's CUDA libraries and kernels on the device
REPORT = 90_000_000  # matplotlib and the tables of the report, beside what a search holds


@dataclass(frozen=True)
class Held:
    """What a process or a device holds, part by part, and where it has to fit; `room` None: nothing is known of it."""

    parts: Mapping[str, float]
    room: float | None = None

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether there is room."""
        return self.room is None or self.total <= self.room


@dataclass(frozen=True)
class Memory:
    """What a run holds; `measured`: the worker's part was, in this process.

    mapped: bytes of sources that lie in the page cache, which the system drops where it needs the room. inside: an
    inference engine, in the share of the GPU that it takes.
    """

    driver: Held
    worker: Held
    gpu: Held | None
    disk: Held
    mapped: float
    download: float
    measured: bool = False
    doubts: tuple[str, ...] = field(default=())
    inside: Held | None = None

    @property
    def lacking(self) -> tuple[str, ...]:
        """In a sentence each, what does not fit."""
        named = {
            "CPU memory": self.worker,
            "GPU memory": self.gpu,
            "memory inside vLLM (backend.memory, backend.sequences)": self.inside,
            "disk": self.disk,
        }
        return tuple(
            f"{name}: {each.total / 1e9:.1f} GB are needed, there are {(each.room or 0) / 1e9:.1f} GB"
            for name, each in named.items()
            if each is not None and not each.fits
        )


@dataclass(frozen=True)
class Sizes:
    """What memory follows from.

    live: bytes of the model that is asked. tables: of what depends on sources alone. token: of keys, values and
    activations of a token. batch, length: prompts at once and their tokens, answers included. hidden: states that paths
    share. libraries: of a process that has imported what a run needs. sources: bytes of all sources' files. inside: of
    what an inference engine holds, by part; None: transformers runs the models. share: of a GPU that it takes.
    """

    live: float
    tables: float
    token: float
    batch: int
    length: float
    hidden: float
    libraries: float
    sources: float
    inside: Mapping[str, float] | None = None
    share: float = 1.0


def memory(
    sizes: Sizes,
    *,
    on_gpu: bool,
    workers: int,
    here: bool,
    rooms: "Rooms",
    download: float,
    peak: float | None = None,
) -> Memory:
    """The memory of a run. here: whether the driver itself scores; peak: what a worker was measured to hold."""
    asked, engine = _asked(sizes, rooms.gpu if on_gpu else None)
    if sizes.hidden:
        asked["hidden states of paths"] = sizes.hidden
    libraries = {"libraries": sizes.libraries}
    worker = {**libraries, **({"model while it is loaded": sizes.live} if on_gpu else asked)}
    if peak is not None and peak > sum(worker.values()):  # what was asked was less than all that a run asks at once
        worker = {"measured": peak}
    driver = {**worker, "report": REPORT} if here else {**libraries, "report": REPORT}
    gpu = Held({"libraries": CUDA, **asked}, rooms.gpu) if on_gpu else None
    each = None if rooms.memory is None else rooms.memory / max(1, workers)
    disk = Held({"download": download, "winner, twice while it is written": 2 * sizes.live}, rooms.disk)
    known = peak is not None
    return Memory(
        Held(driver, rooms.memory), Held(worker, each), gpu, disk, sizes.sources, download, known, inside=engine
    )


def _asked(sizes: Sizes, gpu: float | None) -> tuple[dict[str, float], Held | None]:
    """What models and answers take, and what is inside an engine; gpu: bytes of the one that it shares, None: none."""
    if sizes.inside is None:
        answers = sizes.batch * sizes.length * sizes.token
        return {"model": sizes.live, "tables of sources": sizes.tables, "prompts and answers": answers}, None
    needed = Held(sizes.inside, None if gpu is None else sizes.share * gpu)
    taken = {"vLLM": needed.total if needed.room is None else needed.room}
    return {**taken, "model, to check the winner": sizes.live, "tables of sources": sizes.tables}, needed


@dataclass(frozen=True)
class Rooms:
    """Bytes that there are: of this machine's memory, of a GPU, free on the disk; None: not known."""

    memory: float | None
    gpu: float | None
    disk: float | None
