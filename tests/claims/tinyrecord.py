"""Where the tiny record's recipe is."""

from pathlib import Path

RECIPE = Path(__file__).parent / "tiny-record.toml"
