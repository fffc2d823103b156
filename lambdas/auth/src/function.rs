/// The six functions of the service, in the order in which a user meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    CreateUser,
    VerifyUser,
    Login,
    ChangePassword,
    LostPassword,
    ResetPassword,
}

impl Function {
    pub const ALL: [Function; 6] = [
        Function::CreateUser,
        Function::VerifyUser,
        Function::Login,
        Function::ChangePassword,
        Function::LostPassword,
        Function::ResetPassword,
    ];

    /// The name that users meet: `createUser`, also of its policy document.
    pub fn name(self) -> &'static str {
        match self {
            Function::CreateUser => "createUser",
            Function::VerifyUser => "verifyUser",
            Function::Login => "login",
            Function::ChangePassword => "changePassword",
            Function::LostPassword => "lostPassword",
            Function::ResetPassword => "resetPassword",
        }
    }

    /// The name of its binary in the crate `functions`: `create-user`.
    pub fn binary(self) -> &'static str {
        match self {
            Function::CreateUser => "create-user",
            Function::VerifyUser => "verify-user",
            Function::Login => "login",
            Function::ChangePassword => "change-password",
            Function::LostPassword => "lost-password",
            Function::ResetPassword => "reset-password",
        }
    }
}
