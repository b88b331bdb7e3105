"""Encoders in sentence-transformers' layout on the hub: what counts is fetched, and nothing else."""

from pathlib import Path

import pytest
import torch

from evohydra.families.encoder import Encoder
from evohydra.families.kinds import family_at
from evohydra.families.sources import open_sources
from evohydra.recipe import Checkpoint
from tests import tiny_encoders
from tests.commands import files
from tests.hub.repositories import Repository
from tests.hub.server import Hub

NAME = "someone/sentences"
OTHERS = ("onnx/model.onnx", "tf_model.h5", "README.md", "openvino/model.safetensors")


@pytest.mark.parametrize("folder", ["", "0_Transformer"])
def test_an_encoder_is_found_and_fetched_with_its_pooling(folder: str, online: Hub, tmp_path: Path) -> None:
    place = tiny_encoders.as_sentences(
        tiny_encoders.save(tmp_path / "one", 0), {"pooling_mode": "cls"}, folder, max_seq_length=9
    )
    repository = Repository(NAME)
    pickled = f"{folder}/pytorch_model.bin".lstrip("/")
    repository.commit({**files(place), **dict.fromkeys((*OTHERS, pickled), b"other")})
    online.repositories["models", NAME] = repository
    assert family_at(NAME) == "evohydra.families.encoder.Encoder"
    family = Encoder()
    opened = open_sources((Checkpoint("one", NAME),), None, family)
    fetched = opened.directories["one"]
    there = {path.relative_to(fetched).as_posix() for path in fetched.rglob("*") if path.is_file()}
    assert there == set(files(place))
    local = open_sources((Checkpoint("one", str(place)),), None, family)
    assert opened.models[0].fingerprint == local.models[0].fingerprint
    assert opened.settings == local.settings
    live = family.live_model(fetched, torch.device("cpu"), torch.float32, opened.overlay)
    assert (live.sentence.pooling, live.longest) == (("cls",), 9)


def test_pooling_counts_in_the_settings(tmp_path: Path) -> None:
    """Two that differ in it alone are not the same source."""
    places = [
        tiny_encoders.as_sentences(tiny_encoders.save(tmp_path / mode, 0), {"pooling_mode": mode})
        for mode in ("cls", "mean")
    ]
    found = [open_sources((Checkpoint("one", str(place)),), None, Encoder()) for place in places]
    assert found[0].models[0].fingerprint == found[1].models[0].fingerprint
    assert found[0].settings != found[1].settings
