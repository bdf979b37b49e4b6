"""Small honest files of every kind that is read: what the mutants are made from."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.evaluation.made_evaluations import make_evaluation
from tests.media import write_video
from tests.parity.goldens import official_state
from uniformerv2 import UniFormerV2, UniFormerV2Config, save_model
from uniformerv2.evaluation.dumps import write_dump
from uniformerv2.inference.features.index import FORMAT, write_index
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.recipes import list_recipes, list_suites, recipe_path, suite_path

CONFIG = UniFormerV2Config(
    image_size=32,
    patch_size=16,
    dim=24,
    depth=2,
    num_heads=3,
    num_classes=3,
    num_frames=4,
    num_local_steps=1,
    fusion_stages=(0, 1),
    global_num_heads=3,
    global_dropout=(0.0,),
)
LISTS = {
    "plain.txt": "a/one.mp4 0\na/two.mp4 1\nb/three.mp4 2\n",
    "named.csv": "path,label,split,start,end\na.mp4,dog,train,0.5,2\nb.mp4,cat,val,,\nc.mp4,dog,train,1,\n",
    "kinetics.csv": (
        "label,youtube_id,time_start,time_end,split\narchery,-abc_def12,3,13,train\nyoga,abcdefghijk,0,9,val\n"
    ),
    "several.tsv": "path\tlabels\na.mp4\t0;1\nb.mp4\t1\n",
    "lines.jsonl": '{"path": "a.mp4", "label": "dog"}\n{"path": "b.mp4", "label": "cat", "start": 1.5, "end": 3}\n',
    "activity_net.json": json.dumps(
        {
            "version": "1.3",
            "taxonomy": [],
            "database": {
                "abc": {
                    "subset": "training",
                    "duration": 20.0,
                    "annotations": [{"segment": [1, 5], "label": "Archery"}],
                },
                "def": {
                    "subset": "validation",
                    "duration": 9.0,
                    "annotations": [{"segment": [0, 2], "label": "Surfing"}],
                },
            },
        }
    ),
    "something.json": json.dumps(
        [
            {"id": "78687", "label": "holding a potato", "template": "Holding [something]", "placeholders": ["potato"]},
            {"id": "42326", "label": "opening a cup", "template": "Opening [something]", "placeholders": ["cup"]},
        ]
    ),
}


def make_seeds(folder: Path, goldens: Path | None) -> dict[str, list[Path]]:
    """Files and folders by kind; published checkpoints where their tensors are at hand."""
    torch.manual_seed(0)
    model = UniFormerV2(CONFIG, info=CheckpointInfo(class_names=("dog", "cat", "a cow"), licence="MIT"))
    ours = save_model(model, folder / "model")
    published = [] if goldens is None else [goldens / "model" / "official_scene.safetensors"]
    for path in published:
        torch.save(official_state(path), folder / "state.pth")
        torch.save({"model_state": official_state(path), "epoch": 3}, folder / "nested.pyth")
    config = folder / "config"  # the same, but mutants damage the configuration alone
    shutil.copytree(ours, config)
    evaluation = make_evaluation(num_videos=4, num_classes=3, view_scores=False, unreadable=(2,), segments=True)
    dumps = [write_dump(folder / f"dump{suffix}", evaluation) for suffix in (".pkl", ".csv", ".parquet")]
    lists = []
    for name, text in LISTS.items():
        lists.append(folder / name)
        lists[-1].write_text(text, encoding="utf-8")
    for name in (list_suites()[0], list_recipes()[0]):
        path = suite_path(name) if name in list_suites() else recipe_path(name)
        shutil.copyfile(path, folder / f"{'suite' if name in list_suites() else 'recipe'}.yaml")
    videos = [write_video(folder / f"video{suffix}", num_frames=9) for suffix in (".mp4", ".mkv", ".avi", ".mov")]
    frames = folder / "frames"
    frames.mkdir()
    for number in range(3):
        picture = torch.randint(0, 255, (24, 32, 3), dtype=torch.uint8).numpy()
        Image.fromarray(picture).save(frames / f"img_{number:05d}.{'png' if number == 1 else 'jpg'}")
    return {
        "checkpoint": [ours, *sorted(folder.glob("*.p*th"))],
        "configuration": [config],
        "dump": dumps,
        "index": [write_features(folder / "features.parquet")],
        "list": lists,
        "suite": [folder / "suite.yaml"],
        "recipe": [folder / "recipe.yaml"],
        "video": videos,
        "frames": [frames],
    }


def write_features(path):
    vectors = np.eye(4, 8, dtype="<f4")
    rows = [
        {"video": f"{row}.mp4", "start_seconds": 0.0, "end_seconds": 1.5, "label": "dog", "vector": b64encode(vector)}
        for row, vector in enumerate(vectors)
    ]
    head = {"format": FORMAT, "model": "0", "dim": 8, "preprocessing": {}, "failures": []}
    write_index(path, rows, head=head, dim=8)
    return path
