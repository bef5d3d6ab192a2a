"""What the lanes of a solve's vectors hold, and their layouts; may import `cpu.program`."""
