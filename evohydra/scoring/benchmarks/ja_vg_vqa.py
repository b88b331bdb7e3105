"""A search set from Japanese Visual Genome VQA that shares no image with JA-VG-VQA-500: JSON lines from local files.

python -m evohydra.scoring.benchmarks.ja_vg_vqa question_answers.json out.jsonl --images VG_100K --without test.parquet
"""

import argparse
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from evohydra.files import Plain
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.visual_data import rows_of

SUFFIXES = (".jpg", ".jpeg", ".png")


def search_rows(
    questions: Sequence[Plain], images: Sequence[Path], without: Collection[str], count: int, seed: int
) -> list[dict[str, str]]:
    """`count` images at random, the first question of each: rows of image, image_id, question and answer.

    `questions` are those of yahoojapan/ja-vg-vqa (each image with its id and `qas`), `without` the ids of images that
    are left out, `images` the directories that hold <id>.jpg. Raises BenchmarkError where too few images are left.
    """
    where = {file.stem: file for folder in images for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES}
    rows = {}
    for entry in questions:
        asked = entry.get("qas") or []
        identity = str(entry.get("image_id", entry.get("id", asked[0].get("image_id") if asked else None)))
        if asked and identity in where and identity not in without:
            question, answer = str(asked[0]["question"]), str(asked[0]["answer"])
            image = str(where[identity].resolve())
            rows[identity] = {"image": image, "image_id": identity, "question": question, "answer": answer}
    if len(rows) < count:
        raise BenchmarkError(
            f"expected at least {count} images with a question and not left out, got {len(rows)}: {len(questions)} "
            f"images have questions, {len(where)} image files were found, {len(without)} images are left out"
        )
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    listed = [rows[identity] for identity in sorted(rows)]  # the order of the file does not matter
    return [listed[index] for index in chosen]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; says how many images it left out."""
    parser = argparse.ArgumentParser("evohydra.scoring.benchmarks.ja_vg_vqa", description=__doc__)
    parser.add_argument("questions", type=Path, help="question_answers.json of yahoojapan/ja-vg-vqa")
    parser.add_argument("out", type=Path, help="JSON lines to write")
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="directories of Visual Genome's images")
    parser.add_argument(
        "--without", type=Path, required=True, help="JA-VG-VQA-500, parquet or JSON lines with image_id"
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        without = {str(row["image_id"]) for row in rows_of("ja_vg_vqa", given.without, ["image_id"])}
        rows = search_rows(rows_of("ja_vg_vqa", given.questions), given.images, without, given.count, given.seed)
    except (BenchmarkError, OSError, KeyError) as error:
        parser.exit(1, f"{parser.prog}: {type(error).__name__}: {error}\n")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    given.out.write_text("".join(lines), encoding="utf-8")
    print(f"{len(rows)} questions in {given.out}; the {len(without)} images of {given.without} are not among them")


if __name__ == "__main__":
    main()
