"""Show shards and runs: as lines of text (`plain`) and as one HTML file (`shards_page`, `run_page`)."""

from shardtrain.report.contents import Report, report_on
from shardtrain.report.plain import render

__all__ = ["Report", "render", "report_on"]
