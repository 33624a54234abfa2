"""What builds and makes things around the package; nothing here is shipped."""
