"""The loop of a correlation with images in the lanes (`invconv.kernels.cpu.correlate.images`)."""

from __future__ import annotations

from typing import Any

from invconv.kernels.cpu.compiler.integers import Int
from invconv.kernels.cpu.compiler.ir import Writer
from invconv.kernels.cpu.copies import write_copies
from invconv.kernels.cpu.correlate.bands_loop import PLACES, POINTERS, call_sums, pack
from invconv.kernels.cpu.correlate.images import ImagesHeader, Run
from invconv.kernels.cpu.loop import each_unit, load_record
from invconv.kernels.cpu.program import size


def write_images_correlation(w: Writer) -> None:
    """Write the function "correlate", with the arguments that it has in `bands_loop`."""
    write_copies(w, "wholes")
    with w.function("correlate", POINTERS, ("images", *PLACES), inside=False) as a:
        h = load_record(w, ImagesHeader, a["program"], w.integer(0))
        pack(w, a, h)
        with each_unit(w, a["shared"], a["images"].over(h["images"])) as group:
            _group(w, a, h, group * h["images"])


def _group(w: Writer, a: dict[str, Any], h: dict[str, Int], image: Int) -> None:
    """Write the correlation of the images in the lanes, the first one number ``image``."""
    image_size, step = h["channels"] * h["pixels"], h["channels"] * h["images"]
    x, y = (w.at(a[name], image * image_size) for name in ("x", "y"))
    copied = {
        "lines_there": (a["images"] - image).least(h["images"]),
        "line_step": image_size,
        "channel_stride": h["pixels"],
        "count": h["pixels"],
        "width": h["pixels"],
        "channel_step": h["images"],
        "step": step,
        "channels": h["channels"],
    }
    w.call_inside("enter", lines=x, z=a["z"], **copied)
    with w.loop(0, h["runs"]) as i:
        run = load_record(w, Run, a["program"], h["body"] + i * size(Run))
        steps = {"column_step": step, "channel_step": h["images"]}
        call_sums(w, a, h, h["lists"] + run["taps"], at=run["at"], columns=run["columns"], **steps)
    w.call_inside("leave", lines=y, z=w.at(a["z"], h["out"]), **copied)
