"""Files of statistics: one for each source, known by what they were made of, written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evohydra.checks import shown
from evohydra.checks.libraries import versions
from evohydra.files import on_disk, tidy, write_whole
from evohydra.files.tensors import write_tensors
from evohydra.hub.hashes import sha256_of
from evohydra.merging.statistics import METADATA, StatisticsError, StatisticsFile, opened
from evohydra.scoring.gathering.sums import Sums


@dataclass(frozen=True)
class Wanted:
    """A file of one source. key: all that it is made of, by content, as JSON data."""

    directory: Path
    source: str
    statistic: str
    key: Mapping[str, object]

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return self.directory / f"{digest[:16]}.safetensors"

    def found(self) -> StatisticsFile | None:
        """The file, where it is there; StatisticsError for another one in its place, and for changed bytes."""
        if not self.path.exists():
            return None
        _, how = opened(self.path)
        made_of = json.loads(json.dumps(self.key))
        if other := sorted(name for name in {**made_of, **how["key"]} if made_of.get(name) != how["key"].get(name)):
            raise StatisticsError(
                f"statistics of the source {self.source!r}: {self.path} was made of something else than its name says "
                f"({', '.join(map(shown, other))} differ); without it, the run makes it again"
            )
        hashed, noted = sha256_of(self.path), self._noted
        if not noted.is_file() or noted.read_text().split()[:1] != [hashed]:
            raise StatisticsError(
                f"statistics of the source {self.source!r}: {self.path} is not as it was written: expected its "
                f"SHA-256, {hashed}, in {noted.name}; without both files, the run makes them again"
            )
        return StatisticsFile(self.path, hashed)

    @property
    def _noted(self) -> Path:
        """Where the SHA-256 of the file is, as `sha256sum` writes it."""
        return self.path.with_name(f"{self.path.name}.sha256")

    def write(self, sums: Sums, tokens: int, texts: str) -> StatisticsFile:
        """Write `sums`, whose `texts` (a digest) had so many tokens; OSError where the disk is full."""
        self.directory.mkdir(parents=True, exist_ok=True)
        tidy(self.directory, [self.path.name])
        how = {
            "statistic": self.statistic,
            "source": self.source,
            "same": dict(sums.same),
            "transposed": list(sums.transposed),
            "key": dict(self.key),
            "tokens": tokens,
            "texts": texts,
            "versions": versions(),
        }
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            write_tensors(temporary, sums.described, sums.tensors, {METADATA: json.dumps(how, sort_keys=True)})
            on_disk(temporary)
            hashed = sha256_of(temporary)
            write_whole(self._noted, f"{hashed}  {self.path.name}\n".encode())
            temporary.replace(self.path)
            on_disk(self.path.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return StatisticsFile(self.path, hashed)
