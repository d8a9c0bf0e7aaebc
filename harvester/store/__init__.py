"""What lies on disk, by the rules of FORMAT.md: the only opener of data files. All of it waits; one thread calls it."""
