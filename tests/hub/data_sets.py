"""Small data sets under the names of the published ones, as parquet, with their columns and configurations."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
from PIL import Image

from tests.hub.repositories import Repository
from tests.hub.server import Hub

GSM8K_JA, MGSM = "SakanaAI/gsm8k-ja-test_250-1319", "juletxara/mgsm"
VG_VQA, IN_THE_WILD = "SakanaAI/JA-VG-VQA-500", "SakanaAI/JA-VLM-Bench-In-the-Wild"
JGLUE = "shunk031/JGLUE"
LABELS = {"JCommonsenseQA": "label", "JNLI": "label", "JCoLA": "label"}
CONVERTED = "refs/convert/parquet"  # the branch where the hub keeps its own parquet files


def parquet(rows: Sequence[Mapping[str, object]]) -> bytes:
    """The rows as the bytes of a parquet file."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def picture(number: int) -> bytes:
    """A PNG of one colour and a number of one's own."""
    buffer = io.BytesIO()
    image = Image.new("RGB", (24, 20), (number % 251, 7 * number % 251, 31 * number % 251))
    image.putpixel((0, 0), (number // 251, 1, 2))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def add_all(hub: Hub) -> None:
    """Every data set of the published experiments."""
    _add(hub, GSM8K_JA, {"data/test-00000-of-00001.parquet": parquet(_sums(0, 1069))})
    card = (
        "configs:\n- config_name: ja\n  data_files:\n  - split: train\n    path: ja/train-*\n"
        "  - split: test\n    path: ja/test-*\n"
    )
    mgsm = {
        "ja/train-00000-of-00001.parquet": parquet(_sums(3000, 8)),
        "ja/test-00000-of-00001.parquet": parquet(_sums(2000, 250)),
    }
    _add(hub, MGSM, mgsm, card)
    _add(hub, VG_VQA, {"data/test-00000-of-00001.parquet": parquet([_questions(n) for n in range(12)])})
    wild = [
        {"image_id": n % 6, "image": _image(n % 6), "question": f"絵{n}は何ですか？", "answer": "赤い犬です"}
        for n in range(8)
    ]
    _add(hub, IN_THE_WILD, {"data/test-00000-of-00001.parquet": parquet(wild)})
    _add_jglue(hub)


def _sums(first: int, count: int) -> list[dict[str, object]]:
    return [
        {"question": f"りんごが{n}個あり、{n % 7}個もらいました。何個ありますか？", "answer": None,
         "answer_number": n + n % 7, "equation_solution": None}
        for n in range(first, first + count)
    ]  # fmt: skip


def _image(number: int) -> dict[str, object]:
    return {"bytes": picture(number), "path": f"{number}.png"}


def _questions(number: int) -> dict[str, object]:
    asked = [{"qa_id": 10 * number + n, "question": f"{n}番目の色は何ですか？", "answer": "赤です"} for n in range(2)]
    return {"image_id": 1000 + number, "image": _image(1000 + number), "qas": asked}


def _add(hub: Hub, name: str, files: Mapping[str, bytes | Path], card: str = "") -> Repository:
    readme = {"README.md": f"---\nlicense: apache-2.0\n{card}---\n# {name}\n".encode()}
    repository = hub.add(Repository(name, "datasets"))
    repository.commit({**files, **readme})
    return repository


def _add_jglue(hub: Hub) -> None:
    """A repository with a loading script, which nobody runs any more, and the hub's parquet files on a branch."""
    repository = _add(hub, JGLUE, {"JGLUE.py": b"raise SystemExit('a loading script was run')\n"})
    files = {
        f"{task}/{split}/0000.parquet": parquet([_judged(task, n) for n in range(30)])
        for task in LABELS
        for split in ("train", "validation")
    }
    repository.commit(files, CONVERTED)


def _judged(task: str, number: int) -> dict[str, object]:
    sentence = f"{number}匹の犬がいます。"
    if task == "JCommonsenseQA":
        choices = {f"choice{n}": f"{number + n}匹" for n in range(5)}
        return {"q_id": number, "question": f"{sentence}何匹ですか？", **choices, "label": number % 5}
    if task == "JNLI":
        return {
            "sentence_pair_id": str(number),
            "yjcaptions_id": str(number),
            "sentence1": sentence,
            "sentence2": "犬がいます。",
            "label": number % 3,
        }
    return {"uid": number, "source": "s", "label": number % 2, "diacritic": "g", "sentence": sentence, "original": ""}
