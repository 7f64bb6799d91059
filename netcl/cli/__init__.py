"""The subcommands of ``python -m netcl``, a module each."""
