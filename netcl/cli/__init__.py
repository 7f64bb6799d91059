"""The command line. Each module is one subcommand, with ``add_parser(subparsers)`` and ``run(arguments) -> int``."""
