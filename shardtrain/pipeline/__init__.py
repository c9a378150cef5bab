"""Make shards pass by pass, resumable: build from text, convert or index tables, recompress."""
