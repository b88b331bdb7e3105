"""A report on disk: report.html, and its figures beside it, as PNGs with their numbers, or for a paper."""

import os
from collections.abc import Sequence
from pathlib import Path

from evohydra.files import write_whole
from evohydra.report.blocks import FigureBlock
from evohydra.report.contents import contents
from evohydra.report.gathering import Job, gather
from evohydra.report.page import page
from evohydra.report.style import DPI, Look, looking, save, save_data, save_for_paper


def write_report(directories: Sequence[Path], target: Path) -> dict[str, Path]:
    """Write the report of all runs at or below `directories` into `target`; returns the page and figures by name.

    Beside each figure lies a CSV with the numbers that it shows.
    What has not ended is said to be unfinished. ValueError where there is no run.
    """
    jobs = gather(directories)
    if not jobs:
        raise ValueError(f"no runs found in {', '.join(map(str, directories))}")
    sections = contents(jobs, target)
    written, data = {}, set()
    (target / "figures").mkdir(parents=True, exist_ok=True)
    for section in sections:
        for block in section.blocks:
            if isinstance(block, FigureBlock):
                written[block.name] = save(block.figure, target / "figures" / f"{block.name}.png", DPI)
                data.add(save_data(block.figure, target / "figures" / f"{block.name}.csv"))
    for old in {*(target / "figures").glob("*.png"), *(target / "figures").glob("*.csv")}:
        if old not in data and old not in written.values():
            os.remove(old)
    written["report"] = target / "report.html"
    write_whole(written["report"], page(title(jobs, target), sections).encode())
    return written


def write_figures(directories: Sequence[Path], target: Path, look: Look) -> list[Path]:
    """Write the figures of their report into `target`: each as SVG, as PDF, and its numbers as CSV.

    Files of other names stay. ValueError where there is no run.
    """
    jobs = gather(directories)
    if not jobs:
        raise ValueError(f"no runs found in {', '.join(map(str, directories))}")
    written: list[Path] = []
    target.mkdir(parents=True, exist_ok=True)
    with looking(look):
        for section in contents(jobs, target, look):
            for block in section.blocks:
                if isinstance(block, FigureBlock):
                    written += save_for_paper(block.figure, target / block.name)
                    written.append(save_data(block.figure, target / f"{block.name}.csv"))
    return written


def title(jobs: Sequence[Job], target: Path) -> str:
    """What the report of these jobs is called: a run's by its directory, a sweep's by `target`."""
    single = len(jobs) == 1
    name = (jobs[0].directory if single else target).resolve().name
    return f"evohydra: {'run' if single else 'sweep'} {name}"
