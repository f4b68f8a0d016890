"""`python -m taktline` is the command."""

from taktline.cli.commands import main

if __name__ == "__main__":
    main()
