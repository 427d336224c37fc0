"""Look up the locked packages in the list of known holes, with pip-audit from an environment of its own.

Exit code 0: none are known, or the list can't be reached, which is said; 1: there are some; they are listed.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock",)


def main() -> int:
    """Audit the locks and return the exit code."""
    uvx = shutil.which("uvx", path=str(Path(sys.executable).parent)) or shutil.which("uvx")
    if uvx is None:
        print("not audited: there is no uvx; make setup installs it")
        return 0
    return max(_audit(uvx, lock) for lock in LOCKS)


def _audit(uvx: str, lock: str) -> int:
    """Audit one lock, say what came of it, and return the exit code."""
    command = [uvx, "--quiet", "pip-audit", "--requirement", str(ROOT / lock), "--disable-pip", "--require-hashes"]
    try:
        ended = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True, timeout=600
        )
        packages = json.loads(ended.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"{lock}: not audited: no answer in 10 minutes")
        return 0
    except (ValueError, LookupError, TypeError):  # it could not be installed, or could not ask
        said = ended.stderr.strip().splitlines() or ["no answer"]
        print(f"{lock}: not audited: {said[-1]}")
        return 0
    # A mirror that has packages but no advisories makes pip-audit skip every one, and call that a success.
    known = [package for package in packages if "skip_reason" not in package]
    holes = [
        f"  {one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version'}"
        for one in known
        for hole in one["vulns"]
    ]
    if not known:
        print(f"{lock}: not audited: of none of its {len(packages)} packages the advisories can be reached")
        return 0
    print(f"{lock}: {len(holes)} known holes in {len(known)} of {len(packages)} packages; of the rest nothing is known")
    print("\n".join(holes), end="\n" if holes else "")
    return int(bool(holes))


if __name__ == "__main__":
    sys.exit(main())
