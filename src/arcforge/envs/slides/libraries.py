"""The libraries of the extra `slides`, imported when they are needed."""

from __future__ import annotations

from types import ModuleType

from arcforge.core.errors import UserError

INSTALL = "the slides environment needs {name}; install it with: pip install 'arcforge[slides]'"


def pillow() -> ModuleType:
    """`PIL.Image`. UserError when Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError:
        raise UserError(INSTALL.format(name="Pillow")) from None
    return Image


def playwright() -> ModuleType:
    """`playwright.async_api`. UserError when Playwright is not installed."""
    try:
        from playwright import async_api
    except ImportError:
        raise UserError(INSTALL.format(name="playwright")) from None
    return async_api
