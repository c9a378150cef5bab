"""Where a corpus comes from if you have none: the published sets, and a generated demo corpus."""
