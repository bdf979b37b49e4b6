"""The journal: nothing is lost, nothing half is read, nothing of another test is gone on with."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from tests.evaluation.made_evaluations import assert_same, make_evaluation
from uniformerv2.evaluation.journal import ScoreJournal, journal_folder

PRINT = {"checkpoint": "a1", "num_clips": 4, "classes": ["a", "b"]}


def journal(tmp_path, fingerprint=PRINT, *, rank=0):
    return ScoreJournal(tmp_path / "dump.pkl", fingerprint, rank=rank)


@pytest.mark.parametrize("multi_label", [False, True])
def test_videos_read_back_to_the_last_bit(tmp_path, multi_label):
    no_class = {4} if multi_label else set()
    wanted = make_evaluation(
        multi_label=multi_label, unreadable={3}, unlabelled={5}, no_class=no_class, segments=True, view_scores=True
    )
    for rank in (0, 1):
        with journal(tmp_path, rank=rank) as mine:
            for video in wanted.videos[rank::2]:
                mine.add(video)
    found = journal(tmp_path).read()
    assert_same(replace(wanted, videos=tuple(found[index] for index in sorted(found))), wanted)


def test_every_cut_loses_only_the_line_it_is_in(tmp_path):
    """Whatever a killed process left of its last line, the next one goes on after the line before."""
    videos = make_evaluation(num_videos=4).videos
    with journal(tmp_path) as mine:
        for video in videos[:3]:
            mine.add(video)
    whole = mine.path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(0, len(whole) + 1, 37):
        mine.path.write_bytes(whole[:cut])
        left = max(sum(end <= cut for end in ends) - 1, 0)
        again = journal(tmp_path)
        assert sorted(again.read()) == list(range(left))
        with again:
            again.add(videos[3])
        assert sorted(journal(tmp_path).read()) == [*range(left), 3]


def test_a_video_is_in_the_file_when_it_is_added(tmp_path):
    """What a killed process leaves, and what the others see."""
    videos = make_evaluation(num_videos=2).videos
    with journal(tmp_path) as mine:
        for count, video in enumerate(videos, start=1):
            mine.add(video)
            assert len(mine.read()) == count


def test_another_test_is_refused_and_nothing_is_lost(tmp_path):
    with journal(tmp_path) as mine:
        mine.add(make_evaluation(num_videos=1).videos[0])
    before = mine.path.read_bytes()
    other = {**PRINT, "num_clips": 10, "classes": ["b", "a"]}
    with pytest.raises(ValueError, match=r"something else: num_clips was 4, is 10; classes differ\. Give the same"):
        journal(tmp_path, other, rank=1)
    assert mine.path.read_bytes() == before


def test_two_writers_of_one_share_are_refused(tmp_path):
    with journal(tmp_path), pytest.raises(ValueError, match="the same test is running"), journal(tmp_path):
        pass
    with journal(tmp_path):
        pass


def test_what_is_no_journal_is_told(tmp_path):
    folder = journal_folder(tmp_path / "dump.pkl")
    folder.mkdir()
    for line in (b"hello\n", b"[1]\n", b"null\n", b"\xff\n"):
        (folder / "0.jsonl").write_bytes(line)
        with pytest.raises(ValueError, match="is no journal of a test"):
            journal(tmp_path)
        assert (folder / "0.jsonl").read_bytes() == line


def test_the_first_waits_for_the_others(tmp_path):
    videos = make_evaluation(num_videos=4).videos

    def write(rank):
        with journal(tmp_path, rank=rank) as mine:
            for video in videos[rank::2]:
                mine.add(video)

    write(0)
    late = threading.Timer(0.3, write, [1])
    late.start()
    assert sorted(journal(tmp_path).wait(4, patience_seconds=60)) == [0, 1, 2, 3]
    late.join()


def test_the_first_does_not_wait_for_ever(tmp_path):
    with journal(tmp_path) as mine:
        mine.add(make_evaluation(num_videos=1).videos[0])
    with pytest.raises(TimeoutError, match=r"1 of 2 videos are missing.* Start the same command again"):
        mine.wait(2, patience_seconds=0.3)
    mine.remove()
    assert not mine.folder.exists()
