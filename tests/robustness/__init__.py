"""Bad inputs, damaged runs, fuzzed images and kills."""
