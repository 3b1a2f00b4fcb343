"""One training loop; the stages are objectives, data and schedules for it."""
