"""The command line: ``invconv COMMAND``, also ``python -m invconv`` (`__main__`).

Every command is a module with `add_arguments` and `run`; only the command that runs is imported.
"""

import argparse
import difflib
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence

from invconv import InvalidFileError, SingularConvError, __version__
from invconv.arrays.errors import CommandError

COMMANDS = {  # the module, and the extra that it needs
    "demo": ("invconv_benchmarks.demo.command", "demo"),
    "conformance": ("invconv_conformance.plugin", "conformance"),
    "benchmark": ("invconv_benchmarks.command", "benchmark"),
    "density": ("invconv_benchmarks.density.command", "density"),
    "diagnose": ("invconv_benchmarks.demo.diagnose", "demo"),
    "docs": ("invconv_benchmarks.docs.command", "docs"),
    "example": ("invconv_benchmarks.gallery.command", "gallery"),
    "info": ("invconv_conformance.info", "conformance"),
}
_SUMMARIES = {
    "demo": "run every kind of convolution on a real image and every installed library",
    "conformance": "check values, inverses, log-determinants and gradients on every library",
    "benchmark": "time every library beside plain convolutions and peers, and judge it by limits",
    "density": "train, sample from and compare density models with every mixing layer",
    "diagnose": "tell whether the inverse of saved parameters can be trusted, and why not",
    "docs": "build the pages of every public name, and the guide",
    "example": "run a short program that ends in a picture: deblur, whiten, random_field, ...",
    "info": "list libraries, versions, devices, and what the core needs of a library",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # replace characters that it cannot encode
            stream.reconfigure(errors="replace")
    if "" not in sys.path and not sys.flags.safe_path:
        sys.path.append("")  # modules of the user's, which `python -m` finds where it is called
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (CommandError, InvalidFileError, SingularConvError) as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"not enough memory for this: {error}")
    except KeyboardInterrupt:
        print("invconv: interrupted", file=sys.stderr)
        return 130
    return status


def _run(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="invconv",
        description="Convolutions with exact inverses and log-determinants, on any array library.",
    )
    parser.add_argument("--version", action="version", version=f"invconv {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    named = next((a for a in argv if not a.startswith("-")), "")
    close = difflib.get_close_matches(named, COMMANDS, n=1)
    if close and named not in COMMANDS:
        parser.error(f"there is no command {named!r}: did you mean {close[0]!r}?")
    for name, (module_name, extra) in COMMANDS.items():
        summary = _SUMMARIES[name]
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name != named:
            continue  # only the command that runs is imported
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            needs = f"{name} needs {error.name}: pip install 'invconv[{extra}]'"
            if not {"-h", "--help"} & set(argv):
                return _fail(needs)
            print(f"invconv {name}: {summary}\n\n{needs}, and its options show here")
            return 0
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    arguments, others = parser.parse_known_args(argv)
    if others:
        chosen = subparsers.choices[named]
        options = re.findall(r"--[\w-]+", chosen.format_usage())
        close = difflib.get_close_matches(others[0].partition("=")[0], options, n=1)
        meant = "".join(f"; did you mean {option}?" for option in close)
        chosen.error(f"unrecognized arguments: {' '.join(others)}{meant}")
    return int(arguments.run(arguments))


def _fail(message: str) -> int:
    print(f"invconv: {message}", file=sys.stderr)
    return 2
