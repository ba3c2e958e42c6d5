"""`python -m palate`, and so `torchrun ... -m palate`: the same as the command `palate`."""

from palate.cli import main

if __name__ == "__main__":
    main()
