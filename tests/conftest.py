"""Fixtures shared by every level of the suite."""

from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["fixtures_database", "fixtures_broker"]
