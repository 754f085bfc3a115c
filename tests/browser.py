"""A headless Chromium for tests: what a page's own script made of it, and what it looks like."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container's /dev/shm may be too small for two at a time
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=5000",
)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page after its scripts have run."""

    dom: str
    screenshot: Path
    body: dict[str, str]
    """The attributes of <body>, such as `data-ready`."""


def open_page(
    html: Path, tmp_path: Path, *, width: int = 1000, height: int = 700, dark: bool = False, probe: str = ""
) -> Page:
    """Open a file in a browser with a new empty profile; `probe` is JavaScript that runs after the page's own.

    Fails, rather than skips, when there is no browser.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser, f"no browser on PATH, looked for {', '.join(BROWSERS)}: apt-get install chromium"
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    if probe:
        text = html.read_text(encoding="utf-8").replace("</body>", f"<script>{probe}</script></body>")
        html = folder / "probed.html"
        html.write_text(text, encoding="utf-8")
    screenshot = folder / "page.png"
    look = (f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    dom = ""
    for number, action in enumerate(("--dump-dom", f"--screenshot={screenshot}")):
        profile = f"--user-data-dir={folder / f'profile{number}'}"
        command = [browser, *FLAGS, *look, profile, action, html.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{browser} ended with {done.returncode}: {done.stderr}"
        dom = dom or done.stdout
    assert screenshot.is_file(), "the browser wrote no screenshot"
    return Page(dom=dom, screenshot=screenshot, body=attributes_of(dom, "body"))


def attributes_of(html: str, tag: str) -> dict[str, str]:
    """The attributes of the first such element."""
    found: list[dict[str, str]] = []

    class Finder(HTMLParser):
        def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
            if name == tag:
                found.append({key: value or "" for key, value in attrs})

    Finder().feed(html)
    assert found, f"the page has no <{tag}>"
    return found[0]


def colours(png: Path) -> dict[bytes, int]:
    """How many pixels a picture has of each colour (red, green, blue)."""
    with Image.open(png) as image:
        counted = image.convert("RGB").getcolors(image.width * image.height)
    return {bytes(colour): count for count, colour in counted}
