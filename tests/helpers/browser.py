"""A page as a real browser renders it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# What the browser has to say about the page, put where --dump-dom shows it.
LOOK = """<script>
addEventListener("load", () => {
  const all = (query) => [...document.querySelectorAll(query)];
  document.body.dataset.seen = JSON.stringify({
    text: document.body.innerText,
    images: all("img").map((image) => image.naturalWidth),
    lines: all("polyline").map((line) => [line.getBBox().width, line.getBBox().height]),
    outside: document.documentElement.scrollWidth - innerWidth,
    requests: performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length,
  });
});
</script>"""


def look(content: str, folder: Path) -> dict[str, Any]:
    """Renders the page in Chromium and returns what it measured."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium on this machine")
    file = folder / "report.html"
    file.write_text(content.replace("</body>", f"{LOOK}</body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder}", "--window-size=1100,900", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert seen, done.stdout[-500:] + done.stderr[-500:]
    return dict(json.loads(html.unescape(seen[1])))
