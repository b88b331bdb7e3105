"""Parts of transformers that are not in its documentation."""

import re
from typing import Any

from transformers.core_model_loading import revert_weight_conversion
from transformers.initialization import no_init_weights

from evohydra.checks.libraries import PrivateParts

TESTED = "5.23.0"
PARTS = (
    PrivateParts("transformers", TESTED, "transformers.core_model_loading", ("revert_weight_conversion",)),
    PrivateParts("transformers", TESTED, "transformers.initialization", ("no_init_weights",)),
    PrivateParts("transformers", TESTED, "transformers:PreTrainedModel", ("_from_config",)),
    PrivateParts("transformers", TESTED, "transformers:PreTrainedModel", ("_keys_to_ignore_on_load_unexpected",)),
)
__all__ = ["PARTS", "from_config", "left_out_on_load", "no_init_weights", "revert_weight_conversion"]


def left_out_on_load(kind: Any, name: str) -> bool:
    """Whether models of the class `kind` (or the model `kind`) leave a tensor of that name out of a checkpoint."""
    return any(re.search(pattern, name) for pattern in kind._keys_to_ignore_on_load_unexpected or ())


def from_config(kind: Any, config: object, **settings: object) -> Any:
    """A model of the class `kind`, without files; the public `AutoModel.from_config` chooses the class by itself."""
    return kind._from_config(config, **settings)
