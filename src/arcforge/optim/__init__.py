"""Muon with Muon Split, AdamW and schedules; driven by MatrixSpec, never by parameter names."""
