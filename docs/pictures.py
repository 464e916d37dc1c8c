"""Take the pictures of the report that the documentation shows: python docs/pictures.py RUN

RUN is the folder of a trained run that was evaluated and imagined. Needs playwright and an installed Chromium.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from agent.report import write

IMAGES = Path(__file__).parent / "images"


def player(page: Page) -> None:
    """The whole first screen, in the middle of an episode, with a rejected candidate selected."""
    page.locator("#moment").fill("8")
    page.locator("#plans input").nth(4).check()
    page.wait_for_timeout(300)  # until the frames are decoded
    page.screenshot(path=IMAGES / "report.png")


def latent_map(page: Page) -> None:
    """The latent map on a dark page."""
    page.locator("figure:has(svg[aria-label^='Latent states'])").screenshot(path=IMAGES / "report_dark.png")


def main(run: Path) -> None:
    """Write the report of the run and take both pictures."""
    address = write(run)[0].resolve().as_uri()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme, take in (("light", player), ("dark", latent_map)):
            page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme=scheme)
            page.goto(address)
            take(page)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
