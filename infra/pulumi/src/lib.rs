//! A small Pulumi SDK for Rust: a program declares resources on a [`Context`], and a [`Monitor`] is what they are
//! registered with: a deployment engine, or the [`Recorder`] of tests.
//!
//! This crate knows no cloud and no application: types are tokens, properties are [`Value`]s.

mod context;
mod monitor;
mod output;
mod recorder;
mod value;

pub use context::{Context, Resource};
pub use monitor::{Error, Monitor, Registered, Registration, ResourceOptions, Urn};
pub use output::{Failed, Output, Resolved};
pub use recorder::Recorder;
pub use value::{Archive, In, Input, Value};
