"""Random damage to parameter files, and random calls: each ends in a result or says why not."""
