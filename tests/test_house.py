"""The house: arrows, light imports, docstrings, and pages that equal what the code says."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import uniformerv2

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "uniformerv2"
# timm itself imports triton where torch brings it, so it is not in this list
OPTIONAL = ("lightning", "pytorch_lightning", "torchmetrics", "ray", "gradio", "matplotlib", "webdataset", "pyarrow")


def modules():
    names = [module.name for module in pkgutil.walk_packages([str(SOURCE)], "uniformerv2.")]
    return [name for name in names if not name.endswith("__main__")]


def test_arrows_point_down():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def loaded_after(code):
    """Top-level packages in a fresh interpreter after some code."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_brings_nothing_at_all():
    assert not {*OPTIONAL, "torch", "timm", "av", "numpy", "rich", "triton"} & loaded_after("import uniformerv2")


def test_the_public_face_brings_nothing_optional():
    code = "import uniformerv2\nfor name in uniformerv2.__all__: getattr(uniformerv2, name)"
    loaded = loaded_after(code)
    assert {"torch", "timm", "av"} <= loaded
    assert not set(OPTIONAL) & loaded


def test_the_model_runs_where_only_torch_and_timm_are():
    loaded = loaded_after("import uniformerv2.model.uniformerv2, uniformerv2.model.summary, uniformerv2.model.convert")
    assert not {"av", "torchcodec", "lightning", "jsonargparse", "rich", "huggingface_hub"} & loaded


def test_the_public_face_is_what_it_says():
    assert set(uniformerv2.__all__) == {*uniformerv2._HOME, "__version__"}
    assert dir(uniformerv2) == uniformerv2.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        uniformerv2.nothing  # noqa: B018


@pytest.mark.parametrize("name", modules())
def test_every_public_name_has_a_docstring(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == name:
            assert inspect.getdoc(value), f"{name}.{public}"


@pytest.mark.parametrize("name", modules())
def test_doctests(name):
    import doctest

    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_pages_made_from_the_code_are_up_to_date():
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_pages.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_are_written_whole_in_one_place():
    """``core.files`` has no global state; a download goes on where it was, a journal grows."""
    own = re.compile(r"fsync|umask|mkstemp|NamedTemporaryFile|\.part\b")
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if own.search(path.read_text("utf-8"))}
    assert found == {"core/files.py", "evaluation/journal.py", "model/download.py"}


def test_every_requirement_is_pinned_for_set_up():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line)
    names = {re.split(r"[\[<>=~! ;]", need)[0].lower().replace("_", "-") for need in requires("uniformerv2")}
    assert names - set(pins) <= {"uniformerv2"}
