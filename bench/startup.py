"""What importing the runtime costs beyond numpy and onnxruntime, each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

from common import arguments, check, finish, median

BASE = "import numpy, onnxruntime"
RUNTIME = f"{BASE}; import facrt.runtime.engine"
TIMER = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def seconds(statement: str) -> float:
    result = subprocess.run([sys.executable, "-c", TIMER.format(statement)], capture_output=True, text=True, check=True)
    return float(result.stdout)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    pairs = [(seconds(BASE), seconds(RUNTIME)) for _ in range(options.rounds)]
    base, beyond = median([a for a, _ in pairs]), median([b - a for a, b in pairs])
    checks = [check("numpy and onnxruntime", base, "s"), check("facrt.runtime beyond them", beyond, "s", 0.5)]
    finish({"checks": checks}, options.json)


if __name__ == "__main__":
    main()
