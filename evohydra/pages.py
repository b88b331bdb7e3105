"""HTML pages from the templates in `evohydra/templates`, and text in Markdown: whatever is put into them is escaped."""

import base64
import re
from io import BytesIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image


def data_address(data: bytes, kind: str) -> str:
    """The address of `data`, of this MIME type, with the data inside: what has it needs no file beside the page."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image_address(image: Image.Image, format: str, **settings: object) -> str:
    """`data_address` of a picture that is saved in this format of Pillow's."""
    packed = BytesIO()
    image.save(packed, format, **settings)
    return data_address(packed.getvalue(), f"image/{format.lower()}")


MARKS = re.compile(r"[\\`*\[\]<>|]")


def in_markdown(text: object) -> str:
    """`text` on one line, so that Markdown shows it as it is: no tag, link, emphasis, code or cell of a table."""
    return MARKS.sub(lambda mark: f"\\{mark[0]}", " ".join(str(text).split()))


ENVIRONMENT = Environment(
    loader=PackageLoader("evohydra"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters["data_address"] = data_address
ENVIRONMENT.policies["json.dumps_kwargs"] = {"ensure_ascii": False}


def render(template: str, **values: object) -> str:
    """The page that `template` makes of `values`. Only a `markupsafe.Markup` is put in as it is."""
    return ENVIRONMENT.get_template(template).render(**values)
