"""The `shortlist` command, one file per subcommand."""
