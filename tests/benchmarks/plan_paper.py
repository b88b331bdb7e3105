"""The plan's table of the paper's systems: python -m tests.benchmarks.plan_paper.

Nothing of them is loaded: shapes are those of the published configurations, built on the meta device, and lengths of
prompts and answers are assumed as written here. The arithmetic is the planner's own.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from evohydra.assembly.sizes import SHARE, batch_size, bytes_of_a_prompt, bytes_of_a_token
from evohydra.planning.cost import Asked, Rate, Shape, Speed, cost, language_rate, merge_seconds
from evohydra.planning.devices import DEVICES, Device
from evohydra.planning.engines import Serving, inside, served_rate
from evohydra.planning.memory import Rooms, Sizes, memory
from evohydra.planning.power import BOUND, optimism, smallest_gain
from evohydra.planning.words import duration, gigabytes
from evohydra.planning.work import Stage, Work, course_of
from evohydra.searching.fitness.expected import Between

LIBRARIES, FIXED = 1e9, 120.0  # bytes of a process; seconds of reading four checkpoints, writing the winner, the report
TABLES = 2 * 1024**3  # cache_gb
MISTRAL = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
           "num_attention_heads": 32, "num_key_value_heads": 8}  # fmt: skip
UNET = {"sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
        "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816}  # fmt: skip
VAE = {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": (128, 256, 512, 512),
       "layers_per_block": 2, "down_block_types": ("DownEncoderBlock2D",) * 4,
       "up_block_types": ("UpDecoderBlock2D",) * 4}  # fmt: skip
TEXT_ENCODERS = 818e6  # parameters of SDXL's two
# Tokens: a Japanese word problem in the paper's prompt, and steps that solve it.
PROBLEM = Asked(prompt=260, answer=200, longest=600)
# A photograph of LLaVA 1.6 and a question; short answers of 5 beams (docs/vision.md).
QUESTION = Asked(prompt=2420, answer=20, longest=64, beams=5)


def mistral() -> dict[str, tuple[int, ...]]:
    """The shapes of Mistral 7B."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.MistralConfig(**MISTRAL))
    return {name: tuple(each.shape) for name, each in model.named_parameters()}


def sdxl() -> tuple[float, float, float]:
    """Parameters of UNet and VAE, operations of a step at 1024 x 1024, and of decoding a picture."""
    import diffusers

    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**UNET).to(torch.float16)
        vae = diffusers.AutoencoderKL(**VAE).to(torch.float16)
        more = {"text_embeds": torch.zeros(1, 1280).half(), "time_ids": torch.zeros(1, 6).half()}
        latents, words = torch.zeros(1, 4, 128, 128).half(), torch.zeros(1, 77, 2048).half()
        with FlopCounterMode(display=False) as step, torch.no_grad():
            unet(latents, torch.tensor(1.0), words, added_cond_kwargs=more)
        with FlopCounterMode(display=False) as picture, torch.no_grad():
            vae.decode(latents)
    parameters = sum(each.numel() for model in (unet, vae) for each in model.parameters())
    return parameters, step.get_total_flops(), picture.get_total_flops()


def work(genomes: int, first: int, stages: Mapping[str, tuple[int, int]]) -> Work:
    """stages: by name how many models, and examples of each."""
    return Work(
        course_of(genomes, first, first),
        tuple(Stage(name, models, {"a": Between.known(models * each)}) for name, (models, each) in stages.items()),
    )


def of_language(
    device: Device, asked: Asked, length: int, paths: int, visual: float = 0.0
) -> tuple[Rate, Sizes, float]:
    """The rate of Mistral 7B (`paths`: as two models along paths of twice its length), memory, bytes of a model."""
    shapes, kind = mistral(), torch.bfloat16
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    live = paths * numbers * 2 + visual * 2
    token = bytes_of_a_prompt(shapes, kind, length, paths) / length
    room = int(SHARE * device.memory) - int(live) - TABLES
    fitting = batch_size(shapes, kind, room, paths)
    if asked.beams > 1 or length > 1024:
        fitting = max(1, min(8, int(room // (asked.beams * length * token))))  # experiment=evovlm_jp asks 8
    rows = shapes["model.embed_tokens.weight"]
    hops = 65 / 32 if paths > 1 else 1.0
    cached = (bytes_of_a_token(shapes, kind, 1) - bytes_of_a_token(shapes, kind, 0)) * hops
    layers = MISTRAL["num_hidden_layers"] * hops
    shape = Shape((numbers - rows[0] * rows[1]) * hops, numbers * 2 * hops, cached, round(layers))
    rate = language_rate(shape, asked, device, fitting)
    held = Sizes(live, TABLES, token * asked.beams, fitting, length, 1024**3 * (paths - 1), LIBRARIES, 0)
    return rate, held, numbers * 2


VLLM = Serving(sequences=64, share=0.6, cache=1024.0**3, libraries=1.5e9)  # the defaults of conf/backend/vllm.yaml


def of_engine(device: Device) -> tuple[Rate, Sizes]:
    """Mistral 7B by vLLM. While the winner is checked, the model is there a second time."""
    asked, kind = PROBLEM, torch.bfloat16
    shapes = mistral()
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    rows = shapes["model.embed_tokens.weight"]
    cached = bytes_of_a_token(shapes, kind, 1) - bytes_of_a_token(shapes, kind, 0)
    shape = Shape(numbers - rows[0] * rows[1], numbers * 2, cached, int(MISTRAL["num_hidden_layers"]))
    length = asked.prompt + asked.longest
    held = inside(numbers * 2, cached, length, VLLM, on_gpu=device.gpu)
    sizes = Sizes(numbers * 2, TABLES, 0, 1, length, 0, LIBRARIES, 0, inside=held, share=VLLM.share)
    return served_rate(shape, asked, device, VLLM.sequences), sizes


def row_of_engine(device: Device, workers: int) -> str:
    """A line of the table of vLLM: EvoLLM-JP, with an engine on each GPU."""
    examples = 1069
    rate, sizes = of_engine(device)
    merge = merge_seconds(sizes.live, 4, device, kept=False)
    plan = work(1000, 9, {"search": (1000, examples), "test": (8, 250)})
    found = cost(plan, Speed(merge, {"a": rate}, 30.0, FIXED), workers)
    held = memory(sizes, on_gpu=True, workers=workers, here=False, rooms=Rooms(None, device.memory, None), download=0)
    assert held.gpu is not None
    assert held.inside is not None
    label = f"{workers} x {device.name}" if workers > 1 else device.name
    return (
        f"| {label} | {gigabytes(held.inside.total)} of {gigabytes(held.inside.room or 0)} | "
        f"{gigabytes(held.gpu.total)} of {gigabytes(device.memory)} ({'no' if held.lacking else 'yes'}) | "
        f"{merge:.0f} s | {rate.seconds(examples, 1):.0f} s | "
        f"{duration(found.total.likely)} ({duration(found.total.low)} to {duration(found.total.high)}) |"
    )


def of_pictures(device: Device) -> tuple[Rate, Sizes, float]:
    """Four steps of SDXL at 1024 x 1024 in float16, 8 pictures at a time, without the judge's time."""
    parameters, step, picture = sdxl()
    live = 2 * (parameters + TEXT_ENCODERS)
    each = (4 * step + picture) / (device.flops * device.compute)
    fitting = 8
    activations = 0.9e9  # bytes of a picture: docs/diffusion.md has 3 to 8 GB for 8
    return Rate(0.3, each, fitting), Sizes(live, TABLES, activations, fitting, 1, 0, LIBRARIES, 0), 2 * parameters


def row(name: str, plan: Work, rate: Rate, held: Sizes, model: float, sources: int, device: Device, workers: int,
        test: int, search: int, download: float) -> str:  # fmt: skip
    """A line of the table."""
    merge = merge_seconds(model, sources, device, kept=False)
    speed = Speed(merge, {"a": rate}, 30.0, FIXED)
    found = cost(plan, speed, workers)
    gpu = memory(held, on_gpu=True, workers=workers, here=workers == 1, rooms=Rooms(None, device.memory, None),
                 download=download).gpu  # fmt: skip
    assert gpu is not None
    hours = found.total.times(workers / 3600)
    gain = smallest_gain({"a": test}, {"a": BOUND})
    fits = "yes" if gpu.fits else "no"
    label = f"{workers} x {device.name}" if workers > 1 else device.name
    return (
        f"| {name} | {label} | {gigabytes(gpu.total)} ({fits}) | {held.batch} | {duration(found.total.likely)} "
        f"({duration(found.total.low)} to {duration(found.total.high)}) | {hours.likely:,.0f} | "
        f"{gigabytes(download)} | {gain:.3f} | {optimism({'a': search}, {'a': BOUND}, plan.course.genomes):.3f} |"
    )


def main() -> None:
    seven, pipeline = 14.5e9, 7e9
    print("| system | device | GPU memory (fits) | batch | time | GPU-hours | download | smallest gain | optimism |")
    print("|---|---|---|---|---|---|---|---|---|")
    devices = [(DEVICES["rtx4090"], 1), (DEVICES["h100"], 1), (DEVICES["h100"], 8)]
    for device, workers in devices:
        stages = {"search": (1000, 1069), "test": (8, 250)}
        plan = work(1000, 9, stages)
        print(row("EvoLLM-JP", plan, *of_language(device, PROBLEM, 1024, 1), 4, device, workers, 250, 1069, 4 * seven))
    for device, workers in devices:
        stages = {"search": (12800, 200), "validation": (100, 200), "test": (4, 250)}
        plan, asked = work(12800, 128, stages), PROBLEM
        rate, held, model = of_language(device, asked, 1024, 2)
        plan_of = (plan, replace(rate), held, model / 1000)  # a path merges nothing
        print(row("EvoLLM-JP-10B", *plan_of, 2, device, workers, 250, 200, 2 * seven))
    for device, workers in devices:
        stages = {"search": (1000, 1000), "test": (6, 500)}
        plan = work(1000, 8, stages)
        found = of_language(device, QUESTION, 2420 + 512, 1, visual=0.33e9)
        print(row("EvoVLM-JP", plan, *found, 3, device, workers, 500, 1000, 2 * seven + 15.1e9))
    for device, workers in devices:
        stages = {"search": (500, 48), "validation": (5, 24), "test": (6, 60)}
        plan = work(500, 10, stages)
        print(row("EvoSDXL-JP", plan, *of_pictures(device), 4, device, workers, 60, 48, 4 * pipeline + 0.4e9))
    print("\n| EvoLLM-JP by vLLM on | inside vLLM | of the GPU (fits) | merge | answers | time |")
    print("|---|---|---|---|---|---|")
    for name, workers in (("rtx4090", 1), ("a100-40", 1), ("h100", 1), ("h100", 8)):
        print(row_of_engine(DEVICES[name], workers))


if __name__ == "__main__":
    main()
