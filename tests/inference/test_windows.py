"""Windows that share frames: the scores of the predictor on the same frames, whatever the video's rate and length."""

from __future__ import annotations

import pickle
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.media import write_video
from tests.media.made_videos import make_video
from tests.model.test_uniformerv2 import FROZEN, MOTION, TINY, make
from uniformerv2.core.limits import set_limits
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.predictor import Predictor
from uniformerv2.inference.window_frames import GridFrame
from uniformerv2.inference.window_grid import WindowGrid, window_lengths
from uniformerv2.inference.windows import WindowFeed, WindowScorer
from uniformerv2.media.decoding import VideoError, open_video
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.model.fusion import FUSIONS
from uniformerv2.model.statistics import KINDS

WHOLE = {"motion", "one local step", "tubelets"}
NETWORKS = {
    "scene": TINY,
    "frozen": FROZEN,
    "motion": MOTION,
    "one local step": replace(TINY, num_local_steps=1),
    "tubelets": replace(TINY, tubelet_size=2, tubelet_kernel_size=3),
    "statistics beside the video token": replace(TINY, statistics=KINDS["motion"]),
    **{name: replace(TINY, fusion=name) for name in FUSIONS if name != "sequential"},
}


def scorer_of(config=TINY, *, num_crops=1, is_multi_label=False, views_per_batch=None, **options):
    model = make(config)
    model.info = CheckpointInfo(is_multi_label=is_multi_label)
    predictor = Predictor(model, num_crops=num_crops, precision="fp32", views_per_batch=views_per_batch)
    return WindowScorer(predictor, **options)


def by_predictor(scorer, video, indices):
    """What the predictor says of these frames as one clip."""
    predictor = scorer.predictor
    before, predictor.preprocessing = predictor.preprocessing, replace(predictor.preprocessing, sampling="dense")
    with open_video(video) as reader:
        scores = predictor(reader.frames(indices)).scores
    predictor.preprocessing = before
    return scores


def assert_equal_to_predictor(scorer, video, *, record=None):
    windows = list(scorer.stream(record or video))
    for window in windows:
        wanted = by_predictor(scorer, video, window.frame_indices)
        np.testing.assert_allclose(window.scores, wanted, atol=1e-5)
    return windows


@pytest.mark.parametrize("name", NETWORKS)
def test_windows_score_as_the_predictor_does(name, tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=40, fps=10)
    scorer = scorer_of(NETWORKS[name], window_seconds=1.0, stride_seconds=0.5)
    assert scorer.way == ("whole windows" if name in WHOLE else "shared frames")
    windows = assert_equal_to_predictor(scorer, video)
    assert [window.start_seconds for window in windows] == pytest.approx([0.5 * k for k in range(7)])
    assert len({window.scores.tobytes() for window in windows}) == 7


@pytest.mark.parametrize("config", [TINY, MOTION])
def test_frames_that_come_in_pieces_give_the_same_windows(config, tmp_path):
    """Read by copies of the reader that each open the video anew, as worker processes do."""
    video = write_video(tmp_path / "a.mp4", num_frames=70, fps=10)
    scorer = scorer_of(config, num_crops=3, window_seconds=0.8, stride_seconds=0.4)
    wanted = list(scorer.stream(video))
    source = pickle.loads(pickle.dumps(scorer.source(VideoRecord(str(video)))))
    with source.opened() as opened:
        plan = pickle.loads(pickle.dumps(source.plan(opened)))
    feed, found = WindowFeed(scorer, plan.grid, video="upload"), []
    for start in range(0, len(plan.numbers), 9):
        piece = slice(start, start + 9)
        with pickle.loads(pickle.dumps(source)).opened() as opened:
            crops = list(source.crops(opened, plan.numbers[piece]))
        for frame in zip(plan.numbers[piece].tolist(), plan.repeats[piece].tolist(), crops, strict=True):
            found += feed.take(GridFrame(*frame))
    found += feed.end()
    assert len(found) == len(wanted) == plan.grid.num_windows
    for one, other in zip(found, wanted, strict=True):
        assert (one.start_seconds, one.end_seconds) == (other.start_seconds, other.end_seconds)
        assert one.frame_indices == other.frame_indices
        np.testing.assert_array_equal(one.scores, other.scores)


def test_windows_of_a_video_without_end_come_as_soon_as_their_frames_do(tmp_path):
    """Of a camera nobody knows when it ends; of a file they are then the same."""
    video = write_video(tmp_path / "a.mp4", num_frames=42, fps=10)
    scorer = scorer_of(window_seconds=0.8, stride_seconds=0.4)
    wanted, frames = list(scorer.stream(video)), list(scorer.source(VideoRecord(str(video))).read(lambda _plan: None))
    grid = WindowGrid.without_end(num_frames=4, window_seconds=0.8, stride_seconds=0.4)
    feed, found = WindowFeed(scorer, grid, video="camera", frames_at_once=1), []
    for count, frame in enumerate(frames, start=1):
        for window in feed.take(frame):
            assert count == 4 + 2 * len(found)
            found.append(window)
    assert len(found) == len(wanted) - 1
    found += feed.end()  # after 21 steps of 0.2 s
    for one, other in zip(found, wanted, strict=True):
        assert (one.start_seconds, one.end_seconds) == pytest.approx((other.start_seconds, other.end_seconds))
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)


@pytest.mark.parametrize("num_crops", [1, 3])
@pytest.mark.parametrize("views_per_batch", [1, 7, 24])
def test_crops_and_batches_change_nothing(num_crops, views_per_batch, tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=30, fps=10)
    scorer = scorer_of(
        num_crops=num_crops,
        views_per_batch=views_per_batch,
        is_multi_label=True,
        window_seconds=0.8,
        stride_seconds=0.2,
    )
    assert len(assert_equal_to_predictor(scorer, video)) == 12


def test_each_frame_goes_through_the_backbone_once(tmp_path, monkeypatch):
    video = write_video(tmp_path / "a.mp4", num_frames=40, fps=10)
    scorer = scorer_of(window_seconds=0.4, stride_seconds=0.1)
    seen = []
    read = scorer.predictor.model.read_tokens
    monkeypatch.setattr(scorer.predictor.model, "read_tokens", lambda video: seen.append(video.shape[1]) or read(video))
    assert len(list(scorer.stream(video))) == 37
    assert sum(seen) == 40


def test_features_are_the_normed_ones(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=10, fps=10)
    for config in (TINY, MOTION):
        scorer = scorer_of(config, window_seconds=0.4)
        window = next(scorer.stream(video))
        model = scorer.predictor.model
        logits = model.head(torch.from_numpy(window.features))
        np.testing.assert_allclose(logits.softmax(-1).detach().numpy(), window.scores, atol=1e-5)
        np.testing.assert_allclose(scorer(video).features[0], window.features, atol=2e-3)


def test_of_a_variable_rate_the_frame_on_the_screen_is_taken(tmp_path):
    ticks = [0, 40, 80, 1000, 1040, 2000, 2500, 2600, 3000, 3960]
    video = make_video(tmp_path / "vfr.mp4", frames=10, ticks=ticks)
    scorer = scorer_of(window_seconds=2.0, stride_seconds=1.0)
    windows = assert_equal_to_predictor(scorer, video)
    # the grid is at 0.25, 0.75, 1.25, ...
    assert windows[0].frame_indices == (2, 2, 4, 4)
    assert windows[1].frame_indices == (4, 4, 5, 7)
    assert windows[2].frame_indices == (5, 7, 8, 8)


@pytest.mark.parametrize(("num_frames", "wanted"), [(1, (0, 0, 0, 0)), (3, (0, 1, 1, 2)), (5, (0, 1, 3, 4))])
def test_a_short_video_is_one_window(num_frames, wanted, tmp_path):
    video = write_video(tmp_path / "short.mp4", num_frames=num_frames, fps=10)
    (window,) = assert_equal_to_predictor(scorer_of(), video)
    assert window.frame_indices == wanted
    assert (window.start_seconds, window.end_seconds) == pytest.approx((0.0, num_frames / 10))


def test_the_last_window_ends_with_the_video(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=43, fps=10)
    found = scorer_of(window_seconds=1.6, stride_seconds=1.2)(video)
    # steps of 0.4 s: windows start at 0, 1.2, 2.4, and the last of ten steps ends the last window
    assert found.starts == pytest.approx([0, 1.2, 2.4])
    assert found.ends == pytest.approx([1.6, 2.8, 4.3])
    assert found.grid.num_windows == len(found.scores) == 3


def test_a_segment_is_looked_at_alone(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=50, fps=10)
    for segment in ({"start_seconds": 1.0, "end_seconds": 3.0}, {"start_frame": 10, "end_frame": 30}):
        scorer = scorer_of(window_seconds=1.0, stride_seconds=0.5)
        record = VideoRecord(str(video), **segment)
        windows = assert_equal_to_predictor(scorer, video, record=record)
        assert [window.start_seconds for window in windows] == pytest.approx([1.0, 1.5, 2.0])
        assert {frame for window in windows for frame in window.frame_indices} <= set(range(10, 30))


def test_frames_without_times_need_a_rate(tmp_path):
    for number in range(12):
        Image.new("RGB", (40, 32), (20 * number, 0, 90)).save(tmp_path / f"img_{number:03}.png")
    with pytest.raises(VideoError, match=r"no times.*give fps \(--fps\)"):
        scorer_of()(tmp_path)
    found = scorer_of(fps=4.0, window_seconds=1.0, stride_seconds=1.0)(tmp_path)
    assert found.starts == pytest.approx([0, 1, 2])
    assert found.duration_seconds == 3.0


def test_a_video_that_breaks_off_gives_what_is_there(tmp_path, monkeypatch):
    video = write_video(tmp_path / "a.mp4", num_frames=60, fps=10)
    scorer = scorer_of(window_seconds=1.0, stride_seconds=0.75)
    whole = scorer(video)
    crops = type(scorer.predictor.reader).crops

    def up_to_forty(self, reader, numbers):
        for places, pixels, seconds in crops(self, reader, numbers):
            if numbers[places[0]] > 40:
                raise VideoError(reader.path, "corrupt", "frame 41 cannot be decoded")
            yield places, pixels, seconds

    monkeypatch.setattr(type(scorer.predictor.reader), "crops", up_to_forty)
    found = scorer(video)
    assert "frame 41 cannot be decoded" in found.broken
    assert whole.broken is None
    *same, _last = found.scores
    np.testing.assert_allclose(same, whole.scores[: len(same)], atol=1e-6)
    assert found.ends[-1] == pytest.approx(4.0)
    monkeypatch.setattr(type(scorer.predictor.reader), "crops", lambda *_: iter(()))
    broken = write_video(tmp_path / "b.mp4", num_frames=1)
    broken.write_bytes(b"nothing")
    with pytest.raises(VideoError, match="not a video"):
        scorer(broken)


@pytest.mark.parametrize("gop", [5, 250])
def test_a_truncated_video_is_looked_at_up_to_the_break(gop, tmp_path):
    whole = make_video(tmp_path / "whole.mp4", frames=100, fps=10, gop=gop, size=(128, 96))
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w", options={"movflags": "faststart"}) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(VideoError, match="truncated"):
        open_video(cut)
    scorer = scorer_of(window_seconds=1.0, stride_seconds=0.5)
    found, wanted = scorer(cut), scorer(whole)
    assert "truncated" in found.broken
    assert 2 < found.ends[-1] < 9
    count = int((found.ends <= found.ends[-1] - 0.5).sum())
    assert count >= 2
    np.testing.assert_allclose(found.scores[:count], wanted.scores[:count], atol=1e-6)
    with open_video(cut, allow_truncated=True) as reader, open_video(whole) as all_of_it:
        assert reader.info.missing_bytes == len(content) - len(content) * 6 // 10
        assert torch.equal(reader.frames([0, len(reader) - 3]), all_of_it.frames([0, len(reader) - 3]))


def test_scores_that_are_no_numbers_are_an_error(tmp_path):
    scorer = scorer_of()
    with torch.no_grad():
        scorer.predictor.model.head.bias.fill_(float("nan"))
    with pytest.raises(VideoError, match="no finite number"):
        scorer(write_video(tmp_path / "a.mp4"))


def test_a_frame_that_takes_too_long_is_told(tmp_path, monkeypatch):
    from threading import Event

    video, release = write_video(tmp_path / "a.mp4"), Event()
    scorer = scorer_of()
    monkeypatch.setattr(type(scorer.predictor.reader), "crops", lambda *_: release.wait(10) or iter(()))
    with set_limits(seconds_per_video=1), pytest.raises(VideoError, match="timeout"):
        scorer(video)
    release.set()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window_seconds": 0.0}, "window_seconds must be above 0, got 0.0"),
        ({"stride_seconds": float("nan")}, "stride_seconds must be above 0, got nan"),
        ({"window_seconds": 1.0, "stride_seconds": 2.0}, r"at most window_seconds \(1\).*got 2"),
        ({"fps": -1.0}, "fps must be above 0, got -1.0"),
    ],
)
def test_lengths_that_make_no_sense_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        scorer_of(**options)


def test_sharing_is_refused_where_it_is_not_exact():
    with pytest.raises(ValueError, match="only where the blocks treat each frame alone"):
        scorer_of(MOTION, way="shared frames")
    assert scorer_of(TINY, way="whole windows").way == "whole windows"


def test_the_default_window_is_a_clip_of_the_training():
    dense = Preprocessing(num_frames=8, sampling="dense", frame_stride=4)
    assert window_lengths(dense, fps=16.0, window_seconds=None, stride_seconds=None) == (2.0, 0.5)
    segments = Preprocessing(num_frames=8)
    assert window_lengths(segments, fps=16.0, window_seconds=None, stride_seconds=None) == (1.0, 0.25)
    assert window_lengths(segments, fps=0.0, window_seconds=4.0, stride_seconds=None) == (4.0, 1.0)


def test_a_grid_without_end_is_refused(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=30)
    with set_limits(packets_per_file=40), pytest.raises(VideoError, match=r"windows of \d+ frames is above the limit"):
        scorer_of(window_seconds=0.1)(video)
    assert WindowGrid.over(0, 1, num_frames=4, window_seconds=1, stride_seconds=1e-9).stride_steps == 1
