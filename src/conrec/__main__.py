"""``python -m conrec``, the form in which launchers such as torchrun start the command."""

from conrec.cli import main

if __name__ == "__main__":
    main()
