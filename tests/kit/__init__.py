"""What several test folders share: clocks, stand-ins, servers, processes and checks."""
