"""The Web Knowledge Graph: stored, aligned, consolidated, and updated page by page."""
