"""The `moextend` command, also as `python -m moextend`."""

from __future__ import annotations

import sys


def run() -> None:
    """Runs the command line; Ctrl-C is one line also while it is imported."""
    try:
        from moextend.cli import main
    except KeyboardInterrupt:
        print("error: interrupted.", file=sys.stderr)
        sys.exit(130)
    main.run()


if __name__ == "__main__":
    run()
