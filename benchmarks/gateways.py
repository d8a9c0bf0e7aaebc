"""Pacing against real gateways: see ``--help``. The parts lie in the folder of the same name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_suffix("")))

from command import main

if __name__ == "__main__":
    main()
