"""Slides as HTML with a reward at three levels: markup, rendered layout, pixels (GLM-5 report, section 4.2.5)."""
