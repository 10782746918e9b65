"""`python -m fairpo_trl`, the same as the console script `fairpo`."""

from fairpo_trl.commands.main import main


if __name__ == "__main__":
    main()
