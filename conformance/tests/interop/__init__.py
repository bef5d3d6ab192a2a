"""Drop-ins for flow libraries, in the real packages."""
