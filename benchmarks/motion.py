"""Tables and pictures of docs/lab/motion.md: what a network learns of motion from few clips, by where it starts.

    DATA="../shared/data --weights dinov2_vits14_hf_fp16.safetensors"
    SLOW="--rate 1.4e-5 --backbone-rate 7e-7"
    python benchmarks/motion.py $DATA fights --patches 4 --views 4 --starts probe today
    python benchmarks/motion.py $DATA arrow --patches 2 --epochs 6 --starts today probe
    python benchmarks/motion.py $DATA six --patches 4 --views 4 --epochs 10 --starts today probe
    python benchmarks/motion.py $DATA fights --all-learns --no-local-steps --views 4 --epochs 3 --starts probe $SLOW
    python benchmarks/motion.py $DATA instruments
    python benchmarks/motion.py $DATA order
    python benchmarks/motion.py $DATA draw

Every clip is held out once, with its source. Numbers go to benchmarks/results/motion_*.json.

Letters of this file: M clips, T time steps, N tokens a step, C channels, S seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from uniformerv2 import UniFormerV2, arm
from uniformerv2.autotrain.defaults import default_batch_size, default_dropout, default_rates
from uniformerv2.autotrain.linear import fit_heads
from uniformerv2.autotrain.plan import Preset, Rates
from uniformerv2.autotrain.probe import ROWS, ClipStatistics, Probe
from uniformerv2.autotrain.probing import FittedProbe, probe_network, start_at_probe
from uniformerv2.autotrain.run import augmentation_of
from uniformerv2.autotrain.start import beside_probe
from uniformerv2.data.annotations import VideoRecord, class_names, read_records
from uniformerv2.data.annotations.held_out import source_of
from uniformerv2.data.dataset import VideoDataset
from uniformerv2.data.loader import VideoLoader
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.evaluation.figure_style import BLUE, GREEN, MUTED, RED, figure_style, new_axes
from uniformerv2.model.precision import gains_from_bf16
from uniformerv2.model.statistics import TokenStatistics
from uniformerv2.training.optim import parameter_groups

SIDE, FRAMES, SMOOTHING = 112, 8, 0.1
RESULTS = Path(__file__).parent / "results"
STARTS = ("today", "zero head", "probe")
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Clips:
    """One view of every video.

    Attributes:
        inputs: Pixels [M, T, 3, h, w], or tokens of the last block [M, T, N, C].
        label: [M].
        source: The source of each clip.
        fold: In which each clip is held out.
        names: Names of the classes.
        augmented: Cropped views [V, M, ...] of which an epoch shows one, as a training with cached features does.
        tested: Views [V, M, ...] that a final test takes the mean of.
    """

    inputs: Tensor
    label: Tensor
    source: tuple[str, ...]
    fold: np.ndarray[Any, Any]
    names: tuple[str, ...]
    augmented: Tensor | None = None
    tested: Tensor | None = None


def views_of(records: Sequence[VideoRecord], num_views: int = 1, *, is_augmented: bool = False) -> Tensor:
    """Pixels [V, M, T, 3, h, w]: clips evenly spread over each video, or random crops as a training shows them."""
    preprocessing = Preprocessing(
        num_frames=FRAMES, image_size=SIDE, num_clips=num_views, num_crops=1, resize="bicubic_antialias"
    )
    augmentation = augmentation_of("light", image_size=SIDE, flip=0.5) if is_augmented else None
    unlabelled = [replace(record, label=0) for record in records]
    dataset = VideoDataset(unlabelled, preprocessing, augmentation=augmentation)
    views: list[dict[int, Tensor]] = []
    with closing(VideoLoader(dataset, batch_size=8, num_workers=0, drop_last=False)) as loader:
        loader.sampler.shuffle = False
        for epoch in range(num_views if is_augmented else 1):
            loader.set_epoch(epoch)
            views.append({})
            for batch in loader:
                views[-1] |= dict(zip(batch.index.tolist(), batch.video, strict=True))
    stacked = torch.stack([torch.stack([view[number] for number in range(len(records))]) for view in views])
    return stacked if is_augmented else stacked[0].transpose(0, 1)


def read_clips(folder: Path, *, blocks_of_ten: bool) -> Clips:
    """Pixels of the middle of every video of a folder, grouped by sources, or by blocks of ten consecutive numbers."""
    records = read_records(folder, val_fraction=0.0)
    label = np.array([record.label for record in records])
    if blocks_of_ten:
        numbers = [int(re.sub(r"\D", "", Path(record.path).stem)) - 1 for record in records]
        source, fold = tuple(str(number // 10) for number in numbers), np.array([number // 10 for number in numbers])
    else:
        source = tuple(source_of(record.path) for record in records)
        place: dict[str, int] = {}
        for name in range(label.max() + 1):
            own = sorted({one for one, kind in zip(source, label, strict=True) if kind == name})
            place |= {one: rank % 5 for rank, one in enumerate(own)}
        fold = np.array([place[one] for one in source])
    return Clips(
        inputs=views_of(records)[0],
        label=torch.tensor(label),
        source=source,
        fold=fold,
        names=class_names(records),
    )


@torch.no_grad()
def tokens_of(clips: Clips, weights: Path) -> Clips:
    """Tokens of the frozen image ViT's last block in the place of pixels, in half precision."""
    network = armed(clips, weights, is_frozen=True)
    return replace(clips, inputs=encoded(network, clips.inputs))


@torch.no_grad()
def encoded(network: UniFormerV2, pixels: Tensor) -> Tensor:
    """[M, T, 3, h, w] -> [M, T, N, C] in half precision."""
    found = []
    for part in pixels.split(8):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=gains_from_bf16(network, CPU)):
            found.append(network.read_tokens(normalized(network, part))[-1].half())
    return torch.cat(found)


def pooled(tokens: Tensor, side: int) -> Tensor:
    """Neighbour patches averaged, so that ``side`` x ``side`` are left (0: all): [M, T, N, C] -> [M, T, N', C]."""
    if not side:
        return tokens.half()
    prefix, patches = tokens[:, :, :1], tokens[:, :, 1:].float()
    old = round(patches.shape[2] ** 0.5)
    maps = patches.unflatten(2, (side, old // side, side, old // side)).mean(dim=(3, 5)).flatten(2, 3)
    return torch.cat([prefix, maps.half()], dim=2)


def both_ways(clips: Clips) -> Clips:
    """Each clip twice, once backwards; both are in one fold."""

    def doubled(views: Tensor | None) -> Tensor | None:
        return None if views is None else torch.cat([views, views.flip(2)], dim=1)

    return Clips(
        inputs=torch.cat([clips.inputs, clips.inputs.flip(1)]),
        augmented=doubled(clips.augmented),
        tested=doubled(clips.tested),
        label=torch.arange(2).repeat_interleave(len(clips.label)),
        source=clips.source * 2,
        fold=np.tile(clips.fold, 2),
        names=("forwards", "backwards"),
    )


def armed(clips: Clips, weights: Path, *, is_frozen: bool, has_local_steps: bool = True) -> UniFormerV2:
    """As ``uniformerv2 train`` arms DINOv2 for few clips: one global UniBlock, or preset motion where all learns."""
    rate = default_dropout(freeze_backbone=is_frozen, num_train=len(clips.label))
    dropout: dict[str, Any] = {} if rate is None else {"global_dropout": (rate,), "classifier_dropout": rate}
    size: dict[str, Any] = {"image_size": SIDE, "num_frames": FRAMES}
    size |= {"preset": "motion"} if has_local_steps and not is_frozen else {"num_stages": 1}
    return arm("vit_small_patch14_dinov2", num_classes=len(clips.names), weights=weights, **size, **dropout)


def normalized(network: UniFormerV2, pixels: Tensor) -> Tensor:
    """Pixels as the network wants them."""
    size = {"num_frames": FRAMES, "image_size": SIDE}
    return Preprocessing.from_dict({**network.info.preprocessing, **size}).normalize(pixels)


def logits(network: UniFormerV2, inputs: Tensor) -> Tensor:
    """Logits of pixels, or of tokens: [B, K]."""
    if inputs.ndim == 4:
        side = round((inputs.shape[2] - 1) ** 0.5)
        return network.forward_tokens([inputs.float()], (side, side))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=gains_from_bf16(network, CPU)):
        return network(normalized(network, inputs)).float()


@torch.no_grad()
def scores(network: UniFormerV2, inputs: Tensor) -> Tensor:
    """Logarithms of probabilities in eval mode, [M, K]."""
    network.eval()
    return torch.cat([logits(network, part).log_softmax(dim=1) for part in inputs.split(16)])


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a network is trained where that is not as ``uniformerv2 train`` does by itself.

    Attributes:
        epochs: Passes over the training clips.
        is_frozen: The backbone does not learn.
        has_local_steps: Where it does, with preset motion.
        rate: Learning rate of the video blocks and the head; None: as ``train`` has it for this batch.
        backbone_rate: Learning rate of the backbone; None: the same.
        pull: Decay towards the weights of the start, in the place of decay towards zero; None: as ``train``.
    """

    epochs: int
    is_frozen: bool = True
    has_local_steps: bool = True
    rate: float | None = None
    backbone_rate: float | None = None
    pull: float | None = None

    def rates(self, batch: int) -> Rates:
        """For AdamW."""
        preset: Preset = "scene" if self.is_frozen or not self.has_local_steps else "motion"
        found = default_rates(batch, preset=preset, freeze_backbone=self.is_frozen, is_armed_anew=True)
        if self.rate is None:
            return found
        if self.is_frozen:
            return Rates(self.rate)
        assert self.backbone_rate is not None
        return Rates(self.backbone_rate, video_blocks_scale=self.rate / self.backbone_rate)


def learn(
    network: UniFormerV2,
    clips: Clips,
    chosen: np.ndarray[Any, Any],
    way: Way,
    *,
    seed: int,
    each_epoch: Callable[[float], None] = lambda loss: None,
    each_step: Callable[[], None] = lambda: None,
) -> None:
    """Train on the chosen clips with the batch of ``uniformerv2 train``."""
    if way.is_frozen:
        network.freeze_backbone()
    batch = default_batch_size(len(chosen), largest=16)
    optimization = way.rates(batch).optimization(epochs=way.epochs)
    if way.pull is not None:
        optimization = replace(optimization, weight_decay=0.0)
    optimizer = torch.optim.AdamW(parameter_groups(network, optimization), betas=optimization.betas)
    highest = [group["lr"] for group in optimizer.param_groups]
    first = [[weight.detach().clone() for weight in group["params"]] for group in optimizer.param_groups]
    steps = len(chosen) // batch
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    for epoch in range(way.epochs):
        drawn, losses = torch.as_tensor(chosen)[torch.randperm(len(chosen), generator=order)], []
        inputs = clips.inputs if clips.augmented is None else clips.augmented[epoch % len(clips.augmented)]
        for step in range(steps):
            own = drawn[step * batch : (step + 1) * batch]
            factor = optimization.rate(epoch + step / steps, way.epochs) / optimization.learning_rate
            for group, rate in zip(optimizer.param_groups, highest, strict=True):
                group["lr"] = rate * factor
            network.train()
            loss = F.cross_entropy(logits(network, inputs[own]), clips.label[own], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            each_step()
            optimizer.step()
            if way.pull is not None:
                _pull(optimizer, first, way.pull)
            losses.append(loss.item())
        each_epoch(float(np.mean(losses)))


@torch.no_grad()
def _pull(optimizer: torch.optim.Optimizer, first: list[list[Tensor]], strength: float) -> None:
    """A step of decay towards the first weights."""
    for group, starts in zip(optimizer.param_groups, first, strict=True):
        for weight, start in zip(group["params"], starts, strict=True):
            weight.lerp_(start, min(1.0, group["lr"] * strength))


def statistics_of(tokens: Tensor) -> np.ndarray[Any, Any]:
    """All statistics of a probe, [M, 9, C]."""
    own = TokenStatistics(ROWS["all"], tokens.shape[-1], num_prefix_tokens=1, has_class_token=True)
    parts = [own.step(0, own.start(len(part)), part, (0, 0)) for part in tokens.split(32)]
    return torch.cat(parts).numpy()


def fitted(network: UniFormerV2, tokens: Clips, chosen: np.ndarray[Any, Any]) -> FittedProbe:
    """The probe of the chosen clips alone, which chooses its row by a cross-validation within them."""
    clips = ClipStatistics(
        values=statistics_of(tokens.inputs[chosen]),
        names=ROWS["all"],
        target=np.eye(len(tokens.names), dtype=bool)[tokens.label[chosen].numpy()],
        sources=tuple(tokens.source[number] for number in chosen),
        class_names=tokens.names,
    )
    result = Probe(num_resamples=200)(clips)
    return FittedProbe(result=result, network=probe_network(network, result.best, tokens.names))


def started(start: str, clips: Clips, weights: Path, probe: FittedProbe, way: Way, *, seed: int) -> UniFormerV2:
    """A network before its first step."""
    torch.manual_seed(seed)
    network = armed(clips, weights, is_frozen=way.is_frozen, has_local_steps=way.has_local_steps)
    if start == "probe":
        return start_at_probe(network, probe)
    if start == "zero head":
        torch.nn.init.zeros_(network.get_classifier().weight)
    return network


def experiment(clips: Clips, tokens: Clips, weights: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Every fold, start and seed: which held-out clips are right before the first step and after each epoch."""
    way = Way(
        epochs=options.epochs,
        is_frozen=not options.all_learns,
        has_local_steps=not options.no_local_steps,
        rate=options.rate,
        backbone_rate=options.backbone_rate,
        pull=options.pull,
    )
    data = clips if options.all_learns else tokens
    names = [*options.starts, *(["probe, halfway"] if "probe" in options.starts else [])]
    right: dict[str, Any] = {name: np.full((len(options.seeds), len(data.label)), np.nan) for name in names}
    right["the probe itself"], curves = np.full((1, len(data.label)), np.nan), []
    for fold in np.unique(data.fold) if options.folds is None else options.folds:
        chosen, held = np.flatnonzero(data.fold != fold), np.flatnonzero(data.fold == fold)
        probe = fitted(armed(tokens, weights, is_frozen=True), tokens, chosen)
        right["the probe itself"][0, held] = is_right(probe.network, tokens, held)
        for place, (start, seed) in enumerate((start, seed) for start in options.starts for seed in options.seeds):
            network = started(start, data, weights, probe, way, seed=seed)
            curve = {"fold": int(fold), "start": start, "seed": seed, "row": probe.result.best.name, "loss": []}
            curve |= {"right": [], "held": []}
            _note(curve, network, data, held)

            def note(loss: float, network: UniFormerV2 = network, curve: Any = curve, held: Any = held) -> None:
                curve["loss"].append(loss)
                _note(curve, network, data, held)

            learn(network, data, chosen, way, seed=seed, each_epoch=note)
            index = place % len(options.seeds)
            right[start][index, held] = curve.pop("last")
            if start == "probe":
                beside_probe(network, probe.network)
                right["probe, halfway"][index, held] = is_right(network, data, held)
            curves.append(curve)
            print(json.dumps(curve), flush=True)
    others = {name: right[name] for name in ("the probe itself", "today") if name in right}
    return {
        "rows": {name: row(values, others, data) for name, values in right.items()},
        "curves": curves,
        "way": asdict(way),
        "epochs": options.epochs,
        "seeds": options.seeds,
        "clips": len(data.label),
    }


def held_out_scores(network: UniFormerV2, clips: Clips, held: np.ndarray[Any, Any]) -> Tensor:
    """Logarithms of the mean probability of all views of each held-out clip, [M, K]."""
    views = clips.inputs[None] if clips.tested is None else clips.tested
    return torch.stack([scores(network, view[held]) for view in views]).logsumexp(dim=0) - math.log(len(views))


def _note(curve: dict[str, Any], network: UniFormerV2, clips: Clips, held: np.ndarray[Any, Any]) -> None:
    """Accuracy and cross entropy of the held-out clips, and which of them are right."""
    found, label = held_out_scores(network, clips, held), clips.label[held]
    curve["last"] = (found.argmax(dim=1) == label).numpy()
    curve["right"].append(float(curve["last"].mean()))
    curve["held"].append(float(F.nll_loss(found, label)))


def is_right(network: UniFormerV2, clips: Clips, held: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whether the network is right about each held-out clip."""
    found: np.ndarray[Any, Any] = (held_out_scores(network, clips, held).argmax(dim=1) == clips.label[held]).numpy()
    return found


def row(
    right: np.ndarray[Any, Any], others: Mapping[str, np.ndarray[Any, Any]], clips: Clips
) -> dict[str, list[float]]:
    """Accuracy, and what it is above others, with 95 % intervals over sources, of the clips that were run."""
    run = ~np.isnan(right).any(axis=0)
    means = {"accuracy": right[:, run].mean(axis=0)}
    means |= {f"above {name}": means["accuracy"] - other[:, run].mean(axis=0) for name, other in others.items()}
    _, place = np.unique(np.asarray(clips.source)[run], return_inverse=True)
    count = place.max() + 1
    weight = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=1000)[:, place]
    found = {}
    for name, mean in means.items():
        drawn = (weight @ mean) / weight.sum(axis=1)
        found[name] = [float(mean.mean()), *(float(end) for end in np.percentile(drawn, (2.5, 97.5)))]
    by_fold = [float(means["accuracy"][clips.fold[run] == fold].mean()) for fold in np.unique(clips.fold[run])]
    return {**found, "by_fold": by_fold}


PARTS = {
    "video token, norms": r"fusion\.video_token|fusion\.stages\.0\.norm",
    "DPE": r"fusion\.stages\.0\.position",
    "C_MHRA, query": r"fusion\.stages\.0\.cross\.q",
    "C_MHRA, keys": r"fusion\.stages\.0\.cross\.k",
    "C_MHRA, values": r"fusion\.stages\.0\.cross\.v",
    "C_MHRA, projection": r"fusion\.stages\.0\.cross\.proj",
    "FFN": r"fusion\.stages\.0\.ffn",
    "gate, last norm": r"fusion_gate|norm\.",
    "head": r"head\.",
}


def gradients(tokens: Clips, weights: Path, *, start: str, steps: int = 40) -> dict[str, list[float]]:
    """The norm of the gradient of each part in each of the first steps."""
    chosen = np.flatnonzero(tokens.fold != 0)
    probe = fitted(armed(tokens, weights, is_frozen=True), tokens, chosen)
    network = started(start, tokens, weights, probe, Way(epochs=1), seed=0)
    found: dict[str, list[float]] = {part: [] for part in PARTS}

    def note() -> None:
        for part, pattern in PARTS.items():
            own = [value.grad for name, value in network.named_parameters() if re.match(pattern, name)]
            found[part].append(float(sum(grad.square().sum() for grad in own if grad is not None)) ** 0.5)

    epochs = -(-steps // (len(chosen) // default_batch_size(len(chosen), largest=16)))
    learn(network, tokens, chosen, Way(epochs=epochs), seed=0, each_step=note)
    return {part: norms[:steps] for part, norms in found.items()}


@torch.no_grad()
def read_by_cross_mhra(network: UniFormerV2, tokens: Tensor, *, is_difference: bool, gain: float) -> Tensor:
    """What an untrained C_MHRA reads, before its projection: [M, C].

    Args:
        network: Changed in place: its projection becomes the identity, its video token noise where there is a gain.
        tokens: [M, T, N, C].
        is_difference: DPE takes the frame before from each, instead of its random filters.
        gain: The factor on the query; 0: the video token is zero, as it starts, and so is the query.
    """
    block = network.fusion.stages[0]
    block.cross.proj.weight.copy_(torch.eye(tokens.shape[-1]))
    block.cross.q.weight.mul_(gain)
    query = torch.randn(1, 1, tokens.shape[-1]) if gain else torch.zeros(1, 1, tokens.shape[-1])
    if is_difference:
        block.position.weight.zero_()
        block.position.weight[:, :, 0, 1, 1] = -1
    side = round((tokens.shape[2] - 1) ** 0.5)
    found = []
    for part in tokens.float().split(16):
        own = block.position(part, (side, side)).flatten(1, 2)
        found.append(block.cross(block.norm_query(query).expand(len(part), -1, -1), own, norm=block.norm_tokens)[:, 0])
    return torch.cat(found)


def told_apart(features: np.ndarray[Any, Any], clips: Clips) -> float:
    """Accuracy of logistic regression on features [M, F], of held-out clips."""
    right = np.zeros(len(clips.label), dtype=bool)
    label = clips.label.numpy()
    for fold in np.unique(clips.fold):
        own, target = clips.fold == fold, np.eye(len(clips.names), dtype=bool)[label]
        (head,) = fit_heads(features[~own], target[~own], strengths=(3.0,), is_multi_label=False)
        right[own] = head.probabilities(features[own]).argmax(axis=1) == label[own]
    return float(right.mean())


def readouts(tokens: Clips, weights: Path) -> dict[str, list[float]]:
    """How well linear readouts of untrained C_MHRA tell the classes apart, for three seeds; and statistics."""
    found: dict[str, list[float]] = {}
    kinds = {"as it starts: no query": (False, 0.0), "a random query": (False, 1.0)}
    kinds |= {f"differences, gain {gain}": (True, float(gain)) for gain in (0, 1, 8, 64)}
    for name, (is_difference, gain) in kinds.items():
        found[name] = []
        for seed in range(3):
            torch.manual_seed(seed)
            network = armed(tokens, weights, is_frozen=True)
            features = read_by_cross_mhra(network, tokens.inputs, is_difference=is_difference, gain=gain)
            found[name].append(told_apart(features.double().numpy(), tokens))
    values = statistics_of(tokens.inputs)
    for name in ("patch_mean", "patch_ramp", "patch_std", "patch_step"):
        found[name] = [told_apart(values[:, ROWS["all"].index(name)].astype(np.float64), tokens)]
    return found


def sizes(tokens: Clips) -> dict[str, float]:
    """How much of the tokens' second moment is constant, static and moving, and what a mean of differences keeps."""
    x = tokens.inputs.float()
    constant = x.mean(dim=(0, 1, 2))
    static = x.mean(dim=1, keepdim=True)
    step = x.diff(dim=1)
    whole = x.square().sum(-1).mean()
    return {
        "constant": float(constant.square().sum() / whole),
        "static": float((static - constant).square().sum(-1).mean() / whole),
        "moving": float((x - static).square().sum(-1).mean() / whole),
        "kept of differences by their mean": float(step.mean(1).norm(dim=-1).mean() / step.norm(dim=-1).mean()),
    }


def overfitting(arrow: Clips, weights: Path, *, epochs: int = 60) -> dict[str, list[float]]:
    """The loss on sixteen clips of which eight run backwards, epoch by epoch: of each start."""
    half = len(arrow.label) // 2
    first = np.linspace(0, half - 1, 8).astype(int)
    chosen = np.concatenate([first, first + half])
    probe = fitted(armed(arrow, weights, is_frozen=True), arrow, np.flatnonzero(arrow.fold != 0))
    found: dict[str, list[float]] = {}
    for start in ("today", "probe"):
        network = started(start, arrow, weights, probe, Way(epochs=epochs), seed=0)
        found[start] = []
        learn(network, arrow, chosen, Way(epochs=epochs), seed=0, each_epoch=found[start].append)
    return found


def order_of_time(arrow: Clips) -> dict[str, list[float]]:
    """What slopes over time tell of the arrow of time: a number for each regularisation, for five sets of folds."""
    values = statistics_of(arrow.inputs)
    features = (
        values[:, [ROWS["all"].index(name) for name in ROWS["order"]]].reshape(len(values), -1).astype(np.float64)
    )
    _, place = np.unique(np.asarray(arrow.source), return_inverse=True)
    target, found = np.eye(2, dtype=bool)[arrow.label.numpy()], {}
    strengths = (0.03, 0.3, 3.0, 30.0)
    for seed in range(5):
        fold = np.random.default_rng(seed).permutation(place.max() + 1)[place] % 5
        right = np.zeros((len(strengths), len(target)))
        for number in range(5):
            own = fold == number
            heads = fit_heads(features[~own], target[~own], strengths=strengths, is_multi_label=False)
            right[:, own] = [
                head.probabilities(features[own]).argmax(axis=1) == arrow.label[own].numpy() for head in heads
            ]
        found[f"folds {seed}"] = [float(value) for value in right.mean(axis=1)]
    return found


def cached(path: Path | None, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Tensors and plain values from a file, which is written where it is not there."""
    if path is not None and path.is_file():
        found: dict[str, Any] = torch.load(path, weights_only=True)
        return found
    content = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
    return content


def tokens_and_pixels(options: argparse.Namespace, name: str, *, with_pixels: bool) -> tuple[Clips, Clips]:
    """Tokens of the data, and pixels where they are wanted (else the tokens again)."""
    folder = options.data / ("fights" if name == "fights" else "ucf101_6class")

    def read() -> Clips:
        return read_clips(folder, blocks_of_ten=name == "fights")

    def read_tokens() -> dict[str, Any]:
        clips = tokens_of(read(), options.weights)
        return {**vars(clips), "fold": clips.fold.tolist()}

    content = cached(_place(options, folder.name), read_tokens)
    tokens = Clips(**{**content, "fold": np.array(content["fold"])})
    records = read_records(folder, val_fraction=0.0)
    pixels = tokens
    if with_pixels:
        augmented = views_of(records, options.views, is_augmented=True) if options.views else None
        pixels = replace(read(), augmented=augmented)
    else:
        for part, number in (("augmented", options.views), ("tested", options.test_views)):
            if number:
                make = partial(_views, tokens, options, records, number, is_augmented=part == "augmented")
                tokens = replace(tokens, **{part: cached(_place(options, f"{folder.name}_{part}"), make)["views"]})
    if options.patches:
        tokens = replace(tokens, inputs=pooled(tokens.inputs, options.patches))
    tokens, pixels = every(tokens, options.every), every(pixels, options.every)
    return (both_ways(tokens), both_ways(pixels)) if name == "arrow" else (tokens, pixels)


def every(clips: Clips, step: int) -> Clips:
    """A part of the clips, for a first look."""
    if step == 1:
        return clips
    chosen = np.arange(0, len(clips.label), step)
    return replace(
        clips,
        inputs=clips.inputs[chosen],
        label=clips.label[chosen],
        source=tuple(clips.source[number] for number in chosen),
        fold=clips.fold[chosen],
        augmented=None if clips.augmented is None else clips.augmented[:, chosen],
        tested=None if clips.tested is None else clips.tested[:, chosen],
    )


def _place(options: argparse.Namespace, name: str) -> Path | None:
    return None if options.cache is None else options.cache / f"{name}.pt"


def _views(
    clips: Clips, options: argparse.Namespace, records: Sequence[VideoRecord], number: int, *, is_augmented: bool
) -> dict[str, Tensor]:
    """Tokens of the views that a training with cached features shows, or of those that its final test reads."""
    network = armed(clips, options.weights, is_frozen=True)
    pixels = views_of(records, number, is_augmented=is_augmented)
    return {"views": torch.stack([pooled(encoded(network, view), options.patches) for view in pixels])}


def instruments(options: argparse.Namespace) -> dict[str, Any]:
    """What holds a network back, measured before and in its first steps."""
    fights, _ = tokens_and_pixels(options, "fights", with_pixels=False)
    few = replace(fights, inputs=pooled(fights.inputs, 4))
    options.patches = 4
    arrow, _ = tokens_and_pixels(options, "arrow", with_pixels=False)
    return {
        "sizes": sizes(fights),
        "readouts": readouts(fights, options.weights),
        "gradients": {start: gradients(few, options.weights, start=start) for start in ("today", "probe")},
        "overfitting": overfitting(arrow, options.weights),
    }


def main() -> None:
    """Measure, write the numbers, print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with ucf101_6class and fights")
    parser.add_argument("what", choices=("fights", "arrow", "six", "instruments", "order", "draw"))
    parser.add_argument("--weights", type=Path, required=True, help="DINOv2 ViT-S/14")
    parser.add_argument("--all-learns", action="store_true", help="the backbone too; else it is frozen")
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folds", type=int, nargs="+", help="only these; nothing is written then")
    parser.add_argument("--no-local-steps", action="store_true", help="where all learns: one global UniBlock alone")
    parser.add_argument("--rate", type=float, help="of the video blocks and the head (default: as train)")
    parser.add_argument("--backbone-rate", type=float, help="where all learns, with --rate")
    parser.add_argument("--pull", type=float, help="decay towards the weights of the start (default: towards zero)")
    parser.add_argument("--views", type=int, default=0, help="train on so many cached crops")
    parser.add_argument("--test-views", type=int, default=0, help="test on so many clips a video (default: its middle)")
    parser.add_argument("--every", type=int, default=1, help="only every so many clips, for a first look")
    parser.add_argument("--patches", type=int, default=0, help="average neighbour patches until so many are a side")
    parser.add_argument("--cache", type=Path, help="folder for tokens, which take minutes")
    options = parser.parse_args()
    if options.what == "draw":
        return draw()
    if options.what == "order":
        for name, values in order_of_time(tokens_and_pixels(options, "arrow", with_pixels=False)[0]).items():
            print(name, *(f"{value:.1%}" for value in values))
        return None
    if options.what == "instruments":
        name, found = "instruments", instruments(options)
    else:
        tokens, clips = tokens_and_pixels(options, options.what, with_pixels=options.all_learns)
        name = options.what + ("_all_learns" if options.all_learns else "")
        found = experiment(clips, tokens, options.weights, options)
        for start, values in found["rows"].items():
            words = (
                f"{what} {100 * numbers[0]:.1f} ({100 * numbers[1]:.0f} to {100 * numbers[2]:.0f})"
                for what, numbers in values.items()
                if what != "by_fold"
            )
            print(f"{start:<18}", *words, "by fold", *(f"{100 * value:.1f}" for value in values["by_fold"]))
    if options.folds is None:
        path = RESULTS / f"motion_{name}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return None


COLOURS = {"today": RED, "probe": BLUE, "the probe itself": MUTED}
HALFWAY = "its head and the probe's, averaged"
WORDS = {"today": "as before", "probe": "starts at the probe", "the probe itself": "the probe itself"}


def draw() -> None:
    """The pictures of the page, from the numbers in benchmarks/results."""
    images = RESULTS.parents[1] / "docs" / "images"
    tasks = {"fights": "fights, 80 clips", "arrow": "which way time runs, 1282 clips"}
    with figure_style():
        figure, axes = new_axes(8.0, 2.8, columns=2)
        for axis, (task, title) in zip(axes, tasks.items(), strict=True):
            _draw_curves(axis, json.loads((RESULTS / f"motion_{task}.json").read_text(encoding="utf-8")))
            axis.set_title(title)
        axes[0].legend(frameon=False, fontsize=8)
        figure.savefig(images / "motion_curves.png")
        figure, axes = new_axes(11.0, 3.0, columns=3)
        _draw_instruments(axes, json.loads((RESULTS / "motion_instruments.json").read_text(encoding="utf-8")))
        figure.savefig(images / "motion_instruments.png")


def _draw_curves(axis: Any, found: dict[str, Any]) -> None:
    """Accuracy over the epochs: the mean of all folds and seeds, with a standard deviation of the seeds' means."""
    for start in {curve["start"]: None for curve in found["curves"]}:
        runs = np.array(
            [
                [curve["right"] for curve in found["curves"] if (curve["start"], curve["seed"]) == (start, seed)]
                for seed in found["seeds"]
            ]
        )
        seeds = 100 * runs.mean(axis=1)
        mean, spread = seeds.mean(axis=0), seeds.std(axis=0)
        axis.plot(mean, color=COLOURS[start], label=WORDS[start])
        axis.fill_between(range(len(mean)), mean - spread, mean + spread, color=COLOURS[start], alpha=0.2, linewidth=0)
    rows, last = found["rows"], found["epochs"]
    axis.plot(last, 100 * rows["probe, halfway"]["accuracy"][0], "*", color=GREEN, markersize=10, label=HALFWAY)
    itself = 100 * rows["the probe itself"]["accuracy"][0]
    axis.axhline(itself, color=MUTED, linestyle="--", linewidth=1, label=WORDS["the probe itself"])
    axis.axhline(50, color="black", linestyle=":", linewidth=1)
    axis.set_xlabel("epochs")
    axis.set_ylabel("held-out accuracy, %")


def _draw_instruments(axes: Any, found: dict[str, Any]) -> None:
    """What linear readouts tell of fights; the loss on sixteen clips; gradients of the first steps."""
    left, middle, right = axes
    for place, (name, values) in enumerate(reversed(found["readouts"].items())):
        value = 100 * float(np.mean(values))
        left.barh(place, value, color=BLUE if name in ROWS["all"] else RED, alpha=0.85, height=0.6)
        left.text(2, place, f"{value:.0f} %", va="center", color="white", fontsize=8)
    left.set_yticks(range(len(found["readouts"])), list(reversed(found["readouts"])))
    left.axvline(50, color="black", linestyle=":", linewidth=1)
    left.set_xlim(0, 100)
    left.set_title("fights, linear readouts")
    for start, loss in found["overfitting"].items():
        middle.plot(range(1, len(loss) + 1), loss, color=COLOURS[start], label=WORDS[start])
    middle.axhline(np.log(2), color="black", linestyle=":", linewidth=1)
    middle.set_title("arrow of time, loss on 16 clips")
    middle.set_xlabel("steps")
    middle.legend(frameon=False, fontsize=8)
    parts = {"head": MUTED, "C_MHRA, projection": GREEN, "C_MHRA, keys": BLUE, "DPE": RED}
    for part, colour in parts.items():
        norms = [value if value > 0 else float("nan") for value in found["gradients"]["today"][part]]
        right.semilogy(range(len(norms)), norms, color=colour, label=part)
    right.set_title("norm of the gradient, as before")
    right.set_xlabel("steps")
    right.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
