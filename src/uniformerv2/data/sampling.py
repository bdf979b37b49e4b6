"""Which frames of a video make a clip: pure functions on integers.

Two published rules. *Segments* (sparse): Wang et al., "Temporal Segment Networks", ECCV 2016,
https://arxiv.org/abs/1608.00859, in the form of UniFormerV2 (Li et al., 2022, https://arxiv.org/abs/2211.09552);
MMAction2's ``UniformSample`` picks the same frames. *Dense*: a few neighbouring frames, Feichtenhofer et al.,
"SlowFast Networks", 2018, https://arxiv.org/abs/1812.03982.

Letters: N frames in the video, T frames in a clip, K clips. A count below 1 raises a ``ValueError`` everywhere.
"""

from __future__ import annotations

import numpy as np

__all__ = ["dense_clips", "random_dense_clip", "random_segment_clip", "segment_clips"]


def segment_clips(num_frames_in_video: int, num_frames: int, num_clips: int = 1, *, start: int = 0) -> list[list[int]]:
    """Test-time frames of the sparse rule: every clip spans the whole video.

    A segment is (N - 1) / T frames long. Clip k of K takes, in each segment, the frame (k + 1) / (K + 1) of the way::

        12 frames, 4 segments   |..|..|.|...
        1 clip                  .x..x..x.x..   ->  1 4 7 9
        3 clips: the first      x..x..x.x...   ->  0 3 6 8
                 the second     .x..x..x.x..   ->  1 4 7 9
                 the third      ..x..x..x.x.   ->  2 5 8 10

    Args:
        num_frames_in_video: N, from 1 on. A video shorter than a clip repeats frames.
        num_frames: T.
        num_clips: K.
        start: Index of the first frame, where only a part of N frames of a longer video is used.

    Returns:
        K lists of T indices, from ``start`` to ``start + N - 1``, never decreasing.

    >>> segment_clips(12, 4)
    [[1, 4, 7, 9]]
    >>> segment_clips(2, 4, num_clips=2)
    [[0, 0, 0, 1], [0, 0, 0, 1]]
    """
    _check(num_frames_in_video, num_frames, start, num_clips=num_clips)
    segment, last = (num_frames_in_video - 1) / num_frames, num_frames_in_video - 1
    shifts = [int(segment / (num_clips + 1) * (clip + 1)) for clip in range(num_clips)]
    return [[start + min(round(segment * i) + shift, last) for i in range(num_frames)] for shift in shifts]


def random_segment_clip(
    num_frames_in_video: int, num_frames: int, *, rng: np.random.Generator, start: int = 0
) -> list[int]:
    """Training frames of the sparse rule: one uniform draw in each segment, both of its ends included.

    Neighbouring segments share the frame between them, so that it may come twice (as published)::

        13 frames, 4 segments   |..|..|..|..|   ->  one of 0-3, one of 3-6, one of 6-9, one of 9-12

    Args:
        num_frames_in_video: N, from 1 on.
        num_frames: T.
        rng: Generator of the T draws.
        start: Index of the first frame.

    Returns:
        T indices, never decreasing.
    """
    _check(num_frames_in_video, num_frames, start)
    segment = (num_frames_in_video - 1) / num_frames
    bounds = [round(segment * i) for i in range(num_frames + 1)]
    return [start + index for index in rng.integers(bounds[:-1], bounds[1:], endpoint=True).tolist()]


def dense_clips(
    num_frames_in_video: int, num_frames: int, num_clips: int = 1, *, frame_stride: int, start: int = 0
) -> list[list[int]]:
    """Test-time frames of the dense rule: clips spread evenly, one of them alone in the middle.

    A clip is T frames, ``frame_stride`` apart; the first clip starts at the first frame, the last one ends at the
    last. In a video too short for one clip the last frame is repeated::

        12 frames, 3 in a clip, 2 apart, 2 clips   x.x.x.......   ->  0 2 4
                                                   .......x.x.x   ->  7 9 11
         4 frames, 1 clip                          x.xx           ->  0 2 3

    Args:
        num_frames_in_video: N, from 1 on.
        num_frames: T.
        num_clips: K.
        frame_stride: Distance between two frames of a clip, from 1 on.
        start: Index of the first frame.

    Returns:
        K lists of T indices.

    >>> dense_clips(12, 3, num_clips=2, frame_stride=2)
    [[0, 2, 4], [7, 9, 11]]
    >>> dense_clips(4, 3, frame_stride=2)
    [[0, 2, 3]]
    """
    _check(num_frames_in_video, num_frames, start, num_clips=num_clips, frame_stride=frame_stride)
    slack = _slack(num_frames_in_video, num_frames, frame_stride)
    firsts = [slack // 2] if num_clips == 1 else [round(slack / (num_clips - 1) * clip) for clip in range(num_clips)]
    return [_dense(num_frames_in_video, num_frames, frame_stride, first, start) for first in firsts]


def random_dense_clip(
    num_frames_in_video: int, num_frames: int, *, frame_stride: int, rng: np.random.Generator, start: int = 0
) -> list[int]:
    """Training frames of the dense rule: one uniform draw of the first frame.

    Args:
        num_frames_in_video: N, from 1 on; the last frame is repeated in a video too short for a clip.
        num_frames: T.
        frame_stride: Distance between two frames of the clip, from 1 on.
        rng: Generator of the draw.
        start: Index of the first frame.

    Returns:
        T indices.
    """
    _check(num_frames_in_video, num_frames, start, frame_stride=frame_stride)
    first = int(rng.integers(0, _slack(num_frames_in_video, num_frames, frame_stride), endpoint=True))
    return _dense(num_frames_in_video, num_frames, frame_stride, first, start)


def _slack(num_frames_in_video: int, num_frames: int, frame_stride: int) -> int:
    """How far a dense clip can move."""
    return max(num_frames_in_video - 1 - (num_frames - 1) * frame_stride, 0)


def _dense(num_frames_in_video: int, num_frames: int, frame_stride: int, first: int, start: int) -> list[int]:
    last = num_frames_in_video - 1
    return [start + min(first + i * frame_stride, last) for i in range(num_frames)]


def _check(num_frames_in_video: int, num_frames: int, start: int, **counts: int) -> None:
    for name, value in {"num_frames_in_video": num_frames_in_video, "num_frames": num_frames, **counts}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if start < 0:
        raise ValueError(f"start is {start}; the first frame of a video is 0")
