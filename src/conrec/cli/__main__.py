"""``python -m conrec.cli``, for instance under torchrun."""

from conrec.cli import main

if __name__ == "__main__":
    main()
