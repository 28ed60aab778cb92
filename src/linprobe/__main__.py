"""``python -m linprobe`` is the command ``linprobe``."""

import sys

from linprobe.cli.main import main

sys.exit(main())
