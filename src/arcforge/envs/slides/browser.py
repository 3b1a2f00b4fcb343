"""Slides rendered in one headless Chromium: a fresh context per slide, no network, no scripts, every wait bounded."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import shutil
from collections.abc import Mapping
from importlib import resources
from typing import Any

from pydantic import ValidationError

from arcforge.core.errors import UserError, VerifierError
from arcforge.envs.slides.libraries import playwright
from arcforge.envs.slides.rendering import HEIGHT, WIDTH, Page, Rendering, Unfolded

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = ("--font-render-hinting=none", "--force-color-profile=srgb", "--disable-lcd-text", "--disable-gpu")
ORIGIN = "http://slide.invalid/"
START_SECONDS = 60.0
PAGE_SECONDS = 60.0
PAGES_AT_ONCE = 2
CLOSE_SECONDS = 5.0
STILL = "*, *::before, *::after { animation: none !important; transition: none !important; }"

# Through the prototype, as everything of measure.js: an `<img name=adoptedStyleSheets>` hides the document's own.
ADOPT = """css => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(css);
    Object.getOwnPropertyDescriptor(Document.prototype, "adoptedStyleSheets").set.call(document, [sheet]);
}"""
# In a sandbox a document does not load itself again or another one by `<meta http-equiv=refresh>` while it is measured.
HEADERS = {"content-type": "text/html; charset=utf-8", "content-security-policy": "sandbox allow-same-origin"}


def find_chromium() -> str:
    """Path of a headless Chromium. UserError when this machine has none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise UserError(f"no headless Chromium found; install one of {', '.join(NAMES)} (Debian: apt install chromium)")
    return found


class Renderer:
    """Renders slides; the browser starts with the first one and again after it died. Belongs to one event loop.

    The page's own scripts are off, so nothing in it can answer for the browser; it gets `files` and nothing else.
    """

    def __init__(self, page_seconds: float = PAGE_SECONDS) -> None:
        self._page_seconds = page_seconds
        self._slots = asyncio.Semaphore(PAGES_AT_ONCE)
        self._starting = asyncio.Lock()
        self._driver: asyncio.Future[Any] | None = None
        self._browser: Any = None

    async def render(self, html: str, files: Mapping[str, bytes] | None = None) -> Rendering:
        """One slide with the pictures it may load (relative path -> content). VerifierError when the browser fails."""
        api = playwright()
        async with self._slots:
            browser = await self._running()
            try:
                async with asyncio.timeout(self._page_seconds):
                    return await _render(browser, html, files or {})
            except (TimeoutError, api.Error, ValidationError) as error:
                # Other slides are rendered in the same browser, and a later one may have been started by now.
                if self._browser is browser and (isinstance(error, TimeoutError) or not browser.is_connected()):
                    await self.close()
                reason = _first_line(error) or f"no answer in {self._page_seconds:g} s"
                raise VerifierError(f"the slide could not be rendered: {reason}") from error

    async def close(self) -> None:
        """End the browser and its driver. Rendering goes on working: it starts a new one."""
        browser, driver, self._browser, self._driver = self._browser, self._driver, None, None
        if browser is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(browser.close(), CLOSE_SECONDS)
        if driver is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(_stop(driver), CLOSE_SECONDS)

    async def _running(self) -> Any:
        """The browser, started if there is none alive."""
        async with self._starting:
            if self._browser is not None and self._browser.is_connected():
                return self._browser
            await self.close()
            api, path = playwright(), find_chromium()
            # The start is a task of its own, so that close() ends the driver of a start that was cut short.
            driver = self._driver = asyncio.ensure_future(api.async_playwright().start())
            try:
                async with asyncio.timeout(START_SECONDS):
                    started = await asyncio.shield(driver)
                    self._browser = await started.chromium.launch(executable_path=path, args=list(FLAGS))
            except (TimeoutError, OSError, api.Error) as error:
                await self.close()
                raise VerifierError(f"{path} did not start: {_first_line(error) or 'timeout'}") from error
            return self._browser


async def _stop(driver: asyncio.Future[Any]) -> None:
    """End a driver that was started, or is being."""
    started = await asyncio.shield(driver)
    await started.stop()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


async def _render(browser: Any, html: str, files: Mapping[str, bytes]) -> Rendering:
    context = await browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, java_script_enabled=False, service_workers="block"
    )
    try:
        await context.route("**/*", lambda route: _answer(route, html, files))
        page = await context.new_page()
        await page.goto(ORIGIN, wait_until="load")
        await page.evaluate(ADOPT, STILL)
        screenshot = await page.screenshot(type="png", animations="disabled")
        measure = resources.files("arcforge.envs.slides").joinpath("measure.js").read_text()
        before = await page.evaluate(measure, "before")
        after = await page.evaluate(measure, "after")
    finally:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(context.close(), CLOSE_SECONDS)
    return Rendering(page=Page.model_validate(before), unfolded=Unfolded.model_validate(after), screenshot=screenshot)


async def _answer(route: Any, html: str, files: Mapping[str, bytes]) -> None:
    """The slide, one of its files, or nothing."""
    name = route.request.url.removeprefix(ORIGIN)
    if not name and route.request.is_navigation_request():
        await route.fulfill(body=html, headers=HEADERS)
    elif route.request.url.startswith(ORIGIN) and name in files:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        await route.fulfill(body=files[name], content_type=kind)
    else:
        await route.abort()
