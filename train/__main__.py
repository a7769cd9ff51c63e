"""`python -m train`: train the bundled model (see train/README.md)."""

from train.train import main

if __name__ == "__main__":
    main()
