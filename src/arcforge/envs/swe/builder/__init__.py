"""Software-engineering environments from any git repository: mined from its history or made by injecting bugs, and measured."""
