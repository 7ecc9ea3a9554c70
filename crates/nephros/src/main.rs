//! nephros
fn main() {}
