"""The benchmark of the tiny VLM reads the file that ships with evohydra."""

from evohydra.benchmarks.tiny_vqa_ja import tiny_vqa_ja


def test_splits_have_their_examples():
    splits = {"search": {"start": 0, "stop": 300}, "validation": {"start": 300, "stop": 500}, "test": {"start": 500}}
    benchmark = tiny_vqa_ja("tiny", splits=splits, prompt="{image}問：{question}答：")["tiny"]
    assert [benchmark.size(split) for split in ("search", "validation", "test")] == [300, 200, 1000]
    example = benchmark.examples("test")[0]
    assert example.references[0].endswith("。")
    assert benchmark.image(example).size == (24, 24)
