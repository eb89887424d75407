"""`python -m adrbench` does what `adrbench` does."""

from adrbench.cli.app import main

if __name__ == "__main__":
    main()
