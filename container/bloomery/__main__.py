"""``python -m bloomery``."""

from bloomery.cli import main

if __name__ == "__main__":
    main()
