fn main() -> std::process::ExitCode {
    functions::reset_password()
}
