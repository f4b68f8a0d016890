"""`taktline` and `python -m taktline`: the command, where click is installed."""

import sys


def main() -> None:
    """Run the command, or say what it needs."""
    try:
        import click  # noqa: F401
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        print("the command needs click: pip install 'taktline[cli]'", file=sys.stderr)
        sys.exit(2)  # wrong usage, nothing ran
    from taktline.cli.commands import main as command

    command()


if __name__ == "__main__":
    main()
