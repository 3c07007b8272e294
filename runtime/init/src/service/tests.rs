//! The service with real functions, and with those who run them in every condition.

mod endings;
mod plain;
mod requests;
