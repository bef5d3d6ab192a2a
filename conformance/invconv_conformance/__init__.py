"""Cases, oracle and laws: what every array library must agree on."""
