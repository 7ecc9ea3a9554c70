//! nephros-server
