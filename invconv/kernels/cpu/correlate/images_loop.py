"""The loop of a correlation with images in the lanes (`invconv.kernels.cpu.correlate.images`)."""

from __future__ import annotations

from typing import Any

from invconv.kernels.cpu import copies
from invconv.kernels.cpu.compiler.integers import Int
from invconv.kernels.cpu.compiler.ir import Writer
from invconv.kernels.cpu.correlate.bands_loop import (
    PLACES,
    POINTERS,
    call_sums,
    pack,
)
from invconv.kernels.cpu.correlate.images import ImagesHeader, Run
from invconv.kernels.cpu.loop import each_unit, load_record
from invconv.kernels.cpu.program import size


def write_images_correlation(w: Writer) -> None:
    """Write the function "correlate", with the arguments that it has in `bands_loop`."""
    copies.write_copy(w, "enter", "wholes")
    copies.write_copy(w, "leave", "wholes")
    with w.function("correlate", POINTERS, ("images", *PLACES), inside=False) as a:
        h = load_record(w, ImagesHeader, a["program"], w.integer(0))
        pack(w, a, h)
        groups = (a["images"] + (h["images"] - 1)) // h["images"]
        with each_unit(w, a["shared"], groups) as group:
            _group(w, a, h, group * h["images"])


def _group(w: Writer, a: dict[str, Any], h: dict[str, Int], image: Int) -> None:
    """Write the correlation of the images in the lanes, the first one number ``image``."""
    here = (a["images"] - image).least(h["images"])
    image_size, step = h["channels"] * h["pixels"], h["channels"] * h["images"]
    x, y = (w.at(a[name], image * image_size) for name in ("x", "y"))
    out = w.at(a["z"], h["out"])
    integers = copies.in_order(
        lines_there=here,
        line_step=image_size,
        channel_stride=h["pixels"],
        count=h["pixels"],
        width=h["pixels"],
        channel_step=h["images"],
        step=step,
        channels=h["channels"],
    )
    nowhere = a["program"]  # any address: places are not read for "wholes"
    w.call_inside("enter_wholes", (x, a["z"], nowhere), integers)
    with w.loop(0, h["runs"]) as i:
        run = load_record(w, Run, a["program"], h["body"] + i * size(Run))
        taps = h["lists"] + run["taps"]
        call_sums(w, a, h, run["at"], run["columns"], step, h["images"], taps)
    w.call_inside("leave_wholes", (y, out, nowhere), integers)
