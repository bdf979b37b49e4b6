"""The folder of a training: what lies where, what is noted in it, and whether the disk has room for it.

::

    OUT/run.json                    the plan, and the network before its first step, without weights
    OUT/checkpoints/best.ckpt       highest validation accuracy
    OUT/checkpoints/last.ckpt       where training goes on: last epoch, last minutes, or last step
    OUT/logs/version_0/metrics.csv  a new version for each time it is resumed
    OUT/tensorboard                 where TensorBoard is installed
    OUT/features                    tokens of a frozen backbone, where they are cached; see ``feature_cache``
    OUT/model                       the result
    OUT/probe                       the network of the probe, and its numbers; see ``autotrain.probing``
    OUT/network                     the trained network, where the probe is better
    OUT/probe_val.pkl, network_val.pkl  what both say of the validation videos
    OUT/scores.pkl, OUT/report      of its test; see ``autotrain.session``
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uniformerv2.autotrain.plan import TrainingPlan, request_in_todays_words
from uniformerv2.core.files import check_room, remove_leftovers
from uniformerv2.core.run_paths import RunPaths
from uniformerv2.data.labels import whole_number
from uniformerv2.evaluation.journal import journal_folder
from uniformerv2.model.config import CheckpointInfo, UniFormerV2Config
from uniformerv2.model.uniformerv2 import UniFormerV2
from uniformerv2.training.resume import NUM_CHECKPOINTS, checkpoint_bytes
from uniformerv2.zoo.checkpoint import CONFIG, WEIGHTS
from uniformerv2.zoo.files import read_json, write_json
from uniformerv2.zoo.runs import random_network

__all__ = ["RunFolder"]


class RunFolder(RunPaths):
    """The files of a run, written and read."""

    def prepare(self, *, has_checkpoints: bool = True) -> None:
        """Find out now whether it can be written, and remove what a killed process had not finished.

        Args:
            has_checkpoints: A probe alone has none.

        Raises:
            OSError: It cannot be written.
        """
        place = self.checkpoints if has_checkpoints else self.path
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise OSError(
                f"{place} cannot be written ({error.strerror}): make it a folder that can, or give another "
                "place with --out."
            ) from error
        for written in (self.record, self.model / CONFIG, self.model / WEIGHTS):
            remove_leftovers(written.parent, written.name)

    def check_room(self, network: UniFormerV2) -> None:
        """Find out now whether the disk has room for the checkpoints and the model, not after an epoch.

        Args:
            network: To be trained.

        Raises:
            DiskFullError: It has not.
        """
        written = (self.best, self.last, self.model / WEIGHTS)
        there = sum(path.stat().st_size for path in written if path.exists())
        size = sum(weight.nbytes for weight in network.state_dict().values())
        check_room(self.path, NUM_CHECKPOINTS * checkpoint_bytes(network) + size - there, what="This training")

    def write(self, plan: TrainingPlan, network: UniFormerV2, request: Mapping[str, Any]) -> None:
        """Note what will be done.

        Args:
            plan: All choices.
            network: Before its first step.
            request: What the user asked for.
        """
        content = {"plan": plan.to_dict(), "network": network.config.to_dict(), "info": asdict(network.info)}
        write_json(self.record, {**content, "request": dict(request)})

    def numbered_classes(self) -> tuple[str, ...] | None:
        """The classes of the plan in its order, where whole numbers call them; else None.

        Runs that were begun before such class folders were sorted as numbers have them sorted as text.
        """
        names = tuple(read_json(self.record)["plan"]["class_names"])
        return names if all(whole_number(name) is not None for name in names) else None

    def read(self) -> tuple[TrainingPlan, UniFormerV2]:
        """The plan, and the network with random weights."""
        content = read_json(self.record)
        info = CheckpointInfo(**{**content["info"], "class_names": tuple(content["info"]["class_names"])})
        network = random_network(UniFormerV2Config.from_dict(content["network"]), info)
        plan = TrainingPlan.from_dict(content["plan"])
        if plan.freeze_backbone:
            network.freeze_backbone()
        return plan, network

    def request(self) -> dict[str, Any]:
        """What the user decided when the training was begun."""
        return request_in_todays_words(read_json(self.record)["request"])

    @property
    def logs(self) -> list[Path]:
        """One for each time the training was started, in order."""
        return sorted(
            self.path.glob("logs/version_*/metrics.csv"), key=lambda log: int(log.parent.name.removeprefix("version_"))
        )

    @property
    def val_scores(self) -> Path:
        """The dump of the trained network on one view of each validation video."""
        return self.path / "network_val.pkl"

    @property
    def probe_scores(self) -> Path:
        """The same of the probe."""
        return self.path / "probe_val.pkl"

    @property
    def has_probe(self) -> bool:
        """Whether the training has a probe to be compared with."""
        return (self.probe / CONFIG).is_file()

    def forget_test(self) -> None:
        """Remove what an earlier training in this folder has left and a new one could not go on with."""
        for scores in (self.scores, self.val_scores, self.probe_scores):
            scores.unlink(missing_ok=True)
            shutil.rmtree(journal_folder(scores), ignore_errors=True)
        for folder in (self.probe, self.network):
            shutil.rmtree(folder, ignore_errors=True)
