"""Cutting a split between workers so that every answer has the bits that it has uncut: at the ends of batches."""

from collections.abc import Sequence

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def part_of_batches(lm: HFLM, requests: Sequence[Sequence[Instance]], index: int, count: int) -> list[int]:
    """The positions of the examples in part `index` of `count`; `requests` are lm-eval's, for each example.

    lm-eval sorts prompts by their length and cuts them into batches (HFLM.generate_until), and how far an answer is
    padded depends on its batch. So whole batches go to one part. Where batches hold several requests of an example, or
    are found by trying, all is in part 0.
    """
    size = lm.batch_size
    single = all(len(each) == 1 and each[0].request_type == "generate_until" for each in requests)
    if not single or not isinstance(size, int):
        return list(range(len(requests))) if index == 0 else []
    prompts = [each[0].args[0] for each in requests]
    order = sorted(range(len(prompts)), key=lambda at: (-len(lm.tok_encode(prompts[at])), prompts[at]))
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return sorted(at for batch in batches[index::count] for at in batch)
