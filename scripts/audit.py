"""Look up the locked packages in the list of known holes, with pip-audit from an environment of its own.

Exit code 0: none are known, or the list can't be reached, which is said; 1: there are some; they are listed.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock",)
# What pip-audit, or uv on the way to it, says without a connection.
UNREACHABLE = ("connection", "resolve", "dns", "timed out", "timeout", "proxy", "network", "failed to fetch", "ssl",
               "service unavailable", "no solution found", "certificate", "max retries")  # fmt: skip


def main() -> int:
    """Audit the locks and return the exit code."""
    uvx = shutil.which("uvx", path=str(Path(sys.executable).parent)) or shutil.which("uvx")
    if uvx is None:
        print("not audited: there is no uvx; make setup installs it")
        return 0
    code = 0
    for lock in LOCKS:
        command = [uvx, "--quiet", "pip-audit", "--requirement", str(ROOT / lock), "--disable-pip", "--require-hashes"]
        try:
            ended = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            print(f"{lock}: not audited: no answer in 10 minutes")
            continue
        said = (ended.stdout + ended.stderr).strip()
        found = "known vulnerabilit" in said and "No known" not in said
        if ended.returncode and not found and any(word in said.lower() for word in UNREACHABLE):
            print(f"{lock}: not audited: {said.splitlines()[-1]}")
            continue
        print(f"{lock}: {said}")
        code = code or int(ended.returncode != 0)
    return code


if __name__ == "__main__":
    sys.exit(main())
