"""Features: what the head reads, where tools for localisation expect it, and the file that is searched."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch
import yaml

from tests.media import write_video
from tests.media.made_videos import make_video
from tests.model.test_uniformerv2 import MOTION, TINY, make
from uniformerv2.core.limits import set_limits
from uniformerv2.data.annotations import VideoRecord, read_records
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.features.clock import FeatureClock
from uniformerv2.inference.features.extraction import FeatureExtractor
from uniformerv2.inference.features.index import FeatureIndex, read_head
from uniformerv2.inference.features.runs import DenseRun, WholeRun
from uniformerv2.inference.features.search import fit_to_index, search
from uniformerv2.media.decoding import VideoError, open_video


def extractor_of(config=TINY, **options):
    return FeatureExtractor(make(config), precision="fp32", **options)


def by_hand(config, video, indices):
    """The features of these frames by an untouched network."""
    network = make(config)
    preprocessing = Preprocessing.official(num_frames=config.num_frames, image_size=config.image_size)
    with open_video(video) as reader:
        pixels = preprocessing.resize_and_crop(reader.frames(indices))
    with torch.inference_mode():
        return network.norm(network.forward_features(preprocessing.normalize(pixels)))[0].numpy()


@pytest.mark.parametrize("config", [TINY, MOTION, replace(TINY, num_classes=0)], ids=["scene", "motion", "no head"])
def test_a_feature_is_what_the_head_reads(config, tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=40, fps=10)
    extractor = extractor_of(config, window_seconds=1.0, stride_seconds=0.5)
    found = extractor.dense(video)
    windows = list(extractor.scorer.stream(video))
    assert found.vectors.shape == (7, 32)
    assert found.vectors.dtype == np.float32
    for vector, window in zip(found.vectors, windows, strict=True):
        np.testing.assert_allclose(vector, by_hand(config, video, window.frame_indices), atol=2e-5)
    assert found.starts.tolist() == pytest.approx([0.5 * k for k in range(7)])
    assert (found.ends - found.starts).tolist() == pytest.approx([1.0] * 7)


def test_a_whole_video_is_the_mean_over_its_views_of_length_1(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=40, fps=10)
    extractor = extractor_of(num_clips=2, num_crops=1)
    (found,) = extractor.whole([VideoRecord(str(video), label=1, label_name="run", start_seconds=1.0)])
    clips = extractor.predictor.preprocessing.indices(30, start=10)
    mean = np.mean([by_hand(TINY, video, clip) for clip in clips], axis=0)
    np.testing.assert_allclose(found.vectors[0], mean / np.linalg.norm(mean), atol=1e-5)
    assert (found.label, found.starts.tolist(), found.ends.tolist()) == ("run", [1.0], [pytest.approx(4.0)])
    content = json.loads(found.to_json(vectors=True))
    assert content["is_normalised"] is True
    assert len(content["vectors"][0]) == content["dim"] == 32


CLOCKS = [
    (25, {"window_seconds": 1.0, "stride_seconds": 0.25}),
    (30, {"window_seconds": 1.28, "stride_seconds": 0.3}),
    (24, {"window_seconds": 0.7}),
    (10, {}),
]


@pytest.mark.parametrize(("fps", "lengths"), CLOCKS)
def test_feature_i_lies_where_the_tools_expect_it(fps, lengths, tmp_path):
    """By the formulas of ActionFormer (libs/datasets/thumos14.py, libs/modeling/meta_archs.py) and of OpenTAD
    (opentad/datasets/epic_kitchens.py, opentad/models/utils/post_processing/utils.py)."""
    video = write_video(tmp_path / "a.mp4", num_frames=6 * fps, fps=fps)
    run = DenseRun(extractor_of(**lengths), [str(video)], tmp_path / "out")
    ((_, found),) = run.run()
    middles = (found.starts + found.ends) / 2
    lines = run.lines()
    former = yaml.safe_load(lines["actionformer.yaml"])["dataset"]
    assert type(former["feat_stride"]) is type(former["num_frames"]) is int
    grid = (middles * former["default_fps"] - 0.5 * former["num_frames"]) / former["feat_stride"]
    np.testing.assert_allclose(grid, np.arange(len(middles)), atol=1e-6)
    seconds = (np.arange(len(middles)) * former["feat_stride"] + 0.5 * former["num_frames"]) / former["default_fps"]
    np.testing.assert_allclose(seconds, middles, atol=1e-6)
    assert former["input_dim"] == np.load(f"{former['feat_folder']}/a{former['file_ext']}").shape[1] == 32
    tad = {}
    exec(lines["opentad.py"], tad)  # it is Python
    stride, offset = (
        int(tad["lies"]["feature_stride"] * tad["lies"]["sample_stride"]),
        int(tad["lies"]["offset_frames"]),
    )
    assert stride == tad["lies"]["feature_stride"]
    seconds = (np.arange(len(middles)) * stride + 0 + offset) / tad["lies"]["fps"]
    np.testing.assert_allclose(seconds, middles, atol=1e-6)
    rounded = [(int(middle * tad["lies"]["fps"] + 1e-9) - offset) / stride for middle in middles]
    np.testing.assert_allclose(rounded, np.arange(len(middles)), atol=1 / stride)
    assert tad["lies"]["fps"] >= 25


def test_videos_of_every_rate_have_one_clock_where_windows_are_in_seconds(tmp_path):
    videos = [str(write_video(tmp_path / f"{fps}.mp4", num_frames=3 * fps, fps=fps)) for fps in (10, 25)]
    run = DenseRun(extractor_of(window_seconds=1.0), videos, tmp_path / "out")
    assert {found.clock for _, found in run.run()} == {FeatureClock(fps=28.0, feature_stride=7, num_frames=28)}
    assert "default_fps: 28," in run.lines()["actionformer.yaml"]
    assert run.finish() == [tmp_path / "out" / name for name in ("actionformer.yaml", "opentad.py")]


def test_windows_in_frames_follow_the_rate_and_the_lines_say_so(tmp_path):
    videos = [str(write_video(tmp_path / f"{fps}.mp4", num_frames=4 * fps, fps=fps)) for fps in (10, 25)]
    extractor = FeatureExtractor(
        make(TINY), Preprocessing.official(num_frames=4, image_size=32, sampling="dense", frame_stride=4)
    )
    run = DenseRun(extractor, videos, tmp_path / "out")
    clocks = [found.clock for _, found in run.run()]
    assert [(clock.fps, clock.feature_stride, clock.num_frames) for clock in clocks] == [(10, 4, 16), (25, 4, 16)]
    assert "default_fps: ~" in run.lines()["actionformer.yaml"]
    assert "make the features again with --window-seconds" in run.lines()["opentad.py"]


def test_a_window_off_the_grid_is_left_out(tmp_path):
    """A timeline's last window ends with the video; counted in strides it would lie elsewhere."""
    video = write_video(tmp_path / "a.mp4", num_frames=23, fps=10)
    extractor = extractor_of(window_seconds=1.0, stride_seconds=1.0)
    assert len(list(extractor.scorer.stream(video))) == 3
    assert extractor.dense(video).starts.tolist() == [0.0, 1.0]


def test_variable_rates_lie_by_time(tmp_path):
    times = [0, 100, 200, 300, 1500, 1600, 1700, 2900, 3000]
    video = make_video(tmp_path / "a.mkv", frames=len(times), ticks=times)
    found = extractor_of(window_seconds=1.0, stride_seconds=0.5).dense(video)
    assert found.starts.tolist() == pytest.approx([0.5 * k for k in range(len(found.starts))])
    assert found.clock.seconds(0) == pytest.approx(0.5)


def test_one_frame_gives_one_feature(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=1)
    extractor = extractor_of()
    assert extractor.dense(video).vectors.shape == (1, 32)
    (found,) = extractor.whole([video])
    assert np.linalg.norm(found.vectors[0]) == pytest.approx(1, abs=1e-6)


def truncated(folder, *, num_frames=90, part=0.6):
    video = write_video(folder / "cut.mp4", num_frames=num_frames, fps=10, size=(96, 128))
    faststart = folder / "fast.mp4"
    import av

    with av.open(str(video)) as source, av.open(str(faststart), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = faststart.read_bytes()
    faststart.write_bytes(content[: int(len(content) * part)])
    return faststart


def test_a_video_that_breaks_off_gives_what_lies_before(tmp_path):
    video = truncated(tmp_path)
    extractor = extractor_of(window_seconds=1.0)
    found = extractor.dense(video, file=tmp_path / "a.npy")
    assert "truncated" in found.broken
    assert 4 < len(found.vectors) < 30
    assert np.array_equal(np.load(tmp_path / "a.npy"), extractor.dense(video).vectors)
    assert np.isfinite(found.vectors).all()
    assert found.clock.seconds(len(found.vectors) - 1) < 9
    (whole,) = extractor.whole([video])
    assert isinstance(whole, VideoError)


def test_a_video_that_cannot_be_read_leaves_no_file(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(VideoError):
        extractor_of().dense(tmp_path / "a.mp4", file=tmp_path / "out" / "a.npy")
    assert list((tmp_path / "out").iterdir()) == []


UNREADABLE = {"firefox/bipbop_225w_175kbps-cenc-video-key1-init.mp4", "torchcodec/sine_mono_s16.wav"}


@pytest.mark.parametrize(
    "name",
    [
        "torchcodec/var_fps_video.mp4",
        "torchcodec/nasa_13013_rotated.mp4",
        "torchcodec/test_non_zero_start.mp4",
        "torchcodec/animated.gif",
        "decord/corrupted.mp4",
        *sorted(UNREADABLE),
    ],
)
def test_odd_videos_give_features_or_a_clear_error(shared, name):
    video = shared(f"data/odd_videos/{name}")
    extractor = extractor_of(window_seconds=2.0, stride_seconds=2.0)
    (whole,) = extractor.whole([video])
    if name in UNREADABLE:
        with pytest.raises(VideoError) as error:
            extractor.dense(video)
        assert error.value.detail
        assert isinstance(whole, VideoError)
        return
    found = extractor.dense(video)
    assert np.isfinite(found.vectors).all()
    assert len(found.vectors) == len(found.starts) > 0
    assert isinstance(whole, VideoError) is (name == "decord/corrupted.mp4")  # of which dense ones ask other frames


@pytest.fixture
def clips(tmp_path):
    """Two classes of three videos, of which one is broken; all of a class look alike."""
    for label, seed in (("dog", 0), ("cat", 9)):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(3):
            write_video(tmp_path / "clips" / label / f"{label}{number}.mp4", num_frames=12 + number, seed=seed)
    (tmp_path / "clips" / "cat" / "cat2.mp4").write_bytes(b"nothing")
    return tmp_path / "clips"


def index_of(clips, out, extractor=None):
    run = WholeRun(extractor or extractor_of(), read_records(clips, val_fraction=0.0), out)
    list(run.run())
    return run, run.finish()


def test_the_file_holds_a_row_per_video_that_can_be_read(clips, tmp_path):
    run, failures = index_of(clips, tmp_path / "out")
    assert [path.rpartition("/")[2] for path, _ in failures] == ["cat2.mp4"]
    index = FeatureIndex.read(run.file)
    assert [path.rpartition("/")[2] for path in index.videos] == [
        *("cat0.mp4", "cat1.mp4"),
        *("dog0.mp4", "dog1.mp4", "dog2.mp4"),
    ]
    assert index.labels == ("cat", "cat", "dog", "dog", "dog")
    np.testing.assert_allclose(index.bounds[:, 0], 0)
    np.testing.assert_allclose(index.bounds[2:, 1], [1.0, 13 / 12, 14 / 12], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-6)
    assert not (tmp_path / "out" / ".features.journal").exists()
    assert [record.label_name for record in read_records(run.file)] == list(index.labels)  # it is a list, too


def test_a_stopped_run_goes_on_and_gives_the_same_file(clips, tmp_path):
    records = read_records(clips, val_fraction=0.0)
    wanted, _ = index_of(clips, tmp_path / "wanted")
    begun = WholeRun(extractor_of(), records, tmp_path / "out")
    running = begun.run()
    for _ in range(3):
        next(running)
    running.close()
    assert not begun.file.exists()
    with (tmp_path / "out" / ".features.journal").open("ab") as file:
        file.write(b'{"video": "half a li')
    again = WholeRun(extractor_of(), records, tmp_path / "out")
    assert again.num_done == 3
    assert len(list(again.run())) == 3
    again.finish()
    assert parquet.read_table(again.file).equals(parquet.read_table(wanted.file))
    finished = WholeRun(extractor_of(), records, tmp_path / "out")
    assert finished.is_finished
    assert list(finished.run()) == []
    assert len(finished.finish()) == 1


def test_a_folder_of_something_else_is_refused(clips, tmp_path):
    index_of(clips, tmp_path / "out")
    records = read_records(clips, val_fraction=0.0)
    with pytest.raises(ValueError, match="features of something else: num_clips was 1, is 2"):
        WholeRun(extractor_of(num_clips=2), records, tmp_path / "out")
    with pytest.raises(ValueError, match="model was"):
        WholeRun(extractor_of(replace(TINY, fusion="parallel")), records, tmp_path / "out")
    with pytest.raises(ValueError, match="videos was"):
        WholeRun(extractor_of(), records[:2], tmp_path / "out")


def test_dense_features_go_on_where_a_run_was_stopped(tmp_path):
    videos = [str(write_video(tmp_path / f"{name}.mp4", num_frames=20, fps=10)) for name in "abc"]
    running = DenseRun(extractor_of(window_seconds=1.0), videos, tmp_path / "out").run()
    next(running)
    running.close()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("a.*")}
    assert len(times) == 2
    write_video(tmp_path / "b.mp4", num_frames=30, fps=10)
    again = DenseRun(extractor_of(window_seconds=1.0), videos, tmp_path / "out")
    assert again.num_done == 1
    assert [type(found).__name__ for _, found in again.run()] == ["dict", "Features", "Features"]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    write_video(tmp_path / "c.mp4", num_frames=31, fps=10)  # changed: made anew
    assert DenseRun(extractor_of(window_seconds=1.0), videos, tmp_path / "out").num_done == 2
    with pytest.raises(ValueError, match=r"features of something else: window_seconds was 1\.0, is 2\.0"):
        DenseRun(extractor_of(window_seconds=2.0), videos, tmp_path / "out")
    (tmp_path / "out" / "a.json").write_text("[]")
    with pytest.raises(ValueError, match="is not of this verb"):
        DenseRun(extractor_of(window_seconds=1.0), videos, tmp_path / "out")
    with pytest.raises(ValueError, match="are both called 'a'"):
        DenseRun(extractor_of(), ["x/a.mp4", "y/a.mp4"], tmp_path / "other")


def test_the_nearest_are_those_of_the_highest_cosine(clips, tmp_path):
    run, _ = index_of(clips, tmp_path / "out")
    index = FeatureIndex.read(run.file)
    (found,) = search([index.videos[3]], extractor_of(), index, k=3, by_class=True)
    cosines = index.vectors @ index.vectors[3]
    assert found.neighbours[0].video == index.videos[3]
    assert [one.cosine for one in found.neighbours] == pytest.approx(sorted(cosines, reverse=True)[:3])
    assert {one.label for one in found.neighbours} == {"dog"}
    assert [(one.label, one.num_videos) for one in found.classes] == [("dog", 3), ("cat", 2)]
    centre = index.vectors[2:].mean(axis=0)
    assert found.classes[0].cosine == pytest.approx(float(centre @ index.vectors[3] / np.linalg.norm(centre)), abs=1e-6)
    assert json.loads(found.to_json())["neighbours"][0]["cosine"] == pytest.approx(1, abs=1e-6)


def test_a_query_goes_through_what_the_index_went_through(clips, tmp_path):
    run, _ = index_of(clips, tmp_path / "out", extractor_of(num_clips=3, num_crops=3))
    extractor = extractor_of()
    (found,) = search([str(clips / "dog" / "dog1.mp4")], extractor, FeatureIndex.read(run.file), k=1)
    assert extractor.predictor.preprocessing.num_clips == 3
    assert found.neighbours[0].video.endswith("dog1.mp4")
    assert found.neighbours[0].cosine == pytest.approx(1, abs=1e-6)


def test_an_index_of_another_model_is_refused(clips, tmp_path):
    run, _ = index_of(clips, tmp_path / "out")
    other = extractor_of(replace(TINY, fusion="parallel"))
    with pytest.raises(ValueError, match="was made with another model"):
        fit_to_index(other, FeatureIndex.read(run.file))


def changed(path, out, *, columns=None, head=None, drop=None):
    """A copy of a file with something that is wrong."""
    table = parquet.read_table(path)
    for name, values in (columns or {}).items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, values) if place >= 0 else table.append_column(name, values)
    if drop:
        table = table.drop_columns([drop])
    metadata = dict(parquet.read_schema(path).metadata)
    if head is not None:
        content = {**json.loads(metadata[b"uniformerv2"]), **head}
        metadata[b"uniformerv2"] = json.dumps(content).encode()
    parquet.write_table(table.replace_schema_metadata(metadata), out)
    return out


def lists(rows, dim):
    return arrow.FixedSizeListArray.from_arrays(arrow.array(np.asarray(rows, np.float32).ravel()), dim)


WRONG = {
    "another dim": ({"head": {"dim": 16}}, "fixed-size list of 16 floats"),
    "a dim that is none": ({"head": {"dim": "x"}}, "dim must be a whole number"),
    "a huge dim": ({"head": {"dim": 10**9}}, "limit width"),
    "no model": ({"head": {"model": None}}, "does not say which model"),
    "another format": ({"head": {"format": "x"}}, "no file of features of this package"),
    "no column": ({"drop": "label"}, "the column 'label' must be string, it is absent"),
    "numbers as text": ({"columns": {"path": arrow.array(range(5))}}, "'path' must be string"),
    "not a number": ({"columns": {"vector": lists(np.full((5, 32), np.nan), 32)}}, "the length nan"),
    "infinite": ({"columns": {"vector": lists(np.full((5, 32), np.inf), 32)}}, "the length inf"),
    "not of length 1": ({"columns": {"vector": lists(np.ones((5, 32)), 32)}}, "the length 5.65"),
    "doubles": (
        {"columns": {"vector": arrow.array([[0.0] * 32] * 5, arrow.list_(arrow.float64(), 32))}},
        "list of 32 floats",
    ),
    "no vector": ({"columns": {"vector": arrow.array([None] * 5, arrow.list_(arrow.float32(), 32))}}, "no vector"),
    "no path": ({"columns": {"path": arrow.array([None] * 5, arrow.string())}}, "no path"),
    "endless": ({"columns": {"end_seconds": arrow.array([np.inf] * 5)}}, "infinite"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_a_hostile_file_is_refused_with_a_reason(clips, tmp_path, name):
    changes, said = WRONG[name]
    run, _ = index_of(clips, tmp_path / "out")
    path = changed(run.file, tmp_path / "bad.parquet", **changes)
    with pytest.raises(ValueError, match=re.escape(said)):
        FeatureIndex.read(path)


@pytest.mark.parametrize(
    ("preprocessing", "said"),
    [
        ({"num_clips": "x"}, "cannot be used"),
        ({"num_frames": 9, "image_size": 32}, "is for num_frames"),
        ({"nothing": 1}, "no field"),
        ({"num_frames": 4, "image_size": 32, "num_clips": 10**9}, "limit frames_per_video"),
    ],
)
def test_hostile_preprocessing_is_refused(clips, tmp_path, preprocessing, said):
    run, _ = index_of(clips, tmp_path / "out")
    path = changed(run.file, tmp_path / "bad.parquet", head={"preprocessing": preprocessing})
    with pytest.raises(ValueError, match=said):
        fit_to_index(extractor_of(), FeatureIndex.read(path))


def test_damaged_files_are_refused(clips, tmp_path):
    run, _ = index_of(clips, tmp_path / "out")
    content = run.file.read_bytes()
    bad = tmp_path / "bad.parquet"
    rng = np.random.default_rng(0)
    for _ in range(60):
        mutant = bytearray(content)
        for place in rng.integers(0, len(content), 4):
            mutant[place] = rng.integers(256)
        bad.write_bytes(bytes(mutant[: rng.integers(1, len(content) + 1)] if rng.random() < 0.3 else mutant))
        with suppress(ValueError):
            assert np.isfinite(FeatureIndex.read(bad).vectors).all()
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_head(tmp_path / "absent.parquet")


def test_limits_hold(clips, tmp_path):
    run, _ = index_of(clips, tmp_path / "out")
    with set_limits(dump_bytes=100), pytest.raises(ValueError, match="limit dump_bytes"):
        FeatureIndex.read(run.file)
    with set_limits(text_bytes=100), pytest.raises(ValueError, match="limit text_bytes"):
        FeatureIndex.read(run.file)
