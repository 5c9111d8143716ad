"""`python -m lazyneuron` is `lazyneuron`."""

from lazyneuron.cli import main

if __name__ == "__main__":
    main()
