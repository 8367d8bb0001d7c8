"""What is known of the recorded runs of metric learning."""

OMNIGLOT = "400e1a69d742e1711da64368188abf5cd3e340953263ae7c76ccc2b3eff6dc86"
"""Of the archive that the verdicts of profile real were found on."""
