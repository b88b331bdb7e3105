"""Images of a benchmark: files or bytes -> RGB images, with clear words about those that cannot be used."""

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from evohydra.scoring.benchmarks import BenchmarkError

MAX_PIXELS = 50_000_000
# Formats that Pillow decodes by itself: others run programs (EPS) or have no business here.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True)
class ImageSource:
    """Where an image is: a file, or the bytes of one; `label` names it in messages."""

    label: str
    path: Path | None = None
    data: bytes | None = None

    @property
    def key(self) -> str:
        """The same for the same file, and for the same bytes."""
        return str(self.path) if self.data is None else hashlib.sha256(self.data).hexdigest()

    def read(self) -> bytes:
        """The file's bytes. Raises BenchmarkError where there is none."""
        if self.data is not None:
            return self.data
        assert self.path is not None
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise BenchmarkError(f"image {self.label}: cannot be read: {error.strerror or error}") from error


def decoded(source: ImageSource, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    """The image in RGB, turned as its camera says, and the digest of its pixels.

    Raises BenchmarkError, with the file's name, for a corrupt or truncated image, one of another format, and one of
    more than `max_pixels`, which is refused by its header alone.
    """
    Image.init()  # FORMATS are looked up among those that are registered
    content = source.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise BenchmarkError(
                        f"image {source.label}: {image.width} x {image.height} pixels, more than max_pixels="
                        f"{max_pixels}; make it smaller, or raise benchmark.<name>.max_pixels"
                    )
                rgb = ImageOps.exif_transpose(image).convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BenchmarkError(
            f"image {source.label}: refused as a possible decompression bomb: {error}; make it smaller"
        ) from error
    except BenchmarkError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for broken files
        raise BenchmarkError(
            f"image {source.label}: not a readable image ({type(error).__name__}: {str(error)[:200]}); expected one of "
            f"{', '.join(FORMATS)}, whole"
        ) from error
    return rgb, digest(rgb)


def digest(image: Image.Image) -> str:
    """The same for images of the same pixels."""
    return hashlib.sha256(f"{image.size} {image.mode} ".encode() + image.tobytes()).hexdigest()


def text_of(value: object) -> str:
    """repr of an example, where an image is its pixels; its own repr names a place in memory."""
    if isinstance(value, Image.Image):
        return digest(value)
    if isinstance(value, Mapping):
        return repr({key: text_of(each) for key, each in value.items()})
    if isinstance(value, list | tuple):
        return repr([text_of(each) for each in value])
    return repr(value)
