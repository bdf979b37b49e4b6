"""Suites as they are read, parts that only ablations have, tokens that variants share, and the grid on real files."""

from __future__ import annotations

import json
import re
import signal
from copy import deepcopy
from dataclasses import replace

import lightning.pytorch as lightning
import pytest
import timm
import torch

from tests.data.clips_on_disk import write_folder
from tests.locks import held_elsewhere
from uniformerv2.autotrain.choose import make_plan
from uniformerv2.autotrain.defaults import default_dropout, default_rates
from uniformerv2.autotrain.plan import TrainOptions
from uniformerv2.autotrain.run import run_plan
from uniformerv2.core.files import DiskFullError, FolderInUseError
from uniformerv2.lab.ablation import AblationSettings, read_suite
from uniformerv2.lab.ablation_grid import Grid
from uniformerv2.lab.ablation_parts import average_frames, build_network
from uniformerv2.lab.ablation_run import prepare, run_variant, shared_tokens
from uniformerv2.lab.ablation_task import read_task, source_of
from uniformerv2.recipes import list_suites

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode"),
]

TINY = AblationSettings(
    backbone="test_vit2",
    weights="random",
    image_size=32,
    num_frames=4,
    epochs=1,
    batch_size=4,
    cache_views=1,
    fusion_stages=(-2, -1),
)
BASE = {name: value for name, value in TINY.to_dict().items() if value != AblationSettings().to_dict()[name]}
CLASSES = ("forward", "reversed")
LOCAL = {"local_steps": 2, "local_blocks": (-2, -1)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of four videos, and a list that says which of them validate."""
    folder = tmp_path_factory.mktemp("videos")
    records = write_folder(folder)
    rows = [f"{record.path},{record.label_name},{'val' if '3.mp4' in record.path else 'train'}" for record in records]
    (folder / "list.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    return folder / "list.csv"


@pytest.fixture(scope="module")
def splits(videos):
    return read_task(videos, "arrow_of_time")


def suite_of(tmp_path, variants, *, control=None, seeds=(0,), **base):
    path = tmp_path / "suite.yaml"
    content = {"name": "mine", "asks": "Why?", "base": {**BASE, **base}, "variants": variants, "seeds": list(seeds)}
    path.write_text(json.dumps({**content, "control": control or next(iter(variants))}))
    return read_suite(str(path))


def awake(network, *, seed=1):
    """In eval mode, with random weights where zeros were in what learns."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.requires_grad and not parameter.count_nonzero():
            parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def clip(seed=0, num_clips=2, num_frames=4):
    return torch.randn(num_clips, num_frames, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def made(**changes):
    return build_network(TINY.changed(changes), CLASSES, seed=0)


# Suites


@pytest.mark.parametrize("name", list_suites())
def test_the_suites_that_come_with_the_package(name):
    suite = read_suite(name)
    assert suite.name == name
    assert suite.asks.endswith("?")
    assert suite.seeds == (0, 1, 2)
    settings = [suite.settings(variant) for variant in suite.variants]
    assert len(set(settings)) == len(settings) >= 4  # no two are the same
    assert all(timm.is_model(one.backbone.partition(".")[0]) for one in settings)
    named = [one.backbone for one in settings if "." in one.backbone]
    assert set(named) <= set(timm.list_pretrained())


GOOD = {"name": "mine", "asks": "Why?", "variants": {"one": {}, "two": {"epochs": 2}}, "control": "one"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"control": "three"}, "control is one of one, two, got 'three'"),
        ({"control": None}, "A suite needs control, which this one lacks"),
        ({"seed": [1]}, "No key is called 'seed'. Did you mean 'seeds'?"),
        ({"seeds": 3}, "seeds is a list of whole numbers, got 3"),
        ({"seeds": [[1], 2]}, r"A seed is a whole number from 0 on, got \[1\]"),
        ({"control": ["a"]}, r"control is one of .*, got \['a'\]"),
        ({"seeds": [1, 1]}, "seeds must be different whole numbers"),
        ({"seeds": [-1]}, "A seed is a whole number from 0 on, got -1"),
        ({"variants": ["one"]}, r"variants is a mapping \(write {} for an empty one\), got \['one'\]"),
        ({"variants": {"one": None}}, r"variant 'one' is a mapping"),
        ({"variants": {"../one": {}}}, "A variant has small letters, digits and underscores, got '../one'"),
        ({"name": "a b"}, "The name of a suite has small letters"),
        ({"base": {"epoch": 3}}, "Variant 'one' of suite 'mine': No setting is called 'epoch'. Did you mean 'epochs'?"),
        ({"variants": {"one": {"fusion": "serial"}}}, "fusion is one of 'sequential', 'parallel', .*got 'serial'"),
        ({"base": {"epochs": 0}}, "epochs is a whole number from 1 on, got 0"),
        ({"base": {"epochs": "ten"}}, "epochs is a whole number from 1 on, got 'ten'"),
        ({"base": {"num_blocks": 0}}, "num_blocks is a whole number from 1 on or null, got 0"),
        ({"base": {"tubelet_size": True}}, "tubelet_size is one of 1, 2, got True"),
        ({"base": {"tubelet_size": 2, "num_frames": 3}}, "num_frames must be a multiple of tubelet_size 2, got 3"),
        ({"base": {"has_global": "no"}}, "has_global is true or false, got 'no'"),
        ({"base": {"warmup": 1.5}}, "warmup is from 0 to below 1, got 1.5"),
        ({"base": {"learning_rate": -1}}, "learning_rate is a number above 0 or null, got -1"),
        ({"base": {"local_blocks": []}}, "local_blocks is 'all' or a list of numbers of blocks, got "),
        ({"base": {"backbone": 7}}, "backbone is a word, got 7"),
    ],
)
def test_what_is_wrong_with_a_suite_is_said(tmp_path, change, message):
    path = tmp_path / "suite.yaml"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: .*{message}"):
        read_suite(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{a: [", "is no YAML"), ("- 1", "A suite is a mapping of name, asks.*; got \\[1\\]"), ("", "got None")],
)
def test_a_file_that_is_no_suite(tmp_path, text, message):
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_suite(str(path))


def test_unknown_suites_name_the_nearest():
    with pytest.raises(FileNotFoundError, match=r"No suite is called 'fusoin'\. Did you mean 'fusion'"):
        read_suite("fusoin")
    with pytest.raises(FileNotFoundError, match=r"There is no file mine\.yaml"):
        read_suite("mine.yaml")


def test_what_a_variant_says_stands_above_new_base_settings(tmp_path):
    suite = suite_of(tmp_path, {"one": {}, "two": {"num_frames": 8}}).with_base({"num_frames": 2})
    assert [suite.settings(name).num_frames for name in suite.variants] == [2, 8]


def test_blocks_are_counted_from_both_ends():
    assert TINY.numbered("all", 3) == (0, 1, 2)
    assert TINY.numbered((-1, 0, 2), 3) == (0, 2)
    with pytest.raises(ValueError, match=r"has blocks 0 to 2 \(or -3 to -1\), got 3"):
        TINY.numbered((3,), 3)


# Parts


@pytest.mark.parametrize("change", [{"local_relation": "attention"}, {}, {"local_blocks": (0,)}])
def test_local_steps_start_as_nothing(change):
    plain, armed = made(), made(local_steps=2, **change)
    armed.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(plain.eval()(clip()), armed.eval()(clip()))


CHANGES = {
    "temporal_attention": {"local_steps": 2, "local_relation": "attention"},
    "average_pooling": {"global_relation": "average"},
    "no_position": {"has_positions": False},
    "no_feed_forward": {"has_feed_forward": False},
    "local_in_some": LOCAL,
    "frame_average": {"has_global": False},
    "local_alone": {"has_global": False, **LOCAL, "local_blocks": (-3, -2)},  # none reads patches after the last block
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_gradient_reaches_every_parameter_that_learns(name):
    network = awake(made(**CHANGES[name])).train()
    network(clip()).square().sum().backward()
    learnt = {key: weight.grad for key, weight in network.named_parameters() if weight.requires_grad}
    assert learnt
    assert [key for key, grad in learnt.items() if grad is None or not grad.count_nonzero()] == []
    assert all(weight.grad is None for weight in network.parameters() if not weight.requires_grad)


def test_parts_are_where_they_belong():
    def names(**changes):
        return " ".join(name for name, _ in made(**changes).named_parameters())

    published = names(local_steps=1)
    assert "local.0.affinity.weight" in published
    assert all(part in published for part in ("position.weight", "cross.q.weight", "stages.0.ffn.fn.fc1.weight"))
    assert "affinity.positions" in names(local_steps=1, local_relation="attention")
    assert "affinity.weight" not in names(local_steps=1, local_relation="attention")
    assert "position" not in names(has_positions=False).replace("embedding.positions", "")
    assert "cross.q" not in names(global_relation="average")
    assert "fusion" not in names(has_global=False)
    local = {int(number) for number in re.findall(r"blocks\.(\d+)\.local", names(**LOCAL))}
    assert local == {6, 7}
    stages = re.findall(r"fusion\.stages\.(\d+)\.ffn", names(has_feed_forward=False))
    assert stages == []


SEES_ORDER = {
    "global": ({}, True),
    "no_position": ({"has_positions": False}, False),  # attention over all tokens has no order of its own
    "frame_average": ({"has_global": False}, False),
    "convolution": ({"has_global": False, **LOCAL}, True),
    "attention": ({"has_global": False, "local_relation": "attention", **LOCAL}, True),
    "both": (LOCAL, True),
    "average_pooling": ({"global_relation": "average"}, True),  # by DPE
}


@pytest.mark.parametrize("name", SEES_ORDER)
def test_who_sees_the_order_of_the_frames(name):
    changes, sees_order = SEES_ORDER[name]
    network, video = awake(made(**changes)), clip()
    with torch.no_grad():
        for name_of, weight in network.named_parameters():
            if name_of.endswith("gamma"):  # this tiny image ViT starts with scales of 1e-5
                weight.fill_(1.0)
            if name_of.endswith("affinity.positions"):  # small at the start, too
                weight.div_(weight.std())
        forward, backward = network(video), network(video.flip(1))
        shuffled = network(video[:, [2, 0, 3, 1]])
    for other in (backward, shuffled):
        largest = float((forward - other).abs().max())
        assert largest > 1e-3 if sees_order else largest < 1e-5


def test_frames_are_averaged_only_where_nothing_is_lost_by_it():
    with pytest.raises(ValueError, match=r"Arm with use_gate=False and fusion_stages=\(7,\)"):
        average_frames(made())


# Shared tokens


@pytest.mark.parametrize(
    ("changes", "blocks"),
    [
        ({}, (6, 7)),
        (LOCAL, (5,)),
        ({**LOCAL, "fusion_stages": (2, -1)}, (2, 5)),
        ({"has_global": False}, (7,)),
        ({"fusion_stages": (3,)}, (3, 7)),  # the gate reads the last block
    ],
)
def test_which_tokens_a_variant_reads(changes, blocks):
    assert shared_tokens(TINY.changed(changes), []).blocks == blocks


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze_backbone": False},
        {"local_steps": 1},
        {"repeats": 2},
        {"cache_views": 0},
        {**LOCAL, "local_blocks": (0,)},
    ],
)
def test_who_trains_from_videos(changes):
    assert shared_tokens(TINY.changed(changes), []) is None


def test_variants_of_the_same_images_share_one_cache():
    both, other = TINY.changed(LOCAL), TINY.changed({"image_size": 64, "fusion_stages": (1,)})
    found = [shared_tokens(one, [TINY, both, other]) for one in (TINY, both, other)]
    assert found[0] == found[1]
    assert found[0].blocks == (5, 6, 7)
    assert found[2].blocks == (1, 7)


@pytest.mark.parametrize("changes", [{}, LOCAL, {**LOCAL, "has_global": False}, {"fusion_stages": (1, 4)}])
def test_from_tokens_comes_what_comes_from_the_video(changes, splits, tmp_path):
    settings = TINY.changed(changes)
    tokens = shared_tokens(settings, [TINY, settings])
    options = {"seed": 0, "tokens": tokens, "cache_folder": tmp_path, "num_workers": 0}
    prepared = prepare(settings, splits, **options)
    network = awake(prepared.classifier.network)
    prepared.source.eval()
    video = clip()
    with torch.no_grad():
        read = torch.stack(prepared.source.read_tokens(video), dim=1)
        assert torch.allclose(prepared.classifier.logits(read), network(video), atol=1e-5)


# The grid


@pytest.mark.parametrize("local_steps", [0, 2])
@pytest.mark.parametrize("freeze_backbone", [True, False])
def test_a_variant_learns_as_train_does(splits, tmp_path, freeze_backbone, local_steps):
    """Rates, schedule and dropout are those that train would choose, unless the suite says otherwise."""
    changes = {"freeze_backbone": freeze_backbone, "local_steps": local_steps, "batch_size": 8, "epochs": 5}
    settings = TINY.changed(changes)
    options = {"seed": 0, "tokens": None, "cache_folder": tmp_path, "num_workers": 0}
    prepared = prepare(settings, splits, **options)
    kind = {"preset": "motion" if local_steps else "scene", "freeze_backbone": freeze_backbone, "is_armed_anew": True}
    assert prepared.classifier.optimization == default_rates(8, **kind).optimization(epochs=5)
    dropout = default_dropout(freeze_backbone=freeze_backbone, num_train=len(splits.train)) or 0.5
    assert prepared.classifier.network.config.classifier_dropout == dropout
    assert prepared.classifier.network.config.drop_path_rate == 0
    told = replace(settings, learning_rate=1e-3, warmup=0.5, dropout=0.3)
    prepared = prepare(told, splits, **options)
    assert prepared.classifier.optimization.learning_rate == 1e-3
    assert prepared.classifier.optimization.warmup_epochs == 2.5
    assert prepared.classifier.network.config.classifier_dropout == 0.3


@pytest.mark.parametrize("freeze_backbone", [True, False])
def test_a_variant_trains_exactly_as_train_does(videos, tmp_path, freeze_backbone):
    """From the same network, the last epoch of a training that chose its own settings has the very same weights."""
    found = read_task(videos, "classes")
    options = TrainOptions(
        data=str(videos), out=str(tmp_path / "run"), backbone="test_vit2", freeze_backbone=freeze_backbone, seed=3
    )
    asked = {"num_frames": 4, "image_size": 32, "num_stages": 2, "batch_size": 4, "epochs": 2, "num_workers": 0}
    plan, chosen = make_plan(replace(options, **asked), found, device=torch.device("cpu"), fetch=False)
    changes = {"freeze_backbone": freeze_backbone, "epochs": 2, "cache_views": 0}
    variant = prepare(TINY.changed(changes), found, seed=3, tokens=None, cache_folder=tmp_path, num_workers=0)
    network = deepcopy(variant.classifier.network)
    assert network.config == chosen.config
    run_variant(variant, seed=3, folder=tmp_path)
    run_plan(network, found, plan)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    trained = variant.classifier.network.state_dict()
    assert trained
    assert all(torch.equal(weight, last[f"network.{name}"]) for name, weight in trained.items())


def test_the_arrow_of_time_keeps_the_division_of_the_data(videos, splits):
    plain = read_task(videos, "classes")
    assert (len(plain.train), len(plain.val), plain.class_names) == (6, 2, ("class0", "class1"))
    assert (len(splits.train), len(splits.val), splits.class_names) == (12, 4, CLASSES)
    assert {record.path for record in splits.val} == {record.path for record in plain.val}
    assert not {record.path for record in splits.val} & {record.path for record in splits.train}
    few = read_task(videos, "classes", limit=2)
    assert {record.label for record in few.train} == {0, 1}  # from all over the list
    assert len(few.train) == len(few.val) == 2


def test_clips_of_a_source_belong_together(splits):
    paths = ["a/v_Surfing_g01_c02.mp4", "b/v_Surfing_g01_c07.mp4", "a/v_Surfing_g02_c02.mp4"]
    first, second, third = (source_of(replace(splits.val[0], path=path)) for path in paths)
    assert first == second != third


@pytest.fixture(scope="module")
def carried_out(splits, tmp_path_factory):
    """Four variants with two seeds: one without any sight of order, one from videos, one that fails."""
    folder = tmp_path_factory.mktemp("suite")
    variants = {
        "frame_average": {"has_global": False},
        "both": {k: list(v) if isinstance(v, tuple) else v for k, v in LOCAL.items()},
        "from_videos": {"freeze_backbone": False, "fusion": "parallel"},
        "wrong": {"fusion_stages": [99]},
    }
    suite = suite_of(folder, variants, seeds=(0, 1), epochs=2)
    grid = Grid(suite=suite, splits=splits, out=folder / "out")
    return grid, list(grid.carry_out())


def test_a_failure_is_noted_and_the_others_go_on(carried_out):
    grid, results = carried_out
    assert [(one.variant, one.seed) for one in results] == [(name, seed) for seed in (0, 1) for name in grid.variants]
    wrong = [one for one in results if one.error is not None]
    assert [one.variant for one in wrong] == ["wrong", "wrong"]
    assert wrong[0].error == "ValueError: The image ViT has blocks 0 to 7 (or -8 to -1), got 99."
    written = json.loads(grid.path(grid.runs[3]).read_text())
    assert "Traceback" in written["traceback"]
    assert written["measured"] is None


def test_results_say_what_was_run(carried_out):
    grid, results = carried_out
    by_name = {one.variant: one for one in results if one.measured}
    assert all(len(one.measured.hits) == 4 for one in by_name.values())
    assert by_name["frame_average"].top1 == 0.5  # one of each pair, whatever was learnt
    counts = [by_name[name].measured.num_trainable for name in ("frame_average", "both", "from_videos")]
    assert counts == sorted(counts)
    assert counts[0] == 2 * 64 + 2 * (64 + 1)  # the last norm and the head
    written = json.loads(grid.path(grid.runs[1]).read_text())
    assert written["settings"]["local_steps"] == 2
    assert written["top1"] == by_name["both"].top1 or written["seed"] == 0
    assert set(written["measured"]["hits"]) <= {0, 1}


def test_a_second_one_in_the_same_folder_is_refused(carried_out):
    grid, _ = carried_out
    with held_elsewhere(grid.out), pytest.raises(FolderInUseError, match="An ablation is running in"):
        next(grid.carry_out())


def test_a_full_disk_is_no_failure_of_a_variant(carried_out, monkeypatch, tmp_path):
    grid, _ = carried_out
    grid = replace(grid, out=tmp_path)

    def full(*arguments, **options):
        raise DiskFullError("full")

    monkeypatch.setattr(Grid, "prepared", full)
    with pytest.raises(DiskFullError):
        next(grid.carry_out())
    assert not list(tmp_path.rglob("*.json"))


def test_tokens_are_computed_once_for_all_that_read_them(carried_out):
    grid, _ = carried_out
    folders = list(grid.features.iterdir())
    assert len(folders) == 2  # a random image ViT differs from seed to seed; frame_average and both share each
    names = {path.name.partition("_0")[0] for path in folders[0].glob("*.safetensors")}
    assert names == {"train_view", "val_view"}


def test_what_is_done_is_not_run_again(carried_out):
    grid, results = carried_out
    before = {path: path.stat().st_mtime_ns for path in (grid.out / "runs").iterdir()}
    started = []
    again = list(grid.carry_out(on_start=lambda run: started.append((run.variant, run.seed))))
    assert started == [("wrong", 0), ("wrong", 1)]  # what failed is tried again
    assert [one.measured for one in again] == [one.measured for one in results]
    after = {path: path.stat().st_mtime_ns for path in (grid.out / "runs").iterdir()}
    assert {path for path, when in after.items() if before.get(path) != when} == {
        grid.path(run) for run in grid.runs if run.variant == "wrong"
    }


@pytest.mark.parametrize("change", [{"epochs": 3}, {"flip": 0.0}])
def test_a_changed_setting_is_another_run(carried_out, change):
    grid, _ = carried_out
    changed = replace(grid, suite=grid.suite.with_base(change))
    assert all(changed.done(run) is None for run in changed.runs)
    assert not {run.file_name for run in changed.runs} & {run.file_name for run in grid.runs}


def test_other_videos_and_other_weights_are_another_run(carried_out, tmp_path):
    grid, _ = carried_out
    fewer = replace(grid, splits=replace(grid.splits, val=grid.splits.val[:2]))
    assert all(fewer.done(run) is None for run in fewer.runs)
    weights = tmp_path / "weights.safetensors"
    keys = []
    for content in (b"one", b"other", b"one"):
        weights.write_bytes(content)
        keys.append(replace(grid, suite=grid.suite.with_base({"weights": str(weights)})).runs[0].key)
    assert keys[0] == keys[2] != keys[1]


def test_other_contents_of_the_videos_are_another_run(carried_out, tmp_path):
    """A video is replaced by one of the same name and size; one that is gone is no error, a run counts it as unread."""
    grid, _ = carried_out
    path = tmp_path / "video.mp4"
    records = (replace(grid.splits.val[0], path=str(path)), *grid.splits.val[1:])
    keys = []
    for content in (b"one", b"two", b"one", None):
        path.unlink() if content is None else path.write_bytes(content)
        keys.append(replace(grid, splits=replace(grid.splits, val=records)).runs[0].key)
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_a_backbone_that_is_no_image_vit_is_said(backbone):
    with pytest.raises(ValueError, match=f"'{backbone}' .* can't be armed. Supported: "):
        shared_tokens(TINY.changed({"backbone": backbone}), [])


def test_a_damaged_result_is_said(carried_out, tmp_path):
    grid, _ = carried_out
    other = replace(grid, out=tmp_path)
    path = other.path(other.runs[0])
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        other.done(other.runs[0])


def test_ctrl_c_is_no_failure_of_a_variant(carried_out, tmp_path):
    grid, _ = carried_out

    class Interrupt(lightning.Callback):
        def on_train_batch_end(self, *args):
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    other = replace(grid, out=tmp_path, only=("frame_average",))
    try:
        with pytest.raises(KeyboardInterrupt):
            list(other.carry_out(callbacks=lambda run: [Interrupt()]))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "runs").exists()


def test_an_unknown_variant_is_named(carried_out):
    grid, _ = carried_out
    with pytest.raises(ValueError, match="Suite 'mine' has frame_average, both, from_videos, wrong, got 'global'"):
        replace(grid, only=("global",))
