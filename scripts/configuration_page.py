"""Writes docs/configuration.md from the fields of `Config`: `python scripts/configuration_page.py [--write]`.

Without --write, the page is printed. tests/test_docs.py compares it with the file.
"""

import argparse
import sys
import textwrap
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it also runs as a file

from finetune.config import BACKBONES, Config  # noqa: E402
from finetune.config_flags import SECTIONS  # noqa: E402

PAGE = ROOT / "docs" / "configuration.md"
WIDTH = 118  # of a line

INTRODUCTION = """# Configuration

```bash
# every field is a flag
python -m finetune --help
# one run
python -m finetune --data path/to/images --strategy partial --lr 1e-3
# a sweep with two keys of its file replaced
python agent.py sweeps/strategies.yaml --set epochs=5 --set augment=light --plan
```

A field has one name everywhere: key of sweep files, flag of `python -m finetune` (`--image-px` or `--image_px`),
column of results and on W&B. Unknown names are faults with a suggestion, and all faults are reported at once. This page
is written by `python scripts/configuration_page.py --write` from [finetune/config.py](../finetune/config.py)."""


def configuration_page() -> str:
    """Return the text of docs/configuration.md."""
    lines = [INTRODUCTION]
    for name, field in Config.model_fields.items():
        if name in SECTIONS:
            lines.append(f"\n## {SECTIONS[name].capitalize()}\n\n| field | default | meaning |\n|---|---|---|")
        lines.append(f"| `{name}` | {_default_text(field)} | {_meaning(field)} |")
    names = ", ".join(f"`{name}`" for name in BACKBONES)
    lines.append(
        "\n## Backbones\n\n`timm/NAME` for any architecture of timm ([Backbones](backbones.md)), and "
        f"{len(BACKBONES)} networks of torchvision:\n\n{textwrap.fill(names, WIDTH)}"
    )
    return "\n".join(lines) + "\n"


def _default_text(field: Any) -> str:
    """Return a field's default as in a sweep file; an empty text where the meaning says it."""
    if field.default is None:
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _meaning(field: Any) -> str:
    """Return a field's description as a cell, with the choices that it does not name."""
    text = str(field.description).replace("|", r"\|")
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    return text if all(choice in text for choice in choices) else f"{text} ({', '.join(choices)})"


def main(arguments: list[str]) -> int:
    """Print or write the page, and return the exit code."""
    parser = argparse.ArgumentParser("python scripts/configuration_page.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write docs/configuration.md instead of printing it")
    if parser.parse_args(arguments).write:
        PAGE.write_text(configuration_page(), encoding="utf-8")
        print(PAGE.relative_to(ROOT))
    else:
        print(configuration_page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
