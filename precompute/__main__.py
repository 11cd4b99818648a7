"""Entry: `python -m precompute COMMAND`."""

from precompute.cli import main

if __name__ == "__main__":
    main()
