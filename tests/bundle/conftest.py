"""Makes `tiny_bundle` importable: a bundle made by hand, and what it must answer."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
