"""``invconv docs``: build the pages of this version, to be read in a browser.

mkdocs builds them with the theme material; mkdocstrings reads the docstrings.
"""

import argparse
import importlib
import logging
import re
import shutil
import subprocess
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from invconv.arrays.errors import CommandError
from invconv_benchmarks.docs import pages

for _name in ("latex2mathml", "material", "mkdocstrings", "mkdocstrings_handlers.python"):
    importlib.import_module(_name)  # by mkdocs later: what is missing is said before the work
_FONT = distribution("ziamath").locate_file("ziamath/fonts/STIXTwoMath-Regular.ttf")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom",
            "--disable-background-networking", "--allow-file-access-from-files")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    about = "the folder to write, which must not exist or hold such pages (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("invconv-docs"), help=about)
    about = "fail if a page is too wide for a phone, too; a dead link fails in any case"
    parser.add_argument("--check", action="store_true", help=about)


def run(arguments: argparse.Namespace) -> int:
    """Build the site, say where it is, and check it if asked to."""
    out: Path = arguments.out.resolve()
    ours = not out.exists() or (out / "api" / "invconv" / "index.html").is_file()
    if not ours or Path.cwd().is_relative_to(out):
        expected = "expected a new folder, or one with pages of this command that you are not in"
        raise CommandError(f"--out: {expected}, got {out}")
    out.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        sources, site = Path(folder, "sources"), Path(folder, "site")
        navigation = pages.write(sources)
        shutil.copy(str(_FONT), sources)
        settings = str(Path(__file__).with_name("mkdocs.yml"))
        config = load_config(settings, docs_dir=str(sources), site_dir=str(site))
        config.nav = [*(config.nav or []), *navigation]
        try:
            build(config)
        except Abort as error:
            raise CommandError("docs: the lines above say which link is dead") from error
        shutil.rmtree(out, ignore_errors=True)  # now that its successor is whole
        site.rename(out)
    print(f"wrote {len(list(out.rglob('*.html')))} pages: open {out / 'index.html'}")
    print(f"with the search, which browsers allow a server only: python -m http.server -d {out}")
    wide = too_wide(out) if arguments.check else []
    print(*wide, sep="\n", end="\n" * bool(wide))
    return 1 if wide else 0


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
