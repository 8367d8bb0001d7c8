"""From chapter scripts to the HTML book: dependency graph, execution, staging and page checks."""
