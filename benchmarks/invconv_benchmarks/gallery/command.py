"""``invconv example NAME``: a short program that ends in a picture."""

import argparse
import ast
import importlib
from pathlib import Path

from invconv.arrays.errors import CommandError
from invconv_benchmarks.options import require_picture

NAMES = ("deblur", "whiten", "random_field", "lattice_field", "echo", "volume", "folder", "smooth",
         "three_libraries", "deep_field", "heat", "filter", "stars", "vowel", "turn")  # fmt: skip


def source(name: str) -> str:
    """Return a program's text."""
    return Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """Return the first line of a program's docstring, without importing what it needs."""
    return (ast.get_docstring(ast.parse(source(name))) or "").partition("\n")[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["examples:", *(f"  {name:16} {summary(name)}" for name in NAMES)])
    parser.add_argument("name", choices=NAMES, metavar="NAME", help="one of the examples below")
    parser.add_argument("--out", type=Path, help="the picture to write (default: invconv-NAME.png)")
    parser.add_argument("--path", type=Path, help="of the example folder: your own images")


def run(arguments: argparse.Namespace) -> int:
    """Run one program and say where its picture is."""
    name, out = arguments.name, arguments.out or Path(f"invconv-{arguments.name}.png")
    require_picture("--out", out)
    if arguments.path is not None and name != "folder":
        raise CommandError(f"--path: the example {name} has its own data; folder takes yours")
    try:
        module = importlib.import_module(f"invconv_benchmarks.gallery.{name}")
    except ImportError as error:
        needs = f"the example {name} needs {error.name}: pip install 'invconv[gallery]'"
        raise CommandError(needs) from error
    print(summary(name))
    module.draw(out, *([arguments.path] if arguments.path else []))
    print(f"wrote {out}")
    return 0
