"""What is written to and read from disk: folders that appear whole or not at all, and table files.

May be imported by: everything. May import: `errors`. `output_folder` runs on the standard library alone.
"""
