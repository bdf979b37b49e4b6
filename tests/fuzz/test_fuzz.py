"""Damaged files of every kind: read with all that is promised, or refused by name; no signal, hang or traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.fuzz.mutation import mutate
from tests.fuzz.seeds import make_seeds

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("checkpoint", "configuration", "dump", "index", "list", "suite", "recipe", "video", "frames")
FEW = {"recipe": 3}
MANY = {"recipe": 60, "suite": 240, "configuration": 400, "dump": 350, "list": 350}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return make_seeds(tmp_path_factory.mktemp("seeds"), SHARED / "goldens" if SHARED.is_dir() else None)


def outcomes(seeds, folder, numbers):
    """What reading each mutant came to, by kind; the honest files, which must be read, go before them."""
    files = [path for paths in seeds.values() for path in paths if path.is_file()]
    tasks = []
    for kind in numbers:
        tasks += [(kind, path) for path in seeds[kind]]
        for number in numbers[kind]:
            source = seeds[kind][number % len(seeds[kind])]
            mutant = folder / f"{number:04d}_{source.name}"
            mutate(source, mutant, seed=number, others=files)
            tasks.append((kind, mutant))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "UNIFORMERV2_OFFLINE": "1"},
        input="\n".join(f"{kind}\t{path}" for kind, path in tasks),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["kind"], row["mutant"]) for row in rows] == [(kind, str(path)) for kind, path in tasks]
    honest = {str(path) for paths in seeds.values() for path in paths}
    assert [row for row in rows if row["mutant"] in honest and row["outcome"] != "read"] == []
    return [row for row in rows if row["mutant"] not in honest]


def assert_right(rows):
    faults = [
        f"{Path(row['mutant']).name}: {row['outcome']}" for row in rows if row["outcome"] not in {"read", "refused"}
    ]
    if faults:
        pytest.fail(f"{len(faults)} of {len(rows)} mutants:\n" + "\n".join(faults), pytrace=False)
    for kind in {row["kind"] for row in rows}:
        counted = Counter(row["outcome"] for row in rows if row["kind"] == kind)
        assert counted["refused"], f"no mutant of the kind {kind} was refused: the mutations do nothing"


def test_a_few_mutants(seeds, tmp_path):
    assert_right(outcomes(seeds, tmp_path, {kind: range(FEW.get(kind, 12)) for kind in KINDS}))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutants(kind, seeds, tmp_path):
    assert_right(outcomes(seeds, tmp_path, {kind: range(1000, 1000 + MANY.get(kind, 200))}))
