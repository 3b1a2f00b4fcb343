"""Whoever answers: our token engine, OpenAI- and Anthropic-style endpoints, and scripts. Failures are EngineError or RolloutTimeout."""
