"""``python -m linprobe`` is the command ``linprobe``."""

import sys

from linprobe.cli import main

sys.exit(main())
