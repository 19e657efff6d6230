"""The command `ddps`: one file per subcommand, put together in `main`."""
