"""Explanations as pictures and files: the map lies where it belongs, and a folder holds nothing else."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
from PIL import Image

from tests.inference.test_explanation import predictor_of
from tests.media import write_video
from uniformerv2.data.annotations import VideoRecord
from uniformerv2.data.clips import ClipReader
from uniformerv2.data.transforms import Preprocessing
from uniformerv2.inference.explanations.explanation import Explanation
from uniformerv2.inference.explanations.files import check_explanation_folder, write_explanation
from uniformerv2.inference.explanations.pictures import HOLD, draw_overlays
from uniformerv2.inference.explanations.view import ViewPlace
from uniformerv2.inference.prediction import ClassScore
from uniformerv2.inference.strips import pictures_of
from uniformerv2.media.decoding import VideoError


def explanation_of(patches, *, frame=(48, 80), box=(0.0, 16.0, 48.0, 48.0), num_frames=None, **fields):
    """One whose map is 1 at these places (step, row, column) of 4 x 4 patches and 2 steps."""
    found = np.zeros((2, 4, 4), np.float32)
    for place in patches:
        found[place] = 1 / len(patches)
    count = num_frames or 2
    view = ViewPlace(
        clip=0,
        num_clips=1,
        crop=0,
        num_crops=1,
        frame_indices=tuple(range(3, 3 + count)),
        frame_seconds=tuple(0.5 * number for number in range(count)),
        frame_height=frame[0],
        frame_width=frame[1],
        box=box,
    )
    best = ClassScore("<b>a</b>", 0, 0.7)
    values = {
        "video": "films/<i>x</i>.mp4",
        "target": best,
        "top": (best, ClassScore("b", 1, 0.3)),
        "method": "gradient",
        "map": found,
        "weights": found[None, None],
        "relevance": found[None, None],
        "prefix_weights": np.zeros((1, 1, 2, 1), np.float32),
        "prefix_relevance": np.zeros((1, 1, 2, 1), np.float32),
        "video_weights": np.zeros((1, 1), np.float32),
        "class_token_share": 0.25,
        "has_class_token": True,
        "blocks": (7,),
        "view": view,
    }
    return Explanation(**{**values, **fields})


def frames_of(explanation, *, scale=1.0, grey=120):
    view = explanation.view
    size = round(scale * view.frame_width), round(scale * view.frame_height)
    return [Image.new("RGB", size, (grey, grey, grey)) for _ in view.frame_indices]


@pytest.mark.parametrize("scale", [1.0, 0.5, 3.0])
@pytest.mark.parametrize(
    ("frame", "box"), [((48, 80), (0.0, 16.0, 48.0, 48.0)), ((80, 48), (32.0, 0.0, 48.0, 48.0))], ids=["wide", "tall"]
)
def test_the_map_lies_in_the_crop_of_its_own_frame(scale, frame, box):
    explanation = explanation_of([(1, 3, 0)], frame=frame, box=box)
    first, second = draw_overlays(explanation, frames_of(explanation, scale=scale))
    coloured = np.asarray(second.shown, int)
    assert second.shown.size == (round(scale * frame[1]), round(scale * frame[0]))
    changed = np.abs(coloured - np.asarray(second.plain, int)).sum(axis=2)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    top, left, height, width = (scale * side for side in box)
    assert top + 0.7 * height <= row < top + height
    assert left <= column < left + 0.3 * width
    np.testing.assert_array_equal(np.asarray(first.shown), np.asarray(first.plain))
    outside = np.asarray(second.shown)[0, -1] if frame[1] > frame[0] else np.asarray(second.shown)[0, 0]
    assert outside.tolist() == [48, 48, 48]  # 0.4 of the grey


def test_a_tubelet_has_one_map_for_its_frames():
    explanation = explanation_of([(0, 1, 1)], num_frames=4)
    overlays = draw_overlays(explanation, frames_of(explanation))
    is_coloured = [np.asarray(one.shown).tolist() != np.asarray(one.plain).tolist() for one in overlays]
    assert is_coloured == [True, True, False, False]


def test_a_map_of_nothing_leaves_the_frames_as_they_are():
    explanation = explanation_of([])
    for one in draw_overlays(explanation, frames_of(explanation)):
        np.testing.assert_array_equal(np.asarray(one.shown), np.asarray(one.plain))


def test_everything_is_written_and_replaced_whole(tmp_path):
    explanation = explanation_of([(0, 1, 1)], frame=(49, 81))
    folder = tmp_path / "why"
    for _ in range(2):
        write_explanation(explanation, folder, frames=frames_of(explanation), model="models/<demo>")
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert names == {
            *("explanation.html", "explanation.json", "explanation.npz", "explanation.mp4"),
            *("frames/000_frame_000003.png", "frames/001_frame_000004.png"),
        }
    assert [path.name for path in tmp_path.iterdir()] == ["why"]
    content = json.loads((folder / "explanation.json").read_text())
    assert np.array(content["map"])[0, 1, 1] == 1
    with np.load(folder / "explanation.npz") as arrays:
        assert arrays["weights"].shape == (1, 1, 2, 4, 4)
        np.testing.assert_array_equal(arrays["map"], explanation.map)
    with av.open(str(folder / "explanation.mp4")) as film:
        shown = [(frame.width, frame.height) for frame in film.decode(video=0)]
    assert shown == [(80, 48)] * (2 * HOLD)
    page = (folder / "explanation.html").read_text()
    assert "<b>a" not in page
    assert "<i>x" not in page
    assert "&lt;demo&gt;" in page
    assert "About 25" in page
    fewer = explanation_of([(0, 0, 0)], num_frames=1)
    write_explanation(fewer, folder, frames=frames_of(fewer), model="demo")
    assert [path.name for path in (folder / "frames").iterdir()] == ["000_frame_000003.png"]


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    check_explanation_folder(tmp_path)
    check_explanation_folder(tmp_path / "absent")
    (tmp_path / "explanation.json").write_text('{"format": "other"}')
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "mine.png").write_text("")
    explanation = explanation_of([(0, 0, 0)])
    with pytest.raises(ValueError, match="holds something else than an explanation"):
        write_explanation(explanation, tmp_path, frames=frames_of(explanation), model="demo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explanation.json", "frames"]


def test_what_fails_half_way_leaves_the_older_one(tmp_path, monkeypatch):
    explanation = explanation_of([(0, 1, 1)])
    write_explanation(explanation, tmp_path / "why", frames=frames_of(explanation), model="demo")
    before = (tmp_path / "why" / "explanation.json").read_bytes()

    def fails(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("uniformerv2.inference.explanations.files.write_overlay_video", fails)
    with pytest.raises(KeyboardInterrupt):
        write_explanation(explanation_of([(1, 2, 2)]), tmp_path / "why", frames=frames_of(explanation), model="demo")
    assert (tmp_path / "why" / "explanation.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["why"]


def test_pictures_are_the_frames_in_their_order_and_small(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=12, size=(48, 80))
    reader = ClipReader(preprocessing=Preprocessing())
    record = VideoRecord(str(video), start_frame=4)
    pictures = pictures_of(record, [9, 2, 9], side=40, reader=reader)
    assert [picture.size for picture in pictures] == [(40, 24)] * 3
    assert np.array_equal(np.asarray(pictures[0]), np.asarray(pictures[2]))
    assert not np.array_equal(np.asarray(pictures[0]), np.asarray(pictures[1]))
    (large,) = pictures_of(record, [9], side=4000, reader=reader)
    assert large.size == (80, 48)
    video.write_bytes(b"nothing")
    with pytest.raises(VideoError):
        pictures_of(record, [0], side=40, reader=reader)


def test_a_real_explanation_fits_its_pictures(tmp_path):
    video = write_video(tmp_path / "a.mp4", num_frames=12, size=(48, 80))
    predictor = predictor_of()
    found = predictor.explain(video)
    frames = pictures_of(VideoRecord(str(video)), found.view.frame_indices, side=960, reader=predictor.reader)
    write_explanation(found, tmp_path / "why", frames=frames, model="tiny")
    pictures = sorted((tmp_path / "why" / "frames").iterdir())
    assert len(pictures) == 4
    with Image.open(pictures[0]) as picture:
        assert picture.size == (80, 48)
