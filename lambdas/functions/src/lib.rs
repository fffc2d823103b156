//! The six functions: each parses its event, loads, lets `auth` decide, stores, and replies.
//!
//! Who may invoke a function may read the log of that call, so a call logs one line and nothing that depends on whether
//! an address has an account: see `Code`.

mod aws;
mod change_password;
mod create_user;
mod delivery;
mod identity;
mod login;
mod lost_password;
mod outcome;
mod post;
mod reset_password;
mod runtime;
mod store;
mod verify_user;

use std::process::ExitCode;

pub fn create_user() -> ExitCode {
    runtime::run::<create_user::CreateUser>()
}

pub fn verify_user() -> ExitCode {
    runtime::run::<verify_user::VerifyUser>()
}

pub fn login() -> ExitCode {
    runtime::run::<login::Login>()
}

pub fn change_password() -> ExitCode {
    runtime::run::<change_password::ChangePassword>()
}

pub fn lost_password() -> ExitCode {
    runtime::run::<lost_password::LostPassword>()
}

pub fn reset_password() -> ExitCode {
    runtime::run::<reset_password::ResetPassword>()
}
