"""A plan in words: whole, for a screen, and the few lines with which a run begins."""

from collections.abc import Iterator, Mapping, Sequence

from evohydra.files import Plain
from evohydra.planning.cost import Cost
from evohydra.planning.outlook import Outlook
from evohydra.planning.power import BOUND
from evohydra.searching.fitness.expected import Between

Lines = list[tuple[str, str]]


def duration(seconds: float) -> str:
    """As people say it."""
    for unit, size in (("s", 60.0), ("min", 60.0), ("h", 48.0)):
        if seconds < size:
            return f"{seconds:.0f} {unit}" if seconds >= 10 or unit == "s" else f"{seconds:.1f} {unit}"
        seconds /= {"s": 60.0, "min": 60.0, "h": 24.0}[unit]
    return f"{seconds:.1f} days"


def span(value: Between) -> str:
    """What to expect, and between what."""
    return f"{duration(value.likely)} ({duration(value.low)} to {duration(value.high)})"


def gigabytes(size: float) -> str:
    """Decimal gigabytes."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def beginning(found: Outlook) -> str:
    """The line with which a run begins."""
    one = found.wall[0]
    time = f"about {span(one.total)}" if not one.unknown else "how long is not known (evohydra.plan calibrate=true)"
    memory = found.memory.gpu or found.memory.driver
    where = "of the GPU" if found.memory.gpu else "of memory"
    return f"plan: {time}; {gigabytes(memory.total)} {where}; {power_line(found)}"


def power_line(found: Outlook) -> str:
    """What the test split can show."""
    how = f"measured on {found.apart.measured} examples" if found.apart.measured else "as a bound"
    if found.smallest is None:
        return f"the test split can show no gain (power 0.8, {how})"
    return f"the test split shows true gains from {found.smallest:.3f} on (power 0.8, {how})"


def cost_lines(found: Outlook) -> Lines:
    """A line for each number of workers."""
    lines = []
    for each in found.wall:
        workers = f"{each.workers} worker{'s' if each.workers > 1 else ''}"
        if each.unknown:
            lines.append((workers, f"not known: {', '.join(each.unknown)} (calibrate=true measures a few examples)"))
            continue
        hours = each.total.times(each.workers / 3600)
        gpu = f", {hours.likely:.1f} GPU-hours ({hours.low:.1f} to {hours.high:.1f})" if found.device.gpu else ""
        lines.append((workers, f"{span(each.total)}{gpu}"))
    if found.measured:
        lines.append(("processor time", span(found.processor[0].total)))
    return lines


def stage_lines(one: Cost) -> Iterator[tuple[str, str]]:
    """Where the time goes."""
    for name, value in one.stages.items():
        if value.likely >= 0.5:
            yield name, duration(value.likely)


def screen(plan: Plain, found: Outlook) -> list[tuple[str, Lines]]:
    """The whole plan: headings with lines, each a name and what is said of it. `plan` is the document."""
    return [
        ("sources", _sources(plan)),
        ("merge", _merge(plan)),
        ("search", _search(plan, found)),
        ("time", [("device", plan["cost"]["device"]), *cost_lines(found), *stage_lines(found.wall[0])]),
        ("memory", _memory(plan)),
        ("what it can show", _power(found)),
        ("advice", [("", each) for each in plan["advice"]] or [("", "none")]),
        *([("does not fit", [("", each) for each in plan["lacking"]])] if plan["lacking"] else []),
    ]


def _sources(plan: Plain) -> Lines:
    lines: Lines = []
    licences = plan["licences"]
    for name, each in plan["sources"].items():
        types = ", ".join(f"{count} {kind}" for kind, count in each["types"].items())
        told = [f"{each['parameters'] / 1e6:,.1f} million parameters", f"{each['tensors']} tensors ({types})"]
        if each["tokens"] is not None:
            others = each["other_tokens"]
            told.append(f"{each['tokens']} tokens" + (f", {others} of them other than the merge's" if others else ""))
        if each["same_chat_template"] is False:
            told.append("another chat template than the merge's")
        if each["adapter"]:
            told.append(f"with adapter {each['adapter']}")
        told.append(f"licence {licences['sources'].get(name) or 'unknown'}")
        lines.append((name, ", ".join(told)))
    lines += [("licences", each) for each in licences["together"]]
    return lines


def _merge(plan: Plain) -> Lines:
    merge, genes = plan["merge"], plan["genes"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in genes["kinds"].items())
    return [
        ("tensors", f"{merge['tensors_merged']} merged, {merge['tensors_copied']} copied, {merge['dtype']}"),
        ("files from", f"{merge['files_from']}, tokenizer={merge['tokenizer']}"),
        ("genes", f"{genes['count']} ({kinds}), such as {', '.join(genes['such_as'])}"),
        *(("differs", each) for each in plan["doubts"]),
        *(("not checked", each) for each in plan["not_checked"]),
    ]


def _search(plan: Plain, found: Outlook) -> Lines:
    examples = plan["examples"]
    split = "; ".join(
        f"{split}: " + ", ".join(f"{n} {name}" for name, n in each.items()) for split, each in examples.items()
    )
    work = plan["work"]
    lines = [("examples", split), ("genomes", f"{work['genomes']} in {work['generations']} generations")]
    for name, count in found.work.examples().items():
        how = f"{count.likely:,.0f}" + (f" ({count.low:,.0f} to {count.high:,.0f})" if count.high > count.low else "")
        lines.append(("scored", f"{how} examples by {name}"))
    one = found.wall[0]
    if not one.unknown:
        lines.append(("tokens", f"{one.tokens:,.0f}, in {one.passes:,.0f} batches"))
    lines.append(("backend", plan["chosen"]["backend"]))
    lines.append(("optimizer", f"{plan['optimizer']['chosen']}; {plan['optimizer']['suited']}"))
    return [*lines, *([("assumed", work["assumed"])] if work["assumed"] else [])]


def _memory(plan: Plain) -> Lines:
    memory = plan["memory"]
    lines = [("download", gigabytes(memory["download"]))]
    for name in ("driver", "worker", "gpu", "inside_engine", "disk"):
        if held := memory[name]:
            parts = ", ".join(f"{part} {gigabytes(size)}" for part, size in held["parts"].items() if size >= 1e6)
            room = f" of {gigabytes(held['room'])}" if held["room"] else ""
            lines.append((name.replace("_", " "), f"{gigabytes(held['total'])}{room}: {parts}"))
    if not memory["measured"] and (memory["gpu"] or memory["worker"])["parts"].get("prompts and answers") == 0:
        lines.append(("not known", "prompts and answers: calibrate=true measures them"))
    return [*lines, ("page cache", f"{gigabytes(memory['mapped_sources'])} of sources, where there is room")]


def _power(found: Outlook) -> Lines:
    values: Mapping[str, float] = found.apart.values
    how = (
        f"measured on {found.apart.measured} search examples"
        if found.apart.measured
        else f"assumed; at most {BOUND}, as a rule"
    )
    told = ", ".join(f"{value:.2f} of {name}" for name, value in values.items())
    lines = [("smallest gain", power_line(found)), ("disagreement", f"{told} ({how})")]
    more = [f"{n} times: {g:.3f}" for n, g in ((2, found.doubled), (4, found.fourfold)) if g is not None]
    if more:
        lines.append(("more test examples", "; ".join(more)))
    lines.append(("optimism", f"the best genome looks up to {found.optimism:.3f} too good on search"))
    if found.optimism_of_choice is not None:
        lines.append(("", f"the one that is chosen up to {found.optimism_of_choice:.3f} on validation, 0 on test"))
    return lines


def plain(sections: Sequence[tuple[str, Lines]]) -> str:
    """The whole plan as text."""
    width = max(len(name) for _, lines in sections for name, _ in lines)
    return "\n\n".join(
        "\n".join([heading, *(f"  {name:<{width}}  {told}" for name, told in lines)]) for heading, lines in sections
    )
