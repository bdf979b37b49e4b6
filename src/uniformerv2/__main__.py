"""``python -m uniformerv2``."""

from __future__ import annotations

import os
import sys

# -m looks for modules in the current folder first, which may be one of data; what is installed lies elsewhere.
if __name__ == "__main__" and not sys.flags.safe_path and not __file__.startswith(os.path.join(sys.path[0], "")):  # noqa: PTH118
    del sys.path[0]

from uniformerv2.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
