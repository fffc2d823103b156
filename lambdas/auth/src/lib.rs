//! The domain of the service: decides over values. It knows no AWS, no async, no clock, no environment and no source
//! of randomness: the time (unix seconds) and random bytes are passed in.
//!
//! Each function has one module of its own name that decides; the other modules are the values they decide over.

pub mod change_password;
pub mod create_user;
pub mod login;
pub mod lost_password;
pub mod reset_password;
pub mod verify_user;

mod email;
pub mod event;
mod function;
pub mod mail;
pub mod password;
pub mod scram;
pub mod settings;
pub mod throttle;
mod token;
pub mod user;

pub use email::{Email, InvalidEmail};
pub use event::BadRequest;
pub use function::Function;
pub use token::{Token, TokenHash};

/// Seconds since 1970.
pub type Seconds = u64;
