"""The words every room speaks: messages, trajectories, protocols, config, errors, run folders, metrics. Never imports torch."""
