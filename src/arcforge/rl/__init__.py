"""Reinforcement learning: losses, gateway, buffer, orchestrator, trainer, distillation, diagnostics."""
