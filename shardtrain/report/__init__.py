"""Show shards and runs: as lines of text (`plain`) and as one HTML file (`shards_page`, `run_page`)."""
