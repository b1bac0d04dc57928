"""timm's own folders become classifiers that give timm's logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from anyformer.errors import InputError
from anyformer.tasks.convert.timm import is_timm, open_timm
from tests.helpers.drawn import noise
from tests.helpers.witnesses import error, redraw

timm = pytest.importorskip("timm")

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def written(folder: Path, architecture: str = "vit_tiny_patch16_224", **options: Any) -> Any:
    """A small model of timm, every parameter redrawn, in a folder as timm writes it."""
    theirs = timm.create_model(architecture, num_classes=5, **SMALL, **options)
    redraw(theirs)
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}, folder / "model.safetensors")
    told = {
        "architecture": f"{architecture}.augreg_in21k",
        "num_classes": 5,
        "model_args": SMALL | options,
        "pretrained_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.1]},
    }
    (folder / "config.json").write_text(json.dumps(told))
    return theirs.eval()


@pytest.mark.parametrize(
    "options",
    [{}, {"global_pool": "avg", "init_values": 0.1}, {"reg_tokens": 2, "no_embed_class": True, "qk_norm": True}],
    ids=str,
)
def test_a_folder_of_timm_gives_its_logits(tmp_path: Path, options: dict[str, Any]) -> None:
    theirs = written(tmp_path / "vit", **options)
    made = []
    for place in (tmp_path / "vit", tmp_path / "vit" / "model.safetensors"):
        assert is_timm(place)
        task, fill = open_timm(place)
        task.build()
        assert not fill().fresh
        made.append(task.eval())
    images = [noise(32, 32, 3, seed=i) for i in range(3)]
    mean, std = (torch.tensor(each)[:, None, None] for each in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.1]))
    pixels = torch.stack([(torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std for image in images])
    expected = theirs(pixels).softmax(1).detach().numpy()
    for task in made:
        found = task.predict([{"image": image} for image in images])
        ours = np.array([[each["probabilities"][str(i)] for i in range(5)] for each in found])
        assert error(torch.from_numpy(ours), torch.from_numpy(expected)) < 1e-4


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"architecture": "vit_tiny_patch16"}, r"architecture 'vit_tiny_patch16' is no model of timm; did you mean"),
        ({"architecture": "hf-hub:timm/vit_tiny_patch16_224"}, r"is no model of timm"),
        ({"architecture": "resnet18", "model_args": {}}, r"resnet18 is a ResNet; only a VisionTransformer"),
        ({"model_args": {"checkpoint_path": "weights.pth"}}, r"model_args.checkpoint_path cannot be brought in"),
        ({"num_classes": 0}, r"num_classes is 0, and a classifier has at least 2"),
        ({"global_pool": "max"}, r"global_pool: max cannot be brought in; token and avg can"),
        ({"num_classes": 7}, r"model.safetensors lacks heads.class_head.output.weight"),
    ],
)
def test_what_cannot_be_brought_in_is_named(tmp_path: Path, told: dict[str, Any], message: str) -> None:
    written(tmp_path / "vit")
    path = tmp_path / "vit" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    with pytest.raises(InputError, match=message):
        task, fill = open_timm(tmp_path / "vit")
        task.build()
        fill()


def test_a_folder_of_transformers_or_a_lone_file_is_not_timms(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    assert not is_timm(tmp_path) and not is_timm(tmp_path / "gone.safetensors")
