"""What every test may ask for: the shared material, skipped visibly where it is absent."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("UNIFORMERV2_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def pytest_configure() -> None:
    """Children end on Ctrl-C however the tests are started: ``nohup make test &`` has SIGINT ignored.

    What is ignored stays so in the programs that a process starts; what is handled, even by nothing, does not.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything was installed that tests need, a skipped one has failed."""
    report = yield
    if report.skipped and os.environ.get("UNIFORMERV2_NO_SKIP"):
        report.outcome = "failed"
    return report


def shared_path(relative: str) -> Path:
    """A file or folder of the shared material, or a visible skip."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs the shared material: {path} is absent")
    return path


@pytest.fixture(scope="session")
def shared():
    """A function: relative path -> absolute path under the shared material, or a visible skip."""
    return shared_path


@pytest.fixture(scope="session", autouse=True)
def cache_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """What is kept between runs, such as indexes of long videos, is kept for this run of the tests alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("UNIFORMERV2_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def blank_figures() -> Generator[None]:
    """Reports without figures, which take longer to draw than a small network to train; others test the figures."""
    from uniformerv2.evaluation.figure_style import Drawing

    with pytest.MonkeyPatch.context() as patched:
        save = "uniformerv2.evaluation.report.save_figure"
        patched.setattr(save, lambda folder, name, draw, *arguments: Drawing("0 0 1 1", ""))
        yield
