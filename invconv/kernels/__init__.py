"""How a solve or a correlation runs: agnostic twins, faster ways; may import `invconv.arrays`."""
