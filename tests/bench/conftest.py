"""The benchmarks are programs, which find each other because their folder is that of the program."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
