"""Package of the tests, so that an installed package with the same name does not hide them."""
