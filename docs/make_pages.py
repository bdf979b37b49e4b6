"""Write the pages that are made from the code; with ``--check`` only say whether they are up to date."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from uniformerv2 import ModelCard, UniFormerV2, UniFormerV2Config, list_models, model_card, summarize

HEAD = """# Model zoo

<!-- Made from the code by docs/make_pages.py; do not edit. -->

Every published checkpoint of UniFormerV2: 49 of the authors, 23 of MMAction2's port. Accuracy is **as published**, in
percent, over the views given (frames x crops x clips); none of it was measured here, because no weights could be had.
Parameters and multiply-adds (one clip, published form) are counted by `uniformerv2 models NAME`.

What was verified: with generated weights, the logits of all four full-size architectures and of all tiny variants
equal the published code's (`tests/parity`), and the test pipelines of both codes give the published codes' scores on
two real videos. A file of any of these formats is read by `load_model`.

The authors' bucket has been reported dead since 2025. `hub` marks a copy on the Hugging Face hub. `labels` is the
order of the head's rows; where it is empty the order of the authors' head is not known here, and scores come without
names.
"""


def rows(source: str) -> list[str]:
    """The lines of one table."""
    lines = [
        "| name | data | pretraining | views | top-1 | top-5 | M params | T MACs | labels | weights |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for card in map(model_card, list_models()):
        if card.source == source:
            lines.append(row(card))
    return lines


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
        return summarize(UniFormerV2(UniFormerV2Config.from_dict(json.loads(config)))).published_macs


def notes() -> list[str]:
    """What else is known about single files."""
    cards = [card for card in map(model_card, list_models()) if card.note]
    return [f"- `{card.name}`: {card.note}" for card in cards]


def main() -> int:
    """Write or check; 1 where the page on disk differs."""
    page = Path(__file__).with_name("model_zoo.md")
    parts = [HEAD, "## The authors'\n", *rows("official"), "\n## MMAction2's\n", *rows("mmaction2"), "\n## Notes\n"]
    text = "\n".join([*parts, *notes()]) + "\n"
    if "--check" not in sys.argv:
        page.write_text(text, encoding="utf-8")
        return 0
    if page.exists() and page.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{page} is not what the code says: run make docs\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
