#!/usr/bin/env bash
# Prints the first Python on the PATH that this project runs on: 3.11 to 3.13, with venv.
for name in python3.13 python3.12 python3.11 python3 python; do
  path=$(command -v "$name") || continue
  "$path" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue
  "$path" -c 'import venv, ensurepip' 2>/dev/null || { lacking="$path"; continue; }
  echo "$path"
  exit 0
done
if [ -n "${lacking:-}" ]; then
  echo "$lacking has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2
else
  echo "no Python 3.11, 3.12 or 3.13 found on the PATH; install one, then run make again" >&2
fi
exit 1
