"""Test logs of nine languages read into an outcome per test. Imports nothing by itself."""
