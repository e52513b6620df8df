"""The tests, a package, so that one of this name among installed packages does not hide them."""
