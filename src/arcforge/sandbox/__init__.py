"""Directories that commands run in, with limits: plain processes and a Python fork server. Imports nothing by itself."""
