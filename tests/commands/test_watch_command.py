"""``uniformerv2 watch`` as it is called, and the commands of its page."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import av
import pytest

from tests.commands.test_timeline_command import folder  # noqa: F401
from tests.live.test_webhook import Hook
from tests.media.made_videos import make_video
from uniformerv2.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "watch.md"


def watch(folder, *words):  # noqa: F811
    return main(["watch", *map(str, words), "--model", str(folder / "model"), "--on", "0.01", "--off", "0.01"])


def test_a_file_as_lines_of_json_a_video_and_a_webhook(folder, tmp_path, capsys):  # noqa: F811
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.got, server.statuses = [], [200]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with contextlib.closing(server.socket):
        out = tmp_path / "out.mp4"
        hook = f"http://127.0.0.1:{server.server_port}/hook"
        assert watch(folder, folder / "a.mp4", "--json", "--out", out, "--webhook", hook) == 0
        server.shutdown()
    printed, error = capsys.readouterr()
    events = list(map(json.loads, printed.splitlines()))
    assert [event["event"] for event in events][:3] == ["state", "state", "new"]
    assert (events[-1]["state"], events[-1]["source"]) == ("ended", str(folder / "a.mp4"))
    assert [body for _, _, body in server.got] == events
    assert f"Written: {out}" in error
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 16


def test_without_a_terminal_a_line_per_event(folder, capsys):  # noqa: F811
    assert watch(folder, folder / "b.mp4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  {folder / 'b.mp4'} connecting", lines[0])
    assert re.fullmatch(r"(archery|<b>dunk</b>|c|d|e) has ended, 0\.0 to 2\.0 s, 0\.\d\d", lines[-2])


def test_what_fails_is_1(folder, tmp_path, capsys):  # noqa: F811
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    assert watch(folder, tmp_path / "a.mp4", "--json") == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["state"] == "failed"
    assert "not a video" in last["reason"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent.mp4"], "There is no file, device or address absent.mp4"),
        (["rstp://camera/"], "got 'rstp'. Did you mean 'rtsp'?"),
        (["a.mp4", "--end-after", "0"], "--end-after must be above 0"),
        (["rtsp://camera/", "--end-after", "3"], "is for a file that grows"),
        (["a.mp4", "--on", "2"], "on and off are scores"),
        (["a.mp4", "--max-wait", "0"], "--max-wait must be at least 0.1, got 0.0"),
        (["a.mp4", "--give-up-seconds", "1"], "--give-up-seconds must be at least --stall-seconds"),
        (["a.mp4", "--out", "a.txt"], "ends with .mp4"),
        (["a.mp4", "--out", "a.mp4"], "would write to a.mp4"),
        (["a.mp4", "--webhook", "file:///x"], "takes an address of the form https://host/path"),
        (["a.mp4", "--stride-seconds", "9"], "must be at most --window-seconds"),
    ],
)
def test_wrong_calls_are_told(folder, tmp_path, monkeypatch, capsys, words, said):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "a.mp4", tmp_path / "a.mp4")
    assert main(["watch", *words, "--model", str(folder / "model")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--wrong"], ["http://me:s3cret@127.0.0.1/second"], ["--debug"]])
def test_a_password_is_in_no_message(more, folder, capsys):  # noqa: F811
    words = ["rtsp://me:s3cret@127.0.0.1:1/x?token=s3cret", "--webhook", "https://me:s3cret@127.0.0.1:99999/s3cret"]
    with contextlib.suppress(SystemExit):
        watch(folder, *words, *more)
    out, error = capsys.readouterr()
    assert error
    assert "s3cret" not in out + error


def test_ctrl_c_ends_a_pipe_with_its_last_events(folder, tmp_path):  # noqa: F811
    video = make_video(tmp_path / "a.ts", frames=60, fps=10, gop=10).read_bytes()
    words = [sys.executable, "-m", "uniformerv2", "watch", "-", "--model", str(folder / "model"), "--json"]
    process = subprocess.Popen(
        [*words, "--on", "0.01", "--off", "0.01"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    process.stdin.write(video)
    process.stdin.flush()
    lines = []
    for line in process.stdout:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "new":
            break
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=20)
    lines += map(json.loads, rest.splitlines())
    assert (lines[-2]["event"], lines[-1]["state"]) == ("end", "stopped")
    assert process.returncode == 0, error


def commands_of_the_page():
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_commands_and_the_code_of_the_page(folder, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Those on files run; the addresses and the device are read."""
    from uniformerv2.cli import parser_of

    shutil.copytree(folder / "model", tmp_path / "models" / "demo")
    shutil.copytree(PAGE.parents[1] / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    commands = commands_of_the_page()
    run = [line for line in commands if line.startswith("uniformerv2 watch examples") and "--webhook" not in line]
    assert (len(commands), len(run)) == (6, 2)
    for line in run:
        assert main(shlex.split(line)[1:]) == 0
    assert (tmp_path / "watched.mp4").exists()
    for line in set(commands) - set(run):
        parser_of("watch").parse_args(shlex.split(line.rpartition("uniformerv2 watch ")[2]))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    capsys.readouterr()
    exec(compile(code, str(PAGE), "exec"), {})
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["state"] == "ended"
