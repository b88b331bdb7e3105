"""Parts of transformers that are not in its documentation."""

from typing import Any

from transformers.core_model_loading import revert_weight_conversion
from transformers.initialization import no_init_weights

from evohydra.libraries import PrivateParts

TESTED = "5.23.0"
PARTS = (
    PrivateParts("transformers", TESTED, "transformers.core_model_loading", ("revert_weight_conversion",)),
    PrivateParts("transformers", TESTED, "transformers.initialization", ("no_init_weights",)),
    PrivateParts("transformers", TESTED, "transformers:PreTrainedModel", ("_from_config",)),
)
__all__ = ["PARTS", "from_config", "no_init_weights", "revert_weight_conversion"]


def from_config(kind: Any, config: object, **settings: object) -> Any:
    """A model of the class `kind`, without files; the public `AutoModel.from_config` chooses the class by itself."""
    return kind._from_config(config, **settings)
