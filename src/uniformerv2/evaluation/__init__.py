"""What scores say: metrics, dumps, comparison, the report. Knows no model and no data: arrays in, numbers out."""
