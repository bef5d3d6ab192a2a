"""Python in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]  # of the project
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def python(
    *arguments: Any, cwd: Path | None = None, status: int = 0, timeout: float = 900, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments and further variables, and require that it ends with a status."""
    command = [sys.executable, *map(str, arguments)]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": timeout}
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT | more, check=False, **options)
    assert done.returncode == status, (done.stdout + done.stderr)[-4000:]
    return done
