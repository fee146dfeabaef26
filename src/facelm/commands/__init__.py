"""The subcommands of `facelm`, one module each, with `add_arguments(parser)` and `run(args) -> exit code`."""

NETWORK_HELP = "package.module.Class of weights whose network is your own: no file has it imported"
