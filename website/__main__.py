"""python -m website build [FOLDER]   the site, into ./site or that folder
python -m website pictures [NAME…]  the pictures in docs/pictures, all or these"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from website.pages import ROOT, write_site


def main() -> None:
    """The command."""
    what, rest = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if what == "build":
        if missing := [name for name in ("mkdocs", "material", "mkdocstrings") if find_spec(name) is None]:
            sys.exit(f"the site needs {', '.join(missing)}: they are in requirements.lock, which dev.py installs")
        target = Path(rest[0]) if rest else ROOT / "site"
        try:
            write_site(target)
        except subprocess.CalledProcessError as error:
            sys.exit(f"the site was not built: what MkDocs says stands above (exit code {error.returncode})")
        print(f"{target}/index.html")
    elif what == "pictures":
        from website.pictures import make

        make(rest)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
