"""From benchmark rows to what a person reads: tables, charts, tests of differences, one page."""
