"""HTML pages that need nothing else: the shared base template, and the page of a conformance run.

May import nothing of ours; `invconv_benchmarks.report` extends the same base template.
"""
