"""Takes the pictures in ``docs/screenshots`` from a running service with the sweeps of demo and presets.

``python docs/screenshots.py http://127.0.0.1:8050`` needs Chromium and Playwright.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from lora_alpha.catalog.presets import PRESETS
from lora_alpha.wire.client import Client

FOLDER = Path(__file__).parent / "screenshots"
SIZE = {"width": 1440, "height": 900}
DEMO = "Demo: synthetic flagship"
ROUTES, GRID, SUPPRESSION, SCHEDULES = (
    PRESETS[name].request.name
    for name in ("alpha-vs-lr", "alpha-and-lr", "spectral-suppression", "alpha-over-time")
)


def main(address: str, names: list[str]) -> None:
    """Save every page, or those named, in light and in dark."""
    FOLDER.mkdir(exist_ok=True)
    with Client(address) as client:
        sweeps = {sweep.name: sweep.id for sweep in client.sweeps().items}
    demo = sweeps.get(DEMO, "")
    pages = {
        "sweeps": "/",
        "new-sweep": "/new?workload=mlp",
        "convergence": f"/sweep/{demo}?tab=convergence",
        "map": f"/sweep/{demo}?tab=map",
        "law": f"/sweep/{demo}?tab=law",
        "equivalence": f"/sweep/{sweeps.get(GRID, '')}?tab=equivalence",
        "runs": f"/sweep/{demo}?tab=runs",
        "laws": "/laws",
        "dynamics": f"/dynamics?sweep={sweeps.get(ROUTES, '')}&tab=routes",
        "curvature": f"/curvature?sweep={sweeps.get(SUPPRESSION, '')}&tab=suppression",
        "schedules": f"/dynamics?sweep={sweeps.get(SCHEDULES, '')}&tab=schedules",
        "workers": "/workers",
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_context(viewport=SIZE, color_scheme=scheme, device_scale_factor=1).new_page()
            for name, path in pages.items():
                if not names or name in names:
                    take(page, address + path, FOLDER / f"{name}-{scheme}.png")
        browser.close()


def take(page: Page, address: str, file: Path) -> None:
    """One picture, once the page has come to rest."""
    page.goto(address)
    page.wait_for_timeout(3500)
    page.screenshot(path=file)


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2:])
