"""Scorers against the formulas of their papers, on tiny random models; what they refuse, and that nothing downloads."""

import itertools
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers import OnDevice, ScorerError
from evohydra.scoring.benchmarks.scorers.aesthetic import aesthetic
from evohydra.scoring.benchmarks.scorers.hps import hps
from evohydra.scoring.benchmarks.scorers.image_reward import MEAN, STD, image_reward
from evohydra.scoring.benchmarks.scorers.pick_score import pick_score
from evohydra.scoring.benchmarks.scorers.similarity import similarity
from evohydra.scoring.benchmarks.scorers.weights import CONVERT
from tests import tiny_scorers
from tests.tiny_scorers import SIZE

PROMPTS = [Prompt("a 猫", ""), Prompt("two 犬", ""), Prompt("a 猫", ""), Prompt("x" * 99, "")]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def pictures() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (len(PROMPTS), SIZE, SIZE, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in pixels]


def normalised() -> Tensor:
    """(n, 3, SIZE, SIZE), as CLIP sees the pictures."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in pictures()])).float() / 255
    return ((pixels - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_scorers.save(tmp_path_factory.mktemp("clip"), tiny_scorers.clip_config())


@pytest.mark.parametrize("config", [tiny_scorers.clip_config, tiny_scorers.siglip_config])
def test_similarity_is_the_cosine_that_the_model_itself_computes(config: Callable[[], Any], tmp_path: Path) -> None:
    directory = tiny_scorers.save(tmp_path, config())
    model: Any = transformers.AutoModel.from_pretrained(directory).eval()
    words = tiny_scorers.tokenizer()([prompt.text for prompt in PROMPTS[:2]], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=normalised()[:2], **{k: words[k] for k in ("input_ids", "attention_mask")})
    logits = output.logits_per_image - (model.logit_bias if model.config.model_type == "siglip" else 0)
    expected = (logits / model.logit_scale.exp()).diagonal().detach().numpy()
    scorer = similarity(str(directory))
    scores = scorer(pictures()[:2], PROMPTS[:2])
    assert np.allclose(scores, expected, atol=1e-5)
    assert scores.shape == (2,)
    assert np.abs(scores).max() <= 1
    assert isinstance(scorer, OnDevice)
    scorer.to(torch.device("cpu"))
    assert np.allclose(scorer(pictures()[1:], PROMPTS[1:])[0], scores[1], atol=1e-6)  # whatever else is in the batch


def test_a_template_wraps_the_prompt(clip: Path) -> None:
    plain, wrapped = similarity(str(clip)), similarity(str(clip), template="<{prompt}>")
    given = [Prompt(f"<{prompt.text}>", "") for prompt in PROMPTS[:3]]
    assert np.allclose(wrapped(pictures()[:3], PROMPTS[:3]), plain(pictures()[:3], given))
    with pytest.raises(ScorerError, match=r"template: expected a text with \{prompt\}, got 'a photo'"):
        similarity(str(clip), template="a photo")


def test_pick_score_is_the_cosine_times_the_learned_scale(clip: Path) -> None:
    scale = float(transformers.CLIPModel.from_pretrained(clip).logit_scale.detach().exp())
    assert scale > 10
    ratio = pick_score(str(clip))(pictures(), PROMPTS) / similarity(str(clip))(pictures(), PROMPTS)
    assert np.allclose(ratio, scale)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_aesthetic_heads_are_linear_layers_on_unit_features(kind: str, clip: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    sizes = [12, 1] if kind == "linear" else [12, 9, 8, 7, 6, 5, 4, 3, 2, 3, 4, 1]
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    # As in LAION's MLP dropout has numbers too, and layer 10 comes after layer 2.
    names = [""] if kind == "linear" else [f"layers.{number}." for number in range(len(layers))]
    named = {f"{n}{k}": p.data for n, layer in zip(names, layers, strict=True) for k, p in layer.named_parameters()}
    save_file(named, tmp_path / "head.safetensors")
    features = similarity(str(clip)).embedder.images(pictures())
    assert torch.allclose(features.norm(dim=-1), torch.ones(len(PROMPTS)))
    expected = nn.Sequential(*layers)(features.clone())[:, 0].detach().numpy()
    scores = aesthetic(str(clip), str(tmp_path / "head.safetensors"))(pictures(), PROMPTS)
    assert np.allclose(scores, expected, atol=1e-5)


class OpenClip(nn.Module):
    """The vision tower and the text encoder of open_clip, after its published code, with torch's own attention."""

    class Block(nn.Module):
        def __init__(self, width: int, inner: int) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
            mlp = [("c_fc", nn.Linear(width, inner)), ("gelu", nn.GELU()), ("c_proj", nn.Linear(inner, width))]
            self.mlp = nn.Sequential()
            for name, part in mlp:
                self.mlp.add_module(name, part)

        def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
            y = self.ln_1(x)
            x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
            return x + self.mlp(self.ln_2(x))

    class Blocks(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.resblocks = nn.ModuleList([OpenClip.Block(width, 24) for _ in range(2)])

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            for block in self.resblocks:
                x = block(x, mask)
            return x

    def __init__(self, width: int = 16, out: int = 12, tokens: int = 24) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.conv1 = nn.Conv2d(3, width, 8, 8, bias=False)
        self.visual.class_embedding = nn.Parameter(torch.randn(width))
        self.visual.positional_embedding = nn.Parameter(torch.randn(5, width))
        self.visual.ln_pre, self.visual.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.visual.transformer = OpenClip.Blocks(width)
        self.visual.proj = nn.Parameter(torch.randn(width, out))
        self.token_embedding = nn.Embedding(len(tiny_scorers.tokenizer()), width)
        self.positional_embedding = nn.Parameter(torch.randn(tokens, width))
        self.transformer = OpenClip.Blocks(width)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, out))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("attn_mask", torch.full((tokens, tokens), -torch.inf).triu(1))

    def images(self, pixels: Tensor) -> Tensor:
        v = self.visual
        x = v.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([v.class_embedding.expand(len(x), 1, -1), x], dim=1) + v.positional_embedding
        return v.ln_post(v.transformer(v.ln_pre(x))[:, 0]) @ v.proj

    def text(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: len(ids)]
        x = self.ln_final(self.transformer(x[None], self.attn_mask[: len(ids), : len(ids)]))
        return x[0, (ids == 1).nonzero()[0, 0]] @ self.text_projection  # the token that ends the text


def test_hps_reads_the_weights_of_open_clip(clip: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = OpenClip()
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "weight")):
            nn.init.normal_(parameter, 0.1, 0.2)
    save_file({k: t.contiguous() for k, t in model.state_dict().items()}, tmp_path / "hps.safetensors")
    ids = [torch.tensor(tiny_scorers.tokenizer()(p.text, truncation=True)["input_ids"]) for p in PROMPTS]
    with torch.no_grad():
        texts = torch.stack([model.text(each) for each in ids])
        expected = torch.cosine_similarity(model.images(normalised()), texts).numpy()
    scores = hps(str(clip), str(tmp_path / "hps.safetensors"))(pictures(), PROMPTS)
    assert np.allclose(scores, expected, atol=1e-5)
    assert not np.allclose(scores, hps(str(clip))(pictures(), PROMPTS), atol=1e-2)


def test_hps_refuses_other_weights(clip: Path, tmp_path: Path) -> None:
    fitting = {k: t.contiguous() for k, t in OpenClip().state_dict().items()}
    for name, changed, expected in (
        ("more", {**fitting, "visual.head.weight": torch.zeros(2)}, "visual.head.weight is no tensor of a CLIP"),
        ("less", {k: t for k, t in fitting.items() if k != "ln_final.bias"}, "differ in .*final_layer_norm.bias"),
        ("wider", {**fitting, "visual.proj": torch.zeros(16, 13)}, "differ in .*visual_projection.weight"),
    ):
        save_file(changed, tmp_path / f"{name}.safetensors")
        with pytest.raises(ScorerError, match=expected):
            hps(str(clip), str(tmp_path / f"{name}.safetensors"))


PARTS = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP for pictures of 32 pixels; ImageReward's weights are for pictures of SIZE."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    directory = tmp_path_factory.mktemp("blip")
    words = {"vocab_size": len(tiny_scorers.tokenizer()), "encoder_hidden_size": 16, "max_position_embeddings": 40}
    config = transformers.BlipConfig(
        text_config={**PARTS, **words},
        vision_config={**PARTS, "image_size": 32, "patch_size": 8},
        image_text_hidden_size=8,
    )
    config.save_pretrained(directory)
    tiny_scorers.tokenizer(40).save_pretrained(directory)
    CLIPImageProcessorPil(do_center_crop=False, size={"height": 32, "width": 32}).save_pretrained(directory)
    return directory


def test_image_reward_reads_the_authors_names_and_follows_their_formula(blip: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = transformers.BlipConfig.from_pretrained(blip)
    config.vision_config.image_size = SIZE
    model = transformers.BlipForImageTextRetrieval(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    layers = [nn.Linear(16, 5), nn.Linear(5, 1)]
    published = {f"mlp.layers.{n}.{k}": p.data for n, layer in zip((0, 7), layers, strict=True) for k, p in
                 layer.named_parameters()}  # fmt: skip
    authors = {  # the published file's names, written down one by one
        "visual_encoder.cls_token": "vision_model.embeddings.class_embedding",
        "visual_encoder.pos_embed": "vision_model.embeddings.position_embedding",
        "visual_encoder.patch_embed.proj.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual_encoder.patch_embed.proj.bias": "vision_model.embeddings.patch_embedding.bias",
        "visual_encoder.norm.weight": "vision_model.post_layernorm.weight",
        "visual_encoder.norm.bias": "vision_model.post_layernorm.bias",
    }
    for n in range(2):
        for theirs, ours in (
            ("norm1", "layer_norm1"),
            ("attn.qkv", "self_attn.qkv"),
            ("attn.proj", "self_attn.projection"),
            ("norm2", "layer_norm2"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            for kind in ("weight", "bias"):
                authors[f"visual_encoder.blocks.{n}.{theirs}.{kind}"] = f"vision_model.encoder.layers.{n}.{ours}.{kind}"
    state = model.state_dict()
    published |= {f"blip.{theirs}": state[ours] for theirs, ours in authors.items()}
    published |= {f"blip.{name}": tensor for name, tensor in state.items() if name.startswith("text_encoder")}
    published["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    save_file({name: tensor.contiguous() for name, tensor in published.items()}, tmp_path / "reward.safetensors")

    texts = tiny_scorers.tokenizer(35)(
        [p.text for p in PROMPTS], padding="max_length", truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        seen = model.vision_model(pixel_values=normalised()).last_hidden_state
        read = model.text_encoder(
            texts["input_ids"], attention_mask=texts["attention_mask"], encoder_hidden_states=seen
        ).last_hidden_state
        expected = (nn.Sequential(*layers)(read[:, 0])[:, 0].numpy() - MEAN) / STD
    scorer = image_reward(str(blip), str(tmp_path / "reward.safetensors"))
    assert np.allclose(scorer(pictures(), PROMPTS), expected, atol=1e-4)
    assert np.ptp(expected) > 0.01
    del published["blip.visual_encoder.norm.bias"]
    save_file({name: tensor.contiguous() for name, tensor in published.items()}, tmp_path / "less.safetensors")
    with pytest.raises(ScorerError, match=r"does not fit the BLIP .* differ in \['vision_model.post_layernorm.bias'\]"):
        image_reward(str(blip), str(tmp_path / "less.safetensors"))


def test_what_is_missing_is_said_and_nothing_is_downloaded(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (tmp_path / "empty").mkdir()
    pickle = tmp_path / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save({"weight": torch.zeros(1, 12), "bias": torch.zeros(1)}, pickle)
    save_file({"weight": torch.zeros(1, 13), "bias": torch.zeros(1)}, tmp_path / "wide.safetensors")
    save_file({"weight": torch.zeros(2, 12), "bias": torch.zeros(2)}, tmp_path / "two.safetensors")
    save_file({"weight": torch.zeros(1, 12)}, tmp_path / "no_bias.safetensors")
    where = str(clip)
    for make, expected in (
        (lambda: similarity(), "path: expected the directory of a model"),
        (lambda: similarity("/no/such"), "path: /no/such: no such directory"),
        (lambda: similarity("nobody/nothing"), "run `hf download nobody/nothing`"),
        (lambda: similarity(str(tmp_path / "empty")), "cannot be loaded as a model of transformers"),
        (lambda: pick_score(None), "path: expected the directory"),
        (lambda: aesthetic(where, None), "head: expected a safetensors file, got none"),
        (lambda: aesthetic(where, "/no/head.safetensors"), "head: no such file: /no/head.safetensors"),
        (
            lambda: aesthetic(where, str(pickle)),
            r"not a safetensors file .* convert one once: python -c .*weights_only",
        ),
        (lambda: aesthetic(where, str(tmp_path / "wide.safetensors")), "made for 13 features, the CLIP .* gives 12"),
        (lambda: aesthetic(where, str(tmp_path / "two.safetensors")), r"down to 1 number, got \[\(2, 12\)\]"),
        (lambda: aesthetic(where, str(tmp_path / "no_bias.safetensors")), r"got \['weight'\]"),
        (lambda: aesthetic("/no/clip", str(tmp_path / "no_bias.safetensors")), "no_bias|expected weight and bias"),
        (lambda: hps(where, str(pickle)), "weights: .* is not a safetensors file"),
        (lambda: image_reward(where, None), "path: .* expected a model of type blip, got clip"),
    ):
        with pytest.raises(ScorerError, match=expected):
            make()


def test_a_model_that_embeds_no_pictures(tmp_path: Path) -> None:
    words = {"vocab_size": len(tiny_scorers.tokenizer()), "max_position_embeddings": 24}
    tiny_scorers.save(tmp_path, transformers.BertConfig(**PARTS, **words))
    with pytest.raises(ScorerError, match=r"expected a model that embeds pictures and texts, .* type 'bert'"):
        similarity(str(tmp_path))


def test_the_command_that_the_message_gives_converts_a_pickle(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"state_dict": {"weight": torch.ones(1, 12), "bias": torch.zeros(1)}}, tmp_path / "OLD.pth")
    _, _, code, *names = shlex.split(CONVERT)
    monkeypatch.setattr(sys, "argv", ["-c", *names])
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    features = similarity(str(clip)).embedder.images(pictures())
    scores = aesthetic(str(clip), str(tmp_path / "NEW.safetensors"))(pictures(), PROMPTS)
    assert np.allclose(scores, features.sum(dim=-1), atol=1e-5)
