"""The downloader against a real HTTP server on loopback."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.model.flaky_server import BODY, DIGEST, ETAG, HALF, Server
from uniformerv2.core.files import cache_home
from uniformerv2.core.limits import set_limits
from uniformerv2.zoo import connections, download
from uniformerv2.zoo.download import DownloadError, cached_path, fetch


@pytest.fixture
def server():
    with Server().running() as running:
        yield running


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache, no wait between tries, and no proxy or offline mode from outside."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("UNIFORMERV2_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNIFORMERV2_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    return tmp_path / "home"


def files_in(folder):
    """Everything but the locks."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts)


def test_whole_file_arrives_once_under_its_own_name(server, home):
    path = fetch(server.url("whole"), sha256_prefix=DIGEST[:8])
    assert path.read_bytes() == BODY
    assert path == cached_path(server.url("whole"))
    assert files_in(home) == [path.name]
    assert fetch(server.url("whole"), sha256_prefix=DIGEST.upper()) == path
    assert len(server.seen) == 1


def test_wrong_hash_leaves_nothing(server, home):
    with pytest.raises(DownloadError, match=r"another file.*begins with \w{8}, not with 00000000\. Place the file at"):
        fetch(server.url("whole"), sha256_prefix="00000000")
    assert files_in(home) == []


def test_file_placed_by_hand_is_used_and_checked(server):
    path = cached_path(server.url("missing"))
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert fetch(server.url("missing"), sha256_prefix=DIGEST[:8]) == path
    path.write_bytes(b"something else")
    with pytest.raises(DownloadError, match=r"is not the published file.*Remove it"):
        fetch(server.url("missing"), sha256_prefix=DIGEST[:8])
    assert path.read_bytes() == b"something else"
    assert server.seen == []


def test_dead_link_says_what_to_do_and_is_asked_once(server, home):
    with pytest.raises(DownloadError) as caught:
        fetch(server.url("missing"), instead="use the other model")
    assert str(caught.value) == (
        f"{server.url('missing')} answered 404 Not Found. "
        f"Place the file at {cached_path(server.url('missing'))}, or use the other model"
    )
    assert len(server.seen) == 1
    assert files_in(home) == []


def test_web_page_in_place_of_a_file_is_refused(server, home):
    with pytest.raises(DownloadError, match="a web page, not with a file"):
        fetch(server.url("page"))
    assert files_in(home) == []


def test_truncated_body_is_never_a_file_but_is_kept_for_later(server):
    with pytest.raises(
        DownloadError,
        match=r"failed 3 times: 150,000 of 300,000 bytes arrived; the next call continues after 150,000 bytes",
    ):
        fetch(server.url("truncated"), num_tries=3)
    path = cached_path(server.url("truncated"))
    assert not path.exists()
    assert path.with_name(f"{path.name}.part").read_bytes() == BODY[:HALF]
    assert len(server.seen) == 3


def test_cut_chunked_body_is_never_a_file(server):
    with pytest.raises(DownloadError, match="failed 2 times"):
        fetch(server.url("chunked-cut"), num_tries=2)
    assert not cached_path(server.url("chunked-cut")).exists()


def test_cut_connection_continues_where_it_stopped(server, home):
    path = fetch(server.url("cut"), sha256_prefix=DIGEST[:8])
    assert path.read_bytes() == BODY
    assert [request[1:] for request in server.seen] == [(None, None), (f"bytes={HALF}-", ETAG)]
    assert files_in(home) == [path.name]


def test_reset_connection_is_tried_again(server, home):
    path = fetch(server.url("reset"), sha256_prefix=DIGEST[:8])
    assert path.read_bytes() == BODY
    assert len(server.seen) == 2
    assert files_in(home) == [path.name]


@pytest.mark.parametrize(
    ("name", "ranges"),
    [
        ("cut-without-range", [None, f"bytes={HALF}-"]),
        ("cut-without-validator", [None, None]),
        ("cut-then-replaced", [None, f"bytes={HALF}-"]),
        ("cut-then-other-part", [None, f"bytes={HALF}-", None]),
    ],
)
def test_starts_anew_where_it_cannot_be_continued(server, home, name, ranges):
    path = fetch(server.url(name))
    assert path.read_bytes() == BODY
    assert [request[1] for request in server.seen] == ranges
    assert files_in(home) == [path.name]


@pytest.mark.parametrize("validator", [ETAG, '"of another file"'])
def test_part_that_is_already_longer_is_dropped(server, validator):
    path = cached_path(server.url("whole"))
    path.parent.mkdir(parents=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(BODY + b"more")
    part.with_name(f"{part.name}.validator").write_text(validator)
    assert fetch(server.url("whole")).read_bytes() == BODY


def test_busy_server_is_asked_again(server):
    assert fetch(server.url("busy")).read_bytes() == BODY
    assert len(server.seen) == 2


def test_redirection_within_http_is_followed_and_to_a_file_is_not(server, home):
    assert fetch(server.url("moved")).read_bytes() == BODY
    with pytest.raises(DownloadError, match=r"sends us to 'file:///.*, which is no https address"):
        fetch(server.url("moved-to-file"))
    assert files_in(home) == [cached_path(server.url("moved")).name]


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match=r"failed 2 times: .*refused.*Place the file at"):
        fetch(f"http://127.0.0.1:{port}/a.pyth", num_tries=2)


def test_silent_server_times_out(server):
    with pytest.raises(DownloadError, match="failed 1 times: timed out"):
        fetch(server.url("waiting").replace(".pyth", ".x"), num_tries=1, timeout_seconds=0.2)


@pytest.mark.parametrize("variable", ["UNIFORMERV2_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_uses_the_cache_only(server, monkeypatch, variable):
    known = fetch(server.url("whole"))
    monkeypatch.setenv(variable, "1")
    assert fetch(server.url("whole")) == known
    with pytest.raises(DownloadError, match=rf"offline mode is on.*{cached_path(server.url('cut')).name}"):
        fetch(server.url("cut"))
    assert len(server.seen) == 1


def test_home_follows_the_environment(monkeypatch, tmp_path):
    assert cache_home() == tmp_path / "home"
    monkeypatch.setenv("UNIFORMERV2_HOME", "~/models")
    assert cache_home() == Path.home() / "models"
    monkeypatch.delenv("UNIFORMERV2_HOME")
    assert cache_home() == Path.home() / ".cache" / "uniformerv2"
    assert cached_path("http://a.org/x.pyth", cache_dir=tmp_path).parent == tmp_path


def test_proxy_of_the_environment_is_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address)
    assert fetch("http://weights.invalid/whole.pyth").read_bytes() == BODY
    assert [request[0] for request in server.seen] == ["http://weights.invalid/whole.pyth"]


@pytest.mark.parametrize(
    "url",
    ["ftp://a.org/x", "file:///etc/hosts", "x.pyth", "", "http:///x", "http://a.org/x y", "http://a.org/x\r\nA: b"],
)
def test_only_http_addresses(url):
    with pytest.raises(ValueError, match="Only http and https addresses are fetched"):
        fetch(url)


@pytest.mark.parametrize("prefix", ["", "abc", "zzzzzzzz", "0" * 65])
def test_only_hex_digits_are_a_hash(server, prefix):
    with pytest.raises(ValueError, match="8 to 64 hex digits"):
        fetch(server.url("whole"), sha256_prefix=prefix)
    assert server.seen == []


def test_name_in_the_cache_is_safe_and_tells_addresses_apart(tmp_path):
    names = [
        cached_path(f"http://a.org/{path}", cache_dir=tmp_path)
        for path in (
            "k400/a.pyth",
            "k600/a.pyth",
            "..",
            "a/..%2f..%2fetc.pyth",
            "a/",
            "k400+k710.pyth",
            "n" * 900,
            "x.p;rm -r",
        )
        if " " not in path
    ]
    assert len(set(names)) == len(names)
    for path in names:
        assert path.parent == tmp_path
        assert not path.name.startswith(".")
        assert len(path.name) < 160
    assert names[0].name.startswith("a-")
    assert names[0].suffix == ".pyth"


def start_fetching(url):
    code = "import sys; from uniformerv2.zoo.download import fetch; "
    code += "print('ready', flush=True); print(fetch(sys.argv[1], sha256_prefix='" + DIGEST + "'))"
    return subprocess.Popen(
        [sys.executable, "-c", code, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_at_once_download_it_once(server, home):
    url = server.url("waiting")
    with start_fetching(url) as one, start_fetching(url) as other:
        assert one.stdout.readline() == other.stdout.readline() == "ready\n"
        assert server.half_sent.wait(20)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.5)
        server.let_go.set()
        answers = [process.communicate(timeout=20) for process in (one, other)]
    path = cached_path(url)
    assert answers == [(f"{path}\n", "")] * 2  # no bar where stderr is not a terminal
    assert path.read_bytes() == BODY
    assert len(server.seen) == 1
    assert files_in(home) == [path.name]


def test_killed_process_leaves_a_part_that_the_next_call_continues(server):
    url = server.url("waiting")
    part = cached_path(url).with_name(f"{cached_path(url).name}.part")
    with start_fetching(url) as process:
        while process.poll() is None and not (part.exists() and part.stat().st_size == HALF):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not cached_path(url).exists()
    assert fetch(url, sha256_prefix=DIGEST[:8]).read_bytes() == BODY
    assert server.seen[1][1:] == (f"bytes={HALF}-", ETAG)


def test_a_host_that_is_not_to_be_found_is_told_at_once(monkeypatch):
    """Not after five tries: without a network there is nothing to wait for."""
    hosts = []

    def unknown(host, *_, **__):
        hosts.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"cannot be found; perhaps there is no network.*Place the file at"):
        fetch("http://weights.example/a.pth")
    assert hosts == ["weights.example"]


SLOW = {
    "drip-header": "fewer than 1024 bytes a second came in 0.3 seconds",
    "drip-body": "fewer than 1024 bytes a second came in 0.3 seconds",
    "drip-chunk": "fewer than 1024 bytes a second came in 0.3 seconds",
}


@pytest.mark.parametrize(("name", "said"), SLOW.items())
def test_a_byte_now_and_then_is_no_transfer(server, home, name, said):
    """Each byte comes before the socket's timeout; headers, bodies and the sizes of chunks alike."""
    start = time.monotonic()
    with pytest.raises(DownloadError, match=rf"failed 2 times: {said}"):
        fetch(server.url(name), num_tries=2, timeout_seconds=0.3)
    assert time.monotonic() - start < 5
    assert not cached_path(server.url(name)).exists()


@pytest.mark.parametrize(("name", "timeout_seconds"), [("endless", 20), ("drip-body", 0.3)], ids=["one", "many"])
def test_all_tries_together_have_a_time(server, name, timeout_seconds):
    start = time.monotonic()
    with (
        set_limits(download_seconds=1),
        pytest.raises(DownloadError, match="took longer than the limit download_seconds=1"),
    ):
        fetch(server.url(name), timeout_seconds=timeout_seconds, num_tries=12)
    assert time.monotonic() - start < 4


def test_a_body_without_end_meets_the_limit_of_size(server, home):
    with (
        set_limits(download_bytes=1_000_000),
        pytest.raises(
            DownloadError, match=r"sends 1,\d\d\d,\d\d\d bytes and more, which is above the limit download_bytes"
        ),
    ):
        fetch(server.url("endless"))
    assert files_in(home) == []


def test_a_size_above_the_limit_is_told_before(server, home):
    with (
        set_limits(download_bytes=299_999),
        pytest.raises(DownloadError, match=r"holds 300,000 bytes, which is above .*: --limit download_bytes=300000"),
    ):
        fetch(server.url("whole"))
    assert files_in(home) == []


def test_a_body_of_unknown_length_counts_only_where_its_hash_is_known(server, home):
    """Its end and a cut look the same."""
    with pytest.raises(DownloadError, match="does not say how long the file is"):
        fetch(server.url("no-length"))
    assert fetch(server.url("no-length"), sha256_prefix=DIGEST).read_bytes() == BODY


def test_a_redirection_brings_no_body_of_its_own(server):
    assert fetch(server.url("moved-with-a-body"), timeout_seconds=5).read_bytes() == BODY


PLACES = {
    "http://weights.example/x": False,
    "https://weights.example/x": True,
    "//weights.example/x": False,
    "ftp://127.0.0.1/x": False,
    "https://me:secret@weights.example/x": False,
    "http://[::1]/x": True,
    "http://127.0.0.2/x": True,
    "http://localhost/x": True,
    "http://10.0.0.1/x": False,
    "https://": False,
    "other.pyth": True,
}


@pytest.mark.parametrize(("there", "is_followed"), PLACES.items())
def test_redirections_lead_to_https_alone(there, is_followed):
    if is_followed:
        assert connections._next("http://127.0.0.1/a/b.pyth", there).endswith(there)
    else:
        with pytest.raises(connections.RedirectionError, match="which is no https address") as raised:
            connections._next("http://127.0.0.1/a/b.pyth", there)
        assert "secret" not in str(raised.value)


def test_nobody_outside_sends_us_to_a_server_on_this_machine():
    with pytest.raises(connections.RedirectionError, match="which is no https address"):
        connections._next("https://weights.example/a", "http://127.0.0.1/admin")


def test_redirections_in_a_circle_end(server):
    with pytest.raises(DownloadError, match="sends us on more than 5 times"):
        fetch(server.url("circle"))
    assert len(server.seen) == 1 + 5


def test_addresses_are_shown_without_secrets(server, caplog, monkeypatch):
    with pytest.raises(ValueError, match=r"user and a password are not fetched: .*'https://a\.org/x\.pth'"):
        fetch("https://me:secret@a.org/x.pth")
    with caplog.at_level("WARNING"):
        fetch(server.url("busy") + "?signature=secret")
    with pytest.raises(DownloadError) as raised:
        fetch(server.url("missing") + "?signature=secret", num_tries=1)
    monkeypatch.setenv("UNIFORMERV2_OFFLINE", "1")
    with pytest.raises(DownloadError) as offline:
        fetch(server.url("cut") + "?signature=secret")
    assert "secret" not in f"{raised.value} {offline.value} {caplog.text}"
    assert "busy.pyth?..." in caplog.text


def test_what_is_not_verified_says_so_once(server, caplog):
    def said(**known):
        caplog.clear()
        fetch(server.url("whole"), **known)
        return caplog.text

    assert f"is not verified: no SHA-256 of it is published. Its own is {DIGEST}" in said()
    assert said() == ""
    cached_path(server.url("whole")).unlink()
    assert "by the first 8 of 64 digits of its SHA-256 alone" in said(sha256_prefix=DIGEST[:8])
    cached_path(server.url("whole")).unlink()
    assert said(sha256_prefix=DIGEST) == ""
