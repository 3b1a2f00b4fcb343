"""What each language asks of the builder: where its tests lie, what they need and how they run."""
