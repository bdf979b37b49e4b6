"""``uniformerv2 models``: the model zoo as a table, or one model (of the zoo, or yours) in full."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uniformerv2.commands.options import add_json
from uniformerv2.core.messages import UsageError, usage_errors
from uniformerv2.zoo.cards import ModelCard, list_models, model_card

if TYPE_CHECKING:
    from rich.console import Console

    from uniformerv2.model.summary import ModelSummary

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 models '*b16*k400*'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    about = "a name, a pattern in quotes ('*k400*'), a folder, a file"
    parser.add_argument("model", nargs="?", default="*", metavar="MODEL", help=about)
    add_json(parser, "print one line of JSON per model")


def check(options: argparse.Namespace) -> None:
    """Refuse a name that no model has.

    Raises:
        UsageError: No such model.
    """
    if Path(options.model).exists():
        return
    if is_pattern(options.model):
        if not list_models(options.model):
            raise UsageError(f"No model of the zoo matches {options.model}.")
        return
    with usage_errors():
        model_card(options.model)


def is_pattern(name: str) -> bool:
    """Whether a word stands for several names."""
    return any(sign in name for sign in "*?[")


def run(options: argparse.Namespace) -> int:
    """List, or describe.

    Raises:
        UsageError: No such model.
    """
    from uniformerv2.core.console import make_console

    name, console = options.model, make_console()
    if Path(name).exists():
        _describe(console, *_own_facts(Path(name)), as_json=options.json)
        return 0
    if is_pattern(name):
        _list(console, [model_card(each) for each in list_models(name)], as_json=options.json)
        return 0
    card = model_card(name)
    _describe(console, _card_facts(card), _summary(card), as_json=options.json)
    return 0


def _list(console: Console, cards: list[ModelCard], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.writelines(json.dumps(_card_facts(card)) + "\n" for card in cards)
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in ("name", "data", "pretraining", "views", "top-1", "top-5", "weights"):
        table.add_column(column, justify="right" if column.startswith("top") else "left", no_wrap=True)
    for card in cards:
        numbers = ["" if number is None else f"{number:.1f}" for number in (card.top1, card.top5)]
        table.add_row(card.name, card.dataset, card.pretraining, card.views or "", *numbers, _weights(card))
    console.print(table)
    console.print(
        "[dim]Published numbers, not measured here; views: frames x crops x clips. Weights are here already, on the "
        "Hugging Face hub, on OpenMMLab's server, or behind a link that has been dead since 2025, so that only a copy "
        "of your own helps; no server was asked now. More: uniformerv2 models NAME[/]"
    )


def _describe(console: Console, facts: dict[str, Any], summary: ModelSummary, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({**facts, **asdict(summary)}) + "\n")
        return
    from rich.markup import escape
    from rich.table import Table

    rows = {
        **_plain_rows(facts),
        "clip": " x ".join(map(str, summary.clip_shape)) + "  (frames, colours, height, width)",
        "parameters": f"{summary.num_parameters / 1e6:.1f} M",
        "multiply-adds": f"{summary.macs / 1e12:.3f} T a clip; published form {summary.published_macs / 1e12:.3f} T",
        "training memory": f"{summary.activation_bytes / 2**30:.2f} GiB of activations a clip, float32",
    }
    table = Table(box=None, show_header=False, padding=(0, 1))
    for key, value in rows.items():
        style = "dim" if key.startswith(" ") else "bold"
        table.add_row(f"[{style}]{escape(key)}[/]", escape(value))
    console.print(table)


def _plain_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    """Names and values in words; what a mapping holds follows its name, a row each; what is empty is left out."""
    rows: dict[str, str] = {}
    for name, value in facts.items():
        if value in (None, "", {}, ()):
            continue
        title = name.replace("_", " ")
        if isinstance(value, Mapping):
            inner = {f"  {key}": text for key, text in _plain_rows(value).items()}
            rows |= {title: "", **inner}
        else:
            rows[title] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return rows


def _card_facts(card: ModelCard) -> dict[str, Any]:
    return {
        "name": card.name,
        "architecture": card.architecture,
        "data": card.dataset,
        "pretraining": card.pretraining,
        "source": card.source,
        "published_top1": card.top1,
        "published_top5": card.top5,
        "views": card.views,
        "labels": card.labels,
        "licence": card.licence,
        "url": card.url,
        "weights": _weights(card),
    }


def _weights(card: ModelCard) -> str:
    """Where they can be had now."""
    from uniformerv2.zoo.download import cached_path
    from uniformerv2.zoo.hub import cached_from_hub

    if cached_path(card.url).exists():
        return "here"
    if card.huggingface:
        repository, filename = card.huggingface
        return "here" if cached_from_hub(repository, [filename]) else "hub"
    return "OpenMMLab" if card.may_be_fetched else "dead link"


def _summary(card: ModelCard) -> ModelSummary:
    import torch

    from uniformerv2.model.config import UniFormerV2Config
    from uniformerv2.model.summary import summarize
    from uniformerv2.model.uniformerv2 import UniFormerV2

    with torch.device("meta"):
        return summarize(UniFormerV2(UniFormerV2Config.from_dict(card.config)))


def _own_facts(path: Path) -> tuple[dict[str, Any], ModelSummary]:
    from uniformerv2.model.summary import summarize
    from uniformerv2.zoo.checkpoint import load_model

    with usage_errors():
        model = load_model(path)
    info = model.info
    facts = {
        "name": str(path),
        "source": info.source,
        "backbone": model.config.backbone or "CLIP's ViT, as published",
        "classes": model.num_classes,
        "licence": info.licence,
        "metrics": dict(info.metrics),
        "preprocessing": dict(info.preprocessing),
    }
    return facts, summarize(model)
