"""The light front of the command line: its options, its help, and the mistakes that are seen without torch."""
