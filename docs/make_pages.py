"""Write the pages that are made from the code; with ``--check`` only say whether they are up to date."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tokenize
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from textwrap import shorten

import torch

from uniformerv2 import ModelCard, UniFormerV2, UniFormerV2Config, list_models, model_card
from uniformerv2.autotrain.plan import TrainOptions
from uniformerv2.core.limits import Limits
from uniformerv2.core.options import options_of
from uniformerv2.live.options import EventRules, LinkRules
from uniformerv2.model.summary import count_macs
from uniformerv2.serving.options import ServeOptions
from uniformerv2.serving.problems import KINDS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "uniformerv2"
SERVE_PAGE = ROOT / "docs" / "serve.md"
WATCH_PAGE = ROOT / "docs" / "watch.md"
LIMITS_PAGE = ROOT / "docs" / "limits_and_safety.md"

HEAD = """# Model zoo

<!-- Made from the code by docs/make_pages.py; do not edit. -->

Every published checkpoint of UniFormerV2: 49 of the authors, 23 of MMAction2's port. Accuracy is **as published**, in
percent, over the views given (frames x crops x clips); none of it was measured here, because no weights could be had.
Parameters and multiply-adds (one clip, published form) are counted by `uniformerv2 models NAME`.

What was verified, with generated weights in place of the published ones (`tests/parity`): the logits of four networks
in full size equal the published code's (B/16 with 8 frames of 224; B/16 with 16 frames of 224, temporal downsampling
and two local steps; L/14 with 8 frames of 224 and of 336), and so do those of a tiny network of every variant and of
both kinds of MMAction2's. The test pipelines of both codes give the published codes' scores on two real videos. The
other rows are the same blocks with other numbers of frames, stages and classes, and other sizes: no number of theirs
was compared, and no published file of any row was opened. Files of all these formats are read by `load_model`, tested
with files made in these formats.

The authors' bucket has been reported dead since 2025. `hub` marks a copy on the Hugging Face hub. `labels` is the
order of the head's rows; where it is empty the order of the authors' head is not known here, and scores come without
names.
"""


HOUSE = """# The house

Written by `make docs`; tests hold it to the code. A room imports only from rooms below it:

    cli > commands > lab > autotrain > training > export | live | serving > inference > zoo > model | data
        | evaluation > media | ops | recipes > core

## Three walks

Each walk goes down the rooms once; what comes back up is the result.

**`predict FILE` to scores.** `cli.py` parses the words with `commands/predict.py` and imports nothing heavy.
`zoo/checkpoint.py` finds the model (`zoo/runs.py` knows folders of trainings, `zoo/files.py` reads files safely) and
builds it (`model/config.py`, `model/uniformerv2.py`). `inference/predictor.py` asks `data/clips.py` for the views of
the file: `media/decoding.py` opens it (`media/video_file.py`, `media/frame_sources.py`), `data/sampling.py` says
which frames, `data/transforms.py` resizes and crops each as it is decoded. `inference/batches.py` fills batches for
the network: `model/embedding.py`, `model/blocks.py`, `model/fusion.py`, whose operations `ops/dispatch.py` chooses
and `ops/functional.py` defines.

**`train DATA` to a gradient.** `commands/train.py` makes `TrainOptions` of the words, and `autotrain/session.py` does
the rest: `data/splits.py` reads and divides the records (`data/annotations/`), `autotrain/choose.py` makes every
choice of `autotrain/plan.py` and `autotrain/start.py` the network (`zoo/arming.py`), `autotrain/measure.py` times a
few steps, `autotrain/fitting.py` starts Lightning. There `training/datamodule.py` makes a `data/loader.py` of a
`data/dataset.py`, whose worker processes read by `data/clips.py` as above and vary clips by `data/augmentation.py`;
`training/module.py` normalises a batch, calls the network and returns the loss, and `training/optim.py` says how fast
each parameter learns.

**`test` to a dump.** `commands/test.py` calls `inference/testing.py`: `data/named_videos.py` reads the records and
matches the classes of list and network, `zoo/checkpoint.py` loads the network, `inference/scoring.py` scores one
video after the other (`data/loader.py`, `data/clips.py`, `inference/batches.py`), `evaluation/journal.py` notes each
on disk, and `evaluation/dumps.py` writes the dump, of which `evaluation/summary.py` computes the numbers.

"""

SIZE = """## How large it is, and why

Lines of code, to the next hundred: docstrings, comments and blank lines are not counted; `make docs` counts. The aim
was 15,000 lines in 135 modules. It is not reached: what stands above it is argued for here, room by room.

Of a hundred lines {imports} import, {heads} are the heads of functions with their types, {raises} raise an error
that says what came, what is allowed and what to do, and {names} list the names of a module for type checkers. Nothing
is dead: what no other line names is public, or called by PyTorch, Lightning or another library. No run of six equal
lines of code stands twice, but for the arguments of kernels in `ops/`. Merging more modules would fill files to their
350 lines without taking an idea away.

| room | modules | lines | what makes it so large, and what was tried |
| --- | ---: | ---: | --- |
"""

WHY = {
    "top": "`cli.py`, one parser for all verbs with near-miss hints, limits and exit codes; the lazy public face.",
    "commands": """About 130 lines a verb: options, checks that run before anything heavy is imported, \
a table for people and JSON for programs. Helpers common to the ten tables and the eleven lines of JSON were weighed: \
they would be as long as what they replace.""",
    "lab": """Suites of ablations (900) and seven benchmarks, each with rows, a table and a figure (1,100). A run is \
trained and shown by what `train` uses; networks of other packages are a table. Nothing else imports it: it is what \
could leave first, as a package of its own.""",
    "autotrain": """Each choice of `train` is a rule with its reason, one dataclass makes options, plan and page, the \
cost is measured before it starts, frozen features are probed first (700), and a stopped run goes on with \
its own choices.""",
    "training": """Lightning does the loop; ours is what it leaves out: resumption to the bit (180), a clean stop \
(100), the time that is left (130), cached tokens (380). Lightning is asked for once, at the door of the room.""",
    "inference": """One predictor for files and lists on three engines, scoring by many views, tests in several \
processes that resume (900); windows, segments and timelines of long videos with their files and page (1,000); \
explanations with their pictures, files and page (400); features of windows and videos, resumed, with the search in \
them (750).""",
    "serving": """The engine (queue, workers, turns, 600) knows no HTTP; the service around it (900) streams forms \
by a parser of others, says each address, parameter and refusal once for reading and for the document. Uvicorn has \
no time limit for the head of a request and no drain that a balancer sees: a subclass each.""",
    "live": """A source as states (120), as frames on a grid without a known end (250), as windows (130), as actions \
that begin and end (130), and what is made of them. Windows and their networks are those of `inference/`; a thread and \
a bounded ring are all that is between reading and computing.""",
    "export": """PyTorch's exporters write the graphs and ONNX Runtime quantises them; ours is the proof of each file \
on real videos before it has a name (250), and `export/portable/predict.py` (290), which reads videos as safely as \
`open_video` does without this package.""",
    "zoo": """Nine formats of weights as tables, a column per format; containers of strangers read without running \
them (170); exported files, ONNX and `.pt2`, read as data (650); downloads that resume, are bounded and checked (400). \
`torch.hub` neither resumes nor bounds. An HTTP library in place of `urllib` was weighed: it does not give the socket \
before the headers are read, so that a server that sends them a byte at a time could not be hung up on.""",
    "model": "A class per noun of the paper with the interface of timm's models; eleven families of ViTs taken apart.",
    "data": """Seventeen annotation formats with errors that name file and line (1,200); check, prepare and shards of \
whole lists, each resumable (1,200); a loader that survives broken videos and resumes in the middle of an epoch (500); \
preprocessing and augmentation equal to two published codes to the pixel (430). Check and prepare were laid side by \
side: they share workers, journal and manifest, and what is left differs.""",
    "evaluation": """Everything from scores alone, without PyTorch. Metrics take a weight per video, so that a \
thousand resamples are one product, which torchmetrics does not offer; clustering and the binomial test are a few \
lines each, for which SciPy would be a dependency. A pickle that runs nothing (110) is the price of MMAction2's dumps.\
""",
    "media": """FFmpeg decodes; ours is what it does not promise: the same frame whatever was read before, limits \
before it allocates, and a reason for a file that does not open.""",
    "ops": "Three operations: a definition of each, and Triton kernels for both directions (590).",
    "recipes": "The reader of the recipes, beside them.",
    "core": """Small files that every room asks: files written whole, locks, the journal, limits, isolated workers, \
what a terminal shows. They share no idea; two that did, limits and what a file declares, are one file.""",
}
"""Room -> what makes it as large as it is, in the order of the arrows."""

MODULES = """## Every module

With the first line of its docstring.
"""


def rows(source: str) -> list[str]:
    """The lines of one table."""
    lines = [
        "| name | data | pretraining | views | top-1 | top-5 | M params | T MACs | labels | weights |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    return lines + [row(card) for card in map(model_card, list_models()) if card.source == source]


def row(card: ModelCard) -> str:
    """One model."""
    config = UniFormerV2Config.from_dict(card.config)
    with torch.device("meta"):
        num_parameters = sum(weight.numel() for weight in UniFormerV2(config).parameters())
    numbers = ["" if number is None else f"{number:.1f}" for number in (card.top1, card.top5)]
    weights = f"[file]({card.url})" + (" hub" if card.huggingface else "")
    cells = [
        f"`{card.name}`",
        card.dataset,
        card.pretraining,
        card.views or "",
        *numbers,
        f"{num_parameters / 1e6:.0f}",
        f"{macs(json.dumps(headless(config).to_dict())) / 1e12:.2f}",
        card.labels or "",
        weights,
    ]
    return "| " + " | ".join(cells) + " |"


def headless(config: UniFormerV2Config) -> UniFormerV2Config:
    """The configuration with only what its cost depends on: many models of the zoo share one."""
    return replace(config, num_classes=0, drop_path_rate=0.0, global_drop_path_rate=0.0)


@cache
def macs(config: str) -> int:
    """Multiply-adds of the published form; takes the configuration as JSON, which can be a key."""
    with torch.device("meta"):
        _, published = count_macs(UniFormerV2(UniFormerV2Config.from_dict(json.loads(config))))
    return published


def notes() -> list[str]:
    """What else is known about single files."""
    cards = [card for card in map(model_card, list_models()) if card.note]
    return [f"- `{card.name}`: {card.note}" for card in cards]


def tree(*, modules: bool) -> str:
    """The package, a line a part: its name and the first line of its docstring.

    Args:
        modules: Also those inside of the sub-packages.
    """
    lines = ["src/uniformerv2/"]
    for path in sorted(SOURCE.rglob("*.py"), key=lambda path: (len(path.relative_to(SOURCE).parts) > 1, path)):
        name = path.relative_to(SOURCE).as_posix()
        is_package = name.endswith("/__init__.py")
        if "/" in name and not (modules or is_package):
            continue
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        summary = re.sub(r"``(.+?)``", r"\1", docstring.partition("\n")[0].rstrip("."))
        name = name.removesuffix("__init__.py") if is_package else name
        lines.append(f"  {name:<40} {shorten(summary, 75, placeholder=' ...')}")
    return "\n".join(lines)


def code_lines(text: str) -> int:
    """Lines that hold code: no docstring, comment or blank line."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [token for token in tokenize.generate_tokens(StringIO(text).readline) if token.type not in silent]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def size() -> str:
    """How large each room is, and why."""
    counts: dict[str, list[int]] = {}
    for path in SOURCE.rglob("*.py"):
        room = path.relative_to(SOURCE).parts[0]
        counts.setdefault("top" if room.endswith(".py") else room, []).append(code_lines(path.read_text("utf-8")))
    rows = [
        f"| {'`' + room + '/`' if room != 'top' else 'above'} | {len(counts[room])} | {hundreds(sum(counts[room]))} "
        f"| {WHY[room]} |"
        for room in [*(room for room in WHY if room in counts), *sorted(counts.keys() - WHY)]
    ]
    every = [count for lines in counts.values() for count in lines]
    head = SIZE.format(**{kind: round(100 * count / sum(every)) for kind, count in kinds_of_lines().items()})
    return head + "\n".join([*rows, f"| in all | {len(every)} | {hundreds(sum(every))} | |"]) + "\n\n"


def kinds_of_lines() -> dict[str, int]:
    """How many lines import, open a function, raise an error, or list the names of a module."""
    counts = dict.fromkeys(("imports", "heads", "raises", "names"), 0)
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            length = (getattr(node, "end_lineno", 0) or 0) - getattr(node, "lineno", 0) + 1
            if isinstance(node, ast.Import | ast.ImportFrom):
                counts["imports"] += length
            elif isinstance(node, ast.FunctionDef):
                counts["heads"] += node.body[0].lineno - node.lineno
            elif isinstance(node, ast.Raise):
                counts["raises"] += length
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                counts["names"] += length
    return counts


def hundreds(count: int) -> str:
    """To the next hundred: an exact number would be another one after every commit."""
    return f"{round(count, -2):,}" if count >= 50 else "under 50"


TRAIN_OPTIONS = """# The options of train

<!-- Made from the code by docs/make_pages.py; do not edit. -->

Each option of `uniformerv2 train` is a field of `uniformerv2.autotrain.TrainOptions`, and a keyword of
`uniformerv2.autotrain.train`:

```python
from uniformerv2.autotrain import train

outcome = train("videos", epochs=5, freeze_backbone=True)
print(outcome.model, outcome.report)
```

What is `None` is chosen by the plan, with a reason, where there is a rule for it: [Fine-tune](fine_tune.md) has the
rules.

| option | in Python | default | what |
| --- | --- | --- | --- |
"""


def train_options() -> str:
    """The fields of ``TrainOptions`` as a table."""
    rows = []
    for one in options_of(TrainOptions):
        value = f" {one.metavar}" if one.metavar and one.metavar != one.flag else ""
        cells = (f"`{one.flag}{value}`", f"`{one.name}`", f"`{one.default!r}`", one.about)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return TRAIN_OPTIONS + "".join(rows)


def limits_table() -> str:
    """The limits: name, default, and what the docstring of ``Limits`` says of each."""
    described = re.findall(
        r"^    (\w+): (.+?)(?=^    \w+: |\Z)", inspect.getdoc(Limits).split("Attributes:\n")[1], re.M | re.S
    )
    lines = ["| limit | default | what |", "| --- | ---: | --- |"]
    lines += [f"| `{name}` | {getattr(Limits(), name):,} | {' '.join(text.split())} |" for name, text in described]
    return "\n".join(lines)


def options_table(*kinds: type) -> str:
    """The fields of dataclasses of options as a table."""
    rows = ["| option | default | what |", "| --- | ---: | --- |"]
    for one in (one for kind in kinds for one in options_of(kind)):
        value = f" {one.metavar}" if one.metavar else ""
        default = "" if one.default is None or one.default is False else f"`{one.default}`"
        rows.append(f"| `{one.flag}{value}` | {default} | {one.about} |")
    return "\n".join(rows)


def problems() -> str:
    """The refusals of the service as a table."""
    rows = ["| status | `urn:uniformerv2:` | what |", "| --- | --- | --- |"]
    rows += [f"| {kind.status} | `{name}` | {kind.title} |" for name, kind in KINDS.items()]
    return "\n".join(rows)


def between(page: Path, name: str, text: str, *, before: str | None = None) -> str:
    """A page (or what it will be) with other text between its markers."""
    begin = rf"(<!-- begin {name}: .+? -->\n).*?(?=<!-- end {name} -->)"
    old = page.read_text(encoding="utf-8") if before is None else before
    return re.sub(begin, lambda match: match[1] + text + "\n", old, flags=re.DOTALL)


def pages() -> dict[Path, str]:
    """Every page that is made from the code, as it should be."""
    parts = [HEAD, "## The authors'\n", *rows("official"), "\n## MMAction2's\n", *rows("mmaction2"), "\n## Notes\n"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before, start, rest = readme.partition("```text\nsrc/uniformerv2/\n")
    _, end, after = rest.partition("```")
    return {
        ROOT / "docs" / "model_zoo.md": "\n".join([*parts, *notes()]) + "\n",
        ROOT / "docs" / "house.md": f"{HOUSE}{size()}{MODULES}\n```text\n{tree(modules=True)}\n```\n",
        ROOT / "docs" / "train_options.md": train_options(),
        SERVE_PAGE: between(
            SERVE_PAGE, "problems", problems(), before=between(SERVE_PAGE, "options", options_table(ServeOptions))
        ),
        WATCH_PAGE: between(WATCH_PAGE, "options", options_table(EventRules, LinkRules)),
        LIMITS_PAGE: between(LIMITS_PAGE, "limits", limits_table()),
        ROOT / "README.md": before + start.partition("src")[0] + tree(modules=False) + "\n" + end + after,
    }


def main() -> int:
    """Write or check; 1 where a page on disk differs."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" not in sys.argv:
        for path in stale:
            path.write_text(pages()[path], encoding="utf-8")
        return 0
    for path in stale:
        sys.stderr.write(f"{path} is not what the code says: run make docs\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
