"""Report on shards and runs: as text (`terminal`) and as one HTML file (`shards_page`, `run_page`)."""
