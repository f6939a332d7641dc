//! Parses the arguments, runs one command, and turns its result into an exit status.

fn main() {}
