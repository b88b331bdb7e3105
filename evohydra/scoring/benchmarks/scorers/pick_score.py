"""PickScore: a CLIP tuned on people's choices between pictures (Kirstain et al. 2023, arXiv 2305.01569, section 4)."""

from evohydra.scoring.benchmarks.scorers import ScorerError
from evohydra.scoring.benchmarks.scorers.similarity import Embedder, Similarity, located


def pick_score(path: str | None = None, revision: str | None = None) -> Similarity:
    """A scorer by the model in `path`, yuvalkirstain/PickScore_v1 in the format of transformers; prompts in English.

    The score is the cosine of picture and prompt times the model's learned scale, exp(logit_scale), some 100; raises
    ScorerError where there is no such model.
    """
    embedder = Embedder(located(path, revision))
    scale = getattr(embedder.model, "logit_scale", None)
    if scale is None:
        raise ScorerError(f"{path}: expected a CLIP with a logit_scale, got {type(embedder.model).__name__}")
    return Similarity("pick_score", embedder, scale=float(scale.exp()))
