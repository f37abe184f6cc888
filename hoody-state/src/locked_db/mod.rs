//! SQLite databases that any number of processes and containers write at once, and that nobody finds locked.

pub mod broker;
