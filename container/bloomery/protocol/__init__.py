"""What crosses a process boundary: typed values and their bytes. No policy, no input or output."""
