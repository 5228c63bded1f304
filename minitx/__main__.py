"""``python -m minitx``."""

from minitx.cli import main

raise SystemExit(main())
