"""Is there an inverse that is wrong and says nothing? May import what other studies may."""

from invconv_benchmarks.studies.silent_error.study import measure as measure
