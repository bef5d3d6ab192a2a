"""Whether pages fit a phone, as a headless browser draws them."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from invconv.arrays.errors import CommandError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom",
            "--disable-background-networking", "--allow-file-access-from-files")  # fmt: skip


def too_wide(site: Path) -> list[str]:
    """Return a sentence for each page that is wider than a phone, and print if nothing can tell."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"only the links were checked: widths need one of {', '.join(BROWSERS)}")
        return []
    page = '<iframe width="375" height="700" frameborder="0" title="{}" src="{}"></iframe>'
    files = site.absolute().rglob("*.html")
    pages = "".join(page.format(f.relative_to(site.absolute()), f.as_uri()) for f in files)
    with tempfile.TemporaryDirectory() as folder:
        every = Path(folder, "every.html")
        every.write_text(pages + Path(__file__).with_name("phone.html").read_text())
        command = [browser, *_OPTIONS, f"--user-data-dir={folder}", every.as_uri()]
        drawn = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "<title>drawn" not in drawn:
        raise CommandError(f"docs: {browser} could not draw the pages")
    return re.findall(r"\S+ is \d+ pixels too wide", drawn.partition("<pre>")[2])
