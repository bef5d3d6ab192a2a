"""The timed calls: ours, plain convolutions, and peers. May import `measure` and `suites`."""
