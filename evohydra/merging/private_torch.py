"""Parts of torch that are not in its documentation."""

from torch import Tensor, nn

from evohydra.checks.libraries import PrivateParts

TESTED = "2.13.0"
PARTS = (
    PrivateParts("torch", TESTED, "torch._inductor.config", ("emulate_precision_casts",)),
    PrivateParts("torch", TESTED, "torch.nn:Module()", ("_modules",)),
    PrivateParts("torch", TESTED, "torch:Tensor", ("_version",)),
)


def keep_roundings() -> None:
    """Let compiled kernels round where they ask for it, for all of the process; ImportError without inductor."""
    from torch._inductor import config

    config.emulate_precision_casts = True


def children(module: nn.Module) -> dict[str, nn.Module | None]:
    """The table of a module's children, to be written to; `named_children` leaves out None and what comes twice."""
    return module._modules


def writes(tensor: Tensor) -> int:
    """How often `tensor` was written to, as autograd counts it."""
    return tensor._version
