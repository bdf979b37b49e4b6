"""The house: arrows, light imports, docstrings, and pages that equal what the code says."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import uniformerv2

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "uniformerv2"
# timm itself imports triton where torch brings it, so it is not in this list
OPTIONAL = (
    "lightning",
    "pytorch_lightning",
    "torchmetrics",
    "sklearn",
    "ray",
    "gradio",
    "matplotlib",
    "pyarrow",
    "fastapi",
)


def modules():
    names = [module.name for module in pkgutil.walk_packages([str(SOURCE)], "uniformerv2.")]
    return [name for name in names if not name.endswith("__main__")]


LONG_FILES = {
    "autotrain/measure.py": "one estimate, and what is timed for it",
    "autotrain/plan.py": "two dataclasses of many fields, each with its help",
    "autotrain/probe.py": "the probe, its folds, its intervals and its result",
    "autotrain/session.py": "one training from its options to a tested model, also resumed or of a probe alone",
    "data/annotations/rows.py": "rows of every annotation format become records in one place",
    "data/augmentation.py": "the published augmentations, one function each, and their table",
    "data/clips.py": "one class: the one way from a record to its clips",
    "data/shards.py": "writing and reading of one format",
    "data/transforms.py": "two published pipelines, to the pixel",
    "export/portable/predict.py": "runs alone, without the package",
    "model/blocks.py": "the blocks of the paper, one class each",
    "model/config.py": "one dataclass of many fields, and what travels with a checkpoint",
    "model/uniformerv2.py": "one class with timm's interface",
    "training/module.py": "one LightningModule",
    "zoo/arming.py": "one function for every family of image ViTs, and its checks",
    "zoo/checkpoint.py": "everything that is a checkpoint is loaded and saved in one place",
}
"""Files of more than 350 lines, docstrings included, and why they are."""


def test_a_long_file_has_its_reason():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    long = {path.relative_to(SOURCE).as_posix(): length for path, length in lengths.items() if length > 350}
    assert set(long) <= set(LONG_FILES), long
    assert max(long.values(), default=0) <= 400, long


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
    loaded = loaded_after("import uniformerv2.model.uniformerv2, uniformerv2.model.summary, uniformerv2.zoo.convert")
    assert not {"av", "torchcodec", "lightning", "jsonargparse", "rich", "huggingface_hub"} & loaded


def test_a_prediction_needs_neither_torchvision_nor_timm_nor_a_compiler():
    """Each takes as long to import as torch; a network that is armed with timm's image ViT needs them."""
    code = """import torch, uniformerv2.commands.predict
from uniformerv2.model.config import UniFormerV2Config
from uniformerv2.zoo.runs import random_network
with torch.device("meta"):  # as load_model does, to compare shapes
    random_network(UniFormerV2Config(image_size=32, dim=64, depth=2, num_heads=1, fusion_stages=(1,)))
"""
    loaded = loaded_after(code)
    assert "torch" in loaded
    assert not {"torchvision", "timm", "sympy"} & loaded


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


def test_the_walks_name_files_that_exist():
    text = (ROOT / "docs" / "house.md").read_text("utf-8").partition("## Every module")[0]
    named = re.findall(r"`([a-z_0-9/]+(?:\.py|/))`", text)
    assert len(named) > 30
    assert [name for name in named if not (SOURCE / name).exists()] == []


def test_files_are_written_whole_in_one_place():
    """``core.files`` has no global state; a download goes on where it was, a journal grows."""
    own = re.compile(r"fsync|umask|mkstemp|NamedTemporaryFile|\.part\b")
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if own.search(path.read_text("utf-8"))}
    assert found == {"core/files.py", "core/journal.py", "zoo/download.py"}


PRIVATE = {
    (
        "torch.utils.data.dataloader",
        "_MultiProcessingDataLoaderIter",
    ): "a batch that never comes is told with its reason",
    ("torch.utils._python_dispatch", "TorchDispatchMode"): "benchmarks record the matrix products of a pass",
}
"""What is imported of other packages' private parts, and what for; each such package has an upper bound."""


def test_private_names_of_other_packages_are_few_and_bounded():
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith(("uniformerv2", "__")):
                is_private = any(part.startswith("_") for part in node.module.split("."))
                found |= {(node.module, name.name) for name in node.names if is_private or name.name.startswith("_")}
    assert found == set(PRIVATE)
    for module, name in found:
        assert hasattr(importlib.import_module(module), name)
        (need,) = [need for need in CORE if need.name == module.partition(".")[0]]
        assert any(bound.operator == "<" for bound in need.specifier), f"{need} has no upper bound"


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {extra: [Requirement(need) for need in needs] for extra, needs in PROJECT["optional-dependencies"].items()}
CORE = [Requirement(need) for need in PROJECT["dependencies"]]
CALLED = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "mlflow": "mlflow-skinny"}
"""Module -> the package that has it, where they are not called alike."""
BROUGHT = {"triton", "onnxruntime"}
"""By torch where there is a GPU for it; by the portable folder's own requirements for its own script."""
THROUGH_LIGHTNING = {"jsonargparse", "tensorboard"}
BY_A_PAGE = {"duckdb", "faiss-cpu", "peft"}
"""By the code of docs/features_and_search.md, which the tests run, and by examples/lora.py."""


def packages_of(needs):
    return {need.name.lower().replace("_", "-") for need in needs}


def test_every_requirement_is_pinned_and_the_pin_satisfies_it():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line)
    for need in [*CORE, *(need for needs in EXTRAS.values() for need in needs)]:
        if need.name != "uniformerv2":
            pin = pins[need.name.lower().replace("_", "-")]
            assert need.specifier.contains(pin), f"{need}: constraints.txt has {pin}"


def test_every_requirement_has_a_floor_with_its_reason():
    lines = (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    for need in [*CORE, *(need for extra, needs in EXTRAS.items() if extra != "dev" for need in needs)]:
        if need.name != "uniformerv2":
            (line, *_) = [line for line in lines if f'"{need.name}' in line]
            assert any(bound.operator == ">=" for bound in need.specifier), line
            assert "#" in line, line


@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        ("filelock", "3.20.3"),
        ("lightning", "2.6.6"),
        ("pillow", "12.3"),
        ("onnx", "1.21"),
        ("pyarrow", "23.0.1"),
        ("python-multipart", "0.0.27"),
    ],
)
def test_floors_are_not_below_known_fixes(name, fixed):
    below = Version(f"{fixed}.dev0")
    needs = [*CORE, *(need for needs in EXTRAS.values() for need in needs)]
    found = [need for need in needs if need.name == name]
    assert found
    assert not any(need.specifier.contains(below, prereleases=True) for need in found)


def checked_at_the_door():
    """Room -> the packages that its ``__init__.py`` checks for, and their extra."""
    rooms = {}
    for path in SOURCE.rglob("__init__.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check_installed":
                rooms[path.parent] = {name.value for name in node.args}, node.keywords[0].value.value
    return rooms


def test_a_room_says_at_its_door_what_it_lacks():
    """Before anything heavy is imported: without the package a file of the room could not say how to install it."""
    for room, (names, extra) in checked_at_the_door().items():
        for name in sorted(names):
            dotted = ".".join(room.relative_to(SOURCE).parts)
            code = f"import sys\nsys.modules[{name!r}] = None\nimport uniformerv2.{dotted}"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            assert f"{name} is needed here: pip install 'uniformerv2[{extra}]'" in done.stderr


def imports():
    """Of every module: package -> whether it is imported directly; and what is checked before, with its extra."""
    rooms = checked_at_the_door()
    direct, required = {}, {(name.replace("_", "-"), extra) for names, extra in rooms.values() for name in names}
    for path in SOURCE.rglob("*.py"):
        has, _ = rooms.get(path.parent, ((), ""))
        tree = ast.parse(path.read_text("utf-8"))
        typed = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
            for part in block.body
            for node in ast.walk(part)
        }
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
                (module,), (extra,) = node.args, node.keywords
                top = module.value.partition(".")[0]
                required.add((CALLED.get(top, top), extra.value.value))
            for name in names:
                top = name.partition(".")[0]
                is_own = top in sys.stdlib_module_names or top == "uniformerv2" or top in has
                if not is_own and id(node) not in typed:
                    direct.setdefault(CALLED.get(top, top).replace("_", "-"), path)
    return direct, required


def test_what_is_imported_is_declared_and_the_other_way_round():
    direct, required = imports()
    optional = {package for needs in EXTRAS.values() for package in packages_of(needs)}
    assert set(direct) - BROUGHT - packages_of(CORE) == set(), direct
    for package, extra in required:
        assert package in packages_of(EXTRAS[extra]), f"{package} is not of the extra {extra}"
    assert packages_of(CORE) - set(direct) == set()
    used = (
        {package for package, _ in required}
        | THROUGH_LIGHTNING
        | BY_A_PAGE
        | packages_of(EXTRAS["dev"])
        | {"uniformerv2"}
    )
    assert optional <= used
