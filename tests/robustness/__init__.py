"""Bad inputs, damaged runs, fuzzed images and kills: what a user, a disk or an operating system can do to a run."""
