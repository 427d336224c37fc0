"""Look up the locked packages in the list of known vulnerabilities, with pip-audit in an environment of its own.

Exit code 0: none is known, or a message says that the list can't be reached; 1: there are some, which are listed.
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
    """Audit one lock, print the result, and return the exit code."""
    command = [uvx, "--quiet", "pip-audit", "--requirement", str(ROOT / lock), "--disable-pip", "--require-hashes"]
    try:
        process = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True, timeout=600
        )
        packages = json.loads(process.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"{lock}: not audited: no answer in 10 minutes")
        return 0
    except (ValueError, LookupError, TypeError):  # pip-audit could not be installed, or could not reach the list
        lines = process.stderr.strip().splitlines() or ["no answer"]
        print(f"{lock}: not audited: {lines[-1]}")
        return 0
    # With a mirror that has packages but no advisories, pip-audit skips all packages and calls that a success.
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        print(f"{lock}: not audited: the advisories of none of its {len(packages)} packages can be reached")
        return 0
    vulnerabilities = [
        f"  {package['name']} {package['version']}: {found['id']}, fixed in {_versions(found['fix_versions'])}"
        for package in audited
        for found in package["vulns"]
    ]
    print(f"{lock}: {len(vulnerabilities)} known vulnerabilities; {len(audited)} of {len(packages)} packages audited")
    print("\n".join(vulnerabilities), end="\n" if vulnerabilities else "")
    return int(bool(vulnerabilities))


def _versions(versions: list[str]) -> str:
    return ", ".join(versions) or "no version"


if __name__ == "__main__":
    sys.exit(main())
