"""The command ``minitx``, and ``python -m minitx``: an interruption of the imports is told in one line as well."""

import sys


def main() -> int:
    """Run the command that was typed; see :func:`minitx.cli.main`."""
    try:
        from minitx.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("minitx: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
