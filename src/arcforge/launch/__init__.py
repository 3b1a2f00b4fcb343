"""Start components as processes on this machine, watch them, stop them in order."""
