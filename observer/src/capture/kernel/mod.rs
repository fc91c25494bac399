//! What only the running kernel knows: its structs, its drop reasons, its symbols.

pub mod btf;
pub mod load;
pub mod symbols;
