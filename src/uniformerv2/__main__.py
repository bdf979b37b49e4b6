"""``python -m uniformerv2``."""

from __future__ import annotations

from uniformerv2.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
