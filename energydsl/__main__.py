"""``python -m energydsl``: the command line."""

from energydsl.cli import main

if __name__ == "__main__":
    main()
