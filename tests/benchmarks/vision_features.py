"""Seconds that reused vision features save for each genome: python -m tests.benchmarks.vision_features [images]."""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from evohydra.scoring.benchmarks.visual_qa import visual_qa
from tests import tiny_visual

GENOMES = 4
TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 16,
}  # fmt: skip
TEXT = {
    "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 8, "max_position_embeddings": 2048,
}  # fmt: skip


def run(name: str, images: int, reuse: bool) -> tuple[list[float], list[list[str]], float]:
    """Seconds and answers of each genome (a genome is another language model), and the seconds that were saved."""
    live = tiny_visual.MODELS[name](224, tower=TOWER, text=TEXT)
    with tempfile.TemporaryDirectory() as folder:
        file = tiny_visual.save_questions(Path(folder) / "data", images + 1)
        options = {"metric": "evohydra.scoring.benchmarks.rouge:exact_match_plain", "batch_size": 4}
        built = visual_qa(
            name, data_files=str(file), first_question=True, features_gb=2 if reuse else 0,
            splits={"search": {"stop": images}, "validation": None, "test": {"start": images}},
            generation_kwargs={"max_new_tokens": 16, "num_beams": 5}, **options,
        )[name]  # fmt: skip
        embeddings = live.module.get_input_embeddings().weight
        seconds, answers = [], []
        for genome in range(GENOMES):
            generator = torch.Generator().manual_seed(genome)
            embeddings.copy_(torch.randn(embeddings.shape, generator=generator))
            start = time.perf_counter()
            answers.append(built.answers(live, "search", range(images)))
            seconds.append(time.perf_counter() - start)
    return seconds, answers, built.seconds_saved


def main() -> None:
    """A table: ViT-B/16 as the tower, a language model of 34 million parameters, 16 new tokens with 5 beams."""
    torch.set_num_threads(1)
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    print("| model | seconds a genome, features anew | features reused | saved a genome, as reported | answers equal |")
    print("|---|---|---|---|---|")
    for name in ("llava", "llava_next"):
        anew, plain, _ = run(name, images, reuse=False)
        reused, answers, saved = run(name, images, reuse=True)
        per_genome = saved / (GENOMES - 1)
        print(
            f"| {name}, {images} images | {np.mean(anew[1:]):.2f} | {np.mean(reused[1:]):.2f} | {per_genome:.2f} | "
            f"{'yes' if plain == answers else 'NO'} |"
        )


if __name__ == "__main__":
    main()
