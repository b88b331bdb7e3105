"""How far a download is, in bytes, on a terminal only."""

import sys

from tqdm.auto import tqdm


class Bar(tqdm):  # type: ignore[misc]
    """A bar that shows whatever TQDM_DISABLE says of other libraries' bars; not in files and pipes."""

    def __init__(self, *args: object, **settings: object) -> None:
        settings.pop("name", None)
        settings["disable"] = not sys.stderr.isatty()
        settings["leave"] = False
        super().__init__(*args, **settings)
