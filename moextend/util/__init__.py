"""What every part uses: files, YAML, names, errors of others."""
