"""How fast runs are, beside other ways to train the same thing: `make bench`."""
