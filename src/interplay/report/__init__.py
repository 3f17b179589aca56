"""What was measured, as a page and as tables. Nothing in the package imports it but the command line."""
