"""What is run now and then to make or test the package, not to use it."""
