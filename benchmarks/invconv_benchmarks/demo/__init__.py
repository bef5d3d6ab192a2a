"""``invconv demo`` and ``invconv diagnose``. May import `measure` and `report`."""
