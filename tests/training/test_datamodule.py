from __future__ import annotations

import csv
import multiprocessing
import re
from pathlib import Path

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.data.clips_on_disk import write_folder
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.augmentation import TrainAugmentation
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.training.datamodule import VideoDataModule

PREPROCESSING = Preprocessing(num_frames=2, image_size=16, num_clips=2, num_crops=3)
AUGMENTATION = TrainAugmentation(image_size=16)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning 2.6 with torch 2.15
    pytest.mark.filterwarnings("ignore:.*exists and is not empty:UserWarning"),  # the folder of the resumed run
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    write_folder(root, per_class=6)
    return root


def data_of(videos, **fields):
    fields = {"augmentation": AUGMENTATION, "batch_size": 2, "num_workers": 0, **fields}
    return VideoDataModule(videos, PREPROCESSING, **fields)


class Recorder(lightning.LightningModule):
    """Remembers the batches and learns a little from them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.seen, self.validated, self.tested = [], [], []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch.index.tolist(), batch.video.numpy().tobytes()))
        loss = torch.nn.functional.cross_entropy(self.layer(batch.video.float().mean((1, 3, 4)) / 255), batch.label)
        self.log("loss", loss, batch_size=len(batch.label))
        return loss

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch)

    def test_step(self, batch, batch_idx):
        self.tested.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer_of(folder, **fields):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return lightning.Trainer(default_root_dir=folder, **quiet, **fields)


class TestResume:
    @pytest.mark.parametrize(("steps", "num_workers"), [(2, 1), (5, 0), (7, 0)])
    def test_training_goes_on_with_the_very_next_batch(self, folder, tmp_path, steps, num_workers):
        """Five steps are an epoch: in the middle of the first, at its end, in the middle of the second."""
        torch.manual_seed(0)
        whole = Recorder()
        trainer_of(tmp_path, max_epochs=3, enable_checkpointing=False).fit(whole, datamodule=data_of(folder))
        assert len(whole.seen) == 15

        torch.manual_seed(0)
        stopped = Recorder()
        every = {"dirpath": tmp_path, "filename": "at-{step}", "every_n_train_steps": steps, "save_top_k": -1}
        trainer = trainer_of(tmp_path, max_steps=steps, callbacks=[ModelCheckpoint(**every)])
        trainer.fit(stopped, datamodule=data_of(folder, num_workers=num_workers))
        assert stopped.seen == whole.seen[:steps]

        resumed = Recorder()
        trainer = trainer_of(tmp_path, max_epochs=3, callbacks=[ModelCheckpoint(**every)])
        data = data_of(folder, num_workers=num_workers)
        trainer.fit(resumed, datamodule=data, ckpt_path=tmp_path / f"at-step={steps}.ckpt", weights_only=True)
        assert resumed.seen == whole.seen[steps:]
        assert torch.equal(resumed.layer.weight, whole.layer.weight)

    def test_a_checkpoint_of_a_whole_epoch_begins_the_next(self, folder, tmp_path):
        whole = Recorder()
        every = {"dirpath": tmp_path, "filename": "epoch{epoch}", "auto_insert_metric_name": False, "save_top_k": -1}
        trainer_of(tmp_path, max_epochs=2, callbacks=[ModelCheckpoint(**every)]).fit(whole, datamodule=data_of(folder))
        resumed = Recorder()
        trainer = trainer_of(tmp_path, max_epochs=2, callbacks=[ModelCheckpoint(**every)])
        trainer.fit(resumed, datamodule=data_of(folder), ckpt_path=tmp_path / "epoch0.ckpt", weights_only=True)
        assert resumed.seen == whole.seen[5:]


class TestTrainer:
    def test_it_trains_validates_and_tests(self, folder, tmp_path):
        module, data = Recorder(), data_of(folder, eval_batch_size=3)
        trainer = trainer_of(tmp_path, max_epochs=1, enable_checkpointing=False, num_sanity_val_steps=0)
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
        assert len(module.seen) == 5
        assert [tuple(batch.video.shape) for batch in module.validated] == [(2, 1, 2, 3, 16, 16)]
        assert [tuple(batch.video.shape) for batch in module.tested] == [(2, 6, 2, 3, 16, 16)]
        assert module.tested[0].index.tolist() == [0, 1]

    def test_it_ends_its_workers(self, folder, tmp_path):
        before = set(multiprocessing.active_children())
        trainer = trainer_of(tmp_path, max_epochs=1, enable_checkpointing=False)
        trainer.fit(Recorder(), datamodule=data_of(folder, num_workers=1))
        assert set(multiprocessing.active_children()) <= before

    def test_without_validation_videos_there_is_no_validation(self, folder, tmp_path):
        records = data_of(folder).records["train"]
        module = Recorder()
        trainer = trainer_of(tmp_path, max_epochs=1, enable_checkpointing=False)
        with pytest.warns(UserWarning, match="across ranks is zero"):
            trainer.fit(module, datamodule=data_of(records))
        assert (len(module.seen), module.validated) == (5, [])


class TestRecords:
    def test_a_folder_of_classes_is_divided(self, folder):
        data = data_of(folder)
        assert {split: len(records) for split, records in data.records.items()} == {"train": 10, "val": 2, "test": 0}
        assert (data.class_names, data.num_classes) == (("class0", "class1"), 2)

    def test_where_validation_videos_are_given_nothing_is_held_out(self, folder):
        data = data_of(folder, val=folder)
        assert {split: len(records) for split, records in data.records.items()} == {"train": 12, "val": 12, "test": 0}

    def test_a_list_without_splits_is_all_for_training(self, folder, tmp_path):
        paths = sorted(folder.rglob("*.mp4"))
        write_list(tmp_path / "train.csv", paths)
        write_list(tmp_path / "val.csv", [path for path in paths if path.parent.name == "class1"])
        data = data_of(tmp_path / "train.csv", val=tmp_path / "val.csv", test=tmp_path / "val.csv")
        assert {split: len(records) for split, records in data.records.items()} == {"train": 12, "val": 6, "test": 6}
        assert {record.label for record in data.records["val"]} == {1}  # the only class there is still number 1

    def test_a_folder_of_lists(self, folder, tmp_path):
        paths = sorted(folder.rglob("*.mp4"))
        write_list(tmp_path / "train.csv", paths[:8])
        write_list(tmp_path / "val.csv", paths[8:])
        data = data_of(tmp_path)
        assert {split: len(records) for split, records in data.records.items()} == {"train": 8, "val": 4, "test": 0}

    def test_class_names_may_be_given(self, folder):
        data = data_of(folder, classes=["class1", "class0", "class2"])
        assert data.num_classes == 3
        assert {record.label_name: record.label for record in data.records["train"]} == {"class0": 1, "class1": 0}

    def test_several_labels_are_multi_hot(self, folder):
        paths = [str(path) for path in sorted(folder.rglob("*.mp4"))]
        records = [VideoRecord(path, label=(number % 2, 2)) for number, path in enumerate(paths)]
        batch = next(iter(data_of(records, val=records).train_dataloader()))
        assert batch.label.sum(1).tolist() == [2, 2]
        assert batch.label.shape == (2, 3)

    def test_balanced_drawing(self, folder):
        records = data_of(folder, val=folder).records["train"]
        rare = [record for record in records if record.label == 0] + [records[-1]]
        data = data_of(rare * 20, balanced=True, batch_size=140)
        batch = next(iter(data.train_dataloader()))
        assert 50 < int(batch.label.sum()) < 90

    def test_what_contradicts_is_refused(self, folder, tmp_path):
        with pytest.raises(ValueError, match="give one of them"):
            data_of(folder, balanced=True, weights=[1.0] * 10)
        write_list(tmp_path / "list.csv", sorted(folder.rglob("*.mp4")), split="val")
        with pytest.raises(ValueError, match="has no training videos"):
            data_of(tmp_path / "list.csv")
        write_list(tmp_path / "other.csv", sorted(folder.rglob("*.mp4")), split="holdout")
        with pytest.raises(ValueError, match="videos of the split 'holdout', which is none of train, val"):
            data_of(tmp_path / "other.csv")

    def test_training_videos_without_a_class_are_refused(self, folder, tmp_path):
        """But not those of the other splits, and not where a video may have any number of classes."""
        paths = [str(path) for path in sorted(folder.rglob("*.mp4"))]
        (tmp_path / "train.csv").write_text("\n".join(["path", *paths]))
        first = re.escape(paths[0])
        with pytest.raises(ValueError, match=f"12 of 12 training videos have no class, for instance {first}\\. Give a"):
            data_of(tmp_path / "train.csv")
        known, unknown = [VideoRecord(path, label=0) for path in paths], [VideoRecord(paths[0])]
        with pytest.raises(ValueError, match=f"1 of 13 training videos have no class, for instance {first}\\."):
            data_of([*known, *unknown])
        assert data_of(known, val=unknown).records["val"] == unknown
        assert data_of([*known, *unknown], multi_label=True).records["train"][-1:] == unknown


def write_list(path: Path, videos: list[Path], split: str | None = None) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", *(["split"] if split else [])])
        rows.writerows([video, video.parent.name, *([split] if split else [])] for video in videos)
