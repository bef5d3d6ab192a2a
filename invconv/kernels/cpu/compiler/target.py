"""The processor that a kernel is compiled for."""

import functools
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A processor."""

    triple: str  # as LLVM names it
    cpu: str
    features: str
    bits: int  # bits of a vector
    registers: int  # number of vector registers
    fma: bool  # whether it multiplies and adds with one rounding

    def lanes(self, itemsize: int) -> int:
        """Return how many numbers of so many bytes a vector has."""
        return self.bits // 8 // itemsize


@functools.cache
def host() -> Target:
    """Return this processor: AVX-512, AVX2 with FMA, or else vectors of 128 bits."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    triple = str(binding.get_process_triple())
    has = {name for name, there in features.items() if there}
    arm = triple.startswith(("aarch64", "arm64"))
    bits = 512 if "avx512f" in has else 256 if {"avx2", "fma"} <= has else 128
    return Target(
        triple,
        str(binding.get_host_cpu_name()),
        str(features.flatten()),
        bits,
        32 if arm or bits == 512 else 16,  # registers
        arm or "fma" in has,
    )
