"""A report as one HTML file that needs no network, in light and dark, from a phone's width upwards."""

from collections.abc import Sequence

from markupsafe import Markup

from evohydra.pages import render
from evohydra.report.blocks import FigureBlock, Section
from evohydra.report.style import svg, variables

PHONE = 4.6  # inches: figures that are wider keep their size there, and scroll in their own box
COLUMNS = 5  # a table with more has a row of the page for itself


def page(title: str, sections: Sequence[Section]) -> str:
    """The HTML of the report."""
    return render(
        "report.html",
        title=title,
        sections=sections,
        variables=Markup(variables()),
        svg=_inside_of_svg,
        phone=PHONE,
        columns=COLUMNS,
    )


def _inside_of_svg(block: FigureBlock) -> Markup:
    """The drawing behind its `<svg`, where the page's own attributes go; matplotlib escapes what it writes."""
    return Markup(svg(block.figure, block.name).removeprefix("<svg"))
