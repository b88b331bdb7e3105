"""mergekit on configurations: python -m tests.reference.mergekit.run_yaml DIR, in an environment with mergekit.

Of each DIR/name.yaml the merge goes to DIR/name/. What was used for it goes to DIR/provenance.json.
"""

import json
import sys
from pathlib import Path

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

from tests.reference.mergekit.make_fixtures import provenance

COMMAND = "OMP_NUM_THREADS=1 python -m tests.reference.mergekit.make_yaml_fixtures --mergekit-python DIR/bin/python"


def main() -> None:
    """The command."""
    torch.set_num_threads(1)
    directory = Path(sys.argv[1])
    for file in sorted(directory.glob("*.yaml")):
        config = MergeConfiguration.model_validate(yaml.safe_load(file.read_text()))
        options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
        run_merge(config, str(directory / file.stem), options)
    (directory / "provenance.json").write_text(json.dumps(provenance(COMMAND)))


if __name__ == "__main__":
    main()
