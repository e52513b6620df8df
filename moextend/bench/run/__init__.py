"""A run of a method over a sequence, from a command to its records.

1. Plan: `plan` makes one `Request` of the command and resolves it into configs (`config`), with sizes and matched
   settings (`estimate`). `preflight` looks for what is missing, `preview` is `--dry-run`.
2. Run folder: `opening` makes or takes over the folder of a config; `rundir`, `records`, `progress` and `items` are its
   files, `inputs` what its numbers are made of, `complete` what it lacks. `pack`, `live` read folders.
3. Worker: `launch` starts a process for each run, `worker` is that process, and `runner` the loop over stages and
   rows, in a `context` that is read from the folder once; `together` are several processes of one run.
4. Stage: `stage` is its data, loop and costs, `models` the model before and after it, `shared` what runs share,
   `diagnostics` its routing, `servers` who answers instead; `variants` and `regenerate` answer again.
"""
