"""Runs a recipe's stages in order: run folder, resume, evaluation of each stage, export."""
