"""Tasks that take a Japanese task which lm-eval ships and change some of its keys."""

from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask

from evohydra.scoring.benchmarks.private_lm_eval import load_yaml

FOLDER = Path(lm_eval.tasks.__file__).parent / "japanese_leaderboard"


class ShippedTask(ConfigurableTask):  # type: ignore[misc]
    """An lm-eval task made from the yaml that ``shipped`` names; every other key of the config replaces its key there.

    It stands in for ``include:``, which finds a file only beside the yaml or by its absolute path.
    Raises ValueError when ``shipped`` names no such yaml, or when that task's own packages are missing.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        own = {key: value for key, value in config.items() if key not in ("class", "shipped")}
        path = FOLDER / str(config.get("shipped"))
        if not path.is_file():
            known = ", ".join(sorted(file.name for file in FOLDER.glob("ja_*.yaml")))
            raise ValueError(f"{own['task']}: shipped: expected one of {known}, got {config.get('shipped')!r}")
        try:
            shipped = load_yaml(path)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{own['task']}: expected the packages of its ROUGE to be installed, got {error}; "
                "run `pip install 'lm-eval[japanese-leaderboard]'`"
            ) from error
        super().__init__(config={**shipped, **own})
