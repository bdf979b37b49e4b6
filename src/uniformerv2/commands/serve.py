"""``uniformerv2 serve``: models over HTTP."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from uniformerv2.commands.options import (
    DECODERS,
    ENGINES,
    MODEL_HELP,
    PRECISIONS,
    add_hardware,
    add_model_overrides,
    add_views,
    check_at_least,
    check_exists,
    check_model,
    given,
    make_predictor,
)
from uniformerv2.core.messages import UsageError, usage_errors
from uniformerv2.core.optional import check_installed
from uniformerv2.core.options import options_of
from uniformerv2.serving.options import ServeOptions

__all__ = ["add_arguments", "check", "run"]

EXAMPLE: Final = "uniformerv2 serve runs/mine --port 8000"
LOADS: Final = "uniformerv2.inference.predictor"
GROUPS: Final = {
    "where and for whom": ("host", "port", "token_file", "allow_anonymous", "allow_host", "temp_folder"),
    "limits; each has an error of its own": (),
}
"""Title -> its options; the last has the rest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help=f"{MODEL_HELP}; several: NAME=MODEL")
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    last = list(GROUPS)[-1]
    for one in options_of(ServeOptions):
        group = groups[next((title for title, names in GROUPS.items() if one.name in names), last)]
        if one.kind is bool:
            group.add_argument(one.flag, dest=one.name, action="store_true", help=one.about)
            continue
        about = one.about if one.default is None else f"{one.about} (default: {one.default})"
        kind = KINDS.get(one.name, one.kind)
        group.add_argument(one.flag, dest=one.name, type=kind, default=one.default, metavar=one.metavar, help=about)
    hardware = parser.add_argument_group("model and hardware")
    add_hardware(hardware, precisions=PRECISIONS)
    hardware.add_argument("--engine", default="auto", choices=ENGINES, metavar="NAME", help=", ".join(ENGINES))
    about = "auto, pyav, torchcodec"
    hardware.add_argument("--decoder", default="auto", choices=DECODERS, metavar="NAME", help=about)
    add_views(hardware)
    add_model_overrides(parser)


KINDS: Final = {"num_workers": int}
"""Of options whose type is not one word."""


def check(options: argparse.Namespace) -> None:
    """Refuse what the words alone show to be wrong; ``options.models`` becomes names with their models.

    Raises:
        UsageError: No such model, two of one name, or limits that are not allowed.
    """
    with usage_errors():
        check_installed("fastapi", "uvicorn", "python_multipart", "prometheus_client", extra="serve")
        options.service = ServeOptions(**given(options, ServeOptions))
    check_at_least(1, options, "clips")
    if options.token_file is not None:
        check_exists(Path(options.token_file))
        if Path(options.token_file).is_dir():
            raise UsageError(f"--token-file {options.token_file} is a folder: give a file, one token per line.")
        with usage_errors():
            options.service.tokens()
    options.models = _named(options.models)
    for word in options.models.values():
        check_model(word)


def _named(words: list[str]) -> dict[str, str]:
    """Name -> model, in the order given.

    Raises:
        UsageError: A name is missing where there are several models, or comes twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, is_named, model = word.partition("=")
        if not is_named or Path(word).exists():
            name, model = "default", word
        if not name.isidentifier() and not name.replace("-", "_").isidentifier():
            raise UsageError(f"A model's name has letters, digits, - and _, got {name!r}.")
        if name in found:
            hint = "give each a name: NAME=MODEL" if name == "default" else "give another name"
            raise UsageError(f"Two models are called {name!r}: {hint}.")
        found[name] = model
    return found


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes.

    Raises:
        UsageError: A model or the address cannot be used as the options ask.
    """
    from uniformerv2.core.console import make_console
    from uniformerv2.serving.http.server import listen, serve

    service: ServeOptions = options.service
    with usage_errors():
        address = listen(service.host, service.port)
        predictors = {name: make_predictor(options, word) for name, word in options.models.items()}
    host, port = address.getsockname()[:2]
    console = make_console(stderr=True)
    for name, predictor in predictors.items():
        console.print(f"{name}: {predictor!r}", markup=False, style="dim")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # an address that this machine can call
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    token = "" if service.token_file is None else " -H 'Authorization: Bearer TOKEN'"
    console.print(f"{where}/ is a page; Ctrl-C stops the service", markup=False)
    console.print(f"curl{token} -F file=@clip.mp4 {where}/v1/predict", markup=False)
    with usage_errors():
        serve(predictors, options=service, address=address)
    return 0
