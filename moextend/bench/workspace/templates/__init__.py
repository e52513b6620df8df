"""What `moextend bench new` writes: files that run as they are, for people to change."""
