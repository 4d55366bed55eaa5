"""Where things lie in the checkout."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
CONFIGS = ROOT / "configs"
